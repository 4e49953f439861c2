# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sources of stamps in files, read a few rows at a time.

Pixels are copied from a file range by range and the file is closed again, so that memory
does not grow with its size.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.fingerprint import fingerprint
from galshape_cnn.forward.psf.arrays import PSFArrays
from galshape_cnn.observe.io.pairing import check_psf_count, names_of_each, with_own_psf
from galshape_cnn.scale.images import open_image
from galshape_cnn.scale.source import Source

__all__ = ["CubeSource", "FileSource", "MockSource", "rows_of", "rows_of_cube"]


@dataclass(frozen=True, eq=False)
class CubeSource(Source):
    """A FITS cube of cutouts.

    Parameters
    ----------
    path : path-like
        The file, see `galshape_cnn.observe.io.fits.read_image`.
    names : dict
        Options of `~galshape_cnn.scale.images.open_image`.
    keywords : dict
        What else the estimator is called with; ``psf`` and ``error`` replace those of the file.
    """

    path: str
    names: dict = field(default_factory=dict)
    keywords: dict = field(default_factory=dict)

    def __post_init__(self):
        image = self._open()
        if image.data.ndim != 3:
            raise InputError(f"{self.path} has shape {image.data.shape}; a cube (N, ny, nx) is needed")
        check_psf_count(image.psf, len(image.data), self.path)
        object.__setattr__(self, "_n", len(image.data))

    def _open(self):
        """The cube; one that would be unpacked each time is kept."""
        if hasattr(self, "_kept"):
            return self._kept
        image = open_image(self.path, self.names, self.keywords)
        if self.names.get("blank_noise") or Path(self.path).suffix.lower() not in (".fits", ".fit"):
            object.__setattr__(self, "_kept", image)
        return image

    def __getstate__(self):
        return {"path": self.path, "names": self.names, "keywords": self.keywords, "_n": self._n}

    def example(self):
        """The cube."""
        return self._open()

    def __len__(self):
        return self._n

    @property
    def identity(self):
        return fingerprint([self.path, self.names, self.keywords])

    def read(self, start, stop):
        image, keywords = self._open(), dict(self.keywords)
        if image.psf is not None:
            keywords["psf"] = image.psf
        keywords = {name: rows_of(value, self._n, start, stop) for name, value in keywords.items()}
        return rows_of_cube(image, start, stop), keywords


def rows_of_cube(image, start, stop):
    """Rows of a cube in memory, without its PSF."""
    from astropy.nddata import NDData

    parts = {"mask": _copied(image.mask, start, stop), "wcs": image.wcs, "unit": image.unit}
    if image.uncertainty is not None:
        kind, unit = type(image.uncertainty), image.uncertainty.unit
        array = _copied(image.uncertainty.array, start, stop)
        parts["uncertainty"] = kind(array, unit=unit, copy=False)
    return NDData(_copied(image.data, start, stop), **parts)


def rows_of(value, n, start, stop):
    """Rows of an estimator's argument that has one for each of ``n`` galaxies; anything else as it is.

    Arrays, lists and uncertainties keep mask and unit.
    """
    if isinstance(value, PSFArrays):
        return replace(value, array=rows_of(value.array, n, start, stop))
    if hasattr(value, "uncertainty_type"):
        array = value.array
        if np.ndim(array) == 3 and len(array) == n:
            array = array[start:stop]
        return type(value)(array, unit=value.unit, copy=False)
    if isinstance(value, (list, tuple)):
        return value[start:stop] if len(value) == n and np.ndim(value[0]) != 1 else value
    if np.ndim(value) == 1 and len(value) == n:
        return value[start:stop]
    return _copied(value, start, stop) if np.ndim(value) == 3 and len(value) == n else value


def _copied(array, start, stop):
    """Rows in memory and in the machine's byte order, with mask and unit."""
    if array is None or np.ndim(array) < 3:
        return array
    part = array[start:stop]
    part = np.array(part, subok=isinstance(part, np.ndarray) and not isinstance(part, np.memmap))
    return part.astype(part.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True, eq=False)
