# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Network posterior of a batch, the sky subtracted iteratively."""

import numpy as np

from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.likelihood.fisher import score_and_fisher
from galshape_cnn.observe.detect.scale_space import robust_background

__all__ = ["network_posterior", "sky_free_posterior", "source_noise"]

#: Levels of the sky in units of a pixel's noise: above the first it is subtracted for the networks; above
#: the second their first answer is of no use for that.
_KNOWN_SKY, _HOPELESS_SKY = 0.3, 20.0
_SKY_ROUNDS = 6


def sky_free_posterior(batch, network, fit_sky):
    """The networks' posterior, as `network_posterior`, where the sky may be anything.

    The networks have seen skies of a fraction of the noise.  What is more is found, a part at a time, as the
    lesser of two: the sky that the likelihood wants beside the first answer, which neighbours raise, and the
    median of the outer pixels, which the galaxy's wings raise.  It is subtracted, and comes back as (N,):
    zero where it is small, and where it is known to be.
    """
    stamps = batch.stamps
    used = stamps.ivar > 0
    least = _KNOWN_SKY / np.sqrt(_mean_ivar(stamps))
    outside, level = np.zeros((2, len(stamps)))
    if fit_sky and network.has_update:
        outside = robust_background(stamps.data, used).astype(float)
        level = np.where(np.abs(outside) > _HOPELESS_SKY / _KNOWN_SKY * least, outside, 0.0)
    for left in reversed(range(_SKY_ROUNDS)):
        seen = stamps
        if level.any():
            data = np.where(used, stamps.data - level[:, None, None], 0)
            seen = stamps.with_pixels(data, stamps.ivar, stamps.nuisance)
        posterior, strangeness, wanted = network_posterior(batch.with_stamps(seen), network, fit_sky)
        rest = outside - level
        part = np.sign(rest) * np.minimum(np.abs(rest), np.abs(wanted))
        part = np.where((wanted * rest > 0) & (np.abs(part) > least), part, 0.0)  # none for NaN
        if not left or not part.any():
            break
        level = level + part
    return posterior, strangeness, level


def network_posterior(batch, network, fit_sky):
    """The networks' posterior, and how unlike training the stamps of a batch are.

    The latter (N,) is the largest entry of the network's context, in standard deviations of training. Also
    the sky level (N,) that the likelihood wants beside the first answer; zero without a second look.
    """
    stamps = batch.stamps
    first = network.look(stamps, fit_sky, source_noise(stamps, batch.gain))
    wanted = np.zeros(len(stamps))
    if not network.has_update:
        return first.posterior, first.strangeness, wanted

    def derivatives(u):
        with np.errstate(all="ignore"):  # such rows keep the first answer
            params = SINGLE.with_sky(POSTERIOR.params(u)).astype(np.float32)
            pixels = stamps.data, stamps.ivar, batch.transfer, batch.grid
            _, score, fisher = score_and_fisher(params, *pixels, gain=batch.gain)
            wanted[:] = score[:, SINGLE.sky] / fisher[:, SINGLE.sky, SINGLE.sky]
        return score, fisher

    posterior = network.update(first, derivatives, fit_sky)
    return posterior, first.strangeness, wanted


def _mean_ivar(stamps):
    """Inverse variance of the pixels that count."""
    return stamps.ivar.sum((1, 2), dtype=float) / np.maximum((stamps.ivar > 0).sum((1, 2)), 1)


def source_noise(stamps, gain):
    """Variance a signal of one sigma adds, in units of the background's."""
    return np.zeros(len(stamps)) if gain is None else np.sqrt(_mean_ivar(stamps)) / gain
