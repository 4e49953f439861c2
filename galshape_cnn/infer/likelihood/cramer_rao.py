# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`cramer_rao_bound`: errors before any data, for design studies."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from astropy import units as u

from galshape_cnn.errors import InputError, NoiseError
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.psf.convert import psf_arrays
from galshape_cnn.forward.render import render
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.forward.varying import checked_orders
from galshape_cnn.geometry import frame_derivative, transform_shape
from galshape_cnn.infer.likelihood.cramer_rao_exposures import are_several, by_band, joint_information
from galshape_cnn.infer.likelihood.design_points import holds_many, split_points
from galshape_cnn.infer.likelihood.fisher import (
    bound,
    check_error,
    fisher_matrices,
    real_values,
    same_unit,
    snr,
)
from galshape_cnn.masked import filled
from galshape_cnn.observe.noise.ccd import checked_gain
from galshape_cnn.quantities import plain_number, plain_values, truth_value

__all__ = ["CramerRaoBound", "cramer_rao_bound"]

_SHAPE = SINGLE.reported_names
_NUISANCE = SINGLE.names[SINGLE.centre.start :]


@dataclass(frozen=True, eq=False)
class CramerRaoBound:
    """Smallest standard deviations that an unbiased estimator can have.

    Attributes
    ----------
    flux, n, hlr, g1, g2 : float
        Standard deviations, in the unit and the frame of the parameters given; (N,) arrays for N galaxies.
        With several bands there are ``flux_g``, … in place of ``flux``.
    covariance : (R, R) or (N, R, R) ndarray
        Of these, in this order; NaN if the Fisher matrix cannot be inverted.
    snr : float or (N,) ndarray
        Signal-to-noise ratio of the galaxy, the noise of its own photons included.
    singular : bool or (N,) ndarray
        True if the data hardly tell some parameters apart: do not trust the bound.
    names : tuple of str
        Names of the parameters.
    """

    covariance: np.ndarray
    snr: float
    singular: bool
    names: tuple = _SHAPE

    def __post_init__(self):
        self.covariance.setflags(write=False)
        for name, value in self.std.items():
            object.__setattr__(self, name, value)

    def __repr__(self):
        known = {"snr": self.snr, "singular": self.singular} | self.std
        return f"CramerRaoBound({', '.join(f'{name}={value!r}' for name, value in known.items())})"

    @property
    def std(self):
        """dict of float or (N,) ndarray: the standard deviations by name."""
        sigma = np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1))
        values = sigma.tolist() if sigma.ndim == 1 else sigma.T
        return dict(zip(self.names, values, strict=True))


