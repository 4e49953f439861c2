# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`ShapeCatalog`: one row per galaxy, with units, in the sky frame.

This is the only place where units are put back: everything below works in
pixels and in the unit of the image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table

from galshape_cnn.errors import InputError
from galshape_cnn.flags import FLAG_DEFINITIONS, LEVELS, Flag, quality_of
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.catalog.columns import (
    COLUMN_DEFINITIONS,
    SHAPE_PARAMETERS,
    SHEAR_COLUMNS,
    UNITS,
    complete_meta,
    identifiers,
    pass_through,
    sigma_columns,
)
from galshape_cnn.infer.catalog.display import CatalogDisplay
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.catalog.placement import Placement, derived_columns
from galshape_cnn.infer.catalog.plotting import CatalogPlots
from galshape_cnn.infer.catalog.read_only_meta import plain_meta
from galshape_cnn.infer.catalog.rows import CatalogRows
from galshape_cnn.infer.measure.options import METHODS
from galshape_cnn.infer.shear.frames import reported_columns
from galshape_cnn.infer.shear.grids import grid_jacobian

__all__ = ["ShapeCatalog", "frozen"]

_RAW_COLUMNS = ("snr", "chi2", "ess", "flags", "neighbour_fraction", "rff")


@dataclass(frozen=True, eq=False, repr=False)
class ShapeCatalog(CatalogRows, CatalogDisplay, CatalogPlots):
    """Shapes, sizes and fluxes of N galaxies, with bounds and flags.

    Made by calling a `~galshape_cnn.ShapeEstimator`, or by
    `ShapeCatalog.from_measurements`.  A catalogue cannot be changed.  Every
    column of `to_table` is also an attribute, and ``catalog["flux"]`` gives it
    too; `len`, slices, masks and index arrays work as on a list of rows.

    Attributes
    ----------
    method : str
        ``'network'``, ``'ml'`` or ``'posterior'``.
    meta : dict
        Versions, network hash, method, conventions and the meaning of the flags; read-only, as the rest:
        what is to be added belongs into that of `to_table`.
    unit : `~astropy.units.UnitBase` or None
        Unit of the pixel values and of the flux.
    measurement : Measurement
        The raw numbers, in the pixel frame of each stamp.
    placement : Placement
        Where each stamp lies.
    inputs : `~astropy.table.Table` or None
        Columns that came with the positions.
    stamps : tuple of Stamps or None
        The data; None after `without_stamps`.
    location : (N, 2) ndarray of int
        Which of ``stamps``, and which row of it, holds each galaxy.

    Examples
    --------
    >>> import galsim
    >>> from galshape_cnn import ShapeEstimator
    >>> psf = galsim.Moffat(beta=3, fwhm=3)
    >>> galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=4, flux=5000), psf)
    >>> cat = ShapeEstimator()(galaxy.drawImage(nx=64, ny=64, scale=1).array, psf=psf, error=1.0)
    >>> cat[cat.quality == 0].to_table(["flux", "hlr", "hlr_err"]).colnames
    ['flux', 'hlr', 'hlr_err']
    """

    definitions = COLUMN_DEFINITIONS  # of the columns that there may be, in order

    ids: np.ndarray
    method: str
    meta: dict
    unit: u.UnitBase | None
    measurement: Measurement
    placement: Placement
    inputs: Table | None
    stamps: tuple | None
    location: np.ndarray

    @classmethod
    def from_measurements(cls, observation, measurements, *, method, meta, ids=None):
        """Combine the raw measurements of an observation.

        Parameters
        ----------
        observation : Observation
            What was measured: ``groups`` of (index, Stamps), ``n`` rows,
            ``table``, ``unit`` and ``has_sky``.
        measurements : sequence of Measurement
            One for each group, in the order of the groups.
        method : {'network', 'ml', 'posterior'}
            Which estimator made them.
        meta : mapping
            Provenance, for example versions and the network's hash.
        ids : (N,) array_like, optional
            Identifiers; by default the column ``id`` of the observation's
            table, else 1 to N.

        Returns
        -------
        catalog : ShapeCatalog
            One row per row of the input, in its order.

        Raises
        ------
        InputError
            If ``method`` is unknown or the measurements do not fit the observation.
        """
        groups = [(np.asarray(index, dtype=int).ravel(), stamps) for index, stamps in observation.groups]
        _check(groups, measurements, method, meta)
        n = observation.n
        parts = zip([index for index, _ in groups], measurements, strict=True)
        measurement = Measurement.scatter(n, parts)
        flags, location = measurement.flags.copy(), np.full((n, 2), -1)
        for number, (index, stamps) in enumerate(groups):
            location[index, 0], location[index, 1] = number, np.arange(len(index))
            if stamps.flags is not None:
                flags[index] |= stamps.flags
        return cls(
            identifiers(ids, observation.table, n),
            method,
            complete_meta(meta, method),
            observation.unit,
            replace(measurement, flags=flags),
            Placement.from_groups(n, groups, observation.has_sky),
            pass_through(observation.table),
            tuple(stamps for _, stamps in groups),
            location,
        )

    def __len__(self):
        return len(self.ids)

    def __repr__(self):
        counts = self.quality_counts()
        return (
            f"<ShapeCatalog: {len(self)} galaxies, method={self.method!r}, quality "
            f"{', '.join(f'{level}: {count}' for level, count in counts.items())}>"
        )

    def __getitem__(self, rows):
        """Chosen rows as a catalogue; the column of a name, a table of several names."""
        if isinstance(rows, str):
            return self.to_table([rows])[rows]
        if isinstance(rows, list | tuple) and rows and all(isinstance(one, str) for one in rows):
            return self.to_table(rows)
        return self._chosen([self._row(rows)] if isinstance(rows, int | np.integer) else rows)

    def _chosen(self, rows):
        """Chosen rows as a catalogue."""
        return replace(
            self,
            ids=self.ids[rows],
            measurement=self.measurement[rows],
            placement=self.placement[rows],
            inputs=None if self.inputs is None else self.inputs[rows],
            location=self.location[rows],
        )

    def without_stamps(self):
        """The same catalogue without the data, for a small pickle.

        Returns
        -------
        catalog : ShapeCatalog
            On which `model` and `plot` raise.
        """
        return replace(self, stamps=None)

    def blank(self, ids, table):
        """A catalogue of galaxies that were not measured, with the columns of this one.

        Parameters
        ----------
        ids : (N,) array_like
            Identifiers.
        table : `~astropy.table.Table` or None
            That came with the positions.

        Returns
        -------
        catalog : ShapeCatalog
            All NaN, flagged ``NOT_MEASURED``.
        """
        n = len(ids)
        return replace(
            self,
            ids=ids,
            measurement=Measurement.empty(n, self.measurement.model),
            placement=Placement.from_groups(n, (), self.placement.has_sky),
            inputs=self.passed_through(table),
            stamps=None,
            location=np.full((n, *self.location.shape[1:]), -1),
            **self._blank_parts(n),
        )

    def passed_through(self, table):
        """Columns of a table that came with the positions, as this catalogue names them, or None."""
        return pass_through(table)

    def _blank_parts(self, n):
        """What else a catalogue of n galaxies without data has, by name."""
        return {}

    @property
    def is_usable(self):
        """(N,) ndarray of bool: False where a flag says not to use the numbers at all."""
        return self.quality < len(LEVELS) - 1

    @property
    def is_measured(self):
        """(N,) ndarray of bool: False where no measurement could be made."""
        return self.measurement.flags & (Flag.NOT_MEASURED | Flag.NO_DATA | Flag.OFF_IMAGE) == 0

    def quality_counts(self):
        """How many rows have each quality.

        Returns
        -------
        counts : dict of int to int
            For 0 (use), 1 (use with care) and 2 (do not use).
        """
        return {level: int(np.count_nonzero(self.quality == level)) for level in range(len(LEVELS))}

    def flag_counts(self):
        """How many rows carry each flag.

        Returns
        -------
        counts : dict of str to int
            Only flags that occur, in the order of their bits.
        """
        counts = {d.name: int(np.count_nonzero(self.flags & d.value)) for d in FLAG_DEFINITIONS}
        return {name: count for name, count in counts.items() if count}

    @cached_property
    def parameters(self):
        """(N, 5) ndarray: flux, n, hlr, g1, g2 without units, in the reported frame."""
        parameters = self.placement.shapes(self.measurement.params[:, SINGLE.reported])
        if self.sheared is not None:
            parameters[:, SINGLE.shear] = self.sheared.shear
        return frozen(parameters)

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

    @cached_property
    def covariance(self):
        """(N, 5, 5) ndarray: posterior covariance of flux, n, hlr, g1, g2; NaN for ``'ml'``."""
        return frozen(self._carried(self.measurement.covariance))

    @cached_property
    def crb_covariance(self):
        """(N, 5, 5) ndarray: Cramér-Rao bound of flux, n, hlr, g1, g2; the sandwich in correlated noise."""
        return frozen(self._carried(self.measurement.crb))

    @cached_property
    def error_covariance(self):
        """(N, 5, 5) ndarray: the bound, and what structure adds to it: the square of the columns ``_err``."""
        return frozen(self._carried(self.measurement.crb + self.measurement.structure))

    def _carried(self, covariance):
        """Covariances of the parameters carried to the reported frame."""
        return self.placement.covariances(self.measurement.params, covariance)

    def _places(self, centre):
        """Columns that say which galaxy a row is of, and where it is."""
        x, y = self.placement.image_position(*centre.T)
        sky = self.placement.sky_position(*centre.T)
        return {"id": self.ids, "x_centroid": x, "y_centroid": y, "sky_centroid": sky}

    @cached_property
    def _columns(self):
        """Values of every contract column, without units, by name."""
        raw = self.measurement
        columns = self._places(raw.params[:, SINGLE.centre])
        columns |= dict(zip(SHAPE_PARAMETERS, self.parameters.T, strict=True))
        columns |= sigma_columns("err", self.error_covariance) | sigma_columns("std", self.covariance)
        columns |= sigma_columns("crb", self.crb_covariance)
        columns |= {name: getattr(raw, name) for name in _RAW_COLUMNS}
        columns["quality"] = quality_of(raw.flags)
        return columns | self._shear_columns() | derived_columns(self.parameters, self.error_covariance)

    def _shear_columns(self):
        """Values of the columns `SHEAR_COLUMNS`; NaN without ``shear_response=True``."""
        if self.sheared is None:
            values = np.full((len(self), 4), np.nan), np.full((len(self), 36), np.nan)
        else:
            values = self.response.reshape(-1, 4), self.sheared.rows
        return dict(zip(SHEAR_COLUMNS, [*values[0].T, values[1]], strict=True))

    def _unit_of(self, definition):
        """Unit of a column; None for a plain number."""
        if definition.kind == "size":
            return u.arcsec if self.placement.has_sky else u.pix
        return self.unit if definition.kind == "flux" else UNITS.get(definition.kind)

    def _column(self, definition):
        """One column, with its unit."""
        values = self._columns[definition.name]
        if definition.kind == "sky":
            return values
        unit = self._unit_of(definition)
        return frozen(values) if unit is None else frozen(u.Quantity(values, unit))

    @property
    def column_names(self):
        """Names of the columns of `to_table`, in order."""
        absent = set() if self.method == "posterior" else {"ess"}
        absent |= set() if self.placement.has_sky else {"sky_centroid"}
        names = [d.name for d in self.definitions if d.name not in absent | self._absent()]
        return names if self.inputs is None else names + self.inputs.colnames

    def _absent(self):
        """Names of columns that depend on the options of the measurement, and are not there."""
        absent = {"neighbour_fraction"} if self.meta.get("neighbours", "ignore") == "ignore" else set()
        return absent | (set() if self.meta.get("options", {}).get("shear_response") else set(SHEAR_COLUMNS))

    def to_table(self, columns=None):
        """The catalogue as a table with units.

        Parameters
        ----------
        columns : sequence of str, optional
            Names of the columns wanted; by default all.

        Returns
        -------
        table : `~astropy.table.QTable`
            A new table; columns that came with the positions follow ``flags``.

        Raises
        ------
        InputError
            If a column does not exist.
        """
        wanted = self.column_names if columns is None else [columns] if isinstance(columns, str) else columns
        unknown = [name for name in wanted if name not in self.column_names]
        if unknown:
            raise InputError(f"columns: {unknown} not in this catalogue; allowed: {self.column_names}")
        definitions = {d.name: d for d in self.definitions}
        table = QTable(meta=plain_meta(self.meta))
        for name in wanted:
            table[name] = self._column(definitions[name]) if name in definitions else self.inputs[name]
            if name in definitions:
                table[name].info.description = definitions[name].description
                table[name].info.meta = {"ucd": definitions[name].ucd}
        return table


for _one in COLUMN_DEFINITIONS:  # a read-only attribute for each column
    _doc = f"{_one.description[0].upper()}{_one.description[1:]}."
    setattr(ShapeCatalog, _one.name, property(lambda self, one=_one: self._column(one), doc=_doc))
del _one, _doc


def frozen(array):
    """View of an array or Quantity that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view


def _check(groups, measurements, method, meta):
    """Refuse measurements that do not belong to the groups."""
    if method not in METHODS:
        raise InputError(f"method={method!r}; allowed: {', '.join(METHODS)}")
    if not isinstance(meta, Mapping):
        raise InputError(f"meta is a {type(meta).__name__}; allowed: a mapping")
    if len(measurements) != len(groups):
        raise InputError(f"{len(measurements)} measurements came for {len(groups)} groups of stamps")
