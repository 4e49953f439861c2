# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Observing conditions of a training (PSF, noise, masks), and checks of stamps against them.

A network is told of the PSF, the sky, the gain and the masks by numbers of its context.  From one that was
the same in all of its training it has learned nothing, and its weights there are those it began with:
whatever else is fed to it, the answer is arbitrary.  The standardisation, which is part of the weights, says
which numbers these are.  They are kept at their value of the training; where the user's differs, the default
follows the training, a request that the network cannot serve is refused, and rows are flagged.
"""

from typing import NamedTuple

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.infer.network.features import CONSTANT_VARIANCE, CONTEXT_SIZE, PSF_KX, PSF_KY
from galshape_cnn.quantities import truth_value

__all__ = ["Conditions", "HeldContext", "conditions_of", "noise_spread", "settled_sky"]

_SKY, _GAIN, _VALID = CONTEXT_SIZE - 3, CONTEXT_SIZE - 2, CONTEXT_SIZE - 1
_PSF = len(PSF_KY) * len(PSF_KX)
#: The PSF's transfer function at zero, real and imaginary part: 1 and 0 for every PSF.
_ZERO = int(np.argmin(np.abs(PSF_KY))) * len(PSF_KX) + int(np.argmin(np.abs(PSF_KX)))
#: Differences that are none: of a PSF's transfer function, and of the other numbers.
_SAME_PSF, _SAME = 0.03, 1e-4


class Conditions(NamedTuple):
    """What a network knows.

    Attributes
    ----------
    fit_sky : bool or None
        True where every sky of the training was unknown, False where all were known to be zero, None
        where there were both.
    gain : bool
        Whether photon noise outside the noise map was part of it.
    masks : bool
        Whether masked pixels were.
    """

    fit_sky: bool | None
    gain: bool
    masks: bool


def conditions_of(bundle):
    """Conditions of a bundle's training."""
    mean, variance = (np.asarray(array, float) for array in bundle.weights[:2])
    varied = variance > CONSTANT_VARIANCE
    sky = None if varied[_SKY] else bool(mean[_SKY] > 0.5)
    return Conditions(sky, bool(varied[_GAIN] or mean[_GAIN] > _SAME), bool(varied[_VALID]))


def settled_sky(bundle, fit_sky, method, gain=None):
    """Whether the sky is fitted: as asked for, else as in the training; refused where the network cannot.

    The likelihood knows any sky and any gain; the network only starts it. ``InputError`` if ``method`` is
    ``'network'`` and the training had the other sky only, or no gain.
    """
    known = conditions_of(bundle)
    if fit_sky is None:
        fit_sky = known.fit_sky is not False
    fit_sky = truth_value(fit_sky, "fit_sky")
    by_network = isinstance(method, str) and method == "network"
    if by_network and known.fit_sky is not None and fit_sky != known.fit_sky:
        trained = "unknown" if known.fit_sky else "known to be zero"
        raise InputError(
            f"fit_sky={fit_sky}: this network was trained with a sky {trained} only "
            f"(nuisance.sky_fraction); allowed: fit_sky={known.fit_sky}, or method='ml' or 'posterior'"
        )
    if by_network and gain is not None and not known.gain:
        raise InputError(
            "gain is given, but this network was trained without photon noise that is not in the noise map "
            "(noise.poisson_fraction); allowed: no gain, or method='ml' or 'posterior'"
        )
    return bool(fit_sky)


class HeldContext:
    """Keeps what did not vary in training at its value there.

    Parameters
    ----------
    mean, variance : (CONTEXT_SIZE,) array_like
        Of the context in training.
    """

    def __init__(self, mean, variance):
        held = np.asarray(variance) <= CONSTANT_VARIANCE
        held[[_ZERO, _ZERO + _PSF]] = False
        self._mean, self._held, self._is_held = np.asarray(mean, np.float32), np.flatnonzero(held), held
        allowed = np.full(CONTEXT_SIZE, _SAME)
        allowed[: 2 * _PSF], allowed[_SKY] = _SAME_PSF, np.inf  # the sky is settled before
        self._allowed = allowed[self._held]

    def __call__(self, context):
        """The context (N, CONTEXT_SIZE) as the network is to see it; the same object where everything varied.

        Also (N,) bool: rows under conditions that the network has never seen.
        """
        if not len(self._held):
            return context, np.zeros(len(context), bool)
        context = np.asarray(context)
        with np.errstate(invalid="ignore"):
            apart = np.abs(context[:, self._held] - self._mean[self._held]) > self._allowed
        return self.values(context, np), apart.any(1)

    def values(self, context, array_module=np):
        """The context alone; with `jax.numpy` as the module it can be differentiated."""
        if not len(self._held):
            return context
        return array_module.where(self._is_held, self._mean, context)

    def moved(self, context):
        """Contexts (N, slots, CONTEXT_SIZE), of which all but the first slot are derivatives."""
        if not len(self._held):
            return context
        context = np.where(self._is_held, np.float32(0), context)
        context[:, 0, self._held] = self._mean[self._held]
        return context


def noise_spread(ivar):
    """How uneven the noise of each stamp is: standard deviation of ln(sigma) over the pixels that count."""
    ivar = np.asarray(ivar, float)
    good = ivar > 0
    level = -0.5 * np.log(np.where(good, ivar, 1.0))
    return level.std((1, 2), where=good | ~good.any((1, 2), keepdims=True))