def cramer_rao_bound(
    params,
    psf,
    error,
    mask=None,
    *,
    shape=None,
    pixel_scale=None,
    jacobian=None,
    psf_oversampling=1,
    psf_includes_pixel=True,
    normalize_psf=True,
    gain=None,
    fit_sky=True,
    fit_centroid=True,
    center=None,
    bands=None,
    vary=None,
    wavelengths=None,
):
    r"""Cramér-Rao bound of Sérsic galaxies for a given PSF and noise.

    .. math:: \mathrm{Cov}(\hat\theta) \succeq F^{-1}, \qquad
              F_{ab} = \sum_i \frac{1}{\sigma_i^2}\,
              \frac{\partial p_i}{\partial\theta_a}\,\frac{\partial p_i}{\partial\theta_b}

    for every unbiased estimator, with the noiseless pixels p of the galaxy.  The
    sum is over eight parameters; centroid and sky are marginalised.

    Parameters
    ----------
    params : mapping, `~astropy.table.Row`, sequence; or `~astropy.table.Table`, (N, 5) array
        ``flux``, ``n`` in [0.3, 6.2], ``hlr`` > 0, ``g1``, ``g2`` with \|g\| < 1; in this
        order if a sequence.  With ``pixel_scale`` or ``jacobian``, hlr is in arcsec and the
        shear in the sky frame (u west, v north); otherwise both are in
        pixels; a Quantity must fit.  ``x``, ``y`` (0-based pixels) and ``sky`` may follow.
        Further columns of a Row are ignored.  N galaxies: a table, an array of N rows, or a mapping
        in which values are numbers or arrays of N.
    psf : array_like, galsim.GSObject or photutils model; or N of them
        As for `galshape_cnn.forward.psf.convert.psf_arrays`: an odd-sized effective PSF
        (pixel included), or a GalSim object without the pixel.  An array (N, py, px), or a list beside
        parameters of N galaxies, holds one for each galaxy.  A list beside parameters of one galaxy holds one
        for each of several exposures that are measured together; every other argument but ``fit_sky`` and
        ``fit_centroid`` may then be a list too.
    error : float, (N,), (ny, nx) or (N, ny, nx) array_like
        Standard deviation of the noise of each pixel, > 0, without the photon noise
        of the galaxy if ``gain`` is given.  NaN, infinite and masked pixels do not count.
        One number for each of N galaxies if it has one dimension.
    mask : (ny, nx) or (N, ny, nx) array_like of bool, optional
        True for pixels that do not count.
    shape : (int, int), optional
        ny, nx of the stamp, at least 8 each; that of ``error`` or ``mask`` if they are
        arrays, otherwise (64, 64).
    pixel_scale : float, Quantity or (N,) array_like, optional
        Arcsec per pixel, for an image with north up and east left.
    jacobian : (2, 2) array_like, optional
        d(u, v)/d(x, y) in arcsec per pixel, for any other orientation.
    psf_oversampling : int, optional
        Samples per pixel of a PSF array.
    psf_includes_pixel : bool, optional
        False if a PSF array is not yet convolved with the pixel.
    normalize_psf : bool, optional
        Scale the PSF to unit sum.
    gain : float, Quantity or (N,) array_like, optional
        Electrons per unit of flux: adds the photon noise of the galaxy.
    fit_sky, fit_centroid : bool, optional
        False if the sky level, or the centre, is known beforehand.
    center : (float, float), optional
        x, y of the galaxy instead of ``params``; the middle of the stamp by default.
    bands : sequence of str, optional
        Band of each of several exposures, which share one flux per band: ``params`` then has
        ``flux_g``, …, or ``flux`` for all bands.
    vary : mapping of str to int, optional
        Of several exposures: orders in ln(wavelength) of what a fit lets vary between bands, as for
        `galshape_cnn.ShapeEstimator`; the bound then has ``hlr_g``, …, of a galaxy of one shape.
    wavelengths : sequence of float, optional
        Of each exposure, where something varies.

    Returns
    -------
    bound : CramerRaoBound
        Standard deviations as attributes, and their covariance; of arrays, where one of ``params``,
        ``psf``, ``error``, ``mask``, ``pixel_scale``, ``gain`` is of N galaxies.  What is not serves all.

    Raises
    ------
    InputError
        If a parameter is missing, not finite or out of range, or shapes or numbers of galaxies do not agree.
    NoiseError
        If ``error`` is not positive or leaves no pixel.
    PSFError
        If the PSF cannot be used.

    Examples
    --------
    A galaxy at S/N 30 through a Moffat PSF:

    >>> import galsim
    >>> from galshape_cnn import cramer_rao_bound
    >>> galaxy = {"flux": 1e5, "n": 3, "hlr": 0.3, "g1": -0.069, "g2": 0.15}
    >>> psf = galsim.Moffat(beta=2, fwhm=0.5)
    >>> least = cramer_rao_bound(galaxy, psf, error=400, pixel_scale=0.23, fit_sky=False)
    >>> print(f"{least.snr:.0f} {least.n:.1f} {least.hlr:.3f} {least.g1:.2f}")
    30 1.5 0.057 0.11

    A study of three exposure times in one call, and what each does for n:

    >>> least = cramer_rao_bound(galaxy, psf, error=[400, 200, 100], pixel_scale=0.23, fit_sky=False)
    >>> print(*(f"{n:.2f}" for n in least.n))
    1.53 0.77 0.38
    """
    arguments = {"params": params, "psf": psf, "error": error, "mask": mask}
    arguments |= {"pixel_scale": pixel_scale, "gain": gain}
    fit_sky, fit_centroid = truth_value(fit_sky, "fit_sky"), truth_value(fit_centroid, "fit_centroid")
    psf_includes_pixel = truth_value(psf_includes_pixel, "psf_includes_pixel")
    normalize_psf = truth_value(normalize_psf, "normalize_psf")
    options = {
        "shape": shape, "jacobian": jacobian, "psf_oversampling": psf_oversampling,
        "psf_includes_pixel": psf_includes_pixel, "normalize_psf": normalize_psf, "center": center,
    }  # fmt: skip
    if are_several(psf) and (bands is not None or not holds_many(params)):
        of_each = {"error": error, "mask": mask, "pixel_scale": pixel_scale, "gain": gain} | options
        found = joint_information(_information, params, psf, bands, fit_sky, of_each, vary, wavelengths)
        model, shared, fisher, ratio = found
        covariance, singular = bound(fisher, fit_sky, fit_centroid, model)
        names, covariance = by_band(model, shared, covariance)
        return CramerRaoBound(covariance, ratio, bool(singular[0]), names)
    if checked_orders(vary):
        raise InputError("vary is given, but psf is no list; give a PSF for each exposure")
    if bands is not None:
        raise InputError("bands is given, but psf is no list; give a PSF for each exposure")
    options |= {"fit_sky": fit_sky, "fit_centroid": fit_centroid}
    points = split_points(arguments)
    if points is None:
        return _one_bound(**arguments, **options)
    found = []
    for number, point in enumerate(points):
        try:
            found.append(_one_bound(**point, **options))
        except InputError as problem:
            raise type(problem)(f"galaxy {number}: {problem}") from problem
    covariance = np.stack([one.covariance for one in found])
    return CramerRaoBound(
        covariance, np.array([one.snr for one in found]), np.array([one.singular for one in found])
    )


