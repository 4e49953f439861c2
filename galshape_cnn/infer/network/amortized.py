# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`AmortizedPosterior`: network posteriors of stamps of any size, and of batches, their sky subtracted.

Stamps larger than the network's 64 pixels are cropped around the galaxy.  Where the answer
is a half-light radius above `LARGE` pixels and the stamp is larger than the crop, the
stamp is block-averaged by 2, 4, ... until the galaxy is smaller than that or the stamp
fits: a rule that depends on the stamp alone.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

import numpy as np
from scipy.special import ndtri

from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.galaxy_model import SINGLE_WITHOUT_SKY as MODEL
from galshape_cnn.forward.kernel.library import batches
from galshape_cnn.infer.likelihood.fisher import score_and_fisher
from galshape_cnn.infer.network.architecture import (
    build_network,
    build_update,
    mixture_from_outputs,
    posterior_from_outputs,
    split_weights,
)
from galshape_cnn.infer.network.conditions import HeldContext, conditions_of, noise_spread
from galshape_cnn.infer.network.features import (
    CONSTANT_VARIANCE,
    PSF_KX,
    PSF_KY,
    SIDE,
    block_average,
    crop_center,
    mirrored_edges,
    network_inputs,
    network_view,
)
from galshape_cnn.infer.network.likelihood_update import expansion_point, likelihood_features
from galshape_cnn.infer.network.live_model import LiveModel, chain_of, network_of
from galshape_cnn.infer.network.sobol_points import sobol_points
from galshape_cnn.infer.posterior.mixture import MixturePosterior
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.observe.detect.scale_space import robust_background

__all__ = [
    "LARGE",
    "AmortizedPosterior",
    "FirstLook",
    "network_posterior",
    "posterior_moments",
    "quasi_random_draws",
    "sky_free_posterior",
    "source_noise",
]

#: Half-light radius in network pixels above which stamps are block-averaged.
LARGE = 8.0
_DRAWS = 256
_TOGETHER = 64  # galaxies whose draws are made together
_ZERO_KY, _ZERO_KX = int(np.argmin(np.abs(PSF_KY))), int(np.argmin(np.abs(PSF_KX)))
_FARTHEST = 50.0  # logarithm of the largest flux and radius that is stated
_SMALLEST_SUM = 1e-3  # of a PSF; absurd ones are flagged elsewhere
#: Levels of the sky in units of a pixel's noise: above the first it is subtracted for the networks; above
#: the second their first answer is of no use for that.
_KNOWN_SKY, _HOPELESS_SKY = 0.3, 20.0
_SKY_ROUNDS = 6


@dataclass(frozen=True)
class FirstLook:
    """What the first network says of a batch.

    Attributes
    ----------
    posterior : MixturePosterior
        In stamp pixels and units of the data.
    strangeness : (N,) ndarray
        Largest entry of the network's context that varied in training, in its standard deviations; infinite
        under conditions that it has never seen.
    outputs : (N, components * 36) ndarray
        Raw outputs.
    context : (N, CONTEXT_SIZE) ndarray
        Standardised context.
    """

    posterior: MixturePosterior
    strangeness: np.ndarray
    outputs: np.ndarray
    context: np.ndarray

    def replaced(self, rows, others):
        """A copy with others, the first of which are for some rows, in the places of these."""
        fields = {"posterior": self.posterior.replaced(rows, others.posterior[: len(rows)])}
        for name in ("strangeness", "outputs", "context"):
            fields[name] = getattr(self, name).copy()
            fields[name][rows] = getattr(others, name)[: len(rows)]
        return FirstLook(**fields)