class MockSource(Source):
    """A set that ``galshape simulate`` wrote, or an HDF5 file with the same arrays.

    Parameters
    ----------
    path : path-like
        ``.fits`` and ``.h5``/``.hdf5`` are read range by range; ``.asdf``, which is
        compressed, is held in memory.
    keywords : dict
        What else the estimator is called with.
    """

    path: str
    keywords: dict = field(default_factory=dict)

    def __post_init__(self):
        with self._opened() as arrays:
            object.__setattr__(self, "_n", len(arrays["data"]))

    def _opened(self):
        suffix = Path(self.path).suffix.lower()
        if suffix in (".h5", ".hdf5"):
            return _hdf5(self.path)
        if suffix == ".asdf":
            return _held(self)
        return _fits(self.path)

    def __getstate__(self):
        return {"path": self.path, "keywords": self.keywords, "_n": self._n}

    def __len__(self):
        return self._n

    @property
    def identity(self):
        return fingerprint([self.path, self.keywords])

    def read(self, start, stop):
        from astropy.nddata import InverseVariance

        with self._opened() as arrays:
            data, ivar, psf = (_copied(arrays[name], start, stop) for name in ("data", "ivar", "psf"))
            oversampling = int(arrays["psf_oversampling"])
        error = InverseVariance(ivar, copy=False)
        return data, {"error": error, "psf": psf, "psf_oversampling": oversampling, **self.keywords}


class _Arrays(dict):
    """Arrays and the file that is closed behind them."""

    def __init__(self, arrays, close=None):
        super().__init__(arrays)
        self._close = close

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._close is not None:
            self.clear()
            self._close()


def _fits(path):
    from astropy.io import fits

    from galshape_cnn.observe.io.fits_scan import check_declared_sizes

    check_declared_sizes(path)
    hdus = fits.open(path, memmap=True)
    arrays = {"data": hdus["SCI"].data, "ivar": hdus["IVAR"].data, "psf": hdus["PSF"].data}
    return _Arrays(arrays | {"psf_oversampling": hdus["PSF"].header.get("OVERSAMP", 1)}, hdus.close)


def _hdf5(path):
    try:
        import h5py
    except ImportError as error:
        raise FileError(f"{path}: reading HDF5 needs the package h5py: pip install h5py") from error
    file = h5py.File(path, "r")
    missing = [name for name in ("data", "ivar", "psf") if name not in file]
    if missing:
        raise FileError(f"{path} has no data set {', '.join(missing)}; data, ivar and psf are needed")
    arrays = {name: file[name] for name in ("data", "ivar", "psf")}
    return _Arrays(arrays | {"psf_oversampling": file.attrs.get("psf_oversampling", 1)}, file.close)


def _held(source):
    """Arrays of a compressed file, read once in each process."""
    if not hasattr(source, "_arrays"):
        from galshape_cnn.study.simulate.mock_files import read_mocks

        stamps, _ = read_mocks(source.path)
        arrays = {name: getattr(stamps, name) for name in ("data", "ivar", "psf", "psf_oversampling")}
        object.__setattr__(source, "_arrays", arrays)
    return _Arrays(source._arrays)


@dataclass(frozen=True, eq=False)
class FileSource(Source):
    """Many files with one cutout each; the column ``file`` says which row is from which.

    Parameters
    ----------
    paths : sequence of path-like
        FITS files; one that cannot be read costs its own row only.
    names : dict
        Options of `galshape_cnn.scale.images.open_image`; patterns match one file for each.
    keywords : dict
        What else the estimator is called with; ``psf`` and ``error`` replace those of the files.
    """

    paths: tuple
    names: dict = field(default_factory=dict)
    keywords: dict = field(default_factory=dict)

    def __post_init__(self):
        if not len(self.paths):
            raise InputError("paths is empty; at least one file is needed")
        object.__setattr__(self, "_names", names_of_each(self.paths, self.names))
        example = self.example()
        object.__setattr__(self, "_unit", None if example is None else example.unit)

    def example(self):
        """The first image that can be read, or None."""
        for row in range(len(self)):
            try:
                image = self._read(row)
            except Exception:  # noqa: S112, its row will say it
                continue
            return with_own_psf(image, row, len(self), self.names)
        return None

    def _read(self, row):
        """One of the images, as it is in its file."""
        return open_image(self.paths[row], self._names[row], self.keywords)

    def __len__(self):
        return len(self.paths)

    @property
    def identity(self):
        paths = [os.fspath(path) for path in self.paths]
        names = self.names if self._names[0] == self.names else self._names
        return fingerprint([paths, names, self.keywords])

    def inputs(self, start, stop):
        """The column ``file``, by which rows are found again; None for one file, whose rows need no name."""
        from astropy.table import Table

        if len(self) == 1:
            return None
        return Table({"file": [os.fspath(path) for path in self.paths[start:stop]]})

    def read(self, start, stop):
        rows, n = range(start, min(stop, len(self))), len(self)
        opened = [with_own_psf(self._read(row), row, n, self.names) for row in rows]
        return opened, {"unit": self._unit, **self.keywords}
