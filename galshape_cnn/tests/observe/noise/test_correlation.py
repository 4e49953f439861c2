# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Correlated noise: the array checked or estimated, and errors that are as large as the scatter."""

import galsim
import numpy as np
import pytest
from astropy.table import QTable

from galshape_cnn import ShapeEstimator, Stamps
from galshape_cnn.cli import main
from galshape_cnn.errors import GalshapeWarning, InputError, NoiseError
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.likelihood.sandwich import information, sandwich, stretching, tempering, widened
from galshape_cnn.observe.noise.correlation import correlation_array, estimate_correlation

SIZE, MIDDLE = 64, 31.5
R2 = np.add.outer(np.arange(-15, 16.0) ** 2, np.arange(-15, 16.0) ** 2)
PSF = np.exp(-R2 / (2 * 1.3**2)) / np.exp(-R2 / (2 * 1.3**2)).sum()
GALAXY = np.array([12000.0, 1.5, 3.0, 0.2, 0.1, MIDDLE, MIDDLE, 0.0])


def correlated(rng, width=0.7):
    """GalSim's noise of unit variance, smoothed as by a resampling kernel."""
    white = galsim.UncorrelatedNoise(variance=1.0, rng=rng, scale=1.0)
    return white.convolvedWith(galsim.Gaussian(sigma=width)).withVariance(1.0)


def draw_noise(n, noise):
    stamps = []
    for _ in range(n):
        image = galsim.ImageD(SIZE, SIZE, scale=1.0)
        image.addNoise(noise)
        stamps.append(image.array)
    return np.array(stamps)


def make_stamps(noise, galaxy=GALAXY):
    from galshape_cnn.forward.grid import FourierGrid
    from galshape_cnn.forward.render import render
    from galshape_cnn.forward.transfer import transfer_functions

    grid = FourierGrid(SIZE)
    image = render(galaxy[None].astype(np.float32), transfer_functions(PSF[None], grid), grid)
    return Stamps(np.asarray(image) + noise, np.ones_like(noise), PSF)


@pytest.fixture(scope="module")
def stamps():
    return make_stamps(draw_noise(64, correlated(galsim.BaseDeviate(3))))


@pytest.fixture(scope="module")
def kernel():
    return correlation_array(correlated(galsim.BaseDeviate(1)))


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def pulls(catalog, suffix):
    sigma = [getattr(catalog, f"{name}_{suffix}") for name in ("flux", "n", "hlr", "g1", "g2")]
    sigma = np.array([np.asarray(getattr(one, "value", one)) for one in sigma]).T
    return (catalog.parameters - GALAXY[:5]) / sigma


def test_galsim_noise_becomes_its_correlation_on_the_pixels(kernel):
    assert kernel.shape[0] % 2 == 1
    middle = kernel.shape[0] // 2
    # white noise smoothed with a Gaussian of width s: correlation exp(-r^2 / 4 s^2)
    assert kernel[middle, middle] == 1
    assert kernel[middle, middle + 1] == pytest.approx(np.exp(-1 / (4 * 0.7**2)), abs=0.06)
    assert kernel[middle - 1, middle] == pytest.approx(kernel[middle, middle + 1])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((2, 3)), r"shape \(2, 3\); an odd-sized"),
        (np.ones(3), r"shape \(3,\); an odd-sized"),
        (np.full((3, 3), 0.5), "0.5 at its centre; 1 is needed"),
        ([[0, 0, 0], [0, 1, np.nan], [0, 0, 0]], "not finite"),
        ([[0, 0, 0], [0, 1, 0.3], [0, 0, 0]], "differs at opposite lags"),
        ([[0, 0, 0], [2, 1, 2], [0, 0, 0]], "no correlation exceeds 1"),
        ([[0.9, 0.9, 0.9]] * 1 + [[0.0, 1.0, 0.0]] + [[0.9, 0.9, 0.9]], "negative power"),
        ("guess", "the words allowed are 'auto' and 'estimate'"),
        (object(), "an odd-sized 2-D array, a galsim.CorrelatedNoise, or 'estimate'"),
    ],
)
def test_what_is_no_autocorrelation_is_refused(estimator, stamps, value, message):
    with pytest.raises(InputError, match=message):
        estimator(stamps[:1], noise_correlation=value)


def test_estimate_agrees_with_the_truth_and_leaves_white_noise_alone(stamps, kernel):
    estimated, excess = estimate_correlation([(np.arange(64), stamps)])
    assert excess == pytest.approx(1, abs=0.02)
    side = min(len(kernel), len(estimated)) // 2
    middle, own = len(kernel) // 2, len(estimated) // 2
    inner = kernel[middle - side : middle + side + 1, middle - side : middle + side + 1]
    found = estimated[own - side : own + side + 1, own - side : own + side + 1]
    np.testing.assert_allclose(found, inner, atol=0.03)
    assert estimated.sum() == pytest.approx(kernel.sum(), rel=0.08)
    white = make_stamps(np.random.default_rng(2).normal(size=(32, SIZE, SIZE)))
    assert estimate_correlation([(np.arange(32), white)])[0].shape == (1, 1)


