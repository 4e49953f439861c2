# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Sandwich covariance: errors of a weighted fit in noise its weights do not describe.

Fits weight pixels by their inverse variance W, as if their noise were independent.  With
the derivatives of the model D (rows), H = D W D^T is the Fisher matrix for independent
noise.  If pixels have the covariance :math:`C = W^{-1/2} R\, W^{-1/2}` with correlations R,
the weighted fit stays unbiased, and its covariance is that of the sandwich

.. math:: S = H^{-1}\, V\, H^{-1}, \qquad V = D W C\, W D^T

(Huber 1967; White 1982, Econometrica 50, 1; in this field Bernstein & Armstrong 2014).
Nuisance images, such as the derivatives of fitted neighbours, are projected out of D.
"""

from dataclasses import replace

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.likelihood.correlated_products import (
    products_in_correlated_noise,
    rendered_products,
)
from galshape_cnn.infer.likelihood.fisher import bound, inverse_gain
from galshape_cnn.linalg import cholesky_or_nan, scaled_inverse

__all__ = [
    "information",
    "on_known",
    "products_at",
    "sandwich",
    "stretching",
    "tempering",
    "widened",
]


def information(batch, params, correlation=None):
    """Fisher matrix for independent noise, and covariance of its score with correlated noise.

    Parameters
    ----------
    batch : RenderedBatch
        N stamps; their ``nuisance`` is marginalised.
    params : (N, 8) ndarray
        Where to take them, fluxes in the batch's unit; rows that are not finite give NaN.
    correlation : (ky, kx) ndarray, optional
        Odd-sized autocorrelation of the noise.

    Returns
    -------
    naive, actual : (N, 8, 8) float32 ndarray
        H and V; equal without ``correlation``.
    """
    params, known = SINGLE.filled(params)
    rows, size = np.flatnonzero(known), SINGLE.size
    some = batch if len(rows) == len(batch) else batch[rows]
    pixels = some.stamps.ivar, some.transfer, some.grid, inverse_gain(some.gain, len(some)), correlation
    params, nuisance = params[rows].astype(np.float32), some.stamps.nuisance
    if correlation is None or nuisance is not None:
        both = rendered_products(params, *pixels, nuisance)
    else:
        both = products_in_correlated_noise(params, *pixels)
    naive, actual = np.full((2, len(batch), size, size), np.nan, np.float32)
    naive[rows], actual[rows] = both
    return naive, actual


def products_at(batch, params, examination, correlation=None, rows=None):
    """The same of galaxies that have been examined there, which may have found both.

    Parameters
    ----------
    batch, params, correlation
        As for `information`.
    examination : galshape_cnn.infer.residuals.examination.Examination
        Of these galaxies; its ``actual`` counts if it is known.
    rows : (M,) ndarray of int, optional
        Those that are asked for; all by default.

    Returns
    -------
    naive, actual : (M, 8, 8) float32 ndarray
    """
    rows = np.arange(len(batch)) if rows is None else rows
    if examination.actual is not None:
        # no more is known of them, as the images are of single precision
        return tuple(one[rows].astype(np.float32) for one in (examination.fisher, examination.actual))
    some = batch if len(rows) == len(batch) else batch[rows]
    return information(some, params[rows], correlation)


def sandwich(naive, actual, fit_sky=True, model=SINGLE):
    """Covariance of fluxes, n, hlr, g1, g2 that a weighted fit reaches.

    Parameters
    ----------
    naive, actual : (N, 8, 8) ndarray
        From `information`; (N, P, P) of another model.
    fit_sky : bool, optional
        Whether the sky level is fitted.
    model : GalaxyModel, optional
        Whose parameters they are; by default the eight of one image.

    Returns
    -------
    covariance : (N, 5, 5) ndarray
        NaN where ``naive`` cannot be inverted.
    singular : (N,) ndarray of bool
        As for `galshape_cnn.infer.likelihood.fisher.bound`.
    """
    supposed, singular = bound(naive, fit_sky, model=model)
    keep = replace(model, fit_sky=bool(fit_sky)).free
    good = np.isfinite(supposed).all((1, 2))
    h, v = (
        np.where(good[:, None, None], m, np.eye(model.size)).astype(float)[:, keep][:, :, keep]
        for m in (naive, actual)
    )
    inverse, unit = scaled_inverse(h)
    covariance = (inverse @ (v / unit) @ inverse / unit)[:, model.reported, model.reported]
    return np.where(good[:, None, None], covariance, np.nan), singular


def tempering(naive, actual, fit_sky=True):
    r"""Power of the likelihood that makes up for correlated noise, on average over the parameters.

    Parameters
    ----------
    naive, actual, fit_sky
        As for `sandwich`.

    Returns
    -------
    power : (N,) ndarray
        :math:`5 / \mathrm{tr}(B^{-1} S)`, B and S being the covariances of the five parameters
        that are supposed and reached; one where they are unknown.
    """
    supposed, _ = bound(naive, fit_sky)
    reached, _ = sandwich(naive, actual, fit_sky)
    good = np.isfinite(supposed).all((1, 2)) & np.isfinite(reached).all((1, 2))
    ratio = np.ones(len(good))
    for row in np.flatnonzero(good):
        ratio[row] = np.trace(np.linalg.solve(supposed[row], reached[row])) / 5
    return 1 / np.clip(ratio, 1e-3, 1e3)


def widened(covariance, supposed, actual):
    r"""Covariance of a posterior mean that was computed as if the data said more than they do.

    Parameters
    ----------
    covariance : (N, 5, 5) ndarray
        The posterior's, with the noise that was supposed.
    supposed, actual : (N, 5, 5) ndarray
        Covariances of an unbiased estimate with the noise supposed, and with the actual one,
        both at the same parameters.

    Returns
    -------
    covariance : (N, 5, 5) ndarray
        :math:`\Sigma + R\,(S - B)\,R^T` with :math:`R = \Sigma B^{-1}`, of which no
        eigenvalue is taken larger than one.

    Notes
    -----
    With a Gaussian likelihood about an unbiased estimate x and a Gaussian prior about
    :math:`\mu`, the posterior mean is :math:`R x + (1 - R)\mu`.  Its error has the variance
    :math:`\Sigma` if x has the variance B, and :math:`R (S - B) R^T` more if x has S.  A
    network's posterior may be wider than B where the network itself is not exact; its
    mean follows the data no more than fully there.
    """
    out = covariance.copy()
    rows, root, inverse, response = _responses(covariance, supposed, actual)
    response = root @ response @ inverse
    out[rows] += response @ (actual[rows] - supposed[rows]) @ _transposed(response)
    return out


def stretching(covariance, supposed, actual):
    r"""Linear map about a posterior's mean that mends what one power of the likelihood left.

    Parameters
    ----------
    covariance : (N, R, R) ndarray
        The posterior's, with the tempered likelihood.
    supposed, actual : (N, R, R) ndarray
        Covariances of an unbiased estimate as the tempered likelihood supposes it, and as it is.

    Returns
    -------
    stretch : (N, R, R) ndarray
        :math:`A = 1 + R\,(M - 1)` for deviations from the mean, with the response R as for
        `widened` and M, for which :math:`M B M^T = S`; the identity where they are unknown.

    Notes
    -----
    Without a prior this is M, the open-faced sandwich (Shaby 2014, J. Comput. Graph. Stat. 23, 853,
    arXiv:1204.3687), which gives the posterior the covariance S.  Where the prior decides, R is small
    and little is changed.  To first order in M - 1, :math:`A\Sigma A^T` is what `widened` gives;
    unlike that it is positive definite whatever S - B is, and moves draws too.  Of all M the one is
    taken that is symmetric where B is the identity: it moves draws the least.
    """
    out = np.tile(np.eye(covariance.shape[-1]), (len(covariance), 1, 1))
    rows, root, inverse, response = _responses(covariance, supposed, actual)
    values, vectors = np.linalg.eigh(inverse @ actual[rows] @ _transposed(inverse))
    change = (vectors * (np.sqrt(np.maximum(values, 0)) - 1)[:, None]) @ _transposed(vectors)
    out[rows] += root @ response @ change @ inverse
    return out


def on_known(function, covariance, supposed, actual, other):
    """`widened` or `stretching` of matrices in which some parameters are unknown.

    Parameters
    ----------
    function : callable
        Of three arrays (M, K, K) of known parameters only, to one of the same shape.
    covariance, supposed, actual : (N, R, R) ndarray
        NaN in lines and columns of parameters that are unknown, such as the flux of a band without data.

    other : (N, R, R) ndarray
        What stands in the other lines and columns.

    Returns
    -------
    out : (N, R, R) ndarray
    """
    known = np.logical_and.reduce(
        [np.isfinite(np.diagonal(m, axis1=1, axis2=2)) for m in (covariance, supposed, actual)]
    )
    out = other.copy()
    for pattern in np.unique(known, axis=0):
        rows, some = np.flatnonzero((known == pattern).all(1)), np.flatnonzero(pattern)
        at = np.ix_(rows, some, some)
        out[at] = function(covariance[at], supposed[at], actual[at])
    return out


def _responses(covariance, supposed, actual):
    """Rows (M,) in which all is known, Cholesky factors (M, R, R) of what is supposed there, their inverses,
    and the responses of the means where that is the identity."""
    factors = cholesky_or_nan(supposed)
    known = [np.isfinite(one).all((1, 2)) for one in (covariance, factors, actual)]
    rows = np.flatnonzero(np.logical_and.reduce(known))
    root = factors[rows]
    inverse = np.linalg.inv(root)
    values, vectors = np.linalg.eigh(inverse @ covariance[rows] @ _transposed(inverse))
    return rows, root, inverse, (vectors * np.clip(values, 0, 1)[:, None]) @ _transposed(vectors)


def _transposed(matrices):
    return np.ascontiguousarray(np.swapaxes(matrices, -1, -2))
