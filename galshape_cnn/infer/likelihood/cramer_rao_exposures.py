# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Cramér-Rao bound in several exposures: the inverse of the sum of their Fisher matrices."""

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.forward.galaxy_model import SINGLE, GalaxyModel
from galshape_cnn.forward.varying import band_shape, checked_orders, shape_index
from galshape_cnn.forward.view import View
from galshape_cnn.observe.exposure_agreement import wavelengths_of_bands

__all__ = ["are_several", "by_band", "joint_information"]

_PAIRS = ("shape", "center")  # two numbers are one value


def are_several(psf):
    """Whether a ``psf`` of `galshape_cnn.cramer_rao_bound` is a list of PSFs, one for each exposure."""
    return isinstance(psf, (list, tuple)) and len(psf) > 0 and not isinstance(psf[0], (list, tuple))


def _each(name, value, count):
    """One value for each exposure, from a list of them or one for all."""
    if not isinstance(value, (list, tuple)) or (name in _PAIRS and all(np.isscalar(one) for one in value)):
        return [value] * count
    if len(value) != count:
        raise InputError(f"{name} holds {len(value)} entries for {count} PSFs; one, or {count}, are needed")
    return list(value)


def _model(bands, count, fit_sky, vary, wavelengths):
    """Model of exposures in given bands."""
    bands = [""] * count if bands is None else list(bands)
    if len(bands) != count:
        raise InputError(f"bands holds {len(bands)} names for {count} PSFs; one for each is needed")
    names = tuple(dict.fromkeys(bands))
    if not all(isinstance(one, str) for one in bands) or (len(names) > 1 and "" in names):
        raise InputError(f"bands={bands}; allowed: a name for each exposure")
    orders = checked_orders(vary)
    if orders:
        wavelengths = [None] * count if wavelengths is None else list(wavelengths)
        if len(wavelengths) != count:
            raise InputError(
                f"wavelengths holds {len(wavelengths)} entries for {count} PSFs; one for each is needed"
            )
        wavelengths = wavelengths_of_bands(bands, wavelengths, [f"psf[{k}]" for k in range(count)], orders)
    numbers = tuple(names.index(one) for one in bands)
    return GalaxyModel(names, numbers, bool(fit_sky), orders, wavelengths if orders else ())


def _shared_parameters(params, model):
    """Fluxes (B,) and the other parameters as a mapping."""
    if not hasattr(params, "keys"):
        params = dict(zip(SINGLE.names, params, strict=False)) if np.ndim(params) == 1 else params
    if not hasattr(params, "keys"):
        raise InputError(f"params is {params!r}; allowed: a mapping, or {', '.join(SINGLE.names)}")
    given = {name: params[name] for name in params.keys()}  # noqa: SIM118  a table row has keys only
    names = model.names[model.fluxes]
    fluxes = [given.pop(name, None) for name in names]
    common = given.pop("flux", None)
    missing = [name for name, flux in zip(names, fluxes, strict=True) if flux is None and common is None]
    if missing:
        raise InputError(f"params lacks {missing[0]}; needed: {', '.join(names)}, or flux for all bands")
    return [common if flux is None else flux for flux in fluxes], given


def by_band(model, params, covariance):
    """Names and covariance (K, K) of fluxes and the shape in each band, of a bound by a model's parameters.

    What varies has a name for each band, such as ``hlr_g``. The bound (1, R, R) is one at parameters (1, P).
    """
    if not model.coefficients:
        return model.reported_names, covariance[0]
    names, index = shape_index(model)
    turn = np.zeros((len(names), model.reported.stop))
    turn[: model.n, : model.n] = np.eye(model.n)
    for band, at in enumerate(index):
        turn[at, model.n :] = band_shape(params, model, band)[1][0]
    return names, turn @ covariance[0] @ turn.T


def joint_information(one, params, psf, bands, fit_sky, arguments, vary=None, wavelengths=None):
    """Sum of the Fisher matrices of exposures, by the parameters that they share.

    ``one(params, psf, **arguments)`` returns parameters (8,) in pixels, Fisher matrix (1, 8, 8), S/N and
    Jacobian (or None) of one exposure; each of ``arguments`` is for all exposures or a list. The others are
    as for `galshape_cnn.cramer_rao_bound`.

    Returns the ``GalaxyModel``; its parameters (1, P), size and shear in the frame of the sky if there is a
    pixel scale; the Fisher matrix (1, P, P); and the S/N of all exposures together.
    """
    count = len(psf)
    model = _model(bands, count, fit_sky, vary, wavelengths)
    fluxes, given = _shared_parameters(params, model)
    lists = {name: _each(name, value, count) for name, value in arguments.items()}
    fisher, strength, framed = np.zeros((1, model.size, model.size)), 0.0, set()
    for number, kernel in enumerate(psf):
        own = {name: values[number] for name, values in lists.items()}
        pixel, matrix, snr, jacobian = one(given | {"flux": fluxes[model.exposures[number]]}, kernel, **own)
        framed.add(jacobian is not None)
        frame = None if jacobian is None else np.linalg.inv(jacobian)
        shared = View(model, number, frame, pixel=pixel[SINGLE.centre]).outward(pixel[None])
        turn = View(model, number, frame).jacobian(shared)
        fisher += np.swapaxes(turn, 1, 2) @ matrix @ turn
        strength += snr**2
    if len(framed) > 1:
        raise InputError("some exposures have a pixel_scale or jacobian, others have none; give it to all")
    return model, shared, fisher, float(np.sqrt(strength))
