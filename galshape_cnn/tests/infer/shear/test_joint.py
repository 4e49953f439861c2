# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Shear response of several exposures."""

import numpy as np
import pytest

from galshape_cnn import Exposure, ShapeEstimator, mean_shear
from galshape_cnn.errors import InputError
from galshape_cnn.infer.shear.joint import weighted_columns
from galshape_cnn.tests.exposure_scene import SETUP, exposure, galaxies
from galshape_cnn.tests.infer.shear.test_generators import psf_array
from galshape_cnn.tests.infer.shear.test_response import composed, images, shapes

GAMMA = 0.02
HOW = {"neighbours": "ignore", "shear_response": True, "psf_oversampling": 2}


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def exposures(g, snr=20.0, count=2):
    """The same galaxies, each time with other noise."""
    out = []
    for number in range(count):
        noise = np.random.default_rng(number).normal(size=(len(g), 64, 64))
        data = images(g, snr=snr, noisy=False) + noise
        out.append(Exposure(data, psf=psf_array("moffat")[0], error=1.0, name=f"visit{number}"))
    return out


def test_derivative_of_the_mean_is_that_of_its_weights_too():
    rng = np.random.default_rng(3)
    values, slopes = rng.uniform(5, 20, (4, 10, 2, 6)), rng.normal(size=(4, 10, 2, 6, 2))
    found, step = weighted_columns(values, slopes), 1e-4
    assert (found.values[..., 5] > values[..., 5].max(0)).all()
    np.testing.assert_allclose(
        found.values[..., 3], np.average(values[..., 3], axis=0, weights=values[..., 5] ** 2)
    )
    for component in range(2):
        high, low = (
            weighted_columns(values + sign * step * slopes[..., component], slopes).values for sign in (1, -1)
        )
        np.testing.assert_allclose(found.slopes[..., component], (high - low) / (2 * step), atol=1e-6)


def test_exposures_that_cannot_be_measured_do_not_count():
    rng = np.random.default_rng(3)
    values, slopes = rng.uniform(5, 20, (3, 4, 2, 6)), rng.normal(size=(3, 4, 2, 6, 2))
    without = weighted_columns(values[:2], slopes[:2])
    values[2, :, 1, 2] = np.nan
    values[:, 3] = np.nan
    found = weighted_columns(values, slopes)
    np.testing.assert_allclose(found.values[:3], without.values[:3])
    np.testing.assert_allclose(found.slopes[:3], without.slopes[:3])
    assert np.isnan(found.values[3]).all()
    assert np.isnan(found.slopes[3]).all()


def test_one_exposure_is_one_image(estimator):
    data, psf = images(shapes(4)), psf_array("moffat")[0]
    one = estimator([Exposure(data, psf=psf, error=1.0)], **HOW)
    plain = estimator(data, psf=psf, error=1.0, **HOW)
    for name in ("values", "slopes"):
        np.testing.assert_allclose(
            getattr(one.sheared, name), getattr(plain.sheared, name), rtol=1e-9, atol=1e-12
        )
    np.testing.assert_array_equal(one.g1, plain.g1)


def test_mean_shear_of_several_exposures(estimator):
    """At an S/N of 20 in each of two exposures the plain mean is seven per cent off.

    One seed of the added noise scatters m by 0.025; that of each stamp follows from its last bits.
    """
    g = shapes(64)
    pairs = np.concatenate([g, -g])
    rows, plain = [], []
    for sign in (1, -1):
        visits = exposures(composed(pairs, sign * GAMMA * (1 + 1j)))
        some = [estimator(visits, **HOW, seed=seed) for seed in range(4)]
        cat = some[0]
        rows.append([mean_shear(one)[0] for one in some])
        plain.append(np.mean([[one.g1.mean(), one.g2.mean()] for one in some]))
    assert rows[0][0]["N"] == 128
    means = [np.mean([[row["g1"], row["g2"]] for row in of_sign]) for of_sign in rows]
    assert abs((means[0] - means[1]) / (2 * GAMMA) - 1) < 0.04
    assert (plain[0] - plain[1]) / (2 * GAMMA) - 1 < -0.05
    table = cat.to_table()
    assert {"shear_copies", "response_12"} <= set(table.colnames)
    assert mean_shear(table)["g1"][0] == rows[1][0]["g1"]
    np.testing.assert_array_equal(cat[[5, 3]].response, cat.response[[5, 3]])
    assert np.isnan(cat.blank(np.array([7]), None).to_table()["shear_copies"]).all()


@pytest.mark.parametrize(
    ("how", "message"),
    [({"method": "ml"}, "several exposures"), ({"method": "posterior"}, "posterior_shear")],
)
def test_other_methods_are_refused(estimator, how, message):
    with pytest.raises(InputError, match=message):
        estimator(exposures(shapes(2)), **HOW, **how)


def test_exposures_of_other_scale_orientation_and_band(estimator):
    """Shapes and responses are in the frame of the sky, whatever the WCS of each exposure is."""
    rng = np.random.default_rng(5)
    sky, truth = galaxies(rng)
    visits = [exposure(rng, sky, truth, one) for one in SETUP]
    how = {key: HOW[key] for key in ("neighbours", "shear_response")}
    cat = estimator(visits, positions=sky, **how)
    off = np.stack([cat.g1 - truth["g1"], cat.g2 - truth["g2"]])
    assert np.abs(off).max() < 0.05
    assert np.abs(cat.response.mean(0) - np.eye(2)).max() < 0.2
    singles = {"psf", "error", "wcs"}
    alone = [
        estimator(one.data, positions=sky, **how, **{key: getattr(one, key) for key in singles})
        for one in visits
    ]
    weight = np.array([one.snr**2 for one in alone])  # of the images, not of their copies
    for name in ("g1", "g2"):
        mean = np.average([getattr(one, name) for one in alone], axis=0, weights=weight)
        np.testing.assert_allclose(getattr(cat, name), mean, atol=0.005)
