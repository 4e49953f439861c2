# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""`View`: the parameters of a galaxy on the sky as one exposure sees them.

A model of several images has one shape and one centre in a reference frame.  Each exposure sees them
through the linear map A from that frame to its own pixels: the centre moves to
:math:`\mathbf x = \mathbf x_0 + A\,(\mathbf c - \mathbf c_0)`, size and shear follow as in
`galshape_cnn.geometry.transform_shape`, and the flux of its band is multiplied by a factor between units
(zero points).  With the derivative J of that, normal equations of the exposure in its own eight parameters
become those of the model, :math:`J^T \mathbf s` and :math:`J^T F J`, and the equations of several exposures
add up.
"""

from dataclasses import dataclass, fields

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE, GalaxyModel
from galshape_cnn.forward.varying import band_shape
from galshape_cnn.geometry import frame_derivative, transform_shape

__all__ = ["View"]

_FRAMED = slice(SINGLE.hlr, SINGLE.shape.stop)  # what a frame changes: hlr, g1, g2


@dataclass(frozen=True, eq=False)
class View:
    """N galaxies in one exposure.

    Parameters
    ----------
    model : GalaxyModel, optional
        With P parameters.
    exposure : int, optional
        Number of the exposure.
    frame : (N, 2, 2) or (2, 2) ndarray, optional
        A: derivative of the exposure's pixels by the reference frame's; the identity without it.
    reference, pixel : (N, 2) or (2,) ndarray, optional
        A point in the reference frame, and x, y in the exposure's stamp where it is seen; zero without.
    factor : (N,) ndarray or float, optional
        Flux in the unit of the exposure's pixels over that of the model.

    Examples
    --------
    An exposure with pixels of half the size, turned by a quarter:

    >>> import numpy as np
    >>> from galshape_cnn.forward.view import View
    >>> view = View(frame=np.array([[0.0, -2.0], [2.0, 0.0]]), pixel=np.array([15.0, 15.0]))
    >>> view.params(np.array([[100.0, 1.0, 3.0, 0.2, 0.1, 0.5, 0.0, 0.0]]))[0].round(6)
    array([100. ,   1. ,   6. ,  -0.2,  -0.1,  15. ,  16. ,   0. ])
    """

    model: GalaxyModel = SINGLE
    exposure: int = 0
    frame: np.ndarray = None
    reference: np.ndarray = None
    pixel: np.ndarray = None
    factor: np.ndarray | float = 1.0

    def __post_init__(self):
        defaults = {"frame": np.eye(2), "reference": np.zeros(2), "pixel": np.zeros(2)}
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def __getitem__(self, rows):
        """The view of some rows."""
        ends = {"frame": 2, "reference": 1, "pixel": 1, "factor": 0}  # axes without that of the galaxies
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, axes in ends.items():
            if np.ndim(parts[name]) > axes:
                parts[name] = parts[name][rows]
        return View(**parts)

    @property
    def band(self):
        """Number of the exposure's band."""
        return self.model.exposures[self.exposure]

    @property
    def _sky(self):
        return self.model.skies.start + self.exposure

    def _shape(self, params):
        """n, hlr, g1, g2 in the exposure's band, reference frame, and their derivative if they vary."""
        if not self.model.coefficients:
            return params[:, self.model.shape], None
        return band_shape(params, self.model, self.band)

    def params(self, params):
        """Parameters (N, 8) of the exposure's own image, as the renderer takes them, from the model's."""
        model = self.model
        out = np.empty((len(params), SINGLE.size))
        out[:, SINGLE.flux] = params[:, self.band] * self.factor
        own = self._shape(params)[0]
        out[:, SINGLE.n] = own[:, 0]
        out[:, _FRAMED] = np.stack(transform_shape(*own[:, 1:].T, self.frame), -1)
        offset = params[:, model.centre] - self.reference
        out[:, SINGLE.centre] = self.pixel + (self.frame @ offset[..., None])[..., 0]
        out[:, SINGLE.sky] = params[:, self._sky]
        return out

    def outward(self, params):
        """Parameters (N, P) of the model that the exposure's own image, of parameters (N, 8), shows.

        The inverse of `params`; fluxes of other bands, sky levels of other exposures, and coefficients of
        what varies are zero.
        """
        model, back = self.model, np.linalg.inv(self.frame)
        out = np.zeros((len(params), model.size))
        out[:, self.band] = params[:, SINGLE.flux] / self.factor
        out[:, model.n] = params[:, SINGLE.n]
        shape = transform_shape(params[:, SINGLE.hlr], *params[:, SINGLE.shear].T, back)
        out[:, model.hlr : model.shear.stop] = np.stack(shape, -1)
        offset = params[:, SINGLE.centre] - self.pixel
        out[:, model.centre] = self.reference + (back @ offset[..., None])[..., 0]
        out[:, self._sky] = params[:, SINGLE.sky]
        return out

    def jacobian(self, params):
        """Derivative (N, 8, P) of the exposure's parameters by the model's parameters (N, P)."""
        model = self.model
        out = np.zeros((len(params), SINGLE.size, model.size))
        out[:, SINGLE.flux, self.band] = self.factor
        own, derivative = self._shape(params)
        framed = frame_derivative(*own[:, 2:].T, self.frame)[:, _FRAMED, _FRAMED]
        if derivative is None:
            out[:, SINGLE.n, model.n] = 1
            out[:, _FRAMED, model.hlr : model.shear.stop] = framed
        else:
            both = slice(model.n, model.varying.stop)
            out[:, SINGLE.n, both] = derivative[:, 0]
            out[:, _FRAMED, both] = framed @ derivative[:, 1:]
        out[:, SINGLE.centre, model.centre] = self.frame
        out[:, SINGLE.sky, self._sky] = 1
        return out
