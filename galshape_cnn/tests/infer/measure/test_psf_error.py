# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Errors that count an uncertain PSF: pulls over PSFs drawn from what was said of them."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from galshape_cnn import ShapeEstimator
from galshape_cnn.cli import main
from galshape_cnn.errors import InputError
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.measure.psf_error import PSFUncertainty
from galshape_cnn.scale import measure_stream, read_blocks

N, SIZE, SHEAR = 384, 0.02, 0.01
Y, X = np.mgrid[-16:17, -16:17].astype(float)


def psf_of(size=0.0, g1=0.0, g2=0.0):
    """A Moffat profile, stretched."""
    stretch = (1 + size) * np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2)
    u, v = np.linalg.inv(stretch) @ np.stack([X.ravel(), Y.ravel()])
    profile = (1 + (u**2 + v**2) / 2.6**2) ** -3.0
    return (profile / profile.sum()).reshape(X.shape)


def draws(rng, number):
    return np.array([psf_of(rng.normal(0, SIZE), *rng.normal(0, SHEAR, 2)) for _ in range(number)])


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def scene():
    """Galaxies of S/N 100 to 400, each through a PSF of its own, and their parameters."""
    rng, grid = np.random.default_rng(7), FourierGrid(64)
    transfer = np.asarray(transfer_functions(np.float32(draws(rng, N)), grid))
    shear, angle = rng.uniform(0, 0.3, N), rng.uniform(0, 2 * np.pi, N)
    truth = np.column_stack(
        [np.ones(N), rng.uniform(0.8, 2.5, N), np.exp(rng.uniform(np.log(2), np.log(4.5), N)),
         shear * np.cos(angle), shear * np.sin(angle), 31.5 + rng.uniform(-0.5, 0.5, (N, 2)), np.zeros(N)]
    )  # fmt: skip
    images = np.asarray(render(np.float32(truth), np.complex64(transfer), grid))
    truth[:, 0] = rng.uniform(100, 400, N) / np.sqrt((images**2).sum((1, 2)))
    return images * truth[:, 0, None, None] + rng.normal(size=images.shape), truth[:, :5]


def measured(estimator, scene, rows=slice(None), **options):
    options = {"psf": psf_of(), "error": 1.0, "neighbours": "ignore"} | options
    return estimator(scene[0][rows], **options)


def spread(catalog, truth, suffix="err"):
    """Standard deviation of the pulls of each parameter."""
    columns = ("", f"_{suffix}")
    value, error = (
        np.column_stack([np.asarray(getattr(catalog, n + s)) for n in SHAPE_PARAMETERS]) for s in columns
    )
    return ((value - truth) / error).std(0)


@pytest.mark.parametrize("method", ["ml", "network"])
def test_pulls_over_psfs_drawn_from_the_error(estimator, scene, method):
    suffix = "err" if method == "ml" else "std"
    said = {"size": SIZE, "ellipticity": SHEAR}
    without = spread(measured(estimator, scene, method=method), scene[1], suffix)
    assert without[1:].mean() > 1.15
    counted = spread(measured(estimator, scene, method=method, psf_error=said), scene[1], suffix)
    # four times the error of a standard deviation of 384; those of flux, n and hlr go together
    assert np.abs(counted - 1).max() < 4 / np.sqrt(2 * N)
    assert np.abs(counted.mean() - 1) < 0.1


def test_alternatives_say_the_same(estimator, scene):
    rows = slice(0, 16)
    some = draws(np.random.default_rng(1), 96)
    by_numbers = measured(estimator, scene, rows, psf_error={"size": SIZE, "ellipticity": SHEAR})
    by_arrays = measured(estimator, scene, rows, psf_error=some)
    for name in SHAPE_PARAMETERS:
        a, b = (np.asarray(getattr(one, f"{name}_err")) for one in (by_numbers, by_arrays))
        assert np.median(b / a) == pytest.approx(1, abs=0.15)
        bounds = [np.asarray(getattr(one, f"{name}_crb")) for one in (by_numbers, by_arrays)]
        assert np.array_equal(*bounds)
    assert by_numbers.meta["options"]["psf_error"] == {"size": SIZE, "ellipticity": SHEAR}
    assert by_arrays.meta["options"]["psf_error"] == "96 alternatives of 33x33 samples"


