# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Noise maps that are wrong by a factor: given, or estimated from blank pixels."""

import warnings

import numpy as np
import pytest
from astropy.table import QTable

from galshape_cnn import ShapeEstimator
from galshape_cnn.cli import main
from galshape_cnn.errors import InputError, NoiseError
from galshape_cnn.flags import Flag
from galshape_cnn.scale import measure_stream, read_blocks
from galshape_cnn.tests.observe.noise.test_correlation import PSF, SIZE, make_stamps
from galshape_cnn.tests.stream_scene import write_cube

TOO_SMALL = 1.6  # true noise over that of the map


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def stamps():
    """Stamps whose noise map is too small."""
    noise = np.random.default_rng(4).normal(size=(24, SIZE, SIZE))
    right = make_stamps(noise)
    return right.with_pixels(right.data, (TOO_SMALL**2 * right.ivar).astype(np.float32))


@pytest.fixture(scope="module")
def cube(tmp_path_factory, stamps):
    return write_cube(
        tmp_path_factory.mktemp("cube") / "cube.fits", stamps.data, np.tile(PSF, (24, 1, 1)).astype("f4")
    )


def test_a_factor_is_that_of_the_noise_map(estimator, stamps):
    # a power of two, so that units are the same to the last bit
    by_hand = stamps.with_pixels(stamps.data, stamps.ivar / 4)
    expected, catalog = estimator(by_hand, method="ml"), estimator(stamps, method="ml", noise_scale=2)
    assert catalog.meta["noise_scale"] == 2
    assert "noise_scale" not in expected.meta
    np.testing.assert_array_equal(catalog.parameters, expected.parameters)
    np.testing.assert_array_equal(catalog.crb_covariance, expected.crb_covariance)
    np.testing.assert_array_equal(catalog.flags, expected.flags)
    np.testing.assert_array_equal(catalog.stamp(0).ivar, expected.stamp(0).ivar)


def test_estimate_mends_errors_and_flags(estimator, stamps):
    wrong = estimator(stamps, method="ml")
    assert (wrong.flags & Flag.POOR_FIT > 0).all()  # chi-square of 2.6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mended = estimator(stamps, method="ml", noise_scale="estimate", noise_correlation="estimate")
    factor = mended.meta["noise_scale"]
    blank = 24 * 3000  # pixels, or more, whose scatter has this standard error
    assert factor == pytest.approx(TOO_SMALL, rel=4 / np.sqrt(2 * blank) + 0.002)  # clipped at 4 sigma
    assert mended.meta["noise_correlation"]["excess"] == pytest.approx(1, abs=1e-3)
    right = estimator(stamps.with_pixels(stamps.data, np.ones_like(stamps.ivar)), method="ml")
    np.testing.assert_array_equal(mended.flags, right.flags)
    assert np.mean(mended.chi2) == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(mended.flux_crb / wrong.flux_crb, factor, rtol=0.03)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf, "guess", [1, 2], None.__class__])
def test_what_is_no_factor_is_refused(estimator, stamps, value):
    with pytest.raises(InputError, match="noise_scale=.*a number above 0, 'auto', 'estimate' or None"):
        estimator(stamps[:1], noise_scale=value)


def test_estimate_needs_blank_pixels(estimator, stamps):
    masked = stamps.with_pixels(
        stamps.data, np.where(np.add.outer(*2 * [np.arange(SIZE)]) < 40, stamps.ivar, 0)
    )
    with pytest.raises(NoiseError, match="blank pixels; 2000 are needed"):
        estimator(masked[:1], noise_scale="estimate")


def test_all_parts_of_a_run_have_one_factor(estimator, cube, tmp_path):
    measure_stream(estimator, cube, tmp_path / "run", noise_scale="estimate", block_rows=8)
    table = read_blocks(tmp_path / "run")
    factor = table.meta["noise_scale"]
    measure_stream(estimator, cube, tmp_path / "given", noise_scale=factor, block_rows=11)
    np.testing.assert_array_equal(read_blocks(tmp_path / "given")["flux_err"], table["flux_err"])
    with pytest.raises(InputError, match="configuration|noise_scale"):
        measure_stream(estimator, cube, tmp_path / "run", noise_scale=1.5, block_rows=8)


def test_command_line(cube, tmp_path, capsys):
    out = tmp_path / "out.ecsv"
    assert main(["measure", cube, "-o", str(out), "--noise-scale", "1.5"]) == 0
    assert QTable.read(out).meta["noise_scale"] == 1.5
    assert main(["measure", cube, "-o", str(out), "--overwrite", "--noise-scale", "estimate"]) == 0
    assert QTable.read(out).meta["noise_scale"] == pytest.approx(1, abs=0.1)
    assert main(["measure", cube, "-o", str(out), "--overwrite", "--noise-scale", "-1"]) == 2
    assert "--noise-scale: '-1'; allowed: a number above 0" in capsys.readouterr().err
