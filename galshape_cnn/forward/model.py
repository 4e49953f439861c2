# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`PSFConvolvedSersic2D`: the galaxy as an astropy model."""

import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
from astropy.modeling import Fittable2DModel, Parameter
from astropy.units import Quantity, UnitsError

from galshape_cnn.errors import InputError
from galshape_cnn.forward.psf.convert import psf_arrays
from galshape_cnn.forward.render import render, render_with_derivatives
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.masked import filled
from galshape_cnn.quantities import plain_values

__all__ = ["G_LIMIT", "HLR_MINIMUM", "PSFConvolvedSersic2D", "pixel_indices"]

#: Largest \|g\| and smallest half-light radius (pixels) that a model is evaluated at.
G_LIMIT, HLR_MINIMUM = 0.99, 1e-3

_LARGEST_SIDE = 2048
_DRAWN_STAMP = 128  # reach, in pixels, of the arrays that a GalSim PSF is drawn on
_MOST_GRIDS = 4  # transfer functions kept per PSF
_SMALLEST_GRID = 32  # pixels: on smaller ones the periodic copies come too close


class _SharedPSF:
    """PSF arrays that copies of a model share, with their transfer functions."""

    def __init__(self, arrays):
        arrays.array.setflags(write=False)
        self.arrays = arrays
        self._transfers = {}

    def __deepcopy__(self, memo):
        return self

    def __getstate__(self):
        return self.arrays

    def __setstate__(self, arrays):
        self.__init__(arrays)

    def transfer(self, size):
        """Fourier grid and transfer function for a stamp size, in the precision JAX is set to."""
        grid = grid_for(size, self.arrays.oversampling)
        known = self._transfers.get(grid)
        if known is None:
            known = transfer_functions(jnp.asarray(self.arrays.array), grid, self.arrays.oversampling)
            kept = list(self._transfers.items())[1 - _MOST_GRIDS :]
            self._transfers = dict([*kept, (grid, known)])
        return grid, known


def pixel_indices(x, y):
    """Place coordinates of pixel centres on the smallest pixel grid that holds them.

    They may start anywhere, but must lie whole pixels apart. Column and row (int), in the shape of ``x``, on
    that grid, and x, y of its pixel [0, 0]. ``InputError`` if the coordinates are empty, not finite, not
    whole pixels apart, or more than 2048 pixels apart.
    """
    x, y = np.broadcast_arrays(filled(x), filled(y))
    if x.size == 0 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("x and y must hold finite pixel coordinates, at least one")
    origin = float(x.min()), float(y.min())
    column, row = np.rint(x - origin[0]).astype(int), np.rint(y - origin[1]).astype(int)
    apart = max(np.abs(x - origin[0] - column).max(), np.abs(y - origin[1] - row).max())
    if apart > 1e-6:
        raise InputError(
            f"x and y must be centres of pixels, whole pixels apart; some are off by {apart:.3g} pixels"
        )
    if max(column.max(), row.max()) >= _LARGEST_SIDE:
        raise InputError(
            f"x and y span {column.max() + 1}x{row.max() + 1} pixels; allowed: up to {_LARGEST_SIDE}; "
            "evaluate the model on the pixels around the galaxy"
        )
    return column, row, origin