def test_draws_are_as_wide_as_the_errors(estimator, scene):
    """What the PSF adds to the covariance the draws have too; a row alone has the same draws."""
    rows = slice(0, 24)
    how = {"method": "posterior", "psf_error": {"size": 0.05, "ellipticity": 0.03}}
    without = measured(estimator, scene, rows, method="posterior")
    counted = measured(estimator, scene, rows, **how)
    ratios, stated = [], []
    for row in np.flatnonzero(np.isfinite(counted.covariance).all((1, 2))):
        mean = counted.measurement.params[row, :5]
        spread = np.sqrt(((counted.samples(row) - mean) ** 2).mean(0))
        ratios.append(spread / np.sqrt(np.diagonal(counted.covariance[row])))
        stated.append(np.diagonal(counted.covariance[row] / without.covariance[row]))
    assert len(ratios) > 20
    assert np.median(stated, axis=0)[2] > 2  # of the size: more than the pixels' noise
    np.testing.assert_allclose(np.median(ratios, axis=0), 1, atol=0.1)
    alone = measured(estimator, scene, slice(5, 6), **how)
    np.testing.assert_array_equal(alone.samples(0), counted.samples(5))


def test_rows_do_not_depend_on_their_company(estimator, scene):
    said = {"size": SIZE, "ellipticity": SHEAR}
    whole = measured(estimator, scene, slice(0, 70), method="ml", psf_error=said)
    alone = measured(estimator, scene, slice(69, 70), method="ml", psf_error=said)
    for name in SHAPE_PARAMETERS:
        assert getattr(whole, f"{name}_err")[69] == getattr(alone, f"{name}_err")[0]


def test_nothing_uncertain_changes_nothing(estimator, scene):
    rows = slice(0, 8)
    tables = [measured(estimator, scene, rows, psf_error=one) for one in (None, {"size": 0})]
    assert np.array_equal(tables[0].hlr_err, tables[1].hlr_err)
    zero = measured(estimator, scene, rows, psf_error=psf_of()[None])
    assert np.allclose(zero.hlr_err, tables[0].hlr_err, rtol=1e-3)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"width": 0.1}, "width"),
        ({"size": -0.1}, r"psf_error\['size'\]=-0.1; allowed: a number from 0 to 0.5"),
        ({"size": "much"}, "much"),
        ({}, "no entry"),
        (0.1, "allowed"),
        (np.ones((5, 5)), r"shape \(5, 5\)"),
        (np.ones((2, 4, 4)), "psf_error: .*odd"),
        ("stars", "stars"),
    ],
)
def test_what_it_can_be(value, said):
    with pytest.raises(InputError, match=said):
        PSFUncertainty.checked(value)


def test_runs_in_parts_and_from_the_command_line(estimator, scene, tmp_path):
    """The same errors from the estimator, a run over many rows and the command, by numbers and by a file."""
    images, psf = scene[0][:6].astype(np.float32), psf_of()
    fits.writeto(tmp_path / "cube.fits", images)
    fits.writeto(tmp_path / "psf.fits", psf)
    fits.writeto(tmp_path / "others.fits", draws(np.random.default_rng(2), 5))
    for value, text in (
        ({"size": 0.03}, "size=0.03"),
        (fits.getdata(tmp_path / "others.fits"), str(tmp_path / "others.fits")),
    ):
        options = {"psf": psf, "error": 1.0, "method": "ml", "psf_error": value}
        expected = np.asarray(estimator(images, **options).hlr_err)
        out, folder = tmp_path / "out.ecsv", tmp_path / text.partition("=")[0].replace("/", "")
        command = ["measure", str(tmp_path / "cube.fits"), "--psf", str(tmp_path / "psf.fits")]
        command += ["--error", "1", "--method", "ml", "--psf-error", text]
        assert main([*command, "-o", str(out), "--overwrite"]) == 0
        assert np.allclose(np.asarray(QTable.read(out)["hlr_err"]), expected, rtol=1e-5)
        measure_stream(estimator, images, folder, **options)
        assert np.allclose(np.asarray(read_blocks(folder)["hlr_err"]), expected, rtol=1e-5)


def test_the_command_names_its_option(tmp_path, capsys):
    fits.writeto(tmp_path / "cube.fits", np.zeros((1, 32, 32)))
    command = ["measure", str(tmp_path / "cube.fits"), "--psf", "gaussian:fwhm=3px", "--error", "1"]
    assert main([*command, "--psf-error", "size=2", "-o", str(tmp_path / "out.ecsv")]) == 1
    assert "--psf-error size=2" in capsys.readouterr().err
