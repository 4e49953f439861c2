# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A small simulated survey field of known truth, drawn by GalSim.

The field has what makes real images awkward: a rotated WCS, a PSF that varies
over the image, noise that depends on position and on the sources, neighbours,
bad columns, cosmic rays and a saturated star.  It is drawn by GalSim and not by
the package's own renderer, so that the two check each other.
"""

from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable
from astropy.wcs import WCS

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.files import written_whole
from galshape_cnn.geometry import axis_ratio, position_angle, semi_major_radius
from galshape_cnn.infer.catalog.formats import split_sky

__all__ = ["SimulatedField", "VaryingMoffat", "simulate_field"]

PIXEL_SCALE = 0.2  # arcsec
ROTATION = 12.0  # degrees by which north is turned from +y
SKY_LEVEL = 580.0  # nJy per pixel: 21 mag per square arcsec
GAIN = 92.0  # electrons per nJy
STAR_FLUX = 4e5  # nJy
SATURATION = 3500.0  # nJy per pixel
STAMP = 128  # side of the region a galaxy is drawn on, pixels
# GalSim needs 30-55 ms for a new Sersic index and 3 ms for one it has met.
INDEX_VALUES = np.round(np.geomspace(0.5, 5.0, 20), 3)


@dataclass(frozen=True)
class VaryingMoffat:
    """PSF of a simulated field: a Moffat profile that changes with position.

    Parameters
    ----------
    size : int
        Side of the field in pixels.
    fwhm : float, optional
        Full width at half maximum in the middle of the field, arcsec.
    beta : float, optional
        Moffat exponent.
    """

    size: int
    fwhm: float = 0.7
    beta: float = 3.0

    def __call__(self, x, y):
        """PSF of unit flux at a 0-based pixel: a GalSim object without the pixel, in the sky frame."""
        import galsim

        s, t = 2 * x / self.size - 1, 2 * y / self.size - 1
        fwhm = self.fwhm * (1 + 0.05 * (s**2 + t**2) + 0.02 * s)
        profile = galsim.Moffat(beta=self.beta, fwhm=float(fwhm))
        return profile.shear(g1=float(0.02 + 0.02 * t), g2=float(-0.015 + 0.025 * s))


@dataclass(frozen=True, eq=False)
class SimulatedField:
    """A simulated image with everything known about it.

    Attributes
    ----------
    image, error : (size, size) ndarray
        Pixel values and their standard deviation, in ``unit``.
    mask : (size, size) ndarray of bool
        True where a pixel is bad.
    wcs : `~astropy.wcs.WCS`
        Gnomonic, rotated.
    psf : VaryingMoffat
        Callable PSF.
    truth : `~astropy.table.QTable`
        True parameters in the sky frame, with the catalogue's column names.
    positions : `~astropy.table.QTable`
        Columns ``id``, ``ra``, ``dec``: positions as a detection would give them.
    unit : `~astropy.units.UnitBase`
        Unit of the image.
    """

    image: np.ndarray
    error: np.ndarray
    mask: np.ndarray
    wcs: WCS
    psf: VaryingMoffat
    truth: QTable
    positions: QTable
    unit: u.UnitBase = u.nJy

    def to_nddata(self):
        """The image as `~astropy.nddata.NDData`, with noise, mask, WCS and unit."""
        return NDData(
            self.image,
            uncertainty=StdDevUncertainty(self.error),
            mask=self.mask,
            wcs=self.wcs,
            unit=self.unit,
        )

    def to_hdus(self):
        """The field as ``SCI``, ``ERR``, ``MASK``, ``PSF`` (in the middle), ``TRUTH``, ``POSITIONS``."""
        header = self.wcs.to_header()
        header["BUNIT"] = self.unit.to_string("fits")
        middle = (len(self.image) - 1) / 2
        psf = self.psf(middle, middle).drawImage(nx=41, ny=41, wcs=_local_wcs(self.wcs, middle, middle))
        psf = fits.ImageHDU(psf.array.astype("f4"), name="PSF")
        psf.header["COMMENT"] = "Effective PSF (pixel included) at the centre; the true PSF varies."
        return fits.HDUList(
            [
                fits.PrimaryHDU(),
                fits.ImageHDU(self.image.astype("f4"), header, name="SCI"),
                fits.ImageHDU(self.error.astype("f4"), header, name="ERR"),
                fits.ImageHDU(self.mask.astype("u1"), self.wcs.to_header(), name="MASK"),
                psf,
                _named_table(self.truth, "TRUTH"),
                _named_table(self.positions, "POSITIONS"),
            ]
        )

    def write(self, path, overwrite=False):
        """Write the field as FITS; ``FileError`` if the file exists and ``overwrite`` is not set."""
        path = Path(path)
        if path.exists() and not overwrite:
            raise FileError(f"cannot write {str(path)!r}: it exists")
        with written_whole(path) as beside:
            self.to_hdus().writeto(beside)


def simulate_field(seed=1, n_galaxies=120, size=None, snr=(8.0, 300.0)):
    """Simulate a field of galaxies of S/N 8 to 300 at 0.2 arcsec per pixel.

    Sérsic index 0.5 to 5 (a mixture of discs and spheroids), half-light radius
    0.2 to 1.2 arcsec, |g| < 0.7, Moffat PSF of 0.7 arcsec.

    Parameters
    ----------
    seed : int, optional
        Seed of the random numbers: the same seed gives the same field.
    n_galaxies : int, optional
        Number of galaxies, at least 1.
    size : int, optional
        Side of the image in pixels, at least 200; by default such that about a fifth of
        the galaxies have a neighbour within 5 arcsec.
    snr : (2,) tuple of float, optional
        Lowest and highest signal-to-noise ratio.

    Returns
    -------
    field : SimulatedField
        Image, noise, mask, WCS, PSF, truth and positions.

    Raises
    ------
    InputError
        If an argument is outside its range.
    """
    size = _checked_size(n_galaxies, size, snr)
    rng = np.random.default_rng(seed)
    wcs, psf = _rotated_wcs(size), VaryingMoffat(size)
    star = rng.uniform(0.25, 0.75, 2) * size
    x, y = _scatter_positions(rng, n_galaxies, size, star)
    shapes = _draw_parameters(rng, n_galaxies)
    sky_sigma = _sky_sigma(size)
    clean, flux, true_snr = _draw_galaxies(x, y, shapes, psf, wcs, sky_sigma, _draw_snr(rng, n_galaxies, snr))
    clean += _draw_star(star, psf, wcs, size)
    error = np.sqrt(sky_sigma**2 + np.clip(clean, 0, None) / GAIN)
    image = clean + rng.normal(size=clean.shape) * error
    mask = _spoil(rng, image, clean)
    truth = _truth_table(x, y, wcs, flux, shapes, true_snr)
    return SimulatedField(
        image.astype(np.float32),
        error.astype(np.float32),
        mask,
        wcs,
        psf,
        truth,
        _detections(rng, truth),
    )


def _checked_size(n_galaxies, size, snr):
    """Side of the field, after a check of the arguments."""
    if n_galaxies < 1:
        raise InputError(f"n_galaxies={n_galaxies}; allowed: at least 1")
    if len(snr) != 2 or not 0 < snr[0] <= snr[1]:
        raise InputError(f"snr={snr}; allowed: (low, high) with 0 < low <= high")
    if size is None:
        return max(300, int(140 * np.sqrt(n_galaxies)))
    if size < 200:
        raise InputError(f"size={size}; allowed: at least 200 pixels")
    return int(size)


def _rotated_wcs(size):
    """Gnomonic WCS, north turned by ROTATION, east to the left."""
    angle = np.radians(ROTATION)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [150.1163, 2.2058]
    wcs.wcs.crpix = [size / 2, size / 2]
    wcs.wcs.cd = (
        PIXEL_SCALE / 3600 * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    )
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def _local_wcs(wcs, x, y):
    """GalSim's own linear approximation of the WCS at a 0-based pixel."""
    import galsim

    return galsim.AstropyWCS(wcs=wcs).local(galsim.PositionD(float(x) + 1, float(y) + 1))