def _one_bound(params, psf, *, fit_sky, fit_centroid, **arguments):
    """Bound of one galaxy in one exposure, the same whatever others are asked for in the call."""
    pixel, fisher, ratio, jacobian = _information(params, psf, **arguments)
    covariance, singular = bound(fisher, fit_sky, fit_centroid)
    if jacobian is not None:
        to_sky = frame_derivative(*pixel[SINGLE.shear], jacobian)
        covariance = to_sky @ covariance @ to_sky.T
    return CramerRaoBound(covariance[0], ratio, bool(singular[0]))


def _information(
    params, psf, error, mask, shape, pixel_scale, jacobian, psf_oversampling, psf_includes_pixel,
    normalize_psf, gain, center,
):  # fmt: skip
    """Parameters (8,) in pixels, Fisher matrix (1, 8, 8), S/N and Jacobian of one exposure."""
    values = _parameters(params, center)
    unit = getattr(values["flux"], "unit", None)
    flux, error = same_unit(values["flux"], error, "params['flux']")
    values |= {"flux": flux, "sky": plain_values(values.get("sky", 0.0), unit, "params['sky']")}
    gain = checked_gain(gain, unit)
    ivar = _inverse_variance(error, mask, shape)
    jacobian = _jacobian(jacobian, pixel_scale)
    pixel = _in_pixels(values, jacobian, ivar.shape)
    arrays = psf_arrays(
        psf,
        positions=pixel[None, SINGLE.centre],
        jacobian=jacobian,
        oversampling=psf_oversampling,
        includes_pixel=psf_includes_pixel,
        normalize=normalize_psf,
        stamp_size=max(ivar.shape),
    )
    return pixel, *_fisher_and_snr(pixel, ivar, arrays, gain), jacobian


def _parameters(params, center):
    """Parameters by name, without units except that of the flux."""
    names = _SHAPE + _NUISANCE
    if isinstance(params, Mapping):
        given = dict(params)
        if unknown := [name for name in given if name not in names]:
            raise InputError(f"params has {unknown}; allowed: {', '.join(names)}")
    elif hasattr(params, "colnames"):
        given = {name: params[name] for name in names if name in params.colnames}
    elif np.size(params) in (5, 7, 8) and np.ndim(params) == 1:
        given = dict(zip(names, params, strict=False))
    else:
        raise InputError(f"params is {params!r}; allowed: a mapping, a table row, or {', '.join(names)}")
    if missing := [name for name in _SHAPE if name not in given]:
        raise InputError(f"params lacks {', '.join(missing)}; needed: {', '.join(_SHAPE)}")
    if center is not None:
        if {"x", "y"} & given.keys():
            raise InputError("center and params both say where the galaxy is; give one of them")
        given["x"], given["y"] = np.asarray(center, float)
    return given


def _number(name, value):
    """A finite float; of the nuisances those with a unit that fits."""
    unit = u.pix if name in ("x", "y") else None
    return plain_number(value, f"params[{name!r}]", "one finite number", unit=unit)


def _radius(hlr, is_angle):
    """The half-light radius as a number of arcsec, where that is its unit, or of pixels."""
    unit = getattr(hlr, "unit", None)
    if unit is None or unit == u.dimensionless_unscaled:
        return hlr
    wanted, why = (u.arcsec, "with") if is_angle else (u.pix, "without")
    try:
        return hlr.to_value(wanted)
    except u.UnitConversionError:
        raise InputError(
            f"params['hlr'] is in {unit}; {why} pixel_scale or jacobian it is a number of {wanted.name}"
        ) from None


