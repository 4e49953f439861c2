# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Checks of the arguments of `inject`, and the `Job` they make."""

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, StdDevUncertainty
from astropy.stats import gaussian_fwhm_to_sigma

from galshape_cnn.errors import InputError, NoiseError, PSFError, warn
from galshape_cnn.forward.psf.arrays import FORMS
from galshape_cnn.forward.psf.shape import psf_width
from galshape_cnn.geometry import semi_major_radius
from galshape_cnn.observe.noise.model import NoiseModel
from galshape_cnn.quantities import plain_number, truth_value, whole_number
from galshape_cnn.study.inject.galaxies import checked_kinds, default_prior, galaxy_rows, population
from galshape_cnn.study.inject.places import AVOID, Room, find_field, plan_realisations
from galshape_cnn.wcs import sky_geometry

__all__ = ["make_job"]

_STAMP_SIZE = 64
_DRAWN_MARGIN = 8  # pixels by which the drawn part of the image is larger than a stamp
_NOISE_ROWS = 256  # stamps from which the noise is estimated, as for any long run
#: A galaxy is planned where nothing is brighter than this part of its light, which is known roughly by then.
_SURE = 0.6
_FEWEST_PLACED = 0.5  # part of the galaxies that need a free place


def make_job(
    image,
    *,
    n,
    psf=None,
    error=None,
    mask=None,
    wcs=None,
    prior=None,
    catalogue=None,
    kinds="sersic",
    real_galaxies=None,
    pixel_scale=None,
    method="network",
    find=False,
    detection=None,
    clearance=3.0,
    avoid="brighter",
    true_psf=None,
    gain=None,
    gain_in_map=False,
    seed=0,
    shear=None,
    estimator=None,
    stamp_size=None,
    psf_oversampling=1,
    psf_includes_pixel=True,
    normalize_psf=True,
    **measuring,
):
    """Plan an injection.

    Parameters
    ----------
    image, n, psf, prior, catalogue, kinds, method, find, gain, seed, estimator
        As for `galshape_cnn.inject`.
    error, mask, wcs : optional
        As for the estimator; ``error="background"`` measures the noise of the pixels without sources.
    real_galaxies : path-like or galsim.RealGalaxyCatalog, optional
        Catalogue for the kind ``'real'``.
    pixel_scale : float, optional
        Arcsec, for the kind ``'real'`` in an image without WCS.
    detection : `~galshape_cnn.observe.detect.sources.Detection`, optional
        How sources are found.
    clearance : float, optional
        Semi-major half-light radii around each galaxy, >= 0, without bad pixels and without a pixel of a
        source to be avoided; at least half the FWHM of the PSF.
    avoid : {'brighter', 'all', 'none'}, optional
        Sources to be avoided: those brighter than the galaxy, all, none.
    true_psf : optional
        PSF that galaxies are drawn with where it is not ``psf``, which measures.
    gain_in_map : bool, optional
        Whether the noise map holds the photon noise of sources.
    shear : (2,) array_like of float, optional
        Shear of the sky, less than one, in the frame of the results: galaxies are sheared by it about their
        centres, at places and with fluxes that do not depend on it.
    stamp_size : int, optional
        Side of the stamps, 64 by default.
    psf_oversampling, psf_includes_pixel, normalize_psf : optional
        As for the estimator.
    **measuring
        Further keywords of the estimator.  What ``noise_correlation`` and ``noise_scale`` leave to be
        measured is settled once, on the image before anything is in it.

    Returns
    -------
    job : galshape_cnn.study.inject.realisation.Job

    Raises
    ------
    InputError
        If an argument cannot be used, or no place is free.
    """
    from galshape_cnn.study.inject.realisation import Job

    n, seed = whole_number(n, "n", 1), whole_number(seed, "seed", 0)
    _check_choices(avoid, clearance, gain, gain_in_map)
    kinds = checked_kinds(kinds)
    image = _survey_image(image, error, mask, wcs)
    psf = _known_psf(image, psf)
    side = _STAMP_SIZE if stamp_size is None else whole_number(stamp_size, "stamp_size", 8)
    options = {"psf_oversampling": psf_oversampling, "psf_includes_pixel": psf_includes_pixel}
    cutting = {"psf": psf, "stamp_size": side, **options, "normalize_psf": normalize_psf}
    scale, fwhm = _scale_and_width(image, cutting)
    if catalogue is None:
        prior = _whole_prior(prior, default_prior(fwhm, side))
    galaxies = population(prior, catalogue, image.wcs is not None, image.unit)
    real, real_scale = _real_galaxies(kinds, real_galaxies, image, pixel_scale)
    field = find_field(image, detection)
    room = Room(float(clearance), avoid, fwhm / 2, side / 2 + 1, side + _DRAWN_MARGIN)
    rows = galaxy_rows(galaxies, kinds, 0, n, seed, scale)
    realisation, xy = _planned(field, room, rows, fwhm, scale, seed)
    call = {"method": method, **measuring}
    known = NoiseModel.from_keywords(measuring | {"gain": gain}).in_units_of(image)
    noise, factor = _settled_noise(image, xy, cutting, known)
    call |= {name: getattr(noise, name) for name in ("noise_correlation", "noise_scale")}
    if noise.gain is not None and not gain_in_map:
        call["gain"] = noise.gain
    return Job(
        estimator=_estimator(estimator),
        image=image,
        field=field,
        room=room,
        galaxies=rows,
        realisation=realisation,
        xy=xy,
        drawn_psf=_drawn_psf(psf if true_psf is None else true_psf, cutting, true_psf is not None),
        cutting=cutting,
        call=call,
        seed=seed,
        shear=_checked_shear(shear),
        side=side + _DRAWN_MARGIN,
        fwhm=fwhm,
        noise_scale=factor,
        gain=noise.gain,
        gain_in_map=bool(gain_in_map),
        find=truth_value(find, "find"),
        detection=detection,
        real=real,
        real_scale=real_scale,
        stamp_size=side,
        is_sized=stamp_size is not None,
    )


