# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What a catalogue knows of one galaxy: its samples, pixels and model."""

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.infer.catalog.measurement import sample_quantiles

__all__ = ["CatalogRows"]


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
