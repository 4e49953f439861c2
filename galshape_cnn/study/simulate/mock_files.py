# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Simulated sets as files: ASDF or FITS.

Both hold ``data``, ``ivar`` (N, 64, 64), ``psf`` (N, 127, 127; effective, two samples per
pixel) and the table ``truth``; in FITS these are the extensions SCI, IVAR, PSF and TRUTH.
"""

import os

import numpy as np
from astropy.io import fits
from astropy.table import Table

from galshape_cnn.errors import FileError
from galshape_cnn.files import written_whole
from galshape_cnn.observe.io.fits_scan import check_declared_sizes
from galshape_cnn.observe.stamps import Stamps

__all__ = ["MOCK_FORMAT", "MOCK_SUFFIXES", "read_mocks", "write_set"]

#: What every simulated set says of itself.
MOCK_FORMAT = "galshape_cnn mocks"
#: Formats of a set.
MOCK_SUFFIXES = (".asdf", ".fits")


def write_set(path, stamps, truth, meta):
    """Write a set beside the path, then rename; ``FileError`` if that fails.

    ``truth`` has a row for each stamp; ``meta`` holds ``config``, ``seed`` and ``engine``.
    """
    write = _write_asdf if os.path.splitext(path)[1].lower() == ".asdf" else _write_fits
    with written_whole(path) as beside:
        write(beside, stamps, truth, meta)


def _write_asdf(path, stamps, truth, meta):
    import asdf

    tree = {"format": MOCK_FORMAT, "meta": meta, "psf_oversampling": stamps.psf_oversampling}
    tree |= {"data": stamps.data, "ivar": stamps.ivar, "psf": stamps.psf.astype(np.float32)}
    tree["columns"] = list(truth.colnames)
    tree["truth"] = {name: np.array(truth[name]) for name in truth.colnames}
    asdf.AsdfFile(tree).write_to(path, all_array_compression="zlib")


def _write_fits(path, stamps, truth, meta):
    psf = fits.ImageHDU(stamps.psf.astype(np.float32), name="PSF")
    psf.header["OVERSAMP"] = (stamps.psf_oversampling, "samples per pixel")
    primary = fits.PrimaryHDU()
    primary.header["FORMAT"] = MOCK_FORMAT
    primary.header["SEED"], primary.header["ENGINE"] = meta["seed"], meta["engine"]
    table = fits.table_to_hdu(Table(truth, copy=True))
    table.name = "TRUTH"
    hdus = [
        primary,
        fits.ImageHDU(stamps.data, name="SCI"),
        fits.ImageHDU(stamps.ivar, name="IVAR"),
        psf,
        table,
    ]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def read_mocks(path):
    """Stamps and true parameters of a set that ``galshape simulate`` wrote, else ``FileError``.

    The columns of the truth are those of `galshape_cnn.study.simulate.mock_sets.draw_mocks`.
    """
    path = os.fspath(path)
    read = _read_fits if path.lower().endswith(".fits") else _read_asdf
    if not os.path.isfile(path):
        raise FileError(f"mocks {path!r} do not exist")
    try:
        pixels, oversampling, truth = read(path)
        return Stamps(pixels["data"], pixels["ivar"], pixels["psf"], psf_oversampling=oversampling), truth
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise FileError(f"{path!r} does not hold mocks of galshape_cnn: {error}") from error


def _read_asdf(path):
    import asdf

    with asdf.open(path, memmap=False, lazy_load=False) as file:
        if file.tree.get("format") != MOCK_FORMAT:
            raise ValueError(f"format is {file.tree.get('format')!r}")
        pixels = {key: np.array(file[key]) for key in ("data", "ivar", "psf")}
        truth = Table({key: np.array(file["truth"][key]) for key in file["columns"]})
        return pixels, int(file["psf_oversampling"]), truth


def _read_fits(path):
    check_declared_sizes(path)
    with fits.open(path) as hdus:
        names = {"data": "SCI", "ivar": "IVAR", "psf": "PSF"}
        pixels = {key: np.array(hdus[name].data) for key, name in names.items()}
        return pixels, int(hdus["PSF"].header["OVERSAMP"]), Table.read(hdus["TRUTH"])
