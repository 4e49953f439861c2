# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``--psf`` and ``--psf-error``: an analytic profile, stars of the image, numbers, or a file."""

from pathlib import Path

import numpy as np

from galshape_cnn.errors import GalshapeError, InputError, PSFError, warn

__all__ = [
    "PSF_PROFILES",
    "add_psf_error_option",
    "parse_psf",
    "psf_error_from",
    "read_psf_error",
    "stars_if_needed",
]

#: Profiles that ``--psf`` knows, with the parameters of each and their defaults.
PSF_PROFILES = {
    "moffat": {"fwhm": None, "beta": 3.0, "g1": 0.0, "g2": 0.0},
    "gaussian": {"fwhm": None, "g1": 0.0, "g2": 0.0},
    "kolmogorov": {"fwhm": None, "g1": 0.0, "g2": 0.0},
    "airy": {"fwhm": None, "obscuration": 0.0, "g1": 0.0, "g2": 0.0},
}
#: Side in pixels of the stamp whose profile is drawn when its size is in pixels.
_DRAWN_SIZE = 96


def parse_psf(text):
    """PSF described by a word, or None for a file name.

    Parameters
    ----------
    text : str
        What followed ``--psf``: ``name:key=value,...`` or ``stars``.

    Returns
    -------
    psf : galsim.GSObject, PSFArrays, str or None
        PSF without the pixel in arcsec (in pixels without a WCS); arrays of the
        effective PSF if the size is given in pixels (``fwhm=2.5px``), with g1,
        g2 along the pixels; ``"stars"``.

    Raises
    ------
    PSFError
        If a parameter is unknown, missing or impossible.

    Examples
    --------
    >>> from galshape_cnn.cli.options.psf import parse_psf
    >>> parse_psf("gaussian:fwhm=0.7").fwhm
    0.7
    """
    name, colon, rest = text.partition(":")
    name = name.strip().lower()
    if text.strip().lower() == "stars":
        return "stars"
    if not colon or name not in PSF_PROFILES:
        return None
    values, in_pixels = dict(PSF_PROFILES[name]), False
    for item in filter(None, rest.split(",")):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in values:
            raise PSFError(f"--psf {text}: unknown parameter {key!r}; allowed: {', '.join(values)}")
        if key == "fwhm" and value.endswith("px"):
            value, in_pixels = value.removesuffix("px"), True
        try:
            values[key] = float(value)
        except ValueError:
            raise PSFError(f"--psf {text}: {key}={value!r} is not a number") from None
    if values["fwhm"] is None or not 0 < values["fwhm"] < float("inf"):
        raise PSFError(f"--psf {text}: needs fwhm= above 0")
    profile = _draw_profile(name, values, text)
    if not in_pixels:
        return profile
    from galshape_cnn.forward.psf.convert import psf_arrays

    return psf_arrays(profile, stamp_size=_DRAWN_SIZE)  # its sizes are pixels, whatever the WCS says


def add_psf_error_option(parser):
    """Add ``--psf-error`` to a parser."""
    parser.add_argument(
        "--psf-error",
        metavar="ERROR",
        help="how well the PSF is known, for the errors: size=0.01,ellipticity=0.005 (1 sigma of its size "
        "over its size, and of each component of its shear), or a FITS cube of PSFs that it may be instead",
    )


def psf_error_from(args):
    """The estimator's keyword ``psf_error`` where the option is given; an empty dict otherwise.

    `InputError` or `FileError` if it is neither numbers nor a file of PSFs.
    """
    if args.psf_error is None:
        return {}
    from galshape_cnn.infer.measure.psf_error import PSFUncertainty

    sampling = {"oversampling": args.psf_oversampling, "includes_pixel": not args.psf_without_pixel}
    value, allowed = read_psf_error(args.psf_error), None
    if isinstance(value, dict):
        allowed = "size=FRACTION,ellipticity=ERROR (one or both, numbers from 0 to 0.5), or a file of PSFs"
    try:
        return {"psf_error": PSFUncertainty.checked(value, **sampling)}
    except InputError as error:
        why = f": {error}" if allowed is None else f"; allowed: {allowed}"
        raise InputError(f"--psf-error {args.psf_error}{why}") from error


def read_psf_error(text):
    """What a text says of the error of a PSF: a mapping of numbers, or the alternatives of a file."""
    from galshape_cnn.observe.io.psf.files import read_psf

    if "=" in text and not Path(text).exists():
        pairs = [item.partition("=") for item in text.split(",")]
        return {name.strip(): number.strip() for name, _, number in pairs}
    return read_psf(text)


def _draw_profile(name, values, text):
    """GalSim object of a named profile."""
    import galsim

    shear = {key: values.pop(key) for key in ("g1", "g2")}
    try:
        if name == "airy":
            profile = _airy(**values)
        else:
            profile = getattr(galsim, name.capitalize())(**values)
        return profile.shear(**shear) if any(shear.values()) else profile
    except (galsim.GalSimError, ValueError) as error:
        raise PSFError(f"--psf {text}: {error}") from error


def _airy(fwhm, obscuration):
    """Airy profile of a given FWHM, which GalSim does not calculate for an obscured one."""
    import galsim
    from scipy.optimize import brentq

    if not 0 <= obscuration < 1:  # GalSim does not look
        raise ValueError(f"obscuration={obscuration}; the share of the diameter in [0, 1) is needed")
    unit = galsim.Airy(lam_over_diam=1.0, obscuration=obscuration)
    half = 0.5 * unit.xValue(0, 0)
    radius = brentq(lambda r: unit.xValue(r, 0) - half, 0.0, 1.0)  # lambda / D, the first zero is at 1.22
    return galsim.Airy(lam_over_diam=fwhm / (2 * radius), obscuration=obscuration)


def stars_if_needed(data, keywords, is_image):
    """Estimate the PSF from stars where it is wanted, or where there is no other, and set it in ``keywords``.

    ``is_image`` says that the galaxies are in one image that may also show stars. ``PSFError`` if stars were
    asked for and there are not enough of them.
    """
    wanted = isinstance(keywords.get("psf"), str)
    missing = keywords.get("psf") is None and getattr(data, "psf", None) is None
    if not wanted and not (missing and is_image and np.ndim(getattr(data, "data", None)) == 2):
        return
    from galshape_cnn.observe.detect.star_psf import psf_from_stars

    try:
        psf = psf_from_stars(data, keywords.get("error"))
    except GalshapeError as error:
        raise PSFError(f"{error} with --psf") from error
    keywords["psf"] = psf
    keywords |= {"psf_oversampling": 1, "psf_includes_pixel": True}  # whatever was said of a file
    if missing:
        warn(
            f"no PSF is given; it is estimated from {len(psf.stars)} stars of the image, FWHM {psf.fwhm:.2f} "
            "pixels, and each row is flagged PSF_ESTIMATED"
        )
