# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Damaged and absurd FITS files: an error of the package or flagged rows, never a traceback or a hang."""

import contextlib
import gzip
import io
import signal

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galshape_cnn.cli import main, measure
from galshape_cnn.errors import GalshapeError
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.tests.standin import StandInEstimator

SIDE = 40
RNG = np.random.default_rng(7)
Y, X = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
SCI = (300 * np.exp(-(X**2 + Y**2) / 18) + RNG.normal(size=(SIDE, SIDE))).astype("f4")
ERR, DQ = np.ones((SIDE, SIDE), "f4"), np.zeros((SIDE, SIDE), "i2")
PSF = np.exp(-np.sum(np.mgrid[-5:6, -5:6] ** 2, axis=0) / 5).astype("f4")
CARDS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 20.0,
    "CRPIX2": 20.0, "CD1_1": -5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 5e-5, "BUNIT": "nJy",
}  # fmt: skip
#: A file that takes more processor time than this, in seconds, hangs.
LIMIT = 20


def hdu_list(cards=None, **arrays):
    """The good file, with HDUs replaced (or dropped, with None) and cards of the image changed."""
    arrays = {"SCI": SCI, "ERR": ERR, "DQ": DQ, "PSF": PSF} | arrays
    hdus = [fits.PrimaryHDU()]
    for name, array in arrays.items():
        if array is None:
            continue
        hdu = array if not isinstance(array, np.ndarray) else fits.ImageHDU(array, name=name)
        hdu.name = name
        hdus.append(hdu)
    for key, value in (CARDS | (cards or {})).items():
        for hdu in hdus:
            if hdu.name == "SCI":
                hdu.header[key] = value
    return fits.HDUList(hdus)


def content(cards=None, **arrays):
    """The bytes of such a file."""
    stream = io.BytesIO()
    hdu_list(cards, **arrays).writeto(stream, output_verify="ignore")
    return stream.getvalue()


GOOD = content()


def patched(key, value, which=1):
    """The good file with one card overwritten, whatever FITS thinks of the value."""
    old = f"{key:<8}= ".encode()
    start = -1
    for _ in range(which):
        start = GOOD.index(old, start + 1)
    card = f"{key:<8}= {value:>20}".ljust(80)[:80].encode()
    return GOOD[:start] + card + GOOD[start + 80 :]


def compressed(damage):
    """A tile-compressed file, its table's bytes changed."""
    stream = io.BytesIO()
    hdus = [fits.PrimaryHDU(), fits.CompImageHDU((10 * SCI).astype("i4"), name="SCI")]
    fits.HDUList(hdus).writeto(stream)
    data = bytearray(stream.getvalue())
    damage(data)
    return bytes(data)


def _overwrite(data, where, what):
    data[where : where + len(what)] = what


def flipped(seed):
    """The good file with 20 bytes of the headers changed to others that may be in a header."""
    rng = np.random.default_rng(seed)
    data = bytearray(GOOD)
    starts = [i for i in range(0, len(GOOD), 2880) if GOOD[i : i + 8] in (b"SIMPLE  ", b"XTENSION")]
    for _ in range(20):
        data[int(rng.choice(starts) + rng.integers(2880))] = int(rng.integers(32, 127))
    return bytes(data)