class PSFConvolvedSersic2D(Fittable2DModel):
    r"""Sérsic profile convolved with a PSF and integrated over pixels.

    .. math:: p(x, y) = \mathrm{flux}\,\bigl(I_n * \mathrm{PSF}\bigr)(x - x_0, y - y_0) + \mathrm{sky},
              \qquad I_n(r) \propto e^{-b_n (r/\mathrm{hlr})^{1/n}},

    with r measured after undoing the area-preserving shear g (Sérsic 1963; Graham &
    Driver 2005, PASA 22, 118).  Values and derivatives are computed in double precision.

    Parameters
    ----------
    flux : float or Quantity
        Total flux.
    n : float
        Sérsic index in [0.3, 6.2].
    hlr : float
        Circularised half-light radius in pixels, > 0.
    g1, g2 : float
        Reduced shear in the pixel frame, \|g\| <= 0.99.
    x_0, y_0 : float
        Centre in pixels.
    sky : float or Quantity
        Uniform level per pixel.
    psf : array_like, galsim.GSObject, photutils model or callable
        Any form that `galshape_cnn.forward.psf.convert.psf_arrays` takes.  A PSF that varies
        over the image is taken at the initial x_0, y_0.
    psf_oversampling, psf_includes_pixel, normalize_psf
        As ``oversampling``, ``includes_pixel`` and ``normalize`` there.
    jacobian : (2, 2) array_like, optional
        d(u, v)/d(x, y) in arcsec/pixel, to draw a GalSim PSF given in arcsec.  The
        parameters are in pixels all the same.
    **kwargs
        ``fixed``, ``tied``, ``bounds``, ``name``, ``meta`` as in `astropy.modeling`.

    Raises
    ------
    InputError
        If a parameter is not a single number or has a unit that does not fit, or, on evaluation by the
        user, is out of range or coordinates are not whole pixels apart.
    PSFError
        If the PSF is missing or cannot be used.

    Notes
    -----
    Some fitters step outside the bounds.  They call `evaluate` and `fit_deriv`,
    which use the nearest valid n, hlr and \|g\| (and a centre at most a quarter of the
    grid outside it), so that the fit meets a plateau and turns back.  Calling the
    model itself with such parameters raises.  NaN parameters give NaN pixels.

    Copies share the PSF arrays.

    Examples
    --------
    >>> import galsim
    >>> import numpy as np
    >>> from galshape_cnn import PSFConvolvedSersic2D
    >>> galaxy = PSFConvolvedSersic2D(
    ...     flux=100, n=1.5, hlr=3, g1=0.1, g2=0, x_0=15, y_0=16, psf=galsim.Gaussian(fwhm=3)
    ... )
    >>> y, x = np.mgrid[:32, :32]
    >>> image = galaxy(x, y)
    >>> print(image.shape, f"{image.sum():.1f}")
    (32, 32) 99.0
    """

    flux = Parameter(default=1.0, description="Total flux")
    n = Parameter(default=1.0, bounds=N_RANGE, description="Sérsic index")
    hlr = Parameter(default=1.0, bounds=(HLR_MINIMUM, None), description="Half-light radius in pixels")
    g1 = Parameter(default=0.0, bounds=(-G_LIMIT, G_LIMIT), description="Reduced shear along x")
    g2 = Parameter(default=0.0, bounds=(-G_LIMIT, G_LIMIT), description="Reduced shear at 45 degrees")
    x_0 = Parameter(default=0.0, description="Centre along x in pixels")
    y_0 = Parameter(default=0.0, description="Centre along y in pixels")
    sky = Parameter(default=0.0, description="Sky level per pixel")

    def __init__(
        self,
        flux=flux.default,
        n=n.default,
        hlr=hlr.default,
        g1=g1.default,
        g2=g2.default,
        x_0=x_0.default,
        y_0=y_0.default,
        sky=sky.default,
        *,
        psf=None,
        psf_oversampling=1,
        psf_includes_pixel=True,
        normalize_psf=True,
        jacobian=None,
        **kwargs,
    ):
        values = {"flux": flux, "n": n, "hlr": hlr, "g1": g1, "g2": g2, "x_0": x_0, "y_0": y_0, "sky": sky}
        for name, value in values.items():
            if np.size(value) != 1 or kwargs.get("n_models", 1) != 1:
                raise InputError(f"{name} has shape {np.shape(value)}; one galaxy per model is allowed")
        if isinstance(flux, Quantity) and not isinstance(sky, Quantity):
            values["sky"] = sky * flux.unit
        for name, value in values.items():
            if name not in ("flux", "sky"):
                plain_values(value, u.pix if name in ("hlr", "x_0", "y_0") else None, name)
        position = [[float(getattr(one, "value", one)) for one in (x_0, y_0)]]
        arrays = psf_arrays(
            psf,
            positions=position,
            jacobian=jacobian,
            oversampling=psf_oversampling,
            includes_pixel=psf_includes_pixel,
            normalize=normalize_psf,
            stamp_size=_DRAWN_STAMP,
        )
        self._psf = _SharedPSF(arrays)
        super().__init__(**values, **kwargs)

    @property
    def psf(self):
        """(py, px) ndarray: the effective PSF, read-only."""
        return self._psf.arrays.array[0]

    @property
    def psf_oversampling(self):
        """int: samples of `psf` per pixel."""
        return self._psf.arrays.oversampling

    def __call__(self, *args, **kwargs):
        """Pixel values at x, y, after checking that the parameters are in range."""
        n, hlr, g = self.n.value, self.hlr.value, np.hypot(self.g1.value, self.g2.value)
        if n < N_RANGE[0] or n > N_RANGE[1]:
            raise InputError(f"n={n}; allowed: {N_RANGE[0]} to {N_RANGE[1]}")
        if hlr < HLR_MINIMUM:
            raise InputError(f"hlr={hlr}; allowed: at least {HLR_MINIMUM} pixels")
        if g > G_LIMIT:
            raise InputError(f"|g|={g:.4g}; allowed: up to {G_LIMIT}")
        return super().__call__(*args, **kwargs)

    def evaluate(self, x, y, flux, n, hlr, g1, g2, x_0, y_0, sky):
        """Pixel values; parameters out of range are replaced by the nearest valid ones.

        Parameters
        ----------
        x, y : array_like, any equal shape
            Pixel coordinates, whole pixels apart.
        flux, n, hlr, g1, g2, x_0, y_0, sky : float
            Parameters of the model.

        Returns
        -------
        values : ndarray, shape of ``x``
            In the unit of ``flux``.

        Raises
        ------
        InputError
            If the coordinates are not whole pixels apart.
        """
        unit = getattr(flux, "unit", None)
        params = (flux, n, hlr, g1, g2, x_0, y_0, sky)
        images, column, row = self._rendered(render, x, y, params)
        values = np.asarray(images)[0][row, column]
        return values if unit is None else Quantity(values, unit, copy=False)

    def fit_deriv(self, x, y, flux, n, hlr, g1, g2, x_0, y_0, sky):
        """Derivatives of the pixel values with respect to the eight parameters.

        Parameters
        ----------
        x, y, flux, n, hlr, g1, g2, x_0, y_0, sky
            As for `evaluate`, without units.

        Returns
        -------
        derivatives : list of eight ndarray, shape of ``x``
            In the order of the parameters; out of range, those at the nearest valid ones.
        """
        params = (flux, n, hlr, g1, g2, x_0, y_0, sky)
        (_, derivatives), column, row = self._rendered(render_with_derivatives, x, y, params)
        return list(np.asarray(derivatives)[0][:, row, column])

    def _rendered(self, function, x, y, params):
        """Apply a function of the renderer on the smallest even square that holds x, y."""
        column, row, origin = pixel_indices(getattr(x, "value", x), getattr(y, "value", y))
        size = max(_SMALLEST_GRID, 2 * (max(column.max(), row.max()) // 2 + 1))
        params = _valid([float(np.squeeze(getattr(one, "value", one))) for one in params], origin, size)
        with jax.enable_x64(True):
            grid, transfer = self._psf.transfer(size)
            result = jax.block_until_ready(function(jnp.asarray(params[None]), transfer, grid))
        return result, column, row

    @property
    def input_units(self):
        """Units that x and y must have, if the centre has one."""
        if self.x_0.input_unit is None:
            return None
        return {self.inputs[0]: self.x_0.input_unit, self.inputs[1]: self.y_0.input_unit}

    def _parameter_units_for_data_units(self, inputs_unit, outputs_unit):
        """Units of the parameters from those of the data, for the fitters."""
        pixel, flux = inputs_unit[self.inputs[0]], outputs_unit[self.outputs[0]]
        if pixel != inputs_unit[self.inputs[1]]:
            raise UnitsError("x and y must have the same unit")
        return {"flux": flux, "sky": flux, "x_0": pixel, "y_0": pixel, "hlr": pixel}


def _valid(params, origin, size):
    """The nearest parameters that can be rendered, on a grid with the given origin."""
    flux, n, hlr, g1, g2, x, y, sky = params
    shrink = min(1.0, G_LIMIT / max(np.hypot(g1, g2), 1e-30))
    low, high = -0.25 * size, 1.25 * size
    x, y = (np.clip(one - start, low, high) for one, start in zip((x, y), origin, strict=True))
    return np.array([flux, np.clip(n, *N_RANGE), max(hlr, HLR_MINIMUM), g1 * shrink, g2 * shrink, x, y, sky])
