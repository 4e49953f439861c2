# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""GalSim as the reference: the same stamps drawn by another program."""

import galsim
import numpy as np

SIZE = 64
FWHM = 2.2  # pixels: near the sharpest PSF for which the accuracy is promised

PSFS = {
    "moffat": galsim.Moffat(beta=2.5, fwhm=FWHM),
    "kolmogorov": galsim.Kolmogorov(fwhm=FWHM),
    "gaussian": galsim.Gaussian(fwhm=FWHM),
    "elliptical": galsim.Moffat(beta=3.5, fwhm=FWHM).shear(g1=0.08, g2=-0.06),
}


def accuracy(n, hlr):
    """GSParams tight enough to be the truth, and no tighter.

    The wings of a large galaxy with high n reach so far that a smaller folding threshold
    needs transforms of 16384 pixels; GalSim then folds 2e-3 of the light over its (large)
    image, of which a stamp sees only a small part.
    """
    threshold = 2e-3 if n >= 4 and hlr > 5 else 5e-4
    return galsim.GSParams(
        folding_threshold=threshold, kvalue_accuracy=1e-6, maxk_threshold=5e-4, maximum_fft_size=16384
    )


def draw(params, psf, size=SIZE, jacobian=None):
    """Draw one stamp.

    Parameters
    ----------
    params : sequence of 8 floats
        As `galshape_cnn.forward.render.PARAMETERS`, in the pixel frame; with a Jacobian
        hlr and the shear are in its frame instead.
    psf : galsim.GSObject
        Without the pixel.
    size : int
        Side of the stamp.
    jacobian : (2, 2) array, optional
        d(u, v)/d(x, y).
    """
    flux, n, hlr, g1, g2, x, y, sky = (float(one) for one in params)
    gsparams = accuracy(n, hlr if jacobian is None else hlr / np.sqrt(abs(np.linalg.det(jacobian))))
    galaxy = galsim.Sersic(n=n, half_light_radius=hlr, flux=flux, gsparams=gsparams).shear(g1=g1, g2=g2)
    both = galsim.Convolve(galaxy, psf.withGSParams(gsparams), gsparams=gsparams)
    wcs = galsim.PixelScale(1.0) if jacobian is None else galsim.JacobianWCS(*np.ravel(jacobian))
    middle = (size - 1) / 2
    return both.drawImage(nx=size, ny=size, wcs=wcs, offset=(x - middle, y - middle), dtype=float).array + sky


def sampled_psf(psf, size=63):
    """Effective PSF array at the sampling of the image; its sum is the light it holds."""
    return psf.drawImage(nx=size, ny=size, scale=1.0, dtype=float).array
