# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Derivative images beside differences of sheared images."""

import galsim
import jax.numpy as jnp
import numpy as np
import pytest

from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.shear.generators import image_tangents, psf_change, psf_filters, symmetrized_psf
from galshape_cnn.tests.galsim_truth import PSFS

STEP, INSIDE = 0.01, slice(8, 56)


def psf_array(name, fwhm=3.0):
    """Effective PSF, two samples per pixel, (1, 95, 95)."""
    psf = galsim.Convolve(PSFS[name].dilate(fwhm / 2.2), galsim.Pixel(1.0))
    array = psf.drawImage(nx=95, ny=95, scale=0.5, method="no_pixel", dtype=float).array
    return (array / array.sum()).astype(np.float32)[None]


def galaxies():
    """Compact galaxies in the middle of the stamp, as complex shapes and rows of parameters."""
    g = np.array([0, 0.3, 0.2j, -0.25 + 0.2j])
    index, hlr = np.array([0.5, 1, 2, 3.0]), np.array([2.5, 3.5, 3, 2])
    return g, lambda g: np.column_stack(
        [np.full(4, 100), index, hlr, g.real, g.imag, np.full((4, 2), 31.5), np.zeros(4)]
    ).astype(np.float32)


def drawn(params, psf):
    grid = grid_for(64, 2)
    return np.asarray(render(params, transfer_functions(psf, grid, 2), grid)).astype(float)


def relative(found, wanted):
    off = (found - wanted)[:, INSIDE, INSIDE]
    return np.sqrt((off**2).sum((1, 2)) / (wanted[:, INSIDE, INSIDE] ** 2).sum((1, 2)))


@pytest.mark.parametrize("name", ["moffat", "gaussian", "elliptical"])
def test_shear_of_the_galaxy(name):
    psf, (g, params) = psf_array(name), galaxies()
    tangents = image_tangents(jnp.asarray(drawn(params(g), psf), jnp.float32), psf_filters(psf, 2))
    for tangent, direction in ((tangents.gamma1, 1), (tangents.gamma2, 1j)):
        sheared = [
            drawn(params((g + s * direction) / (1 + np.conj(s * direction) * g)), psf) for s in (STEP, -STEP)
        ]
        wanted = (sheared[0] - sheared[1]) / (2 * STEP)
        assert relative(np.asarray(tangent), wanted).max() < 0.03
        # the shear of the whole image, PSF included, is another thing
        assert relative(2 * np.asarray(tangent), wanted).min() > 0.9


def test_change_of_the_psf():
    psf, (g, params) = psf_array("elliptical"), galaxies()
    filters = psf_filters(psf, 2)
    tangent = image_tangents(jnp.asarray(drawn(params(g), psf), jnp.float32), filters).psf
    wanted = drawn(params(g), psf) - drawn(params(g), np.asarray(symmetrized_psf(psf)))
    assert relative(np.asarray(tangent), wanted).max() < 0.03


def test_symmetric_psf_has_no_change():
    psf = psf_array("gaussian")
    assert np.abs(psf_change(psf)).max() < 1e-6 * psf.max()


def test_tangents_are_linear_and_each_row_is_on_its_own():
    psf, rng = psf_array("elliptical"), np.random.default_rng(0)
    images = rng.normal(size=(3, 64, 64)).astype(np.float32)
    filters = psf_filters(psf, 2)
    all_rows = image_tangents(images, filters)
    both = image_tangents((images[:1] - 2 * images[1:2]), filters)
    for whole, one in zip(all_rows, both, strict=True):
        np.testing.assert_allclose(whole[0] - 2 * whole[1], one[0], atol=2e-3)