def damaged_files():
    """(name, bytes) of every file."""
    nan, huge = np.full((SIDE, SIDE), np.nan, "f4"), np.full((SIDE, SIDE), 1e300)
    yield "empty", b""
    yield "zeros", bytes(9000)
    yield "noise", RNG.bytes(9000)
    yield "text", b"not a FITS file\n" * 600
    yield "gzip cut", gzip.compress(GOOD)[:3000]
    yield "gzip of nothing", gzip.compress(b"")
    yield "appended", GOOD + b"rubbish" * 500
    yield "appended header", GOOD + b"XTENSION= 'IMAGE   '".ljust(2880)
    for share in (0.01, 0.1, 0.19, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.999):
        yield f"truncated to {share}", GOOD[: int(share * len(GOOD))]
    for name in ("SCI", "ERR", "DQ", "PSF"):
        yield f"no {name}", content(**{name: None})
        for shape in ((3, 3), (5,), (1, 1, SIDE, SIDE), (2, 3, SIDE, SIDE), (SIDE, 7), (1, SIDE)):
            yield f"{name} of shape {shape}", content(**{name: np.ones(shape, "f4")})
        yield f"{name} empty", content(**{name: fits.ImageHDU()})
        yield (
            f"{name} a table",
            content(**{name: fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])])}),
        )
        for value, array in (("NaN", nan), ("1e300", huge), ("negative", -ERR), ("zero", 0 * ERR)):
            yield f"{name} {value}", content(**{name: array[:11, :11] if name == "PSF" else array})
    half = np.where(X > 0, np.nan, SCI)
    yield "SCI half NaN", content(SCI=half)
    yield "SCI infinite", content(SCI=np.where(X > 5, np.inf, SCI))
    yield "SCI integers at the limit", content(SCI=np.full((SIDE, SIDE), -(2**31), "i4"))
    yield "DQ float", content(DQ=np.full((SIDE, SIDE), np.nan))
    yield "PSF even", content(PSF=PSF[1:, 1:])
    yield "PSF of one pixel", content(PSF=np.ones((1, 1), "f4"))
    yield "PSF larger than the image", content(PSF=np.pad(PSF, 100))
    for unit in ("garbage", "A" * 60, 7, True, "nJy nJy", "()", "1e400 Jy", "10**-40 m", "'", "m/", "%$#"):
        yield f"BUNIT {unit}", content({"BUNIT": unit})
    for cards in (
        {"CD1_1": 0.0, "CD2_2": 0.0}, {"CRVAL1": "north"}, {"CRPIX1": 1e300}, {"CRVAL2": 95.0},
        {"CTYPE1": "RA---XXX", "CTYPE2": "DEC--XXX"}, {"CTYPE1": "DEC--TAN"}, {"CTYPE2": "WAVE"},
        {"CTYPE1": 5}, {"DATE-OBS": "yesterday"},
        {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 9},
        {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 999999, "B_ORDER": 2},
        {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1e200, "PV2_7": -1e200},
        {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_999": 1.0}, {"CUNIT1": "furlong"},
        {"CUNIT1": "m", "CUNIT2": "m"}, {"RADESYS": "NOWHERE"}, {"EQUINOX": "then"}, {"WCSAXES": 17},
        {"LONPOLE": 1e30}, {"CD1_1": 1e200, "CD2_2": 1e200}, {"CD1_1": 1e-200, "CD2_2": 1e-200},
        {"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR"}, {"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN"},
        {"CTYPE1": "RA---AIT", "CTYPE2": "DEC--AIT", "CRPIX1": -1e6}, {"CD1_1": "x"},
        {"CPDIS1": "LOOKUP", "CPDIS2": "LOOKUP", "DP1.EXTVER": 9}, {"NAXIS3": 5}, {"MJD-OBS": "never"},
        {"PC1_1": 0.5, "CROTA2": 3.0}, {"EXTVER": 99}, {"EXTNAME": "ERR"}, {"EXTNAME": " "},
        {"BAND": "r"}, {"SATURATE": "high"}, {"TELESCOP": 3},
    ):  # fmt: skip
        yield f"SCI {cards}", content(cards)
    for key, value, which in (
        ("NAXIS1", "999999999999", 1), ("NAXIS1", "-5", 1), ("NAXIS1", "0", 1), ("NAXIS1", "many", 1),
        ("NAXIS2", "99999999999999999999999", 1), ("NAXIS2", "2147483648", 2), ("NAXIS", "999", 2),
        ("NAXIS", "-1", 2), ("NAXIS", "1", 2), ("BITPIX", "7", 2), ("BITPIX", "-128", 2),
        ("BITPIX", "'big'", 2), ("PCOUNT", "99999999", 1), ("GCOUNT", "0", 1),
        ("GCOUNT", "1000000000", 1), ("SIMPLE", "F", 1), ("XTENSION", "'BINTABLE'", 1),
        ("XTENSION", "'SPELL   '", 1), ("XTENSION", "5", 1), ("EXTEND", "F", 1),
    ):  # fmt: skip
        if f"{key:<8}= ".encode() in GOOD:
            yield f"{key} {which} = {value}", patched(key, value, which)
    yield "no END", GOOD.replace(b"END     ", b"HISTORY ", 2)
    for scale in ({"BSCALE": 0.0}, {"BSCALE": 1e308}, {"BZERO": "zero"}, {"BLANK": 3}, {"BSCALE": "x"}):
        key, value = next(iter(scale.items()))
        card = f"{key:<8}= {value!r:>20}".ljust(80).encode()
        yield f"SCI {scale}", GOOD.replace(b"BUNIT   = 'nJy     '".ljust(80), card)
    for planes in ({"MP_BAD": 200}, {"MP_BAD": "x"}, {"MP_BAD": -3}, {"MP_BAD": 1.5}, {"MP_": 1}):
        mask = fits.ImageHDU(DQ, fits.Header(planes))
        yield f"DQ {planes}", content(DQ=mask)
    for factor in (0, -1, 2.5, "four", 10**9):
        yield f"PSF OVERSAMP {factor}", content(PSF=fits.ImageHDU(PSF, fits.Header({"OVERSAMP": factor})))
    yield "fz damaged heap", compressed(lambda data: _overwrite(data, len(data) - 3000, RNG.bytes(2500)))
    yield "fz damaged table", compressed(lambda data: _overwrite(data, 2 * 2880 + 2880, RNG.bytes(200)))
    yield "fz unknown algorithm", compressed(lambda data: _overwrite(data, data.index(b"RICE_1"), b"MAGIC1"))
    yield "fz cut", compressed(lambda data: _overwrite(data, 0, b""))[:7000]
    for seed in range(20):
        yield f"headers flipped {seed}", flipped(seed)


FILES = dict(damaged_files())


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TimeoutError in a block that takes too much processor time, where the system can.

    The clock on the wall would also count what other processes do.
    """

    def stop(*_):
        raise TimeoutError(f"more than {seconds} s of processor time")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Measure bytes as a file: (exit status, what was printed as an error)."""
    monkeypatch.setattr(measure, "load_estimator", lambda bundle: StandInEstimator())

    def run_bytes(data, *options):
        path = tmp_path / ("file.fits.gz" if data[:2] == b"\x1f\x8b" else "file.fits")
        path.write_bytes(data)
        with time_limit(LIMIT):
            status = main(["measure", str(path), "-o", str(tmp_path / "a.ecsv"), "--overwrite", *options])
        return status, capsys.readouterr().err

    return run_bytes


@pytest.mark.filterwarnings("default::galshape_cnn.errors.GalshapeWarning")
@pytest.mark.parametrize("name", FILES)
def test_damaged_file(run, name):
    status, printed = run(FILES[name])
    assert status in (0, 1)
    if status == 1:
        lines = [line for line in printed.strip().splitlines() if "warning:" not in line]
        assert len(lines) == 1
        assert lines[0].startswith("galshape measure: ")


@pytest.mark.filterwarnings("default::galshape_cnn.errors.GalshapeWarning")
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_from_python(tmp_path, name):
    """`read_image` and the estimator: one table, or an error of the package's own."""
    data = FILES[name]
    path = tmp_path / ("file.fits.gz" if data[:2] == b"\x1f\x8b" else "file.fits")
    path.write_bytes(data)
    with time_limit(LIMIT), contextlib.suppress(GalshapeError):
        assert len(StandInEstimator()(read_image(path)).to_table()) >= 1


def test_there_are_enough_of_them_and_the_good_one_is_good(run):
    assert len(FILES) >= 100
    assert run(GOOD) == (0, "")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers of processes")
def test_a_hang_would_be_noticed():
    with pytest.raises(TimeoutError), time_limit(0.05):
        for _ in range(10**10):
            pass


@pytest.mark.filterwarnings("default::galshape_cnn.errors.GalshapeWarning")
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    where=st.integers(0, len(GOOD) - 1),
    what=st.binary(min_size=1, max_size=200),
    cut=st.integers(0, 40),
)
def test_bytes_overwritten_anywhere(run, where, what, cut):
    data = bytearray(GOOD)
    _overwrite(data, where, what[: len(GOOD) - where])
    status, _ = run(bytes(data[: len(data) - 80 * cut]))
    assert status in (0, 1)
