# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Headers that lie about sizes are found out before anything hangs or takes memory."""

import bz2
import gzip
import io
import lzma
import os
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.fits.file import _File
from astropy.table import Table

from galshape_cnn.cli import main
from galshape_cnn.errors import FileError
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.observe.io.fits_scan import _Scan, check_declared_sizes
from galshape_cnn.observe.io.psf.files import read_psf
from galshape_cnn.observe.io.tables.position_files import read_positions
from galshape_cnn.scale import open_source
from galshape_cnn.study.report.from_table import read_catalog_table
from galshape_cnn.study.simulate.mock_files import read_mocks
from galshape_cnn.tests.observe.io.psf.test_files import gaussian
from galshape_cnn.tests.observe.io.test_damaged_files import GOOD, time_limit

LIMIT = 10  # seconds of processor time
PIXELS = np.arange(1600, dtype="f4").reshape(40, 40)


def card(key, value):
    return f"{key:<8}= {value:>20}".ljust(80)[:80].encode()


def changed(content, key, value, which=1, new_key=None):
    """Bytes with one card overwritten."""
    start = -1
    for _ in range(which):
        start = content.index(f"{key:<8}= ".encode(), start + 1)
    return content[:start] + card(new_key or key, value) + content[start + 80 :]


def as_bytes(*hdus):
    stream = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(stream)
    return stream.getvalue()


TABLE = as_bytes(fits.PrimaryHDU(), fits.BinTableHDU(Table({"x": [1.0, 2.0], "y": [3.0, 4.0]})))
TILED = as_bytes(fits.PrimaryHDU(), fits.CompImageHDU(PIXELS.astype("i4"), name="SCI"))

LIES = {
    "negative": (GOOD, "NAXIS1", "-40", 1, r"HDU 1 says NAXIS1 = -40; a length >= 0"),
    "negative, second": (GOOD, "NAXIS1", "-2880", 2, r"HDU 2 says NAXIS1 = -2880"),
    "negative both": (changed(GOOD, "NAXIS2", "-40"), "NAXIS1", "-40", 1, "NAXIS1 = -40"),
    "negative table": (TABLE, "NAXIS1", "-16", 1, "NAXIS1 = -16"),
    "negative heap": (TABLE, "PCOUNT", "-2880", 1, r"PCOUNT = -2880; a number >= 0"),
    "negative groups": (GOOD, "GCOUNT", "-1", 1, "GCOUNT = -1"),
    "huge": (GOOD, "NAXIS1", "999999999999", 1, "is truncated: HDU 1 ends at byte"),
    "huge heap": (TABLE, "PCOUNT", "99999999999", 1, "is truncated: HDU 1"),
    "overflow": (GOOD, "NAXIS2", "9" * 20, 1, "is truncated: HDU 1 ends at byte"),
    "axes": (GOOD, "NAXIS", "-1", 2, "NAXIS = -1; 0 to 999"),
    "missing axes": (GOOD, "NAXIS", "3", 2, "NAXIS3 = None"),
    "no number": (GOOD, "NAXIS1", "many", 1, "NAXIS1 = many; a whole number"),
    "fraction": (GOOD, "NAXIS1", "40.5", 1, "NAXIS1 = 40.5; a whole number"),
    "bits": (GOOD, "BITPIX", "7", 2, "BITPIX = 7; 8, 16"),
    "twice": (changed(GOOD, "GCOUNT", "-40", 1, "NAXIS1"), "BITPIX", "-32", 2, "NAXIS1 = -40 and 40"),
    "tiled, huge": (TILED, "ZNAXIS1", "999999999", 1, "999999999x40 pixels, but holds"),
    "tiled, huge tile": (TILED, "ZTILE1", "9999999999", 1, "9999999999x1 pixels, but holds"),
    "tiled, negative": (TILED, "ZNAXIS2", "-40", 1, "ZNAXIS2 = -40"),
    "tile of nothing": (TILED, "ZTILE1", "0", 1, "lengths above 0"),
    "wcs": (changed(GOOD, "PCOUNT", "99999999", 1, "WCSAXES"), "GCOUNT", "1", 1, "WCSAXES = 99999999"),
    "sip": (changed(GOOD, "PCOUNT", "30000", 1, "A_ORDER"), "GCOUNT", "1", 1, "A_ORDER = 30000; up to"),
}