class AmortizedPosterior:
    """Live networks: a function from stamps to `MixturePosterior`.

    Parameters
    ----------
    bundle : Bundle
        The trained networks.

    Attributes
    ----------
    edge : int
        Missing rows or columns at a side of a stamp up to which those beside them are shown in their place.
    held : HeldContext
        What of the context did not vary in training.
    has_update : bool
        Whether the bundle holds the second network, of `galshape_cnn.infer.network.likelihood_update`.
    domain : dict
        Ranges of the training.
    keeps_limits : bool
        Whether the posterior is to be kept within the limits of the prior.
    trust : dict
        Region in which the networks were found trustworthy, see `galshape_cnn.infer.network.trust`.
    """

    def __init__(self, bundle):
        self.domain, self.trust, self._prior = bundle.domain, bundle.trust, bundle.prior
        self.keeps_limits = bool(bundle.domain.get("prior_limits", False))
        self.components = int(bundle.network["components"])
        update = bundle.network.get("update")
        self.has_update = update is not None
        first, second = split_weights(bundle.weights, update)
        build = partial(build_network, bundle.network, initialize=False)
        self._forward = LiveModel(f"network {bundle.sha256}", build, first, network_of(bundle.network, first))
        mean, variance = first[:2]
        self._mean, self._deviation = mean, np.sqrt(variance)
        self._varied, self.held = variance > CONSTANT_VARIANCE, HeldContext(mean, variance)
        self._offset = bundle.domain.get("offset", np.inf)
        self._noise_spread = bundle.domain.get("noise_spread", np.inf)
        # a stamp that was cut to the network's size lacks an edge once it is centred; a network that knows no
        # masks is shown a full one
        known = np.isfinite(self._offset) and not conditions_of(bundle).masks
        self.edge = int(np.ceil(self._offset)) if known else 0
        if self.has_update:
            build = partial(build_update, update, len(second[0]))
            self._update = LiveModel(f"update {bundle.sha256}", build, second, chain_of(second))
            self._update_components = int(update["components"])

    @cached_property
    def prior(self):
        """`~galshape_cnn.infer.posterior.prior.Prior` of the training."""
        return Prior(self._prior)

    def look(self, stamps, fit_sky, poisson):
        """The first network's answer for a batch of N.

        ``poisson`` as for `galshape_cnn.infer.network.features.network_inputs`.
        """
        first = self._at_scale(stamps, 1, fit_sky, poisson)
        factor, size = 1, stamps.data.shape[-1]
        while size // factor > SIDE:
            radius = np.exp((first.posterior.weights * first.posterior.means[..., MODEL.hlr]).sum(1))
            large = np.flatnonzero(radius / factor > LARGE)
            factor *= 2
            if not len(large) or size % factor:
                break
            ((_, filled),) = batches(large, len(stamps))  # JAX has programs, and last bits, for each size
            first = first.replaced(large, self._at_scale(stamps[filled], factor, fit_sky, poisson[filled]))
        return first

    @property
    def first_name(self):
        """Name of the first network that tells it apart from all others."""
        return self._forward.name

    def first_function(self):
        """The first network as a pure function that JAX can differentiate.

        Of ``[pixels, context]``, to outputs (N, components * 36); ``InputError`` if Keras has another
        backend.
        """
        return self._forward.pure()

    def first_kernel(self, *arrays):
        """The first network in the compiled kernel, for such arrays; None where JAX has to compute it."""
        return self._forward.kernel(*arrays)

    def update(self, first, derivatives, fit_sky):
        """The posterior after the second look, or the first answer where the likelihood cannot be evaluated.

        ``derivatives`` takes coordinates (N, 7) and returns score (N, 8) and Fisher matrix (N, 8, 8) there.
        """
        mean, chol = expansion_point(first.posterior)
        frame, features, usable = likelihood_features(
            first.outputs, first.context, mean, chol, *derivatives(mean), fit_sky
        )
        raw = self._update(features)
        updated = frame.outward(*mixture_from_outputs(raw, self._update_components))
        return updated if usable.all() else updated.replaced(~usable, first.posterior[~usable])

    def _inputs(self, stamps, factor, fit_sky, poisson):
        """Pixels, context, unit of flux and corner of stamps block-averaged by a factor."""
        data, ivar, center = stamps.data, stamps.ivar, stamps.center
        if factor > 1:
            data, ivar = block_average(data, ivar, factor)
            center = (center - (factor - 1) / 2) / factor
        psf = np.asarray(stamps.psf, np.float32)
        transfer = network_view(psf, stamps.psf_oversampling, factor)
        # The network knows PSFs of unit sum.  An array that cuts the wings has less, and the galaxy
        # as much more flux.
        total = np.maximum(transfer[:, _ZERO_KY, _ZERO_KX].real, _SMALLEST_SUM)
        transfer = np.broadcast_to(transfer / total[:, None, None], (len(data),) + transfer.shape[1:])
        data, corner = crop_center(data, center)
        ivar, _ = crop_center(ivar, center)
        data, ivar = mirrored_edges(data, ivar, self.edge)
        sky = np.full(len(data), float(fit_sky), np.float32)
        inputs = network_inputs(
            np.asarray(data, np.float32), np.asarray(ivar, np.float32), transfer,
            sky, np.asarray(poisson, np.float32),
        )  # fmt: skip
        pixels, context, amplitude = inputs
        uneven = noise_spread(ivar) > self._noise_spread if np.isfinite(self._noise_spread) else False
        return pixels, context, np.asarray(amplitude, float) / total, corner, uneven

    def _at_scale(self, stamps, factor, fit_sky, poisson):
        """First look at stamps block-averaged by a factor."""
        pixels, context, amplitude, corner, uneven = self._inputs(stamps, factor, fit_sky, poisson)
        first = self.look_at_inputs(pixels, context, amplitude)
        strange = uneven | _far(first.posterior, self._offset)
        first = replace(first, strangeness=np.where(strange, np.inf, first.strangeness))
        posterior = _to_native(first.posterior, corner + (SIDE - 1) / 2, factor)
        return replace(first, posterior=posterior)

    def look_at_inputs(self, pixels, context, amplitude):
        """First look at inputs of `galshape_cnn.infer.network.features.network_inputs`.

        x, y are counted from the stamp's centre.
        """
        context, unknown = self.held(context)
        raw = self._forward([pixels, context])
        standard = (np.asarray(context) - self._mean) / self._deviation
        posterior = posterior_from_outputs(raw, amplitude, self.components)
        strangeness = np.where(unknown, np.inf, np.abs(standard[:, self._varied]).max(1))
        return FirstLook(posterior, strangeness, raw, standard)