def _scatter_positions(rng, n, size, star, margin=20, separation=20, star_distance=60):
    """Positions at least 20 pixels from each other and 60 from the star."""
    places = []
    for _ in range(200 * n):
        place = rng.uniform(margin, size - 1 - margin, 2)
        others = np.array(places).reshape(-1, 2)
        close = np.hypot(*(others - place).T) < separation
        if not close.any() and np.hypot(*(place - star)) > star_distance:
            places.append(place)
        if len(places) == n:
            return np.array(places).T
    raise InputError(f"n_galaxies={n} do not fit into size={size}; allowed: fewer galaxies or a larger field")


def _draw_parameters(rng, n):
    """Columns n, hlr (arcsec), g1, g2 of a population of discs and spheroids."""
    spheroid = rng.random(n) < 0.3
    index = np.where(spheroid, rng.lognormal(np.log(3.5), 0.25, n), rng.lognormal(np.log(1.1), 0.3, n))
    nearest = np.abs(np.log(index)[:, None] - np.log(INDEX_VALUES)).argmin(1)
    hlr = np.clip(rng.lognormal(np.log(0.45), 0.45, n), 0.2, 1.2)
    g = np.clip(rng.rayleigh(0.22, n), 0, 0.7)
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([INDEX_VALUES[nearest], hlr, g * np.cos(angle), g * np.sin(angle)])


