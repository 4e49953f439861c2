# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""One galaxy of a catalogue: its samples, pixels and model."""

import astropy.units as u
import numpy as np
from astropy.table import QTable

from galshape_cnn.errors import InputError
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.catalog.band_columns import by_band
from galshape_cnn.infer.catalog.measurement import sample_quantiles

__all__ = ["CatalogRows", "ExposuresRows"]

#: Columns of `ExposuresRows.exposure_table`.
_OF_EXPOSURES = {
    "id": "identifier of the galaxy",
    "exposure": "name of the exposure",
    "band": "its band",
    "seen": "whether it has data of the galaxy",
    "x": "0-based x of the centre in the exposure",
    "y": "0-based y of the centre in the exposure",
    "flux": "total flux of the Sersic profile, in the unit of the exposure's pixels",
    "sky": "sky level, in the unit of the exposure's pixels",
    "snr": "signal-to-noise ratio in the exposure",
    "chi2": "reduced chi-square of the model in the exposure",
    "n_pixels": "pixels that count",
    "flags": "warning bits of the exposure",
}


class CatalogRows:
    """Methods of `galshape_cnn.ShapeCatalog` that concern one row."""

    def _sampled_row(self, i):
        """Row number of a galaxy whose posterior was sampled."""
        row = self._row(i)
        if self.method != "posterior" or self.measurement.samples is None:
            raise InputError(f"samples exist for method='posterior' only; this catalogue has {self.method!r}")
        return row

    def samples(self, i):
        """Posterior samples of one galaxy.

        Parameters
        ----------
        i : int
            Row number.

        Returns
        -------
        samples : (S, 5) ndarray
            Equally weighted draws of flux, n, hlr, g1, g2, without units, in
            the frame of the table; no rows for a galaxy not measured.

        Raises
        ------
        InputError
            If the catalogue was not made with ``method='posterior'``.
        IndexError
            If there is no such row.
        """
        row = self._sampled_row(i)
        draws = self.measurement.samples[row : row + 1]
        moved = self.placement[row : row + 1].shapes(draws)[0]
        return moved[np.isfinite(moved).all(1)]

    def quantiles(self, i, probabilities=(0.025, 0.16, 0.5, 0.84, 0.975)):
        """Quantiles of the posterior of one galaxy, as `samples` of which only ``ess`` count.

        Parameters
        ----------
        i : int
            Row number.
        probabilities : sequence of float, optional
            In (0, 1); by default the limits of the 95 % and 68 % intervals and the median.

        Returns
        -------
        quantiles : (Q, 5) ndarray
            Of flux, n, hlr, g1, g2; NaN for a galaxy not measured.
        """
        return sample_quantiles(self.samples(i), self.ess[self._row(i)], probabilities)

    def stamp(self, i):
        """Data of one galaxy.

        Parameters
        ----------
        i : int
            Row number.

        Returns
        -------
        stamps : Stamps
            A batch of one.

        Raises
        ------
        InputError
            If the data were dropped by `without_stamps`.
        IndexError
            If there is no such row.
        """
        row = self._row(i)
        if self.stamps is None:
            raise InputError("this catalogue was stripped by without_stamps(); its data are gone")
        group, member = self.location[row]
        return self.stamps[group][member : member + 1]

    def model(self, i):
        """The galaxy that was measured, as an astropy model.

        Parameters
        ----------
        i : int
            Row number.

        Returns
        -------
        model : PSFConvolvedSersic2D
            In the pixel frame of the parent image, lengths in pixels and flux
            in the unit of the image, without units.

        Raises
        ------
        InputError
            If the data were dropped by `without_stamps`.
        IndexError
            If there is no such row.
        """
        row, stamp = self._row(i), self.stamp(i)
        from galshape_cnn.forward.model import PSFConvolvedSersic2D

        flux, n, hlr, g1, g2, x, y, sky = self.measurement.params[row]
        x, y = self.placement.origin[row] + (x, y)
        return PSFConvolvedSersic2D(
            flux, n, hlr, g1, g2, x, y, sky, psf=stamp.psf[0], psf_oversampling=stamp.psf_oversampling
        )

    def _row(self, i):
        """Row number of a possibly negative index."""
        try:
            return range(len(self))[i]
        except IndexError:
            raise IndexError(f"row {i} of a catalogue of {len(self)} galaxies") from None
        except TypeError:
            raise InputError(
                f"row {i!r}; allowed: a whole number, from {-len(self)} to {len(self) - 1}"
            ) from None


class ExposuresRows:
    """Methods of a catalogue of several exposures that concern one row, or one of them."""

    def samples(self, i):
        """Posterior samples of one galaxy, as `CatalogRows.samples`: fluxes, n, hlr, g1, g2.

        What varies with wavelength has a value for each band, in the order of the columns.  NaN for the flux
        of a band without data, and for what varies there.
        """
        row = self._sampled_row(i)
        if self.galaxy_model.coefficients:
            draws = np.array(self.measurement.samples[row], float)
            draws = draws[np.isfinite(draws[:, self.galaxy_model.shape]).all(1)]
            return by_band(draws, self.galaxy_model, self.placement[np.full(len(draws), row)])[0]
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
        for name, description in _OF_EXPOSURES.items():
            table[name].info.description = description
        return table

    def stamp(self, i, exposure=0):
        """Data of one galaxy in the exposure of a number or name, as `CatalogRows.stamp`.

        ``InputError`` also if the exposure does not show the galaxy.
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
        """The galaxy that was measured as one exposure sees it, in its pixels and unit.

        As `CatalogRows.model`, of the exposure of a number or name.
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
