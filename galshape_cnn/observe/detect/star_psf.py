# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""PSF estimated from the stars of an image.

Bright sources are measured with adaptive moments; stars are those of the
narrow ridge of equal sizes at the small end.  Their stamps are stacked by
photutils' `~photutils.psf.EPSFBuilder` (Anderson & King 2000, PASP 112, 1360).
One PSF holds for the whole image.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table
from scipy.ndimage import find_objects

from galshape_cnn.errors import InputError, PSFError
from galshape_cnn.forward.psf.arrays import PSFArrays
from galshape_cnn.observe.detect.sources import Detection, segmented

__all__ = ["MINIMUM_STARS", "EstimatedPSF", "psf_from_stars"]

#: Fewer stars than this make no PSF; more than the second number add nothing but time.
MINIMUM_STARS, _ENOUGH_STARS = 5, 100
#: Least S/N of a star.
_LEAST_SNR = 40.0
#: Half width of the ridge in ln(size), and how far a star's ellipticity may be from the others'.
_RIDGE, _ELLIPTICITY = 0.05, 0.1
#: A narrower PSF is stacked at two samples per pixel, if there are stars enough.
_NARROW, _STARS_FOR_OVERSAMPLING = 2.5, 16
#: Pixels that a star is moved by at most in a step of its fit.
_LONGEST_STEP = 0.5


@dataclass(frozen=True)
class EstimatedPSF(PSFArrays):
    """Effective PSF that was estimated from stars.

    Attributes
    ----------
    stars : `~astropy.table.Table`
        Columns ``x``, ``y`` (0-based pixels) and ``snr`` of the stars.
    fwhm : float
        Of the Gaussian with their adaptive moments, in pixels.
    """

    stars: Table = field(default=None, repr=False)
    fwhm: float = np.nan


def psf_from_stars(data, error=None):
    """Estimate the PSF of an image from its stars.

    Parameters
    ----------
    data : NDData
        Image with uncertainty, unless ``error`` is given.  ``SATURATE`` in its
        ``meta`` is the level at which stars are saturated.
    error : float or (ny, nx) array_like, optional
        1 sigma per pixel.

    Returns
    -------
    psf : EstimatedPSF
        Of unit sum within four times its FWHM from the centre: the light
        beyond (0.3 % of a Moffat profile with beta = 3) is not known.

    Raises
    ------
    PSFError
        If there are fewer than five isolated stars.
    NoiseError
        If the image has no noise.
    """
    if np.ndim(getattr(data, "data", None)) != 2:
        raise InputError("psf='stars' needs one image (NDData) with stars; these are cutouts")
    flat, _, sigma, bad, labels = segmented(data, error, Detection(threshold=5.0))
    found = _bright_sources(flat, bad, labels, _saturation(data, sigma))
    stars = None if found is None else _ridge(found)
    if stars is None or len(stars) < MINIMUM_STARS:
        count = 0 if stars is None else len(stars)
        many = found is not None and len(found) >= MINIMUM_STARS
        why = f" (the {len(found)} isolated sources differ in size, which stars do not)" if many else ""
        raise PSFError(
            f"psf is missing, and the image has {count} isolated stars of S/N > {_LEAST_SNR:.0f}, of which "
            f"at least {MINIMUM_STARS} are needed to estimate it{why}; give a PSF"
        )
    stars.sort("snr", reverse=True)
    stars = stars[:_ENOUGH_STARS]
    from astropy.stats import gaussian_sigma_to_fwhm

    fwhm = gaussian_sigma_to_fwhm * float(np.median(stars["sigma"]))
    # In units of the noise: the fits of photutils end early where all numbers are as small as 1e-10.
    sigma = sigma / np.median(sigma[~bad])
    array, oversampling = _stack(flat * sigma, sigma, bad, stars, fwhm)
    return EstimatedPSF(array[None], oversampling, stars["x", "y", "snr"], fwhm)


def _saturation(data, sigma):
    """Level of saturation in units of the noise, infinite if unknown."""
    level = (data.meta or {}).get("SATURATE")
    known = isinstance(level, (int, float)) and np.isfinite(level) and level > 0
    return 0.9 * level / sigma if known else np.full(sigma.shape, np.inf)


def _bright_sources(flat, bad, labels, saturation):
    """Moments of the bright, whole and isolated sources, or None."""
    rows = []
    for label, box in enumerate(find_objects(labels), 1):
        inside = labels[box] == label
        light = flat[box][inside]
        snr = light.sum() / np.sqrt(light.size)
        if snr < _LEAST_SNR or (flat[box] >= saturation[box])[inside].any():
            continue
        moments = _moments(flat, bad, labels, label, box)
        if moments is not None:
            rows.append((*moments, snr))
    names = ("x", "y", "sigma", "e1", "e2", "snr")
    return Table(rows=rows, names=names) if rows else None


