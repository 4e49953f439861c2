# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`CNNFitter`: the estimator with the interface of astropy's fitters."""

import numpy as np
from astropy.modeling.fitting import (
    Covariance,
    StandardDeviations,
    UnsupportedConstraintError,
    fitter_unit_support,
)

from galshape_cnn.errors import InputError, NoiseError, warn
from galshape_cnn.flags import decode_flags
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.model import PSFConvolvedSersic2D, pixel_indices
from galshape_cnn.infer.likelihood.fisher import check_error
from galshape_cnn.infer.measure.options import METHODS
from galshape_cnn.masked import split_mask
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.quantities import plain_values

__all__ = ["CNNFitter"]


class CNNFitter:
    """Fits a `~galshape_cnn.PSFConvolvedSersic2D` with a `ShapeEstimator`.

    Like every fitter of `astropy.modeling` it returns a copy of the model, with
    ``stds`` and ``cov_matrix`` set.  It keeps no state: the catalogue's flags are in the
    ``meta`` of the fitted model.

    Parameters
    ----------
    estimator : ShapeEstimator, optional
        By default the one with the network that comes with the package, loaded on first use.
    method : {'network', 'ml', 'posterior'}, optional
        How to measure, see `ShapeEstimator`.

    Notes
    -----
    The estimator starts at the model's ``x_0``, ``y_0``; the other parameters of the model do
    not matter.  All parameters are fitted.  Only ``sky`` may be fixed; it is then subtracted
    beforehand.  ``stds`` and ``cov_matrix`` know flux, n, hlr, g1 and g2: posterior
    covariance for ``'network'`` and ``'posterior'``, Cramér-Rao bound for ``'ml'``.  For
    the centre and the sky they hold NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn import CNNFitter, PSFConvolvedSersic2D
    >>> y, x = np.mgrid[-15:16, -15:16]
    >>> psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
    >>> start = PSFConvolvedSersic2D(flux=3000, n=1.5, hlr=3, g1=0.2, x_0=31.5, y_0=31.5, psf=psf)
    >>> y, x = np.mgrid[:64, :64]
    >>> z = start(x, y) + np.random.default_rng(1).normal(size=x.shape)
    >>> fitted = CNNFitter()(start, x, y, z, weights=np.ones(x.shape))
    >>> bool(abs(fitted.flux - 3000) < 5 * fitted.stds["flux"])
    True
    """

    supported_constraints = ("bounds",)

    def __init__(self, estimator=None, method="network"):
        if method not in METHODS:
            raise InputError(f"method={method!r}; allowed: {', '.join(map(repr, METHODS))}")
        if estimator is not None and not callable(estimator):
            raise InputError(f"estimator={estimator!r}; allowed: a ShapeEstimator or None")
        self._estimator = estimator
        self._method = method

    def __repr__(self):
        return f"<CNNFitter: method={self._method!r}>"

    def __call__(self, model, x, y, z, weights=None):
        """Fit the model to pixels.

        Parameters
        ----------
        model : PSFConvolvedSersic2D
            Its PSF is used, and its centre is where the galaxy is believed to be.
        x, y : array_like or Quantity
            Pixel coordinates, whole pixels apart, spanning at least 8x8 pixels.
        z : array_like or Quantity, shape of ``x``
            Pixel values.  Pixels that are NaN, masked or missing from a rectangle do not count.
        weights : array_like or Quantity
            1/sigma of the noise, broadcast against ``z``; zero or masked for pixels that do not count.

        Returns
        -------
        fitted : PSFConvolvedSersic2D
            A copy.  ``fitted.meta['flags']`` is the flag value, ``'flag_names'`` its names,
            ``'snr'`` the signal-to-noise ratio.

        Raises
        ------
        UnsupportedConstraintError
            If a parameter is tied, or fixed (except ``sky``), or has other bounds than the
            class.
        NoiseError
            If there are no weights, or they are negative or all zero.
        InputError
            If the model is of another class or the pixels make no stamp.
        """
        _check_model(model)
        if weights is None:
            raise NoiseError("weights is missing; give 1/sigma of each pixel")
        x, y, z, weights = _without_masked(x, y, z, weights)
        weights = plain_values(weights, getattr(z, "unit", None), "weights", power=-1)
        return self._fit(model, x, y, z, weights=np.asarray(weights, float))

    @fitter_unit_support
    def _fit(self, model, x, y, z, weights):
        """Fit without units; the decorator puts them back."""
        fitted, fit_sky = model.copy(), not model.fixed["sky"]
        level = 0.0 if fit_sky else model.sky.value
        stamps, origin = _stamp(model, x, y, np.asarray(z, float) - level, weights)
        catalog = self._live_estimator()(stamps, method=self._method, fit_sky=fit_sky)
        measured = catalog.measurement
        params = measured.params[0].copy()
        params[SINGLE.centre] += origin
        params[SINGLE.sky] = params[SINGLE.sky] + level if fit_sky else level
        fitted.parameters = params
        covariance = (measured.crb + measured.structure if self._method == "ml" else measured.covariance)[0]
        names = [name for name in model.param_names if fit_sky or name != "sky"]
        padded = np.full((len(names), len(names)), np.nan)
        padded[: len(covariance), : len(covariance)] = covariance
        fitted.cov_matrix, fitted.stds = Covariance(padded, names), StandardDeviations(padded, names)
        with np.errstate(invalid="ignore"):  # astropy's None for what is not known cannot be printed
            fitted.stds.stds = list(np.sqrt(np.diagonal(padded)))
        flags = int(catalog.flags[0])
        fitted.meta = {**model.meta, "flags": flags, "flag_names": decode_flags(flags)}
        fitted.meta["snr"] = float(measured.snr[0])
        if not catalog.is_measured[0]:
            warn(f"not fitted: {', '.join(decode_flags(flags))}")
        return fitted

    def _live_estimator(self):
        """The estimator given, or the shipped one."""
        if self._estimator is None:
            from galshape_cnn.infer.measure.estimator import ShapeEstimator

            self._estimator = ShapeEstimator()
        return self._estimator