def test_gradients_of_the_sky_are_no_correlation(kernel):
    rng = np.random.default_rng(6)
    x = np.linspace(-1, 1, SIZE)
    slopes = rng.uniform(-0.6, 0.6, (64, 2))  # without a plane: correlations of 0.08 at all lags
    planes = slopes[:, :1, None] * x[:, None] + slopes[:, 1:, None] * x
    white = make_stamps(rng.normal(size=(64, SIZE, SIZE)) + planes)
    assert estimate_correlation([(np.arange(64), white)])[0].sum() < 1.3
    noise = make_stamps(draw_noise(64, correlated(galsim.BaseDeviate(3))) + planes)
    found, _ = estimate_correlation([(np.arange(64), noise)])
    np.testing.assert_allclose(found.sum(), kernel.sum(), rtol=0.1)


def test_estimate_needs_blank_pixels(estimator, stamps):
    masked = stamps.with_pixels(
        stamps.data, np.where(np.add.outer(*2 * [np.arange(SIZE)]) < 40, 1.0, 0.0) * stamps.ivar
    )
    with pytest.raises(NoiseError, match="blank pixels; 2000 are needed"):
        estimator(masked[:1], noise_correlation="estimate")


def test_a_wrong_noise_map_is_told(estimator, stamps):
    wrong = stamps.with_pixels(stamps.data, 4 * stamps.ivar)
    with pytest.warns(GalshapeWarning, match=r"scatter (1\.9|2\.0)\d times"):
        catalog = estimator(wrong, noise_correlation="estimate")
    assert catalog.meta["noise_correlation"]["excess"] == pytest.approx(2, abs=0.1)


def test_independent_noise_changes_nothing(stamps):
    params = np.tile(GALAXY, (4, 1))
    naive, actual = information(RenderedBatch.from_stamps(stamps[:4]), params, correlation=np.ones((1, 1)))
    np.testing.assert_allclose(actual, naive, rtol=1e-3, atol=1e-3 * np.abs(naive).max())
    np.testing.assert_allclose(tempering(naive, actual), 1, rtol=1e-3)


def test_sandwich_is_the_dense_matrix_product(stamps, kernel):
    """V by convolution against V from the full covariance of the pixels, masked ones left out."""
    from galshape_cnn.forward.grid import FourierGrid
    from galshape_cnn.forward.render import render_with_derivatives
    from galshape_cnn.forward.transfer import transfer_functions

    ivar = np.random.default_rng(1).uniform(0.5, 2, (1, SIZE, SIZE)).astype(np.float32)
    ivar[0, 10:20, 25:40] = 0
    one = stamps[:1].with_pixels(stamps.data[:1], ivar)
    _, actual = information(RenderedBatch.from_stamps(one), GALAXY[None], correlation=kernel)
    grid = FourierGrid(SIZE)
    transfer = transfer_functions(PSF[None], grid)
    slopes = np.asarray(render_with_derivatives(GALAXY[None].astype(np.float32), transfer, grid)[1])[0]
    columns = (slopes * np.sqrt(ivar)).reshape(8, -1)
    y, x = (c.ravel() for c in np.mgrid[:SIZE, :SIZE])
    half = len(kernel) // 2
    padded = np.pad(kernel, SIZE)
    dense = padded[SIZE + half + y[:, None] - y, SIZE + half + x[:, None] - x]
    expected = columns @ dense @ columns.T
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(actual[0] / scale, expected / scale, atol=2e-4)


def test_ml_errors_are_the_scatter_with_the_correlation_and_not_without(estimator, stamps, kernel):
    error = 1 / np.sqrt(2 * 64)
    without = pulls(estimator(stamps, method="ml"), "crb").std(0, ddof=1)  # _err counts structure
    with_it = pulls(estimator(stamps, method="ml", noise_correlation=kernel), "err").std(0, ddof=1)
    assert (without > 1 + 6 * error).all()
    np.testing.assert_allclose(with_it, 1, atol=3.5 * error)


def test_widths_of_network_and_posterior_follow(estimator, stamps, kernel):
    some = stamps[:16]
    white = make_stamps(np.random.default_rng(12).normal(size=(16, SIZE, SIZE)))
    # the network's own error is a part of its width that does not grow
    for method, least in (("network", 1.2), ("posterior", 2.2)):
        narrow = estimator(white, method=method)
        wide = estimator(some, method=method, noise_correlation=kernel)
        ratio = np.median(wide.g1_std / narrow.g1_std)
        assert least < ratio < 3.2  # the square root of the correlation's area is 2.7
        assert wide.meta["noise_correlation"]["origin"] == "given"
        assert wide.meta["noise_correlation"]["area"] == pytest.approx(kernel.sum())
        assert "noise_correlation" not in narrow.meta


