# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What an exposure sees of a galaxy: the same light on the sky, whatever its pixels are."""

import galsim
import numpy as np
import pytest

from galshape_cnn.forward.galaxy_model import SINGLE, GalaxyModel
from galshape_cnn.forward.view import View

MODEL = GalaxyModel(("g", "r"), (0, 1, 1))
PARAMS = np.array(
    [
        [120.0, 300.0, 1.7, 3.0, 0.25, -0.1, 0.4, -0.3, 0.1, 0.2, 0.3],
        [20.0, 50.0, 3.1, 1.5, -0.4, 0.3, -0.7, 0.2, 0.0, -0.2, 0.1],
    ]
)
FRAMES = np.array([[[0.9, 0.4], [-0.5, 1.1]], [[-0.6, 0.1], [0.2, 0.7]]])  # the second one flips parity


@pytest.fixture
def view():
    reference, pixel = np.array([[0.1, 0.0], [0.2, -0.1]]), np.array([[20.3, 19.8], [21.0, 20.0]])
    return View(MODEL, 2, FRAMES, reference, pixel, np.array([1.5, 0.5]))


def test_without_a_frame_a_view_is_the_identity():
    params = np.random.default_rng(1).uniform(0.1, 0.5, (5, 8))
    np.testing.assert_array_equal(View().params(params), params)
    np.testing.assert_array_equal(View().jacobian(params), np.broadcast_to(np.eye(8), (5, 8, 8)))


def test_jacobian_is_that_of_differences(view):
    step = 1e-6 * np.eye(MODEL.size)
    columns = [(view.params(PARAMS + e) - view.params(PARAMS - e)) / 2e-6 for e in step]
    np.testing.assert_allclose(view.jacobian(PARAMS), np.stack(columns, -1), atol=1e-7)


def test_outward_is_the_inverse(view):
    back = view.outward(view.params(PARAMS))
    touched = np.abs(view.jacobian(PARAMS)).sum((0, 1)) > 0
    np.testing.assert_allclose(back[:, touched], PARAMS[:, touched], rtol=1e-12)
    assert not back[:, ~touched].any()


def test_rows_see_what_all_saw(view):
    for row in range(2):
        some = slice(row, row + 1)
        np.testing.assert_array_equal(view[some].params(PARAMS[some]), view.params(PARAMS)[some])


@pytest.mark.parametrize("row", [0, 1])
def test_galsim_draws_the_same_galaxy_through_both_frames(view, row):
    """The model's galaxy drawn through the exposure's WCS is the view's galaxy in pixels."""
    flux, n, hlr, g1, g2, x, y, _ = view.params(PARAMS)[row]
    seen = galsim.Sersic(n, half_light_radius=hlr, flux=flux).shear(g1=g1, g2=g2)
    psf = galsim.Moffat(beta=3, fwhm=3)
    middle = (41 - 1) / 2
    mine = galsim.Convolve(seen, psf).drawImage(nx=41, ny=41, scale=1, offset=(x - middle, y - middle)).array
    # d(reference)/d(pixels) is GalSim's Jacobian; the PSF is given in pixels and carried to the reference
    jacobian = galsim.JacobianWCS(*np.linalg.inv(FRAMES[row]).ravel())
    model = PARAMS[row]
    galaxy = galsim.Sersic(model[2], half_light_radius=model[3], flux=model[1] * view.factor[row])
    galaxy = galaxy.shear(g1=model[4], g2=model[5])
    offset = FRAMES[row] @ (model[MODEL.centre] - view.reference[row]) + view.pixel[row] - middle
    both = galsim.Convolve(galaxy, jacobian.toWorld(psf))
    theirs = both.drawImage(nx=41, ny=41, wcs=jacobian, offset=tuple(offset)).array
    np.testing.assert_allclose(mine, theirs, atol=2e-4 * theirs.max())


def test_equations_of_one_exposure_belong_to_its_band_and_sky(view):
    touched = np.abs(view.jacobian(PARAMS)).sum((0, 1)) > 0
    expected = ["flux_r", "n", "hlr", "g1", "g2", "x", "y", "sky_2"]
    assert [name for name, yes in zip(MODEL.names, touched, strict=True) if yes] == expected
    assert SINGLE.size == len(expected)