def zipped(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.fits", content)
    return stream.getvalue()


PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zip": zipped}


@pytest.mark.parametrize("name", LIES)
def test_lies(tmp_path, name):
    """In the file itself, and in packed ones, which only unpacking shows."""
    content, key, value, which, match = LIES[name]
    for suffix, packed in PACKERS.items():
        path = tmp_path / f"a.fits{suffix}"
        path.write_bytes(packed(changed(content, key, value, which)))
        with time_limit(LIMIT), pytest.raises(FileError, match=match):
            read_image(path)


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("content", [GOOD, TILED, GOOD[:-2000]], ids=["good", "tiled", "no padding"])
def test_truth(tmp_path, content, suffix):
    path = tmp_path / f"a.fits{suffix}"
    path.write_bytes(PACKERS[suffix](content))
    check_declared_sizes(path)
    expected = PIXELS if content is TILED else None
    image = read_image(path)
    assert image.data.shape == (40, 40)
    if expected is not None:
        np.testing.assert_array_equal(image.data, expected)


def test_random_groups_and_headers_without_end(tmp_path):
    groups = fits.GroupsHDU(fits.GroupData(np.ones((3, 4, 5), "f4"), parnames=["u"], pardata=[np.ones(3)]))
    groups.writeto(tmp_path / "groups.fits")
    check_declared_sizes(tmp_path / "groups.fits")
    (tmp_path / "endless.fits").write_bytes(GOOD.replace(b"END     ", b"HISTORY ", 1))
    with time_limit(LIMIT), pytest.raises(FileError, match="HDU 0"):
        read_image(tmp_path / "endless.fits")
    (tmp_path / "cut.fits").write_bytes(GOOD[: 2880 + 500])
    with pytest.raises(FileError, match="is truncated in the header of HDU 1"):
        read_image(tmp_path / "cut.fits")


def test_archives_of_other_things(tmp_path):
    for number, names in enumerate(((), ("a", "b"))):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            for name in names:
                archive.writestr(name, b"text")
        check_declared_sizes(tmp_path / f"{number}.zip")
    (tmp_path / "damaged.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(FileError, match="is truncated or damaged"):
        check_declared_sizes(tmp_path / "damaged.zip")


def test_an_empty_mask_may_be_compressed_well(tmp_path):
    empty = np.zeros((3000, 3000), "i4")
    hdu = fits.CompImageHDU(empty, name="DQ", compression_type="PLIO_1", tile_shape=empty.shape)
    hdu.writeto(tmp_path / "a.fits.fz")
    assert (tmp_path / "a.fits.fz").stat().st_size < 36_000_000 / 800
    check_declared_sizes(tmp_path / "a.fits.fz")


@pytest.mark.parametrize(
    "read",
    [
        read_positions, read_psf, read_catalog_table, read_mocks,
        lambda path: open_source(path, psf=gaussian(11, 2.0)), lambda path: read_image(path, sci=1, err=path),
    ],
    ids=["positions", "psf", "table", "mocks", "source", "noise"],
)  # fmt: skip
def test_every_reader_of_fits(tmp_path, read):
    path = str(tmp_path / "a.fits")
    for content in (changed(GOOD, "NAXIS1", "-2880"), changed(TABLE, "NAXIS1", "-2880")):
        (tmp_path / "a.fits").write_bytes(content)
        with time_limit(LIMIT), pytest.raises(FileError, match="NAXIS1 = -2880"):
            read(path)


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that astropy opens, without folder."""
    names, real = [], _File.__init__

    def init(self, fileobj=None, *args, **keywords):
        names.append(os.path.basename(str(getattr(fileobj, "name", fileobj))))
        real(self, fileobj, *args, **keywords)

    monkeypatch.setattr(_File, "__init__", init)
    return names


def test_the_command(tmp_path, capsys, opened):
    """A file that lies is refused by the scan, before astropy goes round in circles with it."""
    (tmp_path / "a.fits").write_bytes(changed(GOOD, "NAXIS1", "-2880"))
    (tmp_path / "good.fits").write_bytes(GOOD)
    bad, good = str(tmp_path / "a.fits"), str(tmp_path / "good.fits")
    for options in (
        [bad], [good, "--err", bad], [good, "--mask", bad], [good, "--psf", bad], [good, "--positions", bad],
        [good, "--noise-correlation", bad],
    ):  # fmt: skip
        with time_limit(LIMIT):
            assert main(["measure", *options, "-o", str(tmp_path / "out.ecsv")]) == 1
        assert "NAXIS1 = -2880" in capsys.readouterr().err
    assert "good.fits" in opened
    assert "a.fits" not in opened


@pytest.mark.parametrize("name", LIES)
def test_the_scan_reads_each_byte_once_at_most(tmp_path, name):
    content, key, value, which, _ = LIES[name]
    content = changed(content, key, value, which)
    stream, read = io.BytesIO(content), []
    counting = SimpleNamespace(seek=stream.seek, read=lambda n: read.append(stream.read(n)) or read[-1])
    for size in (len(content), None):  # a file as it is, and one that has to be unpacked
        stream.seek(0), read.clear()
        with pytest.raises(FileError):
            _Scan(tmp_path, counting, size).run()
        assert sum(map(len, read)) <= len(content)
        assert len(read) <= len(content) // 2880 + 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"PSF_SAMP": 1e9}, "PSF_SAMP = 1000000000.0; 0.01 to 10.0"), ({"PSF_SAMP": 0.0}, "PSF_SAMP"),
     ({"PSF_SAMP": -1.0}, "PSF_SAMP"), ({"POLSCAL1": 0.0}, "POLSCAL .*not 0"),
     ({"POLZERO2": "x"}, "cannot be read")],
)  # fmt: skip
def test_absurd_psfex_models(tmp_path, changes, match):
    from galshape_cnn.tests.observe.io.test_fits import psfex_file

    with pytest.raises(FileError, match=match):
        read_psf(psfex_file(tmp_path / "psf.fits", **changes))
