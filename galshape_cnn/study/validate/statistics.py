# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bias, scatter, coverage and ratios, with standard errors."""

import numpy as np

__all__ = [
    "bias_and_scatter",
    "coverage",
    "errors_of",
    "fraction",
    "ranks",
    "rmse",
    "rmse_ratio",
    "scatter_over",
    "to_errors",
]

#: In these the errors of flux and half-light radius are relative (of the logarithm).
LOGARITHMIC = (0, 2)


def errors_of(estimate, truth):
    """Errors (N, 5) of ln flux, n, ln hlr, g1, g2; NaN where the estimate is not a positive number."""
    estimate, truth = np.array(estimate, float), np.array(truth, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        for column in LOGARITHMIC:
            estimate[:, column], truth[:, column] = np.log(estimate[:, column]), np.log(truth[:, column])
    errors = estimate - truth
    return np.where(np.isfinite(errors), errors, np.nan)


def to_errors(covariance, params):
    """Standard deviations of ln flux, n, ln hlr, g1, g2 from a covariance of flux, n, hlr, g1, g2."""
    sigma = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
    for column in LOGARITHMIC:
        sigma[:, column] = sigma[:, column] / np.abs(np.asarray(params)[:, column])
    return sigma


def bias_and_scatter(errors):
    """Mean, its standard error, standard deviation, and its own; NaN values are left out.

    All NaN with fewer than two values.
    """
    errors = np.asarray(errors, float)
    errors = errors[np.isfinite(errors)]
    n = len(errors)
    if n < 2:
        return (np.nan,) * 4
    scatter = errors.std(ddof=1)
    return errors.mean(), scatter / np.sqrt(n), scatter, scatter / np.sqrt(2 * (n - 1))


def rmse(errors):
    """Root of the mean square, with its standard error; NaN values are left out."""
    square = np.asarray(errors, float) ** 2
    square = square[np.isfinite(square)]
    if len(square) < 2:
        return np.nan, np.nan
    root = np.sqrt(square.mean())
    return root, square.std(ddof=1) / np.sqrt(len(square)) / max(2 * root, 1e-300)


def rmse_ratio(errors, reference):
    """Ratio of two RMSE over the galaxies where both errors are finite, and its standard error.

    The standard error knows that both saw the same noise.
    """
    a, b = np.asarray(errors, float) ** 2, np.asarray(reference, float) ** 2
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 2 or not b.any() or not a.any():
        return np.nan, np.nan
    ratio = np.sqrt(a.mean() / b.mean())
    spread = (a / a.mean() - b / b.mean()).std(ddof=1)
    return ratio, 0.5 * ratio * spread / np.sqrt(len(a))


def scatter_over(errors, sigma):
    """Scatter of errors over their bounds: half the range of the central 68 %, with its standard error.

    Of a Gaussian, the standard deviation; tails, which decide an RMSE, do not matter. Only finite ratios
    count.
    """
    ratio = np.asarray(errors, float) / np.asarray(sigma, float)
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio) < 2:
        return np.nan, np.nan
    low, high = np.percentile(ratio, [15.865, 84.135])
    return (high - low) / 2, 0.963 * (high - low) / 2 / np.sqrt(len(ratio))


def ranks(draws, truth):
    """Fraction of draws (N, S, P) below the truth: uniform in (0, 1) for a calibrated posterior.

    Between 1 / (2 (S + 1)) and 1 minus that; NaN where a draw is. Talts et al. 2018, arXiv:1804.06788.
    """
    draws, truth = np.asarray(draws), np.asarray(truth)
    below = (draws < truth[:, None]).sum(1)
    out = (below + 0.5) / (draws.shape[1] + 1)
    return np.where(np.isfinite(draws).all(1), out, np.nan)


def coverage(rank, level):
    """Fraction of truths inside the central interval of a level, with its standard error, from `ranks`."""
    rank = np.asarray(rank, float)
    rank = rank[np.isfinite(rank)]
    if not len(rank):
        return np.nan, np.nan
    return np.mean(np.abs(rank - 0.5) < level / 2), np.sqrt(level * (1 - level) / len(rank))


def fraction(condition):
    """Fraction of rows for which something holds, with its binomial standard error; NaN without rows.

    The error is that of (k + 1) / (N + 2), so that it is not zero where all or no rows do.
    """
    condition = np.asarray(condition, bool)
    if not len(condition):
        return np.nan, np.nan
    likely = (condition.sum() + 1) / (len(condition) + 2)
    return condition.mean(), np.sqrt(likely * (1 - likely) / len(condition))