def test_width_of_each_parameter_is_that_of_the_sandwich_where_the_prior_is_weak(estimator, stamps, kernel):
    """One power of the likelihood is right on average: flux and hlr were 5 to 6 % narrow, n 4 % wide."""
    # S/N 3,000 and a flat prior: at S/N 800 the likelihood's own skew widens n by 1.3 +- 0.4 per cent
    bright = make_stamps(
        stamps.data - make_stamps(np.zeros((1, SIZE, SIZE))).data, GALAXY * [4, 1, 1, 1, 1, 1, 1, 1]
    )
    limits = {"flux": (1e3, 1e6), "n": (0.3, 6.2), "hlr": (0.3, 12), "g": (0, 0.7)}
    flat = {name: {"kind": "uniform", "low": low, "high": high} for name, (low, high) in limits.items()}
    catalog = estimator(bright, method="posterior", noise_correlation=kernel, prior=flat)
    plain = ~catalog.measurement.structure.any((1, 2))  # the others are wider by what looks like structure
    assert plain.mean() > 0.9
    variance, reached = (
        np.diagonal(one, axis1=1, axis2=2)[plain] for one in (catalog.covariance, catalog.crb_covariance)
    )
    ratio = np.sqrt(variance / reached)
    error = ratio.std(0, ddof=1) / np.sqrt(len(ratio))
    assert (error < 0.01).all()
    np.testing.assert_array_less(np.abs(ratio.mean(0) - 1), 4 * error)
    for k, row in enumerate(np.flatnonzero(plain)[:2]):  # draws follow
        assert catalog.samples(row).std(0, ddof=1) == pytest.approx(np.sqrt(variance[k]), rel=0.1)


def test_draws_stay_inside_the_limits_of_the_prior(estimator, stamps, kernel, monkeypatch):
    from galshape_cnn.infer.measure import estimates

    monkeypatch.setattr(estimates, "stretching", lambda *matrices: np.tile(1.5 * np.eye(5), (8, 1, 1)))
    limits = {"flux": (11500, 12500), "n": (1.4, 1.6), "hlr": (2.85, 3.15), "g": (0.21, 0.235)}
    prior = {name: {"kind": "uniform", "low": low, "high": high} for name, (low, high) in limits.items()}
    catalog = estimator(stamps[:8], method="posterior", noise_correlation=kernel, prior=prior)
    draws = np.concatenate([catalog.samples(row) for row in range(8)])
    found = {**dict(zip(("flux", "n", "hlr"), draws.T, strict=False)), "g": np.hypot(*draws[:, 3:].T)}
    for name, (low, high) in limits.items():
        edge = 1e-6 * high  # draws are in single precision
        assert found[name].min() >= low - edge
        assert found[name].max() <= high + edge
        assert np.ptp(found[name]) > 0.7 * (high - low)  # they reach there


def test_independent_noise_is_sampled_as_it_is(estimator, stamps, monkeypatch):
    """Bit for bit: what mends correlated noise is not even asked."""
    from galshape_cnn.infer.measure import estimates

    expected = estimator(stamps[:4], method="posterior")
    for name in ("tempering", "stretching"):
        monkeypatch.delattr(estimates, name)
    catalog = estimator(stamps[:4], method="posterior")
    np.testing.assert_array_equal(catalog.covariance, expected.covariance)
    np.testing.assert_array_equal(catalog.samples(3), expected.samples(3))
    with pytest.raises(NameError):
        estimator(stamps[:4], method="posterior", noise_correlation=np.ones((1, 1)))


def test_stretching_gives_the_sandwich_or_what_the_prior_leaves():
    rng = np.random.default_rng(4)
    root = rng.normal(size=(3, 5, 5))
    supposed, prior = (one @ one.T + np.eye(5) for one in root[:2])
    change = np.eye(5) + 0.02 * (root[2] + root[2].T)
    actual = change @ supposed @ change.T
    stretch = stretching(supposed[None], supposed[None], actual[None])[0]
    np.testing.assert_allclose(stretch @ supposed @ stretch.T, actual, rtol=1e-8)
    posterior = np.linalg.inv(np.linalg.inv(supposed) + np.linalg.inv(prior))
    stretch = stretching(posterior[None], supposed[None], actual[None])[0]
    expected = widened(posterior[None], supposed[None], actual[None])[0]
    # the same to first order, in a change of a few per cent
    second = np.linalg.norm(change - np.eye(5), 2) ** 2
    scale = np.sqrt(np.outer(np.diag(posterior), np.diag(posterior)))
    assert np.abs(expected - posterior).max() / scale.max() > 0.02
    np.testing.assert_allclose(stretch @ posterior @ stretch.T / scale, expected / scale, atol=6 * second)
    unchanged = stretching(1e-6 * supposed[None], supposed[None], actual[None])[0]
    np.testing.assert_allclose(unchanged, np.eye(5), atol=1e-5)
    nothing = stretching(posterior[None], np.full((1, 5, 5), np.nan), actual[None])[0]
    np.testing.assert_array_equal(nothing, np.eye(5))