def _check_model(model):
    """Refuse models and constraints that the estimator knows nothing of."""
    if not isinstance(model, PSFConvolvedSersic2D):
        raise InputError(f"model is a {type(model).__name__}; allowed: PSFConvolvedSersic2D")
    if tied := [name for name, how in model.tied.items() if how]:
        raise UnsupportedConstraintError(f"CNNFitter cannot tie parameters: {', '.join(tied)}")
    if fixed := [name for name, how in model.fixed.items() if how and name != "sky"]:
        raise UnsupportedConstraintError(f"CNNFitter cannot fix parameters but sky: {', '.join(fixed)}")
    own = {name: getattr(type(model), name).bounds for name in model.param_names}
    if moved := [name for name, limits in model.bounds.items() if tuple(limits) != tuple(own[name])]:
        raise UnsupportedConstraintError(
            f"CNNFitter cannot honour bounds on {', '.join(moved)}; the estimator's prior has its own"
        )


def _without_masked(x, y, z, weights):
    """The pixels, those that any of the four masks with zero weight; where x or y is, they are left out."""
    (x, no_x), (y, no_y), (z, no_z), (weights, no_weight) = map(split_mask, (x, y, z, weights))
    if no_z is not None or no_weight is not None:
        shape, unit = np.broadcast_shapes(np.shape(z), np.shape(weights)), getattr(weights, "unit", None)
        bad = np.zeros(shape, bool)
        for mask in (no_z, no_weight):
            bad |= False if mask is None else mask
        weights = np.where(bad, 0, getattr(weights, "value", weights))
        weights = weights if unit is None else weights * unit
    if no_x is None and no_y is None:
        return x, y, z, weights
    good = np.ones(np.broadcast_shapes(np.shape(x), np.shape(y)), bool)
    for mask in (no_x, no_y):
        good &= True if mask is None else ~mask
    return [np.broadcast_to(one, good.shape, subok=True)[good] for one in (x, y, z, weights)]


def _stamp(model, x, y, z, weights):
    """One rectangular stamp from pixels in any order; pixels without data do not count."""
    column, row, origin = pixel_indices(x, y)
    if z.shape != column.shape:
        raise InputError(f"z has shape {z.shape}; that of x and y is {column.shape}")
    try:
        weights = np.broadcast_to(weights, z.shape)
    except ValueError as problem:
        raise NoiseError(f"weights has shape {weights.shape}; that of z is {z.shape}") from problem
    good = np.isfinite(z) & np.isfinite(weights) & (weights != 0)
    check_error(1 / weights[good] if good.any() else np.array([np.nan]))
    shape = (1, row.max() + 1, column.max() + 1)
    data, ivar = np.zeros(shape), np.zeros(shape)
    data[0, row[good], column[good]] = z[good]
    ivar[0, row[good], column[good]] = weights[good] ** 2
    center = [[model.x_0.value - origin[0], model.y_0.value - origin[1]]]
    stamps = Stamps(data, ivar, model.psf, center=center, psf_oversampling=model.psf_oversampling)
    return stamps, np.array(origin)
