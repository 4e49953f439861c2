# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Shear columns of a catalogue and their response."""

from functools import cached_property

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.catalog.columns import SHEAR_COLUMNS
from galshape_cnn.infer.shear.frames import reported_columns
from galshape_cnn.infer.shear.grids import grid_jacobian

__all__ = ["CatalogShear"]

_SHEAR = slice(3, 5)


class CatalogShear:
    """What `~galshape_cnn.ShapeCatalog` says of shapes and of shear."""

    @cached_property
    def parameters(self):
        """(N, 5) ndarray: flux, n, hlr, g1, g2 without units, in the reported frame."""
        parameters = self.placement.shapes(self.measurement.params[:, SINGLE.reported])
        if self.sheared is not None:
            parameters[:, _SHEAR] = self.sheared.shear
        parameters.flags.writeable = False
        return parameters

    @cached_property
    def sheared(self):
        """`~galshape_cnn.infer.shear.frames.ShearedColumns`; None without ``shear_response=True``."""
        if self.measurement.sheared is None:
            return None
        jacobian = grid_jacobian(self.placement.jacobian) if self.placement.has_sky else None
        with np.errstate(invalid="ignore"):  # rows that were not measured are NaN
            return reported_columns(self.measurement.sheared, jacobian)

    @property
    def response(self):
        """(N, 2, 2) ndarray: d(g1, g2) / d(gamma1, gamma2); None without ``shear_response=True``."""
        return None if self.sheared is None else self.sheared.response

    def _shear_columns(self):
        """Values of the columns `SHEAR_COLUMNS`; NaN without ``shear_response=True``."""
        if self.sheared is None:
            values = np.full((len(self), 4), np.nan), np.full((len(self), 36), np.nan)
        else:
            values = self.response.reshape(-1, 4), self.sheared.rows
        return dict(zip(SHEAR_COLUMNS, [*values[0].T, values[1]], strict=True))
