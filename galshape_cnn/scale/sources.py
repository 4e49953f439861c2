# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`open_source`: the source of the stamps of a long run."""

import os
from copy import copy
from dataclasses import InitVar, dataclass, field
from pathlib import Path

import numpy as np
from astropy.table import hstack

from galshape_cnn.errors import FileError, InputError, PositionError
from galshape_cnn.fingerprint import fingerprint
from galshape_cnn.infer.catalog.columns import keep_apart
from galshape_cnn.observe.exposure import are_exposures
from galshape_cnn.observe.io.pairing import check_psf_count
from galshape_cnn.scale.exposures_source import ExposuresSource
from galshape_cnn.scale.file_sources import CubeSource, FileSource, MockSource, rows_of
from galshape_cnn.scale.images import open_image
from galshape_cnn.scale.source import Source

__all__ = ["ArraySource", "ImageSource", "PlacedSource", "StampSource", "is_mock_set", "open_source"]


@dataclass(frozen=True, eq=False)
class StampSource(Source):
    """Stamps in memory.

    Parameters
    ----------
    stamps : Stamps
        All of them.
    """

    stamps: object

    def __len__(self):
        return len(self.stamps)

    @property
    def identity(self):
        return fingerprint([getattr(self.stamps, name) for name in ("data", "ivar", "psf", "center")])

    def read(self, start, stop):
        return self.stamps[start:stop], {}


