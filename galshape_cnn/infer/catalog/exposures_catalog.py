# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The catalogue of galaxies that were measured in several images: fluxes by band, colours, exposures."""

from dataclasses import dataclass, replace
from functools import cached_property

import astropy.units as u
import numpy as np
from astropy.table import QTable

from galshape_cnn.errors import InputError
from galshape_cnn.flags import quality_of
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.geometry import axis_ratio, frame_derivative, position_angle, semi_major_radius
from galshape_cnn.infer.catalog.band_columns import band_columns, band_definitions, band_of, color_of
from galshape_cnn.infer.catalog.catalog import ShapeCatalog, frozen
from galshape_cnn.infer.catalog.columns import (
    column_unit,
    complete_meta,
    identifiers,
    keep_apart,
    pass_through,
)
from galshape_cnn.infer.catalog.placement import Placement, derived_errors

__all__ = ["ExposuresCatalog"]


@dataclass(frozen=True, eq=False, repr=False)
class ExposuresCatalog(ShapeCatalog):
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
    by_exposure : galshape_cnn.infer.measure.exposure_quality.ExposureRows
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
        """Combine what was measured in several exposures.

        Parameters
        ----------
        exposures : galshape_cnn.observe.exposures.Exposures
            What was measured.
        measurement, by_exposure, measured
            From `galshape_cnn.infer.measure.exposures.measure_exposures`.
        method, meta
            As for `ShapeCatalog.from_measurements`.

        Returns
        -------
        catalog : ExposuresCatalog
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
            pass_through(exposures.table),
            tuple(stamps),
            location,
            exposures.names,
            exposures.units,
            exposures.zeropoints,
            by_exposure,
            exposures.seen,
        )
        if catalog.inputs is not None:
            keep_apart(catalog.inputs, {d.name.lower() for d in catalog.definitions})
        return catalog

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

    def _framed(self, parameters):
        """Fluxes, n, hlr, g1, g2 carried to the reported frame."""
        model, out = self.galaxy_model, np.array(parameters)
        last = slice(model.n - 1, model.shear.stop)  # a flux, n, hlr, g1, g2, as `Placement` takes them
        out[..., last] = self.placement.shapes(out[..., last])
        return out

    @cached_property
    def parameters(self):
        """(N, R) ndarray: fluxes, n, hlr, g1, g2 without units, in the reported frame."""
        return frozen(self._framed(self.measurement.params[:, self.galaxy_model.reported]))

    def _carried(self, covariance):
        """Covariances of fluxes, n, hlr, g1, g2 carried to the reported frame."""
        model = self.galaxy_model
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
    def covariance(self):
        """(N, R, R) ndarray: posterior covariance of fluxes, n, hlr, g1, g2; NaN for ``'ml'``."""
        return frozen(self._carried(self.measurement.covariance))

    @cached_property
    def crb_covariance(self):
        """(N, R, R) ndarray: Cramér-Rao bound of fluxes, n, hlr, g1, g2."""
        return frozen(self._carried(self.measurement.crb))

    @cached_property
    def error_covariance(self):
        """(N, R, R) ndarray: the square of the columns ``_err``; of several exposures the bound."""
        return frozen(self._carried(self.measurement.crb + self.measurement.structure))

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

    def samples(self, i):
        """Posterior samples of one galaxy.

        Parameters
        ----------
        i : int
            Row number.

        Returns
        -------
        samples : (S, R) ndarray
            Equally weighted draws of fluxes, n, hlr, g1, g2, without units, in the frame of the table; NaN
            for the flux of a band without data.

        """
        row = self._sampled_row(i)
        model, out = self.galaxy_model, np.array(self.measurement.samples[row], float)
        shape = slice(model.n - 1, model.shear.stop)
        out[:, model.shape] = self.placement[row : row + 1].shapes(out[None, :, shape])[0][:, 1:]
        return out[np.isfinite(out[:, model.shape]).all(1)]

    def exposure_table(self):
        """What each exposure says of each galaxy, at the parameters that fit all of them.

        Returns
        -------
        table : `~astropy.table.QTable`
            A row for each galaxy and exposure: ``id``, ``exposure``, ``band``, ``seen``, ``x``, ``y``
            (0-based pixels of the exposure), ``flux``, ``sky`` (in its own unit), ``snr``, ``chi2``,
            ``n_pixels``, ``flags``.
        """
        n, count = self.seen.shape
        rows = self.by_exposure
        bands = [self.bands[band] for band in self.galaxy_model.exposures]
        origin = np.full((n, count, 2), np.nan)
        for row, number in zip(
            *np.nonzero((self.location[..., 0] >= 0) & (self.stamps is not None)), strict=True
        ):
            group, member = self.location[row, number]
            origin[row, number] = self.stamps[group].origin[member]
        table = QTable(meta={"bands": list(self.bands)})
        table["id"] = np.repeat(self.ids, count)
        table["exposure"], table["band"] = np.tile(self.exposures, n), np.tile(bands, n)
        table["seen"] = self.seen.ravel()
        place = rows.params[..., SINGLE.centre] + origin
        table["x"], table["y"] = (place[..., k].ravel() * u.pix for k in (0, 1))
        table["flux"], table["sky"] = (
            rows.params[..., SINGLE.flux].ravel(),
            rows.params[..., SINGLE.sky].ravel(),
        )
        for name in ("snr", "chi2", "n_pixels", "flags"):
            table[name] = getattr(rows, name).ravel()
        return table

    @cached_property
    def _columns(self):
        """Values of every column, without units, by name."""
        raw, model = self.measurement, self.galaxy_model
        centre = raw.params[:, model.centre].T
        x, y = self.placement.image_position(*centre)
        columns = {"id": self.ids, "x_centroid": x, "y_centroid": y}
        columns["sky_centroid"] = self.placement.sky_position(*centre)
        names, parameters = model.reported_names, self.parameters
        columns |= dict(zip(names, parameters.T, strict=True))
        every = (("err", self.error_covariance), ("std", self.covariance), ("crb", self.crb_covariance))
        for suffix, covariance in every:
            variance = np.diagonal(covariance, axis1=1, axis2=2)
            sigma = np.sqrt(np.where(variance >= 0, variance, np.nan))
            columns |= {f"{name}_{suffix}": sigma[:, k] for k, name in enumerate(names)}
        columns |= {name: getattr(raw, name) for name in ("snr", "chi2", "ess", "flags")} | {
            "quality": quality_of(raw.flags)
        }
        last = slice(model.n - 1, model.shear.stop)
        five = parameters[:, last]
        g1, g2 = parameters[:, model.shear].T
        columns["q"], columns["pa"] = axis_ratio(g1, g2), position_angle(g1, g2)
        columns["r_eff"] = semi_major_radius(parameters[:, model.hlr], g1, g2)
        columns |= derived_errors(five, self.error_covariance[:, last, last])
        columns["n_exposures"] = self.seen.sum(1)
        if len(self.bands) > 1:
            columns["hlr_gradient"] = self.by_exposure.gradient
            columns["hlr_gradient_err"] = self.by_exposure.gradient_error
        for number in range(len(self.bands)):
            inside = np.array(model.exposures) == number
            snr = np.where(self.seen[:, inside], self.by_exposure.snr[:, inside], 0)
            columns |= band_columns(self.bands, number, self.zeropoints[number], snr, columns)
        return columns

    @cached_property
    def definitions(self):
        """`ColumnDefinition` of each column, in order."""
        return band_definitions(self.bands, self.zeropoints, self._columns)

    def _column(self, definition):
        """One column, with its unit."""
        values = self._columns[definition.name]
        if definition.kind == "sky":
            return values
        unit = u.mag
        if definition.kind != "magnitude":
            flux_unit = self.units[band_of(definition.name, self.bands)]
            unit = column_unit(definition.kind, flux_unit, self.placement.has_sky)
        return frozen(values) if unit is None else frozen(u.Quantity(values, unit))

    def __getattr__(self, name):
        """Columns of bands, such as ``flux_g``."""
        if not name.startswith("_") and "measurement" in self.__dict__:
            for definition in self.definitions:
                if definition.name == name:
                    return self._column(definition)
        raise AttributeError(f"a catalogue of exposures has no column or attribute {name!r}")

    @property
    def column_names(self):
        """Names of the columns of `to_table`, in order."""
        absent = set() if self.method == "posterior" else {"ess"}
        absent |= set() if self.placement.has_sky else {"sky_centroid"}
        names = [d.name for d in self.definitions if d.name not in absent]
        return names if self.inputs is None else names + self.inputs.colnames

    def stamp(self, i, exposure=0):
        """Data of one galaxy in one exposure.

        Parameters
        ----------
        i : int
            Row number.
        exposure : int or str, optional
            Number or name of the exposure.

        Returns
        -------
        stamps : Stamps
            A batch of one.

        Raises
        ------
        InputError
            If the data are gone, or the exposure does not show the galaxy.
        """
        row, number = self._row(i), self._exposure(exposure)
        if self.stamps is None:
            raise InputError("this catalogue was stripped by without_stamps(); its data are gone")
        group, member = self.location[row, number]
        if group < 0:
            raise InputError(f"exposure {self.exposures[number]!r} does not show row {row}")
        return self.stamps[group][member : member + 1]

    def _exposure(self, exposure):
        """Number of an exposure."""
        if exposure in self.exposures:
            return self.exposures.index(exposure)
        if isinstance(exposure, int | np.integer) and 0 <= exposure < len(self.exposures):
            return int(exposure)
        raise InputError(f"exposure={exposure!r}; allowed: {', '.join(self.exposures)}, or their numbers")

    def model(self, i, exposure=0):
        """The galaxy that was measured as one exposure sees it, as an astropy model.

        Parameters
        ----------
        i : int
            Row number.
        exposure : int or str, optional
            Number or name of the exposure.

        Returns
        -------
        model : PSFConvolvedSersic2D
            In the pixels and the unit of the exposure.
        """
        from galshape_cnn.forward.model import PSFConvolvedSersic2D

        row, stamp = self._row(i), self.stamp(i, exposure)
        flux, n, hlr, g1, g2, x, y, sky = self.by_exposure.params[row, self._exposure(exposure)]
        x, y = stamp.origin[0] + (x, y)
        how = {"psf": stamp.psf[0], "psf_oversampling": stamp.psf_oversampling}
        return PSFConvolvedSersic2D(flux, n, hlr, g1, g2, x, y, sky, **how)

    def plot(self, i, axes=None):
        """Draw data, model and residual of one galaxy in each exposure that shows it.

        Parameters
        ----------
        i : int
            Row number.
        axes : (E, 3) array of `matplotlib.axes.Axes`, optional
            Where to draw, a line for each exposure that shows the galaxy; by default a new figure.

        Returns
        -------
        axes : (E, 3) ndarray of `matplotlib.axes.Axes`
        """
        from galshape_cnn.infer.catalog.plotting import checked_axes, draw_stamp

        numbers = np.flatnonzero(self.seen[self._row(i)])
        if not len(numbers):
            raise InputError(f"no exposure shows row {i}")
        figure = {"figsize": (9, 3.0 * len(numbers)), "layout": "constrained", "squeeze": False}
        axes = checked_axes(axes, (len(numbers), 3), figure)
        for line, number in zip(axes, numbers, strict=True):
            draw_stamp(line, self.stamp(i, number), self.model(i, number))
            line[0].set_ylabel(f"{self.exposures[number]}: y (pixels)")
        return axes

    def plot_corner(self, i, axes=None):
        """Not available for several exposures."""
        raise InputError("plot_corner() is for one image; samples(i) holds the draws")

    def plot_bound_ratio(self, axes=None):
        """Not available for several exposures."""
        raise InputError("plot_bound_ratio() is for one image")
