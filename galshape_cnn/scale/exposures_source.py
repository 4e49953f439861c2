# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`ExposuresSource`: several images of the same galaxies, read by ranges of galaxies."""

from copy import copy
from dataclasses import dataclass, field, replace

from galshape_cnn.errors import InputError
from galshape_cnn.fingerprint import fingerprint
from galshape_cnn.observe.exposure import Exposure, ImageFile, are_exposures, axes_of, opened
from galshape_cnn.observe.exposure_agreement import agreed_exposures, check_counts
from galshape_cnn.observe.exposures import settled_noise
from galshape_cnn.observe.inputs import read_frames
from galshape_cnn.observe.io.pairing import check_psf_count
from galshape_cnn.scale.file_sources import CubeSource, rows_of, rows_of_cube
from galshape_cnn.scale.source import Source

__all__ = ["ExposuresSource"]

_ROWS = 256  # at the beginning of the source, from which noise is estimated
#: What an exposure may have of its own for each galaxy.
_OF_EACH = ("psf", "error", "mask", "wcs")
#: What identifies an exposure beside its pixels.
_SAID = ("band", "zeropoint", "gain", "wavelength", "name", "noise_scale", "noise_correlation", "psf_error")


@dataclass(frozen=True, eq=False)
class ExposuresSource(Source):
    """Galaxies in several exposures, images with a list of positions or cutouts in each.

    Parameters
    ----------
    exposures : sequence of Exposure
        As the estimator takes them; files are opened by each worker, once.
    positions : Table, SkyCoord or (N, 2) array_like, optional
        On the sky, or x, y of the first exposure.  None for cutouts.
    keywords : dict
        What else the estimator is called with.

    Raises
    ------
    InputError
        If the exposures contradict each other; its subclasses if noise, PSF or positions cannot be used.
    """

    exposures: tuple
    positions: object = None
    keywords: dict = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "exposures", tuple(self.exposures))
        if not are_exposures(self.exposures):
            raise InputError("exposures: at least one Exposure is needed")
        parts = [_part(one) for one in self.exposures]
        agreed = agreed_exposures([part.read(0, 1) for part in parts], self.positions)
        places = agreed.positions
        if places is None:
            check_counts(agreed.names, parts)
        else:
            parts = [part.of_positions(len(places)) for part in parts]
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_parts", tuple(parts))

    def __len__(self):
        return len(self._parts[0]) if self._places is None else len(self._places)

    @property
    def identity(self):
        said = [[getattr(part.exposure, name) for name in _SAID] for part in self._parts]
        places = None if self._places is None else [self._places.listed, self._places.places[0].table]
        return fingerprint([[part.identity for part in self._parts], said, places, self.keywords])

    def example(self):
        """An image of the first exposure."""
        return opened(self.exposures[0]).data

    def read(self, start, stop):
        """Exposures and keywords of a range of rows, as the estimator takes them."""
        keywords = dict(self.keywords)
        if self._places is not None:
            keywords["positions"] = self._places[start:stop]
        return [part.read(start, stop) for part in self._parts], keywords

    def inputs(self, start, stop):
        """Columns that pass through, or None."""
        table = None if self._places is None else self._places.places[0].table
        return None if table is None else table[start:stop]

    def settled(self, **noise):
        """The same source with the noise of its exposures settled, not to be estimated by each part.

        Keywords are ``noise_correlation`` and ``noise_scale`` of exposures that say nothing of it. Measured
        on images; of what is to be estimated from stamps, on the first 256 rows.
        """
        exposures, keywords = self.read(0, min(len(self), _ROWS))
        found = settled_noise(exposures, **keywords, **noise)
        parts = [
            replace(part, exposure=replace(part.exposure, **own))
            for part, own in zip(self._parts, found, strict=True)
        ]
        out = copy(self)
        object.__setattr__(out, "_parts", tuple(parts))
        return out