def _draw_snr(rng, n, snr):
    """Signal-to-noise ratios with many more faint galaxies than bright ones."""
    low, high = np.log(snr)
    return np.exp(low + (high - low) * rng.beta(1.0, 1.6, n))


def _sky_sigma(size):
    """Noise of the sky: 2.5 nJy, 6 % higher in one amplifier, with vignetting in the corners."""
    y, x = np.indices((size, size)) / size - 0.5
    sigma = np.sqrt(SKY_LEVEL / GAIN) * (1 + 0.2 * (x**2 + y**2))
    sigma[:, size // 2 :] *= 1.06
    return sigma


def _draw_galaxies(x, y, shapes, psf, wcs, sky_sigma, snr):
    """Noise-free image, and the flux and S/N of each galaxy.

    The flux is set for the wanted S/N against the sky alone; the S/N returned
    counts the noise of the source too.
    """
    import galsim

    size = len(sky_sigma)
    full = galsim.ImageD(size, size, xmin=0, ymin=0)
    flux, true_snr = np.zeros((2, len(x)))
    for i, (n, hlr, g1, g2) in enumerate(shapes):
        corner = np.round([x[i], y[i]]).astype(int) - STAMP // 2
        bounds = galsim.BoundsI(corner[0], corner[0] + STAMP - 1, corner[1], corner[1] + STAMP - 1)
        stamp = galsim.ImageD(bounds)
        galaxy = galsim.Sersic(n=n, half_light_radius=hlr).shear(g1=g1, g2=g2)
        profile = galsim.Convolve(galaxy, psf(x[i], y[i]))
        profile.drawImage(stamp, center=galsim.PositionD(x[i], y[i]), wcs=_local_wcs(wcs, x[i], y[i]))
        sigma = sky_sigma[int(y[i]), int(x[i])]
        flux[i] = snr[i] * sigma / np.sqrt(np.sum(stamp.array**2))
        stamp *= flux[i]
        true_snr[i] = np.sqrt(np.sum(stamp.array**2 / (sigma**2 + np.clip(stamp.array, 0, None) / GAIN)))
        full[bounds & full.bounds] += stamp[bounds & full.bounds]
    return full.array.copy(), flux, true_snr


def _draw_star(star, psf, wcs, size):
    """Image of one bright star."""
    import galsim

    full = galsim.ImageD(size, size, xmin=0, ymin=0)
    profile = psf(*star).withFlux(STAR_FLUX)
    profile.drawImage(full, center=galsim.PositionD(*star), wcs=_local_wcs(wcs, *star))
    return full.array


def _spoil(rng, image, clean):
    """Put bad columns, cosmic rays and saturation into an image; return their mask."""
    mask = np.zeros(image.shape, bool)
    saturated = clean > SATURATION
    trail = np.flatnonzero(saturated.any(0))
    middle = np.flatnonzero(saturated.any(1)).mean()
    rows = slice(max(0, int(middle) - 70), int(middle) + 70)
    mask |= clean > SATURATION / 4
    mask[rows, trail.min() : trail.max() + 1] = True
    image[saturated] = SATURATION
    image[rows, trail] = SATURATION
    for column in rng.integers(10, len(image) - 10, 2):
        image[:, column], mask[:, column] = -999.0, True
    for row, column in rng.integers(5, len(image) - 5, (len(image) // 40, 2)):
        hit = np.arange(rng.integers(2, 6))
        image[row + hit - 2, column + hit // 2] += 500.0
        mask[row + hit - 2, column + hit // 2] = True
    return mask


def _truth_table(x, y, wcs, flux, shapes, snr):
    """True parameters under the catalogue's names and units."""
    n, hlr, g1, g2 = shapes.T
    return QTable(
        {
            "id": np.arange(1, len(x) + 1),
            "x_centroid": x * u.pix,
            "y_centroid": y * u.pix,
            "sky_centroid": SkyCoord(wcs.pixel_to_world(x, y)),
            "flux": flux * u.nJy,
            "n": n,
            "hlr": hlr * u.arcsec,
            "g1": g1,
            "g2": g2,
            "snr": snr,
            "q": axis_ratio(g1, g2),
            "pa": position_angle(g1, g2) * u.deg,
            "r_eff": semi_major_radius(hlr, g1, g2) * u.arcsec,
        }
    )


def _detections(rng, truth):
    """Positions with the error of a detection, up to a third of a pixel at low S/N."""
    sigma = np.minimum(0.07, 1.5 / np.asarray(truth["snr"])) * u.arcsec
    east, north = rng.normal(size=(2, len(truth))) * sigma
    moved = truth["sky_centroid"].spherical_offsets_by(east, north)
    return QTable({"id": truth["id"], "ra": moved.ra, "dec": moved.dec})


def _named_table(table, name):
    """Binary table extension of a name."""
    hdu = fits.table_to_hdu(split_sky(table))
    hdu.name = name
    return hdu
