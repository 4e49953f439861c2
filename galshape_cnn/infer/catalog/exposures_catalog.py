# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`ExposuresCatalog`: galaxies measured in several images, with fluxes by band, colours and exposures."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from galshape_cnn.flags import quality_of
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.varying import shape_index
from galshape_cnn.geometry import frame_derivative
from galshape_cnn.infer.catalog.band_columns import (
    band_columns,
    band_definitions,
    band_of,
    by_band,
    color_of,
)
from galshape_cnn.infer.catalog.catalog import ShapeCatalog, frozen
from galshape_cnn.infer.catalog.columns import complete_meta, identifiers, keep_apart, sigma_columns
from galshape_cnn.infer.catalog.placement import Placement, derived_columns
from galshape_cnn.infer.catalog.rows import ExposuresRows
from galshape_cnn.infer.shear.frames import ShearedColumns
from galshape_cnn.linalg import quadratic_form

__all__ = ["ExposuresCatalog"]


@dataclass(frozen=True, eq=False, repr=False)
class ExposuresCatalog(ExposuresRows, ShapeCatalog):
    """Shapes, sizes and fluxes of N galaxies that were measured in E exposures together.

    Made by calling a `~galshape_cnn.ShapeEstimator` with a list of `~galshape_cnn.Exposure`.  With several
    bands there are columns ``flux_g``, ``flux_r``, … with ``_err`` and ``_std`` in place of ``flux``,
    ``snr_g``, … beside ``snr``, and with zero points ``mag_g``, ….  ``x_centroid`` and ``y_centroid`` are
    pixels of the first exposure that shows the galaxy.

    Attributes
    ----------
    exposures : tuple of str
        Names of the exposures.
    units : tuple
        Unit of the flux in each band, or None.
    zeropoints : tuple
        Magnitude of a flux of one in each band, or None.
    by_exposure : galshape_cnn.infer.measure.exposures.quality.ExposureRows
        What each exposure says.
    seen : (N, E) ndarray of bool
        Whether a galaxy has data in an exposure.
    """

    exposures: tuple = ()
    units: tuple = ()
    zeropoints: tuple = ()
    by_exposure: object = None
    seen: np.ndarray = None

    @classmethod
    def from_exposures(cls, exposures, measurement, by_exposure, measured, *, method, meta):
        """Combine what `~galshape_cnn.infer.measure.exposures.pipeline.measure_exposures` found in exposures.

        ``method`` and ``meta`` as for `ShapeCatalog.from_measurements`.
        """
        n, rows = len(exposures), np.arange(len(exposures))
        place = exposures.placement(rows, exposures.reference)
        stamps, location = [], np.full((n, len(exposures.names), 2), -1)
        for number, groups in enumerate(measured):
            for index, some in groups:
                location[index, number] = np.column_stack(
                    [np.full(len(index), len(stamps)), range(len(index))]
                )
                stamps.append(some)
        names = ("origin", "center", "skycoord", "jacobian")
        catalog = cls(
            identifiers(None, exposures.table, n),
            method,
            complete_meta(meta, method),
            exposures.units[0],
            measurement,
            Placement(*(place[name] for name in names), exposures.has_sky),
            None,
            tuple(stamps),
            location,
            exposures.names,
            exposures.units,
            exposures.zeropoints,
            by_exposure,
            exposures.seen,
        )
        return replace(catalog, inputs=catalog.passed_through(exposures.table))

    @property
    def galaxy_model(self):
        """`GalaxyModel` of the parameters."""
        return self.measurement.model

    @property
    def bands(self):
        """Names of the bands, in the order of the fluxes."""
        return self.galaxy_model.bands

    def _chosen(self, rows):
        """Chosen rows as a catalogue."""
        return replace(super()._chosen(rows), by_exposure=self.by_exposure[rows], seen=self.seen[rows])

    def passed_through(self, table):
        """Columns that came with the positions, names kept apart from those of bands too."""
        inputs = super().passed_through(table)
        if inputs is not None:
            keep_apart(inputs, {d.name.lower() for d in self.definitions})
        return inputs

    def _blank_parts(self, n):
        """What else a catalogue of n galaxies without data has, by name."""
        seen = np.zeros((n, len(self.exposures)), bool)
        return {"by_exposure": self.by_exposure.empty(seen.shape), "seen": seen}

    def _framed(self, parameters):
        """Fluxes, n, hlr, g1, g2 carried to the reported frame."""
        model, out = self.galaxy_model, np.array(parameters)
        last = slice(model.n - 1, model.shear.stop)  # a flux, n, hlr, g1, g2, as `Placement` takes them
        out[..., last] = self.placement.shapes(out[..., last])
        return out

    @cached_property
    def parameters(self):
        """(N, R) ndarray: fluxes, n, hlr, g1, g2 (by band where they vary), no units, reported frame."""
        if self.galaxy_model.coefficients:
            return frozen(self._by_band[0])
        parameters = self._framed(self.measurement.params[:, self.galaxy_model.reported])
        if self.sheared is not None:
            parameters[:, -2:] = self.sheared.shear
        return frozen(parameters)

    def _carried(self, covariance):
        """Covariances of fluxes, n, hlr, g1, g2 carried to the reported frame."""
        model = self.galaxy_model
        if model.coefficients:
            return self._carried_by_band(covariance)
        if not self.placement.has_sky:
            return np.array(covariance)
        derivative = np.tile(np.eye(len(model.reported_names)), (len(self), 1, 1))
        with np.errstate(invalid="ignore"):
            shear = self.measurement.params[:, model.shear].T
            part = frame_derivative(*shear, self.placement.jacobian)
        round_ = slice(SINGLE.hlr, SINGLE.shear.stop)
        derivative[:, model.hlr : model.shear.stop, model.hlr : model.shear.stop] = part[:, round_, round_]
        # a band without data is NaN in its own row and column only
        known = np.isfinite(covariance)
        moved = derivative @ np.where(known, covariance, 0) @ np.swapaxes(derivative, 1, 2)
        return np.where(known & np.isfinite(moved), moved, np.nan)

    @cached_property
    def _by_band(self):
        """Values and derivative of what the table has, where the shape varies."""
        return by_band(self.measurement.params, self.galaxy_model, self.placement)

    def _carried_by_band(self, covariance):
        """Covariances of what the table has, where the shape varies."""
        values, derivative = self._by_band
        moved = derivative @ np.nan_to_num(covariance) @ np.swapaxes(derivative, 1, 2)
        base = self.galaxy_model.n
        stated = np.isfinite(covariance[:, base, base])[:, None] & np.isfinite(values)
        return np.where(stated[:, :, None] & stated[:, None, :], moved, np.nan)

    def color(self, first, second):
        """Colour between two bands: magnitude of the first minus that of the second.

        Parameters
        ----------
        first, second : str
            Names of bands.

        Returns
        -------
        color, error : (N,) Quantity
            In mag; NaN where a flux is not positive.  The error uses the covariance of the fluxes, which
            share the shape.  Without zero points it is that of the fluxes as they are.

        Raises
        ------
        InputError
            If there is no such band, or only one of the two has a zero point.
        """
        covariance = self.crb_covariance if self.method == "ml" else self.covariance
        return color_of((first, second), self.bands, self.zeropoints, self.parameters, covariance)

    @cached_property
    def sheared(self):
        """`~galshape_cnn.infer.shear.frames.ShearedColumns` of all exposures; None without
        ``shear_response=True``."""
        sheared = self.measurement.sheared  # in the reported frame already
        return None if sheared is None else ShearedColumns.from_slots(sheared)

    @cached_property
    def _columns(self):
        """Values of every column, without units, by name."""
        raw, model = self.measurement, self.galaxy_model
        columns = self._places(raw.params[:, model.centre])
        (names, index), parameters = shape_index(model), self.parameters
        columns |= dict(zip(names, parameters.T, strict=True))
        every = (("err", self.error_covariance), ("std", self.covariance), ("crb", self.crb_covariance))
        for suffix, covariance in every:
            columns |= sigma_columns(suffix, covariance, names)
        columns |= {name: getattr(raw, name) for name in ("snr", "chi2", "ess", "flags")} | {
            "quality": quality_of(raw.flags)
        }
        varying = {which for which, _ in model.terms}
        for band, at in zip(self.bands, index, strict=True):
            five = [0, *at]
            known = derived_columns(self.parameters[:, five], self.error_covariance[:, five][:, :, five])
            for name, values in known.items():
                stem, _, error = name.partition("_err")
                varies = varying & ({1, 2, 3} if stem == "r_eff" else {2, 3})
                columns[f"{stem}_{band}{'_err' if name != stem else ''}" if varies else name] = values
        columns["n_exposures"] = self.seen.sum(1)
        columns |= self._shear_columns() if self.meta.get("options", {}).get("shear_response") else {}
        if len(self.bands) > 1:
            gradient = self.by_exposure.gradient, self.by_exposure.gradient_error
            if 1 in varying:
                gradient = self._fitted_gradient(index[[0, -1], 1])
            columns["hlr_gradient"], columns["hlr_gradient_err"] = gradient
        for number in range(len(self.bands)):
            inside = np.array(model.exposures) == number
            snr = np.where(self.seen[:, inside], np.nan_to_num(self.by_exposure.snr[:, inside]), 0)
            columns |= band_columns(self.bands, number, self.zeropoints[number], snr, columns)
        return columns

    def _fitted_gradient(self, ends):
        """ln of the half-light radius in the last band over that in the first, as fitted, and its error."""
        sizes = self.parameters[:, ends]
        slope = np.array([-1, 1]) / sizes
        covariance = self.error_covariance if self.method == "ml" else self.covariance
        variance = quadratic_form(covariance[:, ends][:, :, ends], slope)
        with np.errstate(invalid="ignore"):
            return np.log(sizes[:, 1] / sizes[:, 0]), np.sqrt(variance)

    @cached_property
    def definitions(self):
        """`ColumnDefinition` of each column, in order."""
        return band_definitions(self.bands, self.zeropoints, self._columns)

    def _unit_of(self, definition):
        """Unit of a column; None for a plain number."""
        if definition.kind == "flux":
            return self.units[band_of(definition.name, self.bands)]
        return super()._unit_of(definition)

    def _column(self, definition):
        """One column, with its unit."""
        if definition.name not in self._columns:
            raise AttributeError(definition.name)
        return super()._column(definition)

    def __getattr__(self, name):
        """Columns of bands, such as ``flux_g``."""
        if not name.startswith("_") and "measurement" in self.__dict__:
            for definition in self.definitions:
                if definition.name == name:
                    return self._column(definition)
            near = [f"{name}_{band}" for band in self.bands if f"{name}_{band}" in self._columns]
            hint = f"; it has {', '.join(near)}" if near else ""
            raise AttributeError(f"a catalogue of exposures has no column or attribute {name!r}{hint}")
        raise AttributeError(name)

    def _absent(self):
        """Columns that are not there are not among the definitions either."""
        return set()
