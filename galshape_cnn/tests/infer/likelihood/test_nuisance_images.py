# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A likelihood with images of unknown amplitude integrated out."""

import numpy as np
import pytest

from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood
from galshape_cnn.infer.likelihood.nuisance_images import MarginalLikelihood
from galshape_cnn.tests.moffat_scene import moffat

SIDE, PARAMS = 64, np.array([[300.0, 1.5, 4.0, 0.1, -0.05, 31.2, 32.4, 0.02], [80, 3, 2, 0, 0.2, 32, 31, 0]])


@pytest.fixture(scope="module")
def stamps():
    """Likelihood of two stamps of noise, one with a bad column, and images of unknown amplitude."""
    rng = np.random.default_rng(4)
    grid = grid_for(SIDE, 1)
    psf = np.asarray(moffat(3.5)[1], np.float32)[None]
    ivar = rng.uniform(0.5, 2, (2, SIDE, SIDE))
    ivar[1, :, 20] = 0
    data = rng.normal(size=ivar.shape)
    y, x = np.mgrid[:SIDE, :SIDE]
    nuisance = np.zeros((2, 3, SIDE, SIDE))
    nuisance[0, 0] = np.exp(-((x - 40) ** 2 + (y - 30) ** 2) / 8)
    nuisance[0, 1] = np.exp(-((x - 41) ** 2 + (y - 30) ** 2) / 8)
    nuisance[1, 2] = np.exp(-((x - 25) ** 2 + (y - 36) ** 2) / 18)
    likelihood = StampLikelihood.from_stamps(data, ivar, transfer_functions(psf, grid, 1), grid)
    return MarginalLikelihood.of(likelihood, nuisance)


def test_normal_equations_are_those_of_a_fit_with_the_amplitudes(stamps):
    rows = np.array([1, 0])
    found = stamps.normal_equations(PARAMS[rows], rows)
    images, derivatives = stamps.images_and_derivatives(PARAMS[rows], rows)
    for k, row in enumerate(rows):
        root = np.sqrt(stamps.ivar[row].astype(float)).ravel()
        others = stamps.nuisance[row].reshape(3, -1) * root
        others = others[others.any(1)]
        residual = (stamps.data[row] - images[k]).ravel() * root
        columns = derivatives[k].reshape(8, -1) * root
        amplitude = np.linalg.lstsq(others.T, np.vstack([residual, columns]).T, rcond=None)[0]
        residual, *columns = np.vstack([residual, columns]) - amplitude.T @ others
        chi2, gradient, fisher = (one[k] for one in found)
        assert chi2 == pytest.approx(residual @ residual, rel=1e-4)
        spread = np.sqrt(np.diag(fisher))
        assert gradient / spread == pytest.approx(np.array(columns) @ residual / spread, abs=2e-3)
        wanted = np.array(columns) @ np.transpose(columns)
        assert fisher / spread / spread[:, None] == pytest.approx(wanted / spread / spread[:, None], abs=1e-4)


def test_without_any_light_they_are_those_of_the_pixels(stamps):
    rows, none = np.arange(2), np.zeros_like(stamps.nuisance)
    plain = stamps[rows]
    found = MarginalLikelihood.of(plain, none).normal_equations(PARAMS, rows)
    wanted = StampLikelihood.normal_equations(plain, PARAMS, rows)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=2e-4, abs=2e-3 * np.abs(other).max())


def test_the_draws_see_the_same(stamps):
    """Flux and sky of blocks of draws, as another function has them."""
    from galshape_cnn.forward.galaxy_model import SINGLE
    from galshape_cnn.forward.render import BLOCK

    rows = np.arange(2)
    chi2, gradient, _ = stamps.linear_equations_of_draws(np.repeat(PARAMS[:, None], BLOCK, 1), rows)
    found = stamps.normal_equations(PARAMS, rows)
    assert chi2[:, 0] == pytest.approx(found[0], rel=1e-4)
    for row in rows:
        pair = found[1][row, [SINGLE.flux, SINGLE.sky]]
        spread = np.sqrt(np.diag(found[2][row])[[SINGLE.flux, SINGLE.sky]])
        assert gradient[row, 0] / spread == pytest.approx(pair / spread, abs=5e-3)