@dataclass(frozen=True, eq=False)
class ArraySource(Source):
    """Cutouts in memory or in anything that is sliced like an array, such as an HDF5 data set.

    Parameters
    ----------
    data : (N, ny, nx) array_like
        Sliced, never read as a whole.
    arrays : dict
        Of ``error``, ``mask``, ``psf``: one for all, or ``(N, ...)`` arrays, sliced too.
    keywords : dict
        What else the estimator is called with.
    """

    data: object
    arrays: dict = field(default_factory=dict)
    keywords: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.data)

    @property
    def identity(self):
        sample = [_kept(self.data[k]) for k in {0, len(self) // 2, len(self) - 1}]
        return fingerprint([len(self), sample, {k: _sampled(v) for k, v in self.arrays.items()}])

    def read(self, start, stop):
        arrays = {name: rows_of(array, len(self), start, stop) for name, array in self.arrays.items()}
        return _kept(self.data[start:stop]), {**arrays, **self.keywords}


def _kept(part):
    """An array, with the mask and the unit that it may have."""
    return part if isinstance(part, np.ndarray) else np.asarray(part)


def _sampled(array):
    array = array.array if hasattr(array, "uncertainty_type") else array
    if isinstance(array, (list, tuple)) or np.ndim(array) < 3:
        return array
    return [_kept(array[0]), _kept(array[-1]), len(array)]


@dataclass(frozen=True, eq=False)
class ImageSource(Source):
    """One image and a list of positions of any length.

    Parameters
    ----------
    image : NDData or path-like
        The image; a path is opened by each worker.
    positions : Table, SkyCoord or (N, 2) array_like
        As the estimator takes them.
    names : dict
        Options of `galshape_cnn.scale.images.open_image`, for a path.
    keywords : dict
        What else the estimator is called with; ``psf`` and ``error`` replace those of the file.
    opened : NDData, optional
        What `galshape_cnn.scale.images.open_image` gives for the path, where that is known already.
    """

    image: object
    positions: object
    names: dict = field(default_factory=dict)
    keywords: dict = field(default_factory=dict)
    opened: InitVar[object] = None
    is_image = True

    def __post_init__(self, opened):
        from galshape_cnn.observe.positions import read_positions_argument
        from galshape_cnn.wcs import celestial_part

        if opened is not None:
            object.__setattr__(self, "_kept", opened)
        image = self._open()
        wcs = self.keywords.get("wcs") if image.wcs is None else image.wcs
        wcs = None if wcs is None else celestial_part(wcs, "wcs")
        known = read_positions_argument(self.positions, wcs)
        limits = np.array(np.shape(image.data)[::-1])
        if not ((known.xy >= -0.5) & (known.xy < limits - 0.5)).all(1).any():
            from galshape_cnn.observe.observation import prepare

            prepare(image, positions=known, **self.keywords)  # says what is wrong
        own = check_psf_count(self._psf(image), len(known.xy), "the list of positions")
        object.__setattr__(self, "_has_own_psfs", own)
        object.__setattr__(self, "_known", known)

    def _psf(self, image):
        """The PSF, or all of them."""
        given = self.keywords.get("psf")
        return getattr(image, "psf", None) if given is None else given

    def _open(self):
        """The image, opened once in each process."""
        if not isinstance(self.image, (str, Path)):
            return self.image
        if not hasattr(self, "_kept"):
            object.__setattr__(self, "_kept", open_image(self.image, self.names, self.keywords))
        return self._kept

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def example(self):
        """The image."""
        return self._open()

    def __len__(self):
        return len(self._known.xy)

    @property
    def identity(self):
        image = self.image
        if not isinstance(image, (str, Path)):
            noise = getattr(image.uncertainty, "array", None)
            image = [np.asarray(image.data), noise, image.mask]
        return fingerprint([image, self.names, self.keywords, self._known.xy, self._known.table])

    def read(self, start, stop):
        from galshape_cnn.observe.positions import Positions

        part = Positions(self._known.xy[start:stop], self.inputs(start, stop), self._known.understood)
        keywords = {**self.keywords, "positions": part, "listed": (self._known.xy, start)}
        image = self._open()
        if self._has_own_psfs:
            keywords["psf"] = rows_of(self._psf(image), len(self), start, stop)
            image = copy(image)
            image.psf = None
        return image, keywords

    def inputs(self, start, stop):
        """Columns that pass through, or None."""
        return None if self._known.table is None else self._known.table[start:stop]


@dataclass(frozen=True, eq=False)
class PlacedSource(Source):
    """Cutouts of another source with the position of the galaxy in each.

    Parameters
    ----------
    cutouts : Source
        The cutouts.
    positions : Table or (N, 2) array_like
        One for each, in its pixels.
    """

    cutouts: Source
    positions: object

    def __post_init__(self):
        from galshape_cnn.observe.positions import read_positions_argument

        known = read_positions_argument(self.positions, getattr(self.cutouts.example(), "wcs", None))
        if len(known.xy) != len(self.cutouts):
            raise PositionError(
                f"positions has {len(known.xy)} rows for {len(self.cutouts)} cutouts; give one for each"
            )
        object.__setattr__(self, "_known", known)

    def __len__(self):
        return len(self.cutouts)

    @property
    def identity(self):
        return fingerprint([self.cutouts.identity, self._known.xy, self._known.table])

    def example(self):
        """An image of the cutouts."""
        return self.cutouts.example()

    def read(self, start, stop):
        from galshape_cnn.observe.positions import Positions

        data, keywords = self.cutouts.read(start, stop)
        part = Positions(self._known.xy[start:stop], self.inputs(start, stop), self._known.understood)
        return data, {**keywords, "positions": part}

    def inputs(self, start, stop):
        """Columns that pass through, those of the cutouts first, or None."""
        own = self.cutouts.inputs(start, stop)
        given = None if self._known.table is None else self._known.table[start:stop]
        if own is None or given is None:
            return given if own is None else own
        keep_apart(given, {name.lower() for name in own.colnames})
        return hstack([own, given], join_type="exact", metadata_conflicts="silent")


def open_source(data, *, positions=None, names=None, **keywords):
    """Source for whatever holds the galaxies.

    Parameters
    ----------
    data : Stamps, array_like, NDData, path-like, sequence of paths, or sequence of Exposure
        `~galshape_cnn.Stamps`; an ``(N, ny, nx)`` array, also memory-mapped or HDF5; an image
        with ``positions``; a FITS cube; a set of ``galshape simulate``; HDF5 with ``data``,
        ``ivar``, ``psf``; one-galaxy FITS files; or `~galshape_cnn.Exposure`, of images or cutouts.
    positions : optional
        Of the galaxies in an image, or in several exposures.
    names : dict, optional
        Options of `galshape_cnn.scale.images.open_image`.
    **keywords
        What else the estimator is called with: ``psf``, ``error``, ``stamp_size``, ...

    Returns
    -------
    source
        With ``len``, ``read(start, stop)``, ``inputs(start, stop)`` and ``identity``.

    Raises
    ------
    InputError
        If the data are of no known kind, or contradict the keywords.
    FileError
        If a file cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn.scale import open_source
    >>> source = open_source(np.zeros((1000, 64, 64), np.float32), error=1.0, psf=np.ones((3, 3)) / 9)
    >>> len(source), source.read(990, 1000)[0].shape
    (1000, (10, 64, 64))
    """
    from galshape_cnn.observe.stamps import Stamps

    if hasattr(data, "read") and hasattr(data, "identity"):
        return data
    if are_exposures(data):
        if names:
            raise InputError("names= is given beside a list of Exposures, which say how their files are read")
        return ExposuresSource(data, positions, keywords)
    if isinstance(data, Stamps):
        return StampSource(data)
    if positions is not None:
        return ImageSource(data, positions, names or {}, keywords)
    if isinstance(data, (str, Path)):
        return _file_source(data, names or {}, keywords)
    if hasattr(data, "ndim") and data.ndim == 3 and not hasattr(data, "uncertainty"):
        arrays = {key: keywords.pop(key) for key in ("error", "mask", "psf") if key in keywords}
        return ArraySource(data, arrays, keywords)
    if isinstance(data, (list, tuple)) and all(isinstance(one, (str, Path)) for one in data):
        return FileSource(tuple(data), names or {}, keywords)
    raise InputError(
        f"data is a {type(data).__name__}; Stamps, an (N, ny, nx) array, an image with positions, a path, or "
        "a list of paths or Exposures is needed"
    )


def _file_source(path, names, keywords):
    """Source of one file: a set of mocks, a cube, or a single cutout."""
    if is_mock_set(path):
        return MockSource(os.fspath(path), keywords)
    path = os.fspath(path)
    if open_image(path, names, keywords).data.ndim == 3:
        return CubeSource(path, names, keywords)
    return FileSource((path,), names, keywords)


def is_mock_set(path):
    """Whether ``galshape simulate`` wrote a file, or it is HDF5; ``FileError`` if it cannot be read."""
    from galshape_cnn.study.simulate.mock_files import MOCK_FORMAT

    if Path(path).suffix.lower() in (".h5", ".hdf5"):
        return True
    try:
        with open(path, "rb") as stream:
            head = stream.read(1 << 14)
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    return MOCK_FORMAT.encode() in head