@dataclass(frozen=True, eq=False)
class _Image:
    """One exposure that shows all galaxies; its PSF may be one for each of them."""

    exposure: Exposure
    psfs: int = 1

    @classmethod
    def of(cls, exposure):
        """Of an exposure, whose PSF is estimated from stars once if it is to be."""
        if isinstance(exposure.psf, str) and exposure.psf == "stars":
            from galshape_cnn.observe.detect.star_psf import psf_from_stars

            image = opened(exposure)
            frames, _ = read_frames(image.data, error=image.error, mask=image.mask)
            psf = psf_from_stars(frames[0].as_nddata(getattr(image.data, "meta", None)))
            exposure = replace(exposure, psf=psf)
        return cls(exposure)

    def __len__(self):
        return 1

    @property
    def identity(self):
        one = self.exposure
        return fingerprint([_known(one.data), *(_known(getattr(one, name)) for name in _OF_EACH)])

    def of_positions(self, count):
        """The same for a number of galaxies."""
        psf = self._psf(opened(self.exposure))
        own = check_psf_count(psf, count, "the list of positions")
        return replace(self, psfs=count if own else 1)

    @staticmethod
    def _psf(exposure):
        return getattr(exposure.data, "psf", None) if exposure.psf is None else exposure.psf

    def read(self, start, stop):
        """The exposure, with the PSFs of some galaxies."""
        exposure = opened(self.exposure)
        if self.psfs == 1:
            return exposure
        psf, data = rows_of(self._psf(exposure), self.psfs, start, stop), exposure.data
        if hasattr(data, "psf"):
            data = copy(data)
            data.psf = None
        return replace(exposure, data=data, psf=psf)


@dataclass(frozen=True, eq=False)
class _Cutouts:
    """One exposure that has a cutout of each galaxy, in memory or in anything sliced like an array."""

    exposure: Exposure

    def __post_init__(self):
        data = self.exposure.data
        units = [getattr(one, "unit", None) for one in data] if isinstance(data, (list, tuple)) else []
        for row, unit in enumerate(units):
            if unit != units[0]:
                raise InputError(
                    f"exposure of band {self.exposure.band!r}: data[{row}] has unit {unit}, data[0] "
                    f"{units[0]}; a run needs one unit"
                )

    def __len__(self):
        data = self.exposure.data
        return len(data.data) if hasattr(data, "uncertainty") else len(data)

    @property
    def identity(self):
        n = len(self)
        ends = [self.read(row, row + 1) for row in sorted({0, n // 2, n - 1})]
        return fingerprint([n, [[_known(getattr(one, k)) for k in ("data", *_OF_EACH)] for one in ends]])

    def read(self, start, stop):
        """The exposure with the cutouts of some galaxies."""
        one, n = self.exposure, len(self)
        own = {name: rows_of(getattr(one, name), n, start, stop) for name in _OF_EACH}
        if not hasattr(one.data, "uncertainty"):
            return replace(one, data=one.data[start:stop], **own)
        if own["psf"] is None:
            own["psf"] = rows_of(getattr(one.data, "psf", None), n, start, stop)
        return replace(one, data=rows_of_cube(one.data, start, stop), **own)


@dataclass(frozen=True, eq=False)
class _Cube:
    """One exposure that has a cutout of each galaxy in a file."""

    exposure: Exposure
    source: CubeSource

    @classmethod
    def of(cls, exposure):
        """Of an exposure whose data are a file."""
        own = {name: getattr(exposure, name) for name in _OF_EACH}
        own = {name: value for name, value in own.items() if value is not None}
        return cls(exposure, CubeSource(exposure.data.path, exposure.data.names, own))

    def __len__(self):
        return len(self.source)

    @property
    def identity(self):
        return self.source.identity

    def read(self, start, stop):
        """The exposure with the cutouts of some galaxies."""
        data, own = self.source.read(start, stop)
        return replace(self.exposure, data=data, **own)


def _part(exposure):
    """What reads ranges of one exposure."""
    if axes_of(opened(exposure).data) == 2:
        return _Image.of(exposure)
    return _Cube.of(exposure) if isinstance(exposure.data, ImageFile) else _Cutouts(exposure)


def _known(value):
    """What tells an argument of an exposure from another."""
    if isinstance(value, ImageFile):
        return [value.path, value.names]
    if hasattr(value, "uncertainty") and hasattr(value, "data"):
        return [_known(getattr(value, name, None)) for name in ("data", "uncertainty", "mask", "wcs", "psf")]
    if hasattr(value, "to_header"):
        return value.to_header(relax=True).tostring()
    return [_known(one) for one in value] if isinstance(value, (list, tuple)) else value