def _whole_prior(prior, default):
    """A prior in which distributions that are not given are those of the default one."""
    if prior is None:
        return default
    if not hasattr(prior, "keys"):
        return prior
    known = {} if "flux" in prior else {"snr": default.config["snr"]}
    return known | {name: default.config[name] for name in ("n", "hlr", "g")} | dict(prior)


def _check_choices(avoid, clearance, gain, gain_in_map):
    if avoid not in AVOID:
        raise InputError(f"avoid={avoid!r}; allowed: {', '.join(map(repr, AVOID))}")
    plain_number(clearance, "clearance", "a number of half-light radii >= 0", least=0)
    if gain is None and gain_in_map:
        raise InputError(
            "gain_in_map is given without gain; photon noise needs the electrons per unit of flux"
        )


def _checked_shear(shear):
    """Both components; of none zero."""
    if shear is None:
        return (0.0, 0.0)
    try:
        shear = tuple(float(value) for value in shear)
    except (TypeError, ValueError):
        shear = ()
    if len(shear) != 2 or not np.hypot(*shear) < 1:
        raise InputError(f"shear={shear!r}; allowed: two numbers, gamma1 and gamma2, |gamma| < 1")
    return shear


def _estimator(estimator):
    if estimator is not None:
        return estimator
    from galshape_cnn import ShapeEstimator

    return ShapeEstimator()


def _survey_image(image, error, mask, wcs):
    """One image with noise, mask and WCS, in arrays of its own."""
    from galshape_cnn.observe.inputs import read_frames

    meta, psf = dict(getattr(image, "meta", None) or {}), getattr(image, "psf", None)
    if isinstance(error, str):
        image, error = _background(image, error, mask)
    frames, unit = read_frames(image, error=error, mask=mask, wcs=wcs)
    if len(frames) != 1:
        raise InputError(f"image holds {len(frames)} images; galaxies are injected into one")
    frame = frames[0]
    with np.errstate(divide="ignore"):
        sigma = 1 / np.sqrt(np.broadcast_to(frame.noise.inverse_variance(), frame.shape).astype(float))
    data = np.array(frame.data, float)
    bad = ~np.isfinite(data) | ~np.isfinite(sigma)
    bad |= False if frame.mask is None else np.asarray(frame.mask, bool)
    if bad.all():
        raise NoiseError("no pixel of the image is unmasked and has noise information")
    sigma = StdDevUncertainty(np.where(bad, np.inf, sigma))
    return NDData(
        np.where(bad, 0.0, data), uncertainty=sigma, mask=bad, wcs=frame.wcs, unit=unit, psf=psf, meta=meta
    )


def _background(image, error, mask):
    """The image without a noise map, and the noise of its pixels without sources."""
    from galshape_cnn.observe.detect.sources import background_noise

    if error != "background":
        raise InputError(f"error={error!r}; allowed: 1 sigma per pixel, or 'background'")
    if not hasattr(image, "uncertainty"):
        image = NDData(getattr(image, "value", image), mask=mask, unit=getattr(image, "unit", None))
    bare = NDData(image.data, mask=image.mask, wcs=image.wcs, unit=image.unit)
    return bare, background_noise(bare if bare.mask is not None else NDData(image.data, mask=mask))