def _moments(flat, bad, labels, label, box):
    """Centroid, size and ellipticity of a source, or None if it is cut, masked or has company."""
    import galsim

    y, x = (slice(max(one.start - 4, 0), one.stop + 4) for one in box)
    company = bad[y, x] | ((labels[y, x] != label) & (labels[y, x] != 0))
    if company.mean() > 0.1 or 0 in (y.start, x.start) or y.stop > len(flat) or x.stop > len(flat[0]):
        return None
    image = galsim.Image(np.ascontiguousarray(flat[y, x]), xmin=x.start, ymin=y.start)
    good = galsim.Image((~company).astype(np.int32), xmin=x.start, ymin=y.start)
    found = galsim.hsm.FindAdaptiveMom(image, weight=good, strict=False)
    if found.moments_status != 0:
        return None
    center, sigma = found.moments_centroid, found.moments_sigma
    near_y, near_x = (slice(max(int(c - 3 * sigma), 0), int(c + 3 * sigma) + 2) for c in (center.y, center.x))
    if (bad[near_y, near_x] | ~np.isin(labels[near_y, near_x], (0, label))).any():
        return None
    return center.x, center.y, sigma, found.observed_shape.e1, found.observed_shape.e2


def _ridge(found):
    """The sources of the narrow ridge of sizes, or None."""
    size = np.log(found["sigma"])
    count = (np.abs(size[:, None] - size) < _RIDGE).sum(1)
    crowded = count >= max(MINIMUM_STARS, 0.5 * count.max())
    if not crowded.any():
        return None
    middle = size[crowded].min() + _RIDGE / 2
    shapes = np.column_stack([found["e1"], found["e2"]])
    for _ in range(5):
        members = np.abs(size - middle) < _RIDGE
        if not members.any():
            return None
        middle = np.median(size[members])
        members &= np.hypot(*(shapes - np.median(shapes[members], axis=0)).T) < _ELLIPTICITY
    # Nothing is smaller than the PSF, and stars are equal: a ridge in the midst of the sources, or
    # one that hardly rises above them, is one of galaxies.
    smaller = (size < middle - _RIDGE).sum()
    larger = ((size > middle + _RIDGE) & (size < middle + 5 * _RIDGE)).sum() / 2
    is_ridge = members.sum() > 2 * max(smaller, larger)
    return found[members] if is_ridge else None


def _weights():
    """Class of uncertainties that photutils takes as they are; others it converts anew for each star."""
    from astropy.nddata import UnknownUncertainty

    return type("Weights", (UnknownUncertainty,), {"uncertainty_type": "weights"})


def _fit_star(model, x, y, z, weights, maxiter):
    """An ePSF fitted to the middle of a star, by Gauss and Newton with the derivatives of its spline.

    What `astropy.modeling.fitting.TRFLSQFitter` finds with differences, in a tenth of the time.  The fit ends
    where a step would move the star by less than 1e-8 pixels.
    """
    spline, scale, (x_origin, y_origin) = model.interpolator, model.oversampling, model.origin
    flux, x_0, y_0 = (getattr(model, name).value for name in ("flux", "x_0", "y_0"))
    x, y, z, weights = (np.ravel(one) for one in (x, y, z, weights))
    for _ in range(maxiter):
        at = scale[1] * (x - x_0) + x_origin, scale[0] * (y - y_0) + y_origin
        value, along_x, along_y = (
            spline(*at, dx=dx, dy=dy, grid=False) for dx, dy in ((0, 0), (1, 0), (0, 1))
        )
        slopes = np.stack([value, -flux * scale[1] * along_x, -flux * scale[0] * along_y], axis=1)
        step = np.linalg.lstsq(slopes * weights[:, None], weights * (z - flux * value), rcond=None)[0]
        step[1:] = np.clip(step[1:], -_LONGEST_STEP, _LONGEST_STEP)
        flux, x_0, y_0 = np.array([flux, x_0, y_0]) + step
        if np.abs(step[1:]).max() < 1e-8:
            break
    fitted = model.copy()
    fitted.flux, fitted.x_0, fitted.y_0 = flux, x_0, y_0
    return fitted


def _stack(image, sigma, bad, stars, fwhm):
    """Effective PSF of stars."""
    from astropy.nddata import NDData
    from photutils.psf import EPSFBuilder, extract_stars

    oversampling = 2 if fwhm < _NARROW and len(stars) >= _STARS_FOR_OVERSAMPLING else 1
    side = 2 * int(np.clip(4 * fwhm, 7, 50)) + 1
    data = NDData(image, uncertainty=_weights()(1 / sigma), mask=bad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stars at the edge are left out
        cut = extract_stars(data, stars["x", "y"], size=side)
        if len(cut) < MINIMUM_STARS:
            raise PSFError(
                f"psf is missing, and only {len(cut)} stars are far enough from the edge; give a PSF"
            )
        # At one sample per pixel the kernel of five by five samples widens a sharp PSF (by 2.6 % at a
        # FWHM of 2.8 pixels with photutils 3.0).
        kernel = None if oversampling == 1 else "quartic"
        builder = EPSFBuilder(
            oversampling=oversampling,
            maxiters=5,
            progress_bar=False,
            smoothing_kernel=kernel,
            fitter=_fit_star,
        )
        result = builder(cut)
    array = np.asarray(result.epsf.data, float)
    total = array.sum()
    if not np.isfinite(array).all() or total <= 0:
        raise PSFError("psf could not be estimated: the stars of the image do not agree; give a PSF")
    return array / total, oversampling
