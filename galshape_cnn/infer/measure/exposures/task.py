# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What estimates by sampling galaxies in several images need to know."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.likelihood.sandwich import information, tempering
from galshape_cnn.infer.measure.options import prior_of_training

__all__ = ["SamplingTask"]


@dataclass(frozen=True)
class SamplingTask:
    """Galaxies in several images whose posterior is to be sampled.

    Attributes
    ----------
    exposures : Exposures
    likelihood : JointLikelihood
        Of N galaxies.
    parts : tuple of (ExposurePart, places)
        Whose stamps the parts of the likelihood are.
    start, again
        As for `galshape_cnn.infer.fit.exposures_fit.fit_exposures`.
    side : int
        Of the reference stamps.
    network : AmortizedPosterior
        The prior of its training holds without another.
    options : Options
        ``prior`` (lengths in pixels of the reference exposure) and ``seed``.
    """

    exposures: object
    likelihood: object
    parts: tuple
    start: np.ndarray
    again: object
    side: int
    network: object
    options: object

    def __getitem__(self, rows):
        """The task of some galaxies, (M,) ascending int ndarray."""
        parts = []
        for (part, there), stamps in zip(self.parts, self.likelihood.parts, strict=True):
            inside = np.flatnonzero(np.isin(stamps.rows, rows))
            if len(inside):
                parts.append((part, there[inside]))
        own = {"likelihood": self.likelihood[rows], "parts": tuple(parts), "start": self.start[rows]}
        return replace(self, again=lambda some: self.again(rows[some]), **own)

    @cached_property
    def prior(self):
        """`Prior` that the likelihood is multiplied with."""
        asked = self.options.prior
        return prior_of_training(self.network, self.side) if asked is None else asked

    @cached_property
    def powers(self):
        """For each part, the power (M,) of its likelihood that makes up for correlated noise, or None."""
        out = []
        for stamps, matrices in zip(self.likelihood.parts, self.information(self.start), strict=True):
            correlated = self.exposures.correlations[stamps.view.exposure] is not None
            out.append(tempering(*matrices, self.options.fit_sky) if correlated else None)
        return out

    def information(self, params):
        """Fisher matrix and covariance of the score of each part with correlated noise; None for others."""
        for (part, there), stamps in zip(self.parts, self.likelihood.parts, strict=True):
            correlation = self.exposures.correlations[part.exposure]
            if correlation is None:
                yield None
                continue
            own = stamps.view.params(params[stamps.rows]) * SINGLE.units(stamps.likelihood.scale)
            yield information(part.batch[there], own, correlation)