def test_widened_is_exact_for_a_linear_model():
    rng = np.random.default_rng(4)
    root = rng.normal(size=(3, 5, 5))
    supposed, prior = root[0] @ root[0].T + np.eye(5), root[1] @ root[1].T + np.eye(5)
    actual = supposed + root[2] @ root[2].T
    posterior = np.linalg.inv(np.linalg.inv(supposed) + np.linalg.inv(prior))
    response = posterior @ np.linalg.inv(supposed)
    rest = np.eye(5) - response
    expected = response @ actual @ response.T + rest @ prior @ rest.T
    np.testing.assert_allclose(widened(posterior[None], supposed[None], actual[None])[0], expected, rtol=1e-8)
    nothing = widened(posterior[None], np.full((1, 5, 5), np.nan), actual[None])[0]
    np.testing.assert_array_equal(nothing, posterior)
    # one galaxy that knows nothing of a parameter is left as it is, and no other suffers
    flat = supposed.copy()
    flat[:, 2] = flat[2] = 0
    for function, unchanged in ((widened, posterior), (stretching, np.eye(5))):
        alone = function(posterior[None], supposed[None], actual[None])[0]
        found = function(np.stack([posterior] * 2), np.stack([flat, supposed]), np.stack([actual] * 2))
        np.testing.assert_array_equal(found[0], unchanged)
        np.testing.assert_array_equal(found[1], alone)


def test_sandwich_of_equal_matrices_is_the_bound(stamps):
    from galshape_cnn.infer.likelihood.fisher import bound

    naive, _ = information(RenderedBatch.from_stamps(stamps[:2]), np.tile(GALAXY, (2, 1)))
    for fit_sky in (True, False):
        np.testing.assert_allclose(sandwich(naive, naive, fit_sky)[0], bound(naive, fit_sky)[0], rtol=1e-3)


def test_command_line_estimates_once_for_all_and_every_format_holds_the_record(stamps, tmp_path):
    from astropy.io import fits

    path = tmp_path / "cube.fits"
    images = [fits.PrimaryHDU(), fits.ImageHDU(stamps.data[:24], name="SCI"), fits.ImageHDU(PSF, name="PSF")]
    fits.HDUList(images).writeto(path)
    for suffix in ("ecsv", "fits", "parquet", "asdf", "vot"):
        out = tmp_path / f"shapes.{suffix}"
        args = ["measure", str(path), "-o", str(out), "--error", "1", "--neighbours", "fit"]
        assert main([*args, "--noise-correlation", "estimate"]) == 0
    table = QTable.read(tmp_path / "shapes.ecsv")
    assert table.meta["noise_correlation"]["area"] == pytest.approx(7.2, rel=0.15)
    assert table.meta["neighbours"] == "fit"
    assert len(table) == 24


def test_streams_and_clusters_estimate_once_and_give_the_rows_of_one_call(
    estimator, stamps, tmp_path, monkeypatch
):
    """Not chunk by chunk: with eight stamps the estimate, and so every error, would be another."""
    from galshape_cnn.scale import measure_dask, measure_stream, read_blocks
    from galshape_cnn.scale import run as run_module

    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(run_module, "CHUNK_ROWS", 8)
    some = stamps[:24]
    expected = estimator(some, noise_correlation="estimate").to_table()
    by_chunk = estimator(stamps[:8], noise_correlation="estimate").to_table()
    assert not np.array_equal(by_chunk["flux_err"], expected["flux_err"][:8])
    measure_stream(estimator, some, tmp_path / "stream", noise_correlation="estimate")
    local = {"processes": False, "n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.Client(**local) as client:
        measure_dask(estimator, some, tmp_path / "dask", client, noise_correlation="estimate")
    for kind in ("stream", "dask"):
        table = read_blocks(tmp_path / kind)
        for name in ("flux", "hlr", "flux_err", "n_err", "g1_std", "chi2", "flags"):
            np.testing.assert_array_equal(np.asarray(table[name]), np.asarray(expected[name]), err_msg=name)
        record = table.meta["noise_correlation"]
        assert record["origin"] == "estimated from blank pixels"
        assert record["excess"] == expected.meta["noise_correlation"]["excess"]
