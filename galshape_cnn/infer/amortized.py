# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The network at work: stamps of any size -> posteriors.

Stamps larger than the network's 64 pixels are cropped around the galaxy.  Where the answer
is a half-light radius above `LARGE` pixels and the stamp is larger than the crop, the
stamp is block-averaged by 2, 4, ... until the galaxy is smaller than that or the stamp
fits: a rule that depends on the stamp alone.
"""

import threading
from functools import lru_cache, partial

import jax
import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from galshape_cnn.forward.transfer import transfer_at
from galshape_cnn.infer.features import PSF_KX, PSF_KY, SIDE, block_average, crop_center, network_inputs
from galshape_cnn.infer.head import MixturePosterior, to_parameters
from galshape_cnn.infer.network import build_network, import_keras, posterior_from_outputs

__all__ = ["AmortizedPosterior", "LARGE", "posterior_moments"]

#: Half-light radius in network pixels above which stamps are block-averaged.
LARGE = 8.0
_DRAWS = 256


class AmortizedPosterior:
    """A live network: a function from stamps to `MixturePosterior`.

    Parameters
    ----------
    bundle : Bundle
        The trained network.
    """

    def __init__(self, bundle):
        self._lock, self._traced = threading.Lock(), set()
        self.components = int(bundle.network["components"])
        self._model = build_network(bundle.network, initialize=False)
        self._model.set_weights([np.asarray(w, np.float32) for w in bundle.weights])
        self._is_pure = import_keras().backend.backend() == "jax"
        if self._is_pure:
            trainable = [v.value for v in self._model.trainable_variables]
            fixed = [v.value for v in self._model.non_trainable_variables]
            self._forward = jax.jit(lambda x: self._model.stateless_call(trainable, fixed, x)[0])
        else:
            self._forward = self._model.predict_on_batch
        to_numpy = import_keras().ops.convert_to_numpy
        self._standard = [to_numpy(w.value) for w in self._model.get_layer("standardise").weights]

    def _outputs(self, pixels, context):
        # Keras keeps state while it traces.  What it has traced is a pure function on JAX, and runs
        # in several threads at once.
        shape = pixels.shape
        if self._is_pure and shape in self._traced:
            return np.asarray(self._forward([pixels, context]))
        with self._lock:
            outputs = np.asarray(self._forward([pixels, context]))
            self._traced.add(shape)
            return outputs

    def __call__(self, stamps, fit_sky, poisson):
        """Posteriors of a batch; see `infer`."""
        return self.infer(stamps, fit_sky, poisson)[0]

    def infer(self, stamps, fit_sky, poisson):
        """Posteriors of a batch, and how unlike training its stamps are.

        Parameters
        ----------
        stamps : Stamps
            Batch of N.
        fit_sky : bool
            False when the sky level is known to be zero.
        poisson : (N,) ndarray
            See `galshape_cnn.infer.features.network_inputs`.

        Returns
        -------
        posterior : MixturePosterior
            In stamp pixels and units of the data.
        strangeness : (N,) ndarray
            Largest entry of the network's context, in standard deviations of training.
        """
        posterior, strangeness = self._at_scale(stamps, 1, fit_sky, poisson)
        factor, size = 1, stamps.data.shape[-1]
        while size // factor > SIDE:
            radius = np.exp((posterior.weights * posterior.means[..., 2]).sum(1))
            large = np.flatnonzero(radius / factor > LARGE)
            factor *= 2
            if not len(large) or size % factor:
                break
            coarse, strange = self._at_scale(stamps, factor, fit_sky, poisson)
            _replace_rows(posterior, coarse, large)
            strangeness[large] = strange[large]
        return posterior, strangeness

    def _inputs(self, stamps, factor, fit_sky, poisson):
        """Pixels, context, unit of flux and corner of stamps block-averaged by a factor."""
        data, ivar, center = stamps.data, stamps.ivar, stamps.center
        if factor > 1:
            data, ivar = block_average(data, ivar, factor)
            center = (center - (factor - 1) / 2) / factor
        psf = stamps.psf.astype(np.float32)
        transfer = np.asarray(_network_view(psf, stamps.psf_oversampling, factor))
        transfer = np.broadcast_to(transfer, (len(data),) + transfer.shape[1:])
        data, corner = crop_center(data, center)
        ivar, _ = crop_center(ivar, center)
        sky = np.full(len(data), float(fit_sky), np.float32)
        inputs = network_inputs(
            data.astype(np.float32), ivar.astype(np.float32), transfer,
            sky, np.asarray(poisson, np.float32),
        )  # fmt: skip
        return *inputs, corner

    def _at_scale(self, stamps, factor, fit_sky, poisson):
        """Posteriors and strangeness of stamps block-averaged by a factor."""
        pixels, context, amplitude, corner = self._inputs(stamps, factor, fit_sky, poisson)
        raw = self._outputs(pixels, context)
        posterior = posterior_from_outputs(raw, amplitude, self.components)
        mean, variance = self._standard
        strangeness = np.abs((np.asarray(context) - mean) / np.sqrt(variance)).max(1)
        return _to_native(posterior, corner + (SIDE - 1) / 2, factor), strangeness


@partial(jax.jit, static_argnames=("oversampling", "factor"))
def _network_view(psf, oversampling, factor):
    """Transfer functions at the network's wave numbers, per block-averaged pixel."""
    ky, kx = PSF_KY / factor, PSF_KX / factor
    blur = _block_transfer(ky, factor)[:, None] * _block_transfer(kx, factor)
    return transfer_at(psf, ky, kx, oversampling) * blur


def _block_transfer(k, factor):
    """Transfer function of a block average, at native wave numbers."""
    half = np.where(np.abs(k) < 1e-9, 1e-9, k) / 2
    return np.sin(half * factor) / (factor * np.sin(half))


def _to_native(posterior, center, factor):
    """Undo cropping and block-averaging."""
    means, chols = posterior.means, posterior.chols
    means[..., 5:] += center[:, None]
    if factor > 1:
        means[..., 5:] = means[..., 5:] * factor + (factor - 1) / 2
        means[..., 2] += np.log(factor)
        chols[..., 5:, :] *= factor
    return posterior


def _replace_rows(posterior, other, rows):
    for name in ("weights", "means", "chols"):
        getattr(posterior, name)[rows] = getattr(other, name)[rows]


@lru_cache(maxsize=1)
def _deviates():
    """Quasi-random uniform and normal deviates: the same for every galaxy."""
    points = qmc.Sobol(8, seed=20261122).random(_DRAWS)
    points = np.clip(points, 1e-6, 1 - 1e-6)
    return points[None, :, 0], ndtri(points[None, :, 1:])


def posterior_moments(posterior: MixturePosterior):
    """Mean and covariance in the parameters.

    Parameters
    ----------
    posterior : MixturePosterior
        Of N galaxies.

    Returns
    -------
    mean : (N, 7) ndarray
        flux, n, hlr, g1, g2, x, y.
    covariance : (N, 7, 7) ndarray
        Their covariance.
    """
    uniform, normal = _deviates()
    n = len(posterior)
    draws = posterior.transform(np.broadcast_to(uniform, (n, _DRAWS)), normal)
    # Far outside its training the network may answer with infinities; those rows are flagged.
    with np.errstate(over="ignore", invalid="ignore"):
        draws = to_parameters(draws)
        mean = draws.mean(1)
        delta = draws - mean[:, None]
        return mean, np.swapaxes(delta, 1, 2) @ delta / (_DRAWS - 1)
