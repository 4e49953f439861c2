# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Drawing of galaxies into an image, with local PSF, S/N and photon noise."""

from dataclasses import dataclass

import galsim
import numpy as np
from scipy.optimize import brentq

from galshape_cnn.errors import InputError
from galshape_cnn.forward.psf.convert import is_galsim, psf_arrays, psf_at
from galshape_cnn.forward.psf.galsim_psf import excessive_transform
from galshape_cnn.study.inject.profiles import GSPARAMS

__all__ = ["Drawn", "PointSpread", "draw_unit", "flux_for_snr", "photon_noise", "snr_of"]

#: Interpolation between the samples of a PSF array: near the sinc that a well-sampled PSF calls for.
_INTERPOLANT = "lanczos15"


@dataclass(frozen=True)
class PointSpread:
    """The PSF that galaxies are drawn with.

    Attributes
    ----------
    psf : object
        As the estimator takes it: one for the image, or a callable ``psf(x, y)``.
    oversampling, includes_pixel, normalize
        See `galshape_cnn.forward.psf.convert.psf_arrays`.
    stamp_size : int
        Side of the stamps.
    """

    psf: object
    oversampling: int = 1
    includes_pixel: bool = True
    normalize: bool = True
    stamp_size: int = 64

    def arrays(self, xy, jacobian):
        """PSF arrays at one place, as the measurement has them."""
        return psf_arrays(
            self.psf, positions=[xy], jacobian=jacobian[None], oversampling=self.oversampling,
            includes_pixel=self.includes_pixel, normalize=self.normalize, stamp_size=self.stamp_size,
        )  # fmt: skip

    def effective(self, xy, jacobian):
        """The effective PSF at one place, 0-based pixels, as a profile in the frame of the Jacobian.

        A GalSim PSF is convolved with the pixel; arrays are interpolated between their samples.
        """
        psf = self.psf
        if callable(psf) and not is_galsim(psf) and not hasattr(psf, "param_names"):
            psf = psf_at(psf, *xy)
        if is_galsim(psf):
            psf = psf.withFlux(1.0) if self.normalize else psf
            pixel = galsim.JacobianWCS(*np.ravel(jacobian)).toWorld(galsim.Pixel(1.0))
            return galsim.Convolve(psf, pixel, gsparams=GSPARAMS)
        arrays = self.arrays(xy, jacobian)
        fine = galsim.JacobianWCS(*np.ravel(jacobian) / arrays.oversampling)
        image = galsim.Image(arrays.array[0].astype(float), wcs=fine)
        return galsim.InterpolatedImage(image, x_interpolant=_INTERPOLANT, gsparams=GSPARAMS)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Light of one galaxy on a part of the image.

    Attributes
    ----------
    image : (k, k) ndarray
        Pixel values, cut at the edges of the parent image.
    rows, columns : slice
        Where they lie in it.
    """

    image: np.ndarray
    rows: slice
    columns: slice


def draw_unit(galaxy, effective, xy, jacobian, side, shape):
    """Draw a galaxy of unit flux at a place, 0-based pixels, on a part of the image with this side.

    Galaxy and effective PSF (`PointSpread.effective`) are in the frame of the Jacobian. ``InputError`` if
    GalSim cannot draw it.
    """
    corner = np.floor(np.asarray(xy) - (side - 1) / 2 + 0.5).astype(int)
    low = np.maximum(corner, 0)
    high = np.minimum(corner + side, shape[::-1])
    bounds = galsim.BoundsI(int(low[0]), int(high[0]) - 1, int(low[1]), int(high[1]) - 1)
    image = galsim.ImageD(bounds)
    options = {"center": galsim.PositionD(*map(float, xy)), "wcs": galsim.JacobianWCS(*np.ravel(jacobian))}
    try:
        seen = galsim.Convolve(galaxy, effective, gsparams=GSPARAMS)
        needed = excessive_transform(seen, np.sqrt(options["wcs"].pixelArea()))
        if needed:
            raise InputError(f"a galaxy cannot be drawn by GalSim: it needs a transform of side {needed}")
        seen.drawImage(image, method="no_pixel", **options)
    except galsim.GalSimError as error:
        raise InputError(f"a galaxy cannot be drawn by GalSim: {' '.join(str(error).split())}") from error
    return Drawn(image.array.copy(), slice(low[1], high[1]), slice(low[0], high[0]))


def snr_of(image, sigma, gain=None):
    """S/N of the light of a galaxy, its photon noise counted where there is a gain.

    ``sigma`` is the noise of the pixels without it, infinite where they do not count.
    """
    photons = 0.0 if gain is None else np.maximum(image, 0) / gain
    return float(np.sqrt(np.sum(image**2 / (sigma**2 + photons))))


def flux_for_snr(unit, sigma, snr, gain=None):
    """Flux that gives a galaxy of unit light ``unit`` a wanted S/N; infinite if no pixel counts.

    Other arguments as for `snr_of`.
    """
    of_unit = snr_of(unit, sigma)
    if not of_unit > 0:
        return np.inf
    flux = snr / of_unit
    if gain is None:
        return flux

    def excess(log_flux):
        return snr_of(np.exp(log_flux) * unit, sigma, gain) - snr

    high = np.log(flux)
    while excess(high) < 0:
        high += 1.0
    return float(np.exp(brentq(excess, np.log(flux) - 1e-9, high, xtol=1e-12)))


def photon_noise(image, gain, rng):
    """Light of a galaxy as it is counted: Poisson distributed in electrons.

    Pixels below zero, which interpolation makes, stay as they are.
    """
    expected = np.maximum(image, 0) * gain
    return rng.poisson(expected) / gain + np.minimum(image, 0)
