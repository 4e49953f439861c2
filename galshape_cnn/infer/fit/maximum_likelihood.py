# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Maximum likelihood for batches of galaxies: Levenberg-Marquardt with Fisher scoring.

Every galaxy has its own damping, and leaves the batch when the decrease that
the undamped step promises is below `galshape_cnn.infer.fit.variable_projection.LIMITS`' tolerance.  The
estimator of Fisher (1925): asymptotically unbiased and at the Cramér-Rao bound,
which at low S/N, where n runs into its limits, it is not.
"""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.coordinates import FIT
from galshape_cnn.forward.galaxy_model import SINGLE, GalaxyModel
from galshape_cnn.infer.fit.bounded_steps import room_to_bounds, turned
from galshape_cnn.infer.fit.moments import moment_start
from galshape_cnn.infer.fit.variable_projection import GalaxyProblem, fit_galaxies
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood, source_weights

__all__ = ["MLResult", "fit_flags", "maximize_likelihood"]

_REWEIGHTINGS = 3
_POOR = 5.0  # standard deviations of chi2 above which a fit is doubted


@dataclass(frozen=True, eq=False)
class MLResult:
    """Maximum-likelihood estimates of N galaxies.

    Attributes
    ----------
    params : (N, 8) float64 ndarray
        flux, n, hlr, g1, g2, x, y, sky in the stamp's pixel frame.
    fisher : (N, 8, 8) float64 ndarray
        Fisher matrix of these parameters at the solution.
    chi2 : (N,) float64 ndarray
        Total chi-square at the solution.
    n_data : (N,) int64 ndarray
        Number of pixels that count.
    flags : (N,) int64 ndarray
        Bits of `galshape_cnn.flags`: ``NOT_CONVERGED``, ``N_AT_BOUND``,
        ``PARAMETER_AT_BOUND``, ``SINGULAR``, ``NO_DATA``; zero for success.
    evaluations : (N,) int64 ndarray
        Number of times the derivatives were computed.
    """

    params: np.ndarray
    fisher: np.ndarray
    chi2: np.ndarray
    n_data: np.ndarray
    flags: np.ndarray
    evaluations: np.ndarray

    @property
    def converged(self):
        """True where the maximum was found, at a bound or inside, (N,)."""
        return (self.flags & (Flag.NOT_CONVERGED | Flag.NO_DATA)) == 0


def _reweighted_search(likelihood, theta, gain, how):
    """Search, and again with the weights of the solution, until they agree."""
    model, steps, penalty = how
    if gain is None:
        return fit_galaxies(GalaxyProblem(likelihood, model, penalty), theta, steps)
    spent = 0
    for _ in range(_REWEIGHTINGS):
        weighted = source_weights(likelihood, FIT.params(theta), gain)
        points, done, evaluations = fit_galaxies(GalaxyProblem(weighted, model, penalty), theta, steps)
        theta, spent = points.theta, spent + evaluations
    return points, done, spent


def fit_flags(points, done, size, model):
    """``NOT_CONVERGED``, ``N_AT_BOUND``, ``PARAMETER_AT_BOUND``, ``SINGULAR`` of M rows of a search.

    ``size`` is the side of the stamps in pixels: the largest half-light radius.
    """
    room = room_to_bounds(points.theta, size, model)
    bound = (room[:, :, 0] > -1e-6) | (room[:, :, 1] < 1e-6)
    used = np.zeros((len(done), model.size), bool)
    used[:, model.free] = True
    used[:, model.n : model.n + bound.shape[1]] = ~bound
    fisher = np.where(
        used[:, :, None] & used[:, None, :],
        turned(points.theta, points.gradient, points.fisher, model)[1],
        np.eye(model.size),
    )
    diagonal = np.sqrt(np.maximum(np.einsum("nii->ni", fisher), 1e-30))
    scaled = fisher / (diagonal[:, :, None] * diagonal[:, None, :])
    smallest = np.linalg.eigvalsh(np.nan_to_num(scaled))[:, 0]
    flags = np.where(done, 0, Flag.NOT_CONVERGED)
    flags = flags | np.where(bound[:, 0], Flag.N_AT_BOUND, 0)
    flags = flags | np.where(bound[:, 1:].any(1), Flag.PARAMETER_AT_BOUND, 0)
    return flags | np.where(smallest < 1e-6, Flag.SINGULAR, 0)


def _check(data, ivar, transfer, grid, start):
    """Refuse arrays that do not belong together."""
    shape = (len(data), grid.size, grid.size)
    for name, array in (("data", data), ("ivar", ivar)):
        if np.shape(array) != shape:
            raise InputError(f"{name} has shape {np.shape(array)}; {shape} is needed")
    modes = (len(grid.ky), len(grid.kx))
    if np.shape(transfer)[1:] != modes or len(transfer) not in (1, len(data)):
        raise InputError(
            f"transfer has shape {np.shape(transfer)}; (1 or {len(data)}, {modes[0]}, {modes[1]}) is needed"
        )
    if np.shape(start) != (len(data), SINGLE.size):
        raise InputError(f"start has shape {np.shape(start)}; ({len(data)}, {SINGLE.size}) is needed")


def maximize_likelihood(
    data, ivar, transfer, grid, start, *, fit_sky=True, gain=None, max_iterations=40, retry=True, penalty=None
):
    """Maximise the likelihood of each stamp.

    Without ``gain`` the likelihood is Gaussian with variance 1/ivar.  With it,
    the Poisson noise of the galaxy's own light is added: the variance is
    1/ivar + model/gain with the *model* of the previous solution (iteratively
    reweighted least squares).  Its estimating equation, sum of dm/dp (d - m)/var,
    has mean zero at the truth whatever the weights are, as long as they do not
    follow the noise; weights taken from the data do, give pixels that
    scattered down the larger weight, and lose flux.

    Parameters
    ----------
    data, ivar : (N, size, size) array_like
        Pixel values and inverse variances; zero inverse variance means masked.
    transfer : (N or 1, Ky, Kx) complex array
        From `galshape_cnn.forward.transfer.transfer_functions` with ``grid``.
    grid : FourierGrid
        Fourier grid of the stamps' size.
    start : (N, 8) array_like
        Parameters to start from: flux, n, hlr, g1, g2, x, y, sky.  Values
        outside the bounds are clipped; flux needs no more than its sign.
    fit_sky : bool, optional
        Fit a constant sky level; otherwise it stays at its starting value.
    gain : float or (N,) array_like, optional
        Electrons per unit of data.  Without it the source adds no noise.
    max_iterations : int, optional
        Steps allowed for each galaxy.
    retry : bool, optional
        Where the search does not converge, fits badly or ends at the limit of
        size or shear, search once more from `galshape_cnn.infer.fit.moments.moment_start` and keep the
        lower chi2.
    penalty : `galshape_cnn.infer.fit.variable_projection.Penalty`, optional
        A Gaussian prior on the coordinates: the result is then the posterior's
        mode, ``chi2`` and ``fisher`` contain the penalty.

    Returns
    -------
    result : MLResult
        In rows without usable pixels or with a start that is not finite, NaN.

    Raises
    ------
    InputError
        If the shapes do not belong together, or a gain is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn.forward.grid import FourierGrid
    >>> from galshape_cnn.forward.render import render
    >>> from galshape_cnn.forward.transfer import transfer_functions
    >>> from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
    >>> r2 = np.add.outer(np.arange(-8, 9.0) ** 2, np.arange(-8, 9.0) ** 2)
    >>> psf = np.exp(-r2 / 4)[None] / np.exp(-r2 / 4).sum()
    >>> grid = FourierGrid(32)
    >>> transfer = transfer_functions(psf, grid)
    >>> truth = np.array([[100.0, 1.5, 3.0, 0.2, -0.1, 15.3, 15.8, 0.1]])
    >>> stamps = np.asarray(render(truth, transfer, grid))
    >>> start = [[50, 1, 2, 0, 0, 15.5, 15.5, 0]]
    >>> result = maximize_likelihood(stamps, np.full(stamps.shape, 1e4), transfer, grid, start)
    >>> bool(np.allclose(result.params, truth, atol=0.01))
    True
    """
    _check(data, ivar, transfer, grid, start)
    if gain is not None and not np.all(np.asarray(gain) > 0):
        raise InputError(f"gain={gain}; a positive number of electrons per unit of data is needed")
    whole = StampLikelihood.from_stamps(data, ivar, transfer, grid)
    start = np.asarray(start, float)
    gain = None if gain is None else np.broadcast_to(np.asarray(gain, float), len(whole))
    how = GalaxyModel(fit_sky=bool(fit_sky)), max_iterations, penalty
    usable = np.isfinite(start).all(1) & (start[:, [SINGLE.n, SINGLE.hlr]] > 0).all(1) & (whole.n_data > 0)
    rows = np.flatnonzero(usable)
    result = _blank(whole)
    if len(rows):
        some = whole if usable.all() else whole[rows]  # a copy of hundreds of MB is spared
        _fill(result, rows, some, start[rows], _of(gain, rows), how)
    rows = np.flatnonzero(_doubtful(result)) if retry else []
    if len(rows):
        _try_again(result, rows, whole[rows], start[rows], gain, how)
    return result


def _doubtful(result):
    """Rows where another start may find a lower chi2.

    A Sérsic index at its limit is no reason for doubt: at low S/N it is common, and
    a second start hardly ever ends lower.
    """
    excess = (result.chi2 - result.n_data) / np.sqrt(2 * np.maximum(result.n_data, 1))
    return np.isfinite(result.chi2) & ((result.flags & ~Flag.N_AT_BOUND != 0) | (excess > _POOR))


def _try_again(result, rows, likelihood, first, gain, how):
    """Search from moments about the first start's centre; keep what has the lower chi2."""
    stamps = likelihood.data, likelihood.ivar, likelihood.transfer, likelihood.grid
    start = moment_start(*stamps, first[:, SINGLE.centre])
    start[:, SINGLE.amplitudes] *= likelihood.scale[:, None]
    if not how[0].fit_sky:
        start[:, SINGLE.sky] = first[:, SINGLE.sky]
    second = _blank(likelihood)
    _fill(second, np.arange(len(rows)), likelihood, start, _of(gain, rows), how)
    result.evaluations[rows] += second.evaluations
    converged = second.converged.astype(int) - result.converged[rows]
    better = (converged > 0) | ((converged == 0) & (second.chi2 < result.chi2[rows]))
    for name in ("params", "fisher", "chi2", "flags"):
        getattr(result, name)[rows[better]] = getattr(second, name)[better]


def _of(gain, rows):
    return None if gain is None else gain[rows]


def _blank(likelihood):
    """Result of galaxies that were not fitted."""
    n, size = len(likelihood), SINGLE.size
    flags = np.where(likelihood.n_data > 0, Flag.NOT_CONVERGED, Flag.NO_DATA)
    params, fisher, chi2 = (np.full((n, *shape), np.nan) for shape in ((size,), (size, size), ()))
    return MLResult(params, fisher, chi2, likelihood.n_data, flags, np.zeros(n, int))


def _fill(result, rows, likelihood, start, gain, how):
    """Fit and put the outcome into rows of a result, in the unit of the data."""
    unit = SINGLE.units(likelihood.scale)
    theta = FIT.of(start / unit)
    points, done, evaluations = _reweighted_search(likelihood, theta, gain, how)
    inverse = np.linalg.inv(FIT.derivative(points.theta)) / unit[:, None, :]
    result.params[rows] = FIT.params(points.theta) * unit
    result.fisher[rows] = np.swapaxes(inverse, 1, 2) @ points.fisher @ inverse
    result.chi2[rows] = points.chi2
    result.evaluations[rows] = evaluations
    result.flags[rows] = fit_flags(points, done, likelihood.grid.size, how[0])