def _known_psf(image, psf):
    """The PSF of the argument or of the image, that from stars estimated."""
    psf = image.psf if psf is None else psf
    image.psf = None
    if psf is None:
        raise PSFError(f"psf is missing; give {FORMS}, or 'stars'")
    if isinstance(psf, str):
        if psf != "stars":
            raise PSFError(f"psf={psf!r}; {FORMS}, or 'stars' is needed (read files first)")
        from galshape_cnn.observe.detect.star_psf import psf_from_stars

        return psf_from_stars(image)
    return psf


def _drawn_psf(psf, cutting, own):
    """What galaxies are drawn with."""
    from galshape_cnn.study.inject.drawing import PointSpread

    if own:
        return PointSpread(psf, stamp_size=cutting["stamp_size"])
    names = {"oversampling": "psf_oversampling", "includes_pixel": "psf_includes_pixel"}
    names |= {"normalize": "normalize_psf", "stamp_size": "stamp_size"}
    return PointSpread(psf, **{name: cutting[keyword] for name, keyword in names.items()})


def _scale_and_width(image, cutting):
    """Arcsec per pixel (1 without WCS), and the width of the PSF in pixels, in the middle of the image."""
    middle = (np.array(image.data.shape[::-1]) - 1) / 2
    jacobian = np.eye(2) if image.wcs is None else sky_geometry(image.wcs, [middle])[0][0]
    arrays = _drawn_psf(cutting["psf"], cutting, False).arrays(middle, jacobian)
    scale = float(np.sqrt(np.abs(np.linalg.det(jacobian))))
    return scale, float(psf_width(arrays.array, arrays.oversampling)[0])


def _real_galaxies(kinds, real_galaxies, image, pixel_scale):
    """Catalogue of HST galaxies where it is needed, and what makes arcsec the unit of the image."""
    if "real" not in kinds:
        return None, 1.0
    from galshape_cnn.study.inject.profiles import open_real_galaxies

    scale = 1.0
    if image.wcs is None:
        allowed = "a number > 0; real galaxies need the arcsec per pixel, or a WCS"
        scale = plain_number(pixel_scale, "pixel_scale", allowed, unit=u.arcsec, above=0)
    return open_real_galaxies(real_galaxies), 1 / scale


def _planned(field, room, rows, fwhm, scale, seed):
    """Realisation and place of each galaxy; a warning if some have none."""
    r_eff = semi_major_radius(*(np.asarray(rows[name], float) for name in ("hlr", "g1", "g2"))) / scale
    flux = _SURE * _rough_flux(rows, fwhm, scale, field)
    realisation, xy = plan_realisations(field, room, r_eff, flux, seed)
    lost = int(np.count_nonzero(realisation < 0))
    if lost > (1 - _FEWEST_PLACED) * len(rows):
        raise InputError(
            f"clearance={room.clearance:g}: {lost} of {len(rows)} galaxies find no free place in the image; "
            "allow fainter sources beside them (avoid), a smaller clearance, or smaller galaxies (prior)"
        )
    if lost:
        warn(f"{lost} of {len(rows)} galaxies find no free place in the image")
    return realisation, xy


def _rough_flux(rows, fwhm, scale, field):
    """Fluxes; where the S/N is given, that of a profile with about as many pixels."""
    hlr = np.asarray(rows["hlr"], float) / scale
    n = np.nan_to_num(np.asarray(rows["n"], float), nan=1.0)
    # 1 / sum(p^2) of an exponential is 8.9 hlr^2, of a Gaussian 9.1 hlr^2; cusps have fewer
    pixels = 9 * hlr**2 * np.minimum(1, n**-0.7) + 4 * np.pi * (fwhm * gaussian_fwhm_to_sigma) ** 2
    rough = np.asarray(rows["snr"], float) * np.median(field.sigma[~field.bad]) * np.sqrt(pixels)
    return np.where(np.isfinite(rows["flux"]), rows["flux"], rough)


def _settled_noise(image, xy, cutting, noise):
    """Noise with nothing left to be estimated, and the factor by which its map is too small."""
    from galshape_cnn.observe.observation import prepare

    if noise.is_estimated:
        places = xy[np.isfinite(xy).all(1)][:_NOISE_ROWS]
        noise = noise.settled(prepare(image, positions=places, **cutting))
    return noise, 1.0 if noise.noise_scale is None else float(noise.noise_scale)