def sky_free_posterior(batch, network, fit_sky):
    """The networks' posterior, as `network_posterior`, where the sky may be anything.

    The networks have seen skies of a fraction of the noise.  What is more is found, a part at a time, as the
    lesser of two: the sky that the likelihood wants beside the first answer, which neighbours raise, and the
    median of the outer pixels, which the galaxy's wings raise.  It is subtracted, and comes back as (N,):
    zero where it is small, and where it is known to be.
    """
    stamps = batch.stamps
    least = _KNOWN_SKY / np.sqrt(_mean_ivar(stamps))
    outside, level = np.zeros((2, len(stamps)))
    if fit_sky and network.has_update:
        outside = robust_background(stamps.data, stamps.ivar > 0).astype(float)
        level = np.where(np.abs(outside) > _HOPELESS_SKY / _KNOWN_SKY * least, outside, 0.0)
    posterior, strangeness, wanted = network_posterior(_above(batch, level), network, fit_sky)
    rows = np.arange(len(stamps))
    for _ in range(_SKY_ROUNDS - 1):
        rest = (outside - level)[rows]
        part = np.sign(rest) * np.minimum(np.abs(rest), np.abs(wanted))
        more = (wanted * rest > 0) & (np.abs(part) > least[rows])  # none for NaN
        if not more.any():
            break
        rows = rows[more]
        level[rows] += part[more]
        ((_, filled),) = batches(rows, len(stamps))
        again = network_posterior(_above(batch[filled], level[filled]), network, fit_sky)
        posterior = posterior.replaced(rows, again[0][: len(rows)])
        strangeness[rows], wanted = (one[: len(rows)] for one in again[1:])
    return posterior, strangeness, level


def _above(batch, level):
    """A batch less a sky level of each stamp (N,)."""
    if not level.any():
        return batch
    stamps = batch.stamps
    data = np.where(stamps.ivar > 0, stamps.data - level[:, None, None], 0)
    return batch.with_stamps(stamps.with_pixels(data, stamps.ivar, stamps.nuisance))


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


def _far(posterior, offset):
    """Rows whose galaxy lies farther from the middle of the stamp than those of the training."""
    if not np.isfinite(offset):
        return False
    center = (posterior.weights[..., None] * posterior.means[..., MODEL.centre]).sum(1)
    return np.abs(center).max(1) > offset


def _to_native(posterior, center, factor):
    """Undo cropping and block-averaging."""
    means, chols = posterior.means, posterior.chols
    centre = MODEL.centre
    means[..., centre] += center[:, None]
    if factor > 1:
        means[..., centre] = means[..., centre] * factor + (factor - 1) / 2
        means[..., MODEL.hlr] += np.log(factor)
        chols[..., centre, :] *= factor
    return posterior


@lru_cache(maxsize=2)
def _deviates(count):
    """Quasi-random uniform and normal deviates: the same for every galaxy."""
    points = np.clip(sobol_points(count), 1e-6, 1 - 1e-6)
    return points[None, :, 0], ndtri(points[None, :, 1:])


def quasi_random_draws(posterior, count):
    """Evenly spread draws of flux, n, hlr, g1, g2, x, y, (N, count, 7); ``count`` is a power of two.

    Infinite where the network's answer far outside its training is.
    """
    uniform, normal = _deviates(count)
    with np.errstate(over="ignore", invalid="ignore"):
        uniform = np.broadcast_to(uniform, (len(posterior), count))
        return POSTERIOR.params(posterior.transform(uniform, normal))


def posterior_moments(posterior: MixturePosterior):
    """Mean (N, 7) of flux, n, hlr, g1, g2, x, y, and covariance (N, 7, 7), of mixture posteriors."""
    starts = range(0, max(len(posterior), 1), _TOGETHER)
    parts = [_some_moments(posterior[k : k + _TOGETHER]) for k in starts]
    return tuple(np.concatenate(one) for one in zip(*parts, strict=True))


def _some_moments(posterior):
    """The same, of few: their draws stay in cache."""
    draws = quasi_random_draws(posterior, _DRAWS)
    # Rows with infinities are flagged.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = draws.mean(1)
        delta = draws - mean[:, None]
        covariance = np.swapaxes(delta, 1, 2) @ delta / (_DRAWS - 1)
    return _without_infinities(posterior, mean), covariance


def _without_infinities(posterior, mean):
    """Moments whose draws are beyond any number replaced by the middle of the mixture, a finite one."""
    lost = np.flatnonzero(np.isinf(mean).any(1))
    if len(lost):
        middle = (posterior.weights[lost, :, None] * posterior.means[lost]).sum(1)
        mean = mean.copy()
        mean[lost] = POSTERIOR.params(np.clip(middle, -_FARTHEST, _FARTHEST))
    return mean