def _in_pixels(values, jacobian, shape):
    """Checked parameters in the pixel frame, as an (8,) array."""
    ny, nx = shape
    values = values | {"hlr": _radius(values["hlr"], jacobian is not None)}
    values = {"x": (nx - 1) / 2, "y": (ny - 1) / 2, "sky": 0.0} | values
    flux, n, hlr, g1, g2, x, y, sky = (_number(name, values[name]) for name in _SHAPE + _NUISANCE)
    low, high = N_RANGE
    if flux <= 0:
        raise InputError(f"params['flux']={flux}; allowed: > 0")
    if not low <= n <= high:
        raise InputError(f"params['n']={n}; allowed: {low} to {high}")
    if hlr <= 0:
        raise InputError(f"params['hlr']={hlr}; allowed: > 0")
    if np.hypot(g1, g2) >= 1:
        raise InputError(f"params: |g|={np.hypot(g1, g2):.4g}; allowed: below 1")
    if not (-0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5):
        raise InputError(f"center ({x}, {y}) lies outside the stamp of {ny}x{nx} pixels")
    if jacobian is not None:
        hlr, g1, g2 = (float(one) for one in transform_shape(hlr, g1, g2, np.linalg.inv(jacobian)))
    return np.array([flux, n, hlr, g1, g2, x, y, sky])


def _jacobian(jacobian, pixel_scale):
    """d(u, v)/d(x, y) from whichever argument gives it, None for pixels."""
    if jacobian is not None and pixel_scale is not None:
        raise InputError("jacobian and pixel_scale both say how large a pixel is; give one of them")
    if pixel_scale is not None:
        if getattr(pixel_scale, "unit", None) is not None and pixel_scale.unit.is_equivalent(u.arcsec):
            pixel_scale = pixel_scale / u.pix
        allowed = "one finite number > 0 of arcsec per pixel"
        return np.eye(2) * plain_number(pixel_scale, "pixel_scale", allowed, unit=u.arcsec / u.pix, above=0)
    if jacobian is None:
        return None
    jacobian = np.asarray(jacobian, float)
    if jacobian.shape != (2, 2) or not np.isfinite(jacobian).all() or np.linalg.det(jacobian) == 0:
        raise InputError(f"jacobian is {jacobian.tolist()}; an invertible (2, 2) matrix is needed")
    return jacobian


def _inverse_variance(error, mask, shape):
    """(ny, nx) inverse variance, zero where a pixel does not count."""
    error = real_values(error, "error")
    check_error(error)
    if shape is not None and np.shape(shape) != (2,):
        raise InputError(f"shape={shape!r}; allowed: two whole numbers of at least 8")
    own = set() if shape is None else {tuple(shape)}
    known = {np.shape(one) for one in (error, mask) if np.ndim(one)} | own
    if len(known) > 1:
        raise InputError(f"error, mask and shape do not agree: {', '.join(map(str, sorted(known)))}")
    size = known.pop() if known else (64, 64)
    if len(size) != 2 or min(size) < 8 or any(side != int(side) for side in size):
        raise InputError(f"shape={size}; allowed: two whole numbers of at least 8")
    error = np.broadcast_to(np.ma.filled(error, np.nan), size)
    bad = np.isnan(error) | (False if mask is None else _bad_pixels(mask))
    ivar = np.where(bad, 0.0, 1 / np.where(bad, 1.0, error) ** 2)
    if not ivar.any():
        raise NoiseError("error and mask leave no pixel that counts")
    return ivar


def _bad_pixels(mask):
    """A mask as booleans; what is itself masked in it is bad."""
    if np.asanyarray(mask).dtype.kind not in "bui":
        raise InputError(f"mask has dtype {np.asanyarray(mask).dtype}; bool is needed, True for bad pixels")
    return np.asarray(filled(mask, True), bool)


def _fisher_and_snr(pixel, ivar, arrays, gain):
    """Fisher matrix (1, 8, 8) and S/N in double precision."""
    ny, nx = ivar.shape
    grid = grid_for(2 * ((max(ny, nx) + 1) // 2), arrays.oversampling)
    padded = np.zeros((grid.size, grid.size))
    padded[:ny, :nx] = ivar
    with jax.enable_x64(True):
        params = jnp.asarray(pixel[None])
        transfer = transfer_functions(jnp.asarray(arrays.array), grid, arrays.oversampling)
        fisher = fisher_matrices(params, jnp.asarray(padded[None]), transfer, grid, gain)
        source = np.asarray(render(params.at[:, SINGLE.sky].set(0), transfer, grid))[0]
        fisher = np.asarray(fisher)
    with np.errstate(divide="ignore"):
        variance = 1 / padded + (0.0 if gain is None else np.maximum(source, 0) / gain)
    return fisher, snr(source, np.sqrt(variance))
