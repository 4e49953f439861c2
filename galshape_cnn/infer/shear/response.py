# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Shear response of the network's estimate.

For a measurement :math:`g(I)` that is smooth in the pixels, the derivative by the shear of a galaxy without
noise is :math:`J\,D_a I`, with J the derivative of g by the pixels and :math:`D_a` of
`galshape_cnn.infer.shear.generators`.  With noise n that would shear the noise too.  Let v be noise of the
same covariance C, drawn by us.  Then :math:`n + \epsilon v` and :math:`n - v/\epsilon` are uncorrelated,
:math:`C - C = 0`, so if the noise is Gaussian they are independent, and

.. math:: R_a = \left\langle J(I + \epsilon v)\; D_a\!\left(I - \frac{v}{\epsilon}\right)\right\rangle

is the derivative of :math:`\langle g(I + \epsilon v)\rangle` by the shear of the galaxy alone, whatever g is,
at any :math:`\epsilon`.  With :math:`\epsilon = 1` this is the correction of Li et al. (2024,
arXiv:2408.06337), which doubles the variance.  Here :math:`\epsilon = 1/2`, and the measurement is the mean
of two copies, :math:`g(I \pm \epsilon v)`: to first order the noise that was added cancels.  For
:math:`\epsilon \to 0` this becomes Stein's lemma, :math:`R_a = J D_a I - v^T (\nabla\nabla g)\, D_a v`.

The second copy is measured after a quarter turn, which changes the sign of g: what is constant in the answer
of a network cancels.  Where pixels are sheared on the sky, stamps are carried to a grid that is not
(`galshape_cnn.infer.shear.grids`).  The dependence on an asymmetric PSF is differentiated in the same way,
and subtracted to first order.
"""

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.shear.copies import (
    COPIES,
    MEASURED,
    MIDDLE,
    SLOTS,
    copies_and_tangents,
    copy_batches,
    snr_and_gradient,
    with_snr,
    within_reach,
)
from galshape_cnn.infer.shear.grids import on_grids
from galshape_cnn.infer.shear.network_means import network_means

__all__ = ["shear_response"]

_TURNED = np.array([1, 1, 1, -1, -1, 1, 1], np.float32)


def shear_response(batch, network, sky, fit_sky=True, seed=0, correlation=None, noise=None):
    """Measure two copies of each stamp, and their derivatives by shear, by the first network.

    Parameters
    ----------
    batch : RenderedBatch
        N stamps.
    network : AmortizedPosterior
        The live network, on the JAX backend.
    sky : (N,) ndarray
        Measured level of the sky; subtracted where it is larger than a third of the noise.
    fit_sky : bool, optional
        False when the sky is known to be zero.
    seed : int, optional
        Of the noise of the copies, which depends on it and on the pixels of each stamp.
    correlation : (ky, kx) ndarray, optional
        Autocorrelation of the noise; None for independent pixels.
    noise : (N, 64, 64) ndarray, optional
        Standard normal noise of the copies in place of that which is drawn, for comparisons.

    Returns
    -------
    sheared : (N, 2, 4, 6) ndarray
        By copy (`COPIES`), slot (`SLOTS`) and quantity (`MEASURED`), in the frame of the grid of each stamp
        (`galshape_cnn.infer.shear.grids`), which is that of the pixels where they are square on the sky; the
        centre of the shear in the middle of the stamp; NaN where it cannot be measured.
    """
    out = np.full((len(batch), len(COPIES), len(SLOTS), len(MEASURED)), np.nan)
    stamps, means = batch.stamps, network_means(network)
    usable = np.flatnonzero((stamps.ivar > 0).any((1, 2)) & np.isfinite(sky))
    if not len(usable):
        return out
    for part in copy_batches(batch, usable, sky, fit_sky, seed, correlation, noise):
        out[part.rows] = _of_batch(part, means)[: len(part.rows)]
    out[~np.isfinite(out).all((1, 2, 3))] = np.nan
    return out


def _of_batch(part, means):
    """Values and derivatives of a `CopyBatch`, (BATCH_SIZE, 2, 4, 6)."""
    count, known = len(part.rows), (part.arrays["sky"], part.arrays["poisson"])
    data, ivar, view = (part.arrays[name] for name in ("data", "ivar", "view"))
    first = means.values(data, ivar, view[:, 0], *known, count)
    params = SINGLE.with_sky(first)
    params[:, SINGLE.centre] += np.float32(MIDDLE)
    part, params, model, slopes = on_grids(part, params)
    moved = params[:, SINGLE.without_sky].copy()
    moved[:, SINGLE.centre] -= np.float32(MIDDLE)
    first = np.where(part.steps.any(1)[:, None], moved, first)
    data, ivar, view, change = (part.arrays[name] for name in ("data", "ivar", "view", "change"))
    of_pixels = (part.arrays[name] for name in ("noise", "inverse_gain", "filters", "asymmetric"))
    copies, snr = _copies(data, ivar, *of_pixels, first, model, slopes)
    weight = within_reach(ivar) if means.knows_masks else ivar
    done = []
    for quarter, pixels in enumerate(copies):  # the second after a quarter turn
        seen, along = (np.asarray(one) for one in pixels)
        seen, weights, along = means.mirrored(seen, weight, along)
        seen, weights, along = (np.rot90(one, quarter, (-2, -1)) for one in (seen, weights, along))
        of_psf = view[:, quarter], change[:, quarter]
        found = means.moved(seen, weights, of_psf[0], *known, along, of_psf[1], count)
        done.append(found * _TURNED if quarter else found)
    return np.asarray(_as_reported(np.stack(done, 1), first, *snr, part.arrays["light"]))


@compiled
def _copies(data, ivar, noise, inverse_gain, filters, asymmetric, first, model, slopes):
    """Copies with their derivatives, (N, 3, 64, 64), and the S/N of the model with its gradient."""
    pixels, weight = copies_and_tangents(
        data, ivar, noise, inverse_gain, filters, asymmetric, first, model, slopes
    )
    pixels = [(one, jnp.moveaxis(along, 0, 1)) for one, along in pixels]
    return pixels, snr_and_gradient(first, slopes, weight)


@compiled
def _as_reported(done, first, snr, gradient, light):
    done = jax.vmap(with_snr, (1, None, None, None), 1)(done, first, snr, gradient)
    return done.at[..., 0].divide(light[:, None, None])
