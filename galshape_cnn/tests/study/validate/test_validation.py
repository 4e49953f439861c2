# Licensed under a 3-clause BSD style license - see LICENSE.rst
from dataclasses import replace
from functools import partial

import galsim
import numpy as np
import pytest
from astropy.table import Table

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.network.architecture import DEFAULT_NETWORK, build_network
from galshape_cnn.study.validate import atlas
from galshape_cnn.study.validate import validation as validate
from galshape_cnn.study.validate.atlas import score_flags
from galshape_cnn.study.validate.atlas_cases import FAMILIES, draw_base, smooth_noise
from galshape_cnn.study.validate.atlas_domain import AtlasDomain, domain_of
from galshape_cnn.study.validate.benchmark_prior import bin_galaxies, measure_galaxies
from galshape_cnn.study.validate.benchmark_seed import PUBLISHED, SEED_GALAXY, in_domain
from galshape_cnn.study.validate.criteria import judge, passed
from galshape_cnn.study.validate.estimates import ValidatedNetwork
from galshape_cnn.study.validate.statistics import (
    bias_and_scatter,
    coverage,
    errors_of,
    ranks,
    rmse,
    rmse_ratio,
    scatter_over,
)
from galshape_cnn.study.validate.trust_region import region_of
from galshape_cnn.study.validate.validation import validate_bundle

N = 600


def toy_galaxies(scaling=0.0, stated_variance=1.0, extra=0.0, seed=1):
    """What a Gaussian posterior would give: exact unless told to be wrong.

    ``scaling`` multiplies the answers, ``stated_variance`` the stated covariance, and
    ``extra`` is noise of the estimator's own, in posterior sigmas.
    """
    rng = np.random.default_rng(seed)
    columns = {"snr": np.exp(rng.uniform(np.log(5), np.log(1000), N)), "n": rng.uniform(0.5, 6, N)}
    columns |= {"hlr_over_fwhm": rng.uniform(0.2, 3, N), "g": rng.uniform(0, 0.6, N)}
    for name in SHAPE_PARAMETERS:
        truth = rng.normal(0, 3, N)
        sigma = rng.uniform(0.5, 1.5, N)
        exact = rng.normal(0, sigma)
        error = exact + extra * sigma * rng.standard_normal(N) + scaling * truth
        draws = (truth + error)[:, None, None] + np.sqrt(stated_variance) * sigma[:, None, None] * rng.normal(
            size=(N, 199, 1)
        )
        columns |= {f"error_{name}": error, f"exact_error_{name}": exact, f"crb_{name}": sigma}
        columns |= {f"ml_error_{name}": error}
        columns |= {f"std_{name}": np.sqrt(stated_variance) * sigma}
        columns |= {f"rank_{name}": ranks(draws, truth[:, None])[:, 0]}
        if name not in columns:
            columns[name] = np.exp(truth)
    return Table(columns)


def seed_table(ratio=1.0):
    rows = []
    for method, rmse_value in (("network", ratio), ("posterior", 1.0)):
        for name in SHAPE_PARAMETERS:
            row = {"snr": 30, "method": method, "parameter": name, "rmse": rmse_value, "rmse_se": 0.02}
            row |= {"ratio": ratio if method == "network" else np.nan, "ratio_se": 0.02}
            rows.append(row | {"scatter": 1.0, "scatter_se": 0.02, "biased_bound": 0.9})
    return Table(rows=rows)


def flag_table(completeness=0.95, false_alarms=0.01):
    row = {"family": "all", "n_wrong": 200, "completeness": completeness, "completeness_se": 0.01}
    row |= {"n_visible": 150, "of_visible": completeness, "of_visible_se": 0.01}
    return Table(rows=[row | {"false_alarms": false_alarms, "false_alarms_se": 0.002}])


def verdict(galaxies=None, seed=None, flags=None):
    galaxies = toy_galaxies() if galaxies is None else galaxies
    seed = seed_table() if seed is None else seed
    return judge(bin_galaxies(galaxies), seed, flag_table() if flags is None else flags, galaxies)


def failed_checks(table):
    return {row["check"].split(",")[0] for row in table if not row["passed"]}


@pytest.mark.parametrize("seed", range(4))
def test_exact_posterior_passes(seed):
    table = verdict(toy_galaxies(seed=seed))
    assert passed(table), table[~table["passed"]]


def test_halved_covariance_fails():
    failed = failed_checks(verdict(toy_galaxies(stated_variance=0.5)))
    assert {"68 % intervals cover", "95 % intervals cover", "rms error / stated sigma"} <= failed


def test_doubled_covariance_fails():
    assert "68 % intervals cover" in failed_checks(verdict(toy_galaxies(stated_variance=2.0)))


def test_wrong_scaling_fails():
    assert "RMSE / RMSE of the exact posterior mean" in failed_checks(verdict(toy_galaxies(scaling=0.3)))


def test_noisy_but_honest_network_fails_on_accuracy_alone():
    galaxies = toy_galaxies(extra=1.0, stated_variance=2.0)
    assert failed_checks(verdict(galaxies)) == {"RMSE / RMSE of the exact posterior mean"}


def test_missing_answers_fail():
    galaxies = toy_galaxies()
    for name in SHAPE_PARAMETERS:
        galaxies[f"error_{name}"][:3] = np.nan
    assert "galaxies with a finite answer" in failed_checks(verdict(galaxies))


def test_unmeasured_numbers_fail():
    galaxies = toy_galaxies()
    for name in SHAPE_PARAMETERS:
        galaxies[f"exact_error_{name}"] = np.nan
    assert "RMSE / RMSE of the exact posterior mean" in failed_checks(verdict(galaxies))


def test_flags_and_seed_galaxy_are_judged():
    table = verdict(seed=seed_table(1.3), flags=flag_table(0.5, 0.2))
    failed = failed_checks(table)
    wrong = "galaxies wrong by 5 sigma flagged"
    contradicted = "galaxies wrong by 5 sigma that the pixels contradict flagged"
    assert {"good galaxies flagged", wrong, contradicted, "seed galaxy"} == failed
    assert not table["passed"][0]  # failures come first


def test_scatter_below_the_bound_is_not_praised():
    seed = seed_table()
    seed["scatter"] = 0.5 * seed["biased_bound"]
    assert "seed galaxy" in failed_checks(verdict(seed=seed))


def test_standard_errors():
    rng = np.random.default_rng(1)
    many = np.array([[*bias_and_scatter(x), *rmse(x)] for x in rng.normal(0.5, 2, (3000, 50))])
    for value, error in ((0, 1), (2, 3), (4, 5)):
        np.testing.assert_allclose(many[:, value].std(), many[:, error].mean(), rtol=0.06)
    noise = rng.normal(size=(3000, 50))
    pairs = np.array([rmse_ratio(1.1 * x + 0.2 * rng.normal(size=50), x) for x in noise])
    np.testing.assert_allclose(pairs[:, 0].std(), pairs[:, 1].mean(), rtol=0.1)


def test_scatter_in_units_of_the_bound():
    rng = np.random.default_rng(2)
    many = np.array([scatter_over(3 * rng.normal(0.7, 1, 400), np.full(400, 2.0)) for _ in range(2000)])
    assert many[:, 0].mean() == pytest.approx(1.5, rel=0.01)
    np.testing.assert_allclose(many[:, 0].std(), many[:, 1].mean(), rtol=0.06)
    assert scatter_over(np.r_[rng.normal(size=999), 1e6], np.ones(1000))[0] < 1.1  # one outlier


def test_ranks_of_honest_and_overconfident_draws():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(4000, 1))
    for width, expected in ((1.0, 0.68), (0.5, 0.31)):  # the posterior of N(0, 1) with no data
        rank = ranks(width * rng.normal(size=(4000, 199, 1)), truth)[:, 0]
        fraction, error = coverage(rank, 0.68)
        np.testing.assert_allclose(fraction, 0.68 if width == 1 else 0.38, atol=4 * error)
        assert (fraction > 0.6) == (expected > 0.6)


def test_errors_are_relative_for_flux_and_radius():
    truth = np.array([[100, 1, 2, 0.1, 0.2]])
    np.testing.assert_allclose(errors_of(truth * 1.1, truth), [[np.log(1.1), 0.1, np.log(1.1), 0.01, 0.02]])
    assert np.isnan(errors_of(-truth, truth)[0, 0])


def test_published_numbers_are_complete():
    assert all(len(numbers) == 5 for numbers in PUBLISHED.values())
    assert SEED_GALAXY[2] * 0.23 == pytest.approx(0.3)


@pytest.fixture(scope="module")
def base():
    return draw_base(3, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_failures_change_what_they_say(base, name):
    value = FAMILIES[name].values[-1]
    change = FAMILIES[name].change(base, value, np.random.default_rng(1))
    for images in (change.images, change.psf):
        assert images is None or (np.isfinite(images).all() and len(images) == 3)
    data, error, mask, params, psf = atlas._observe(base, change, 60, np.random.default_rng(1))
    assert data.shape == error.shape == mask.shape
    assert data.shape[1] == change.crop
    nothing = FAMILIES["noise_wrong"].change(base, 0, None)
    plain = atlas._observe(base, nothing, 60, np.random.default_rng(1))
    same = [np.array_equal(a, b) for a, b in zip((data, error, mask, params, psf), plain, strict=True)]
    assert not all(same)


def test_families_that_lose_no_light(base):
    for name in ("off_centre", "bulge_disc"):
        images = FAMILIES[name].change(base, FAMILIES[name].values[1], np.random.default_rng(1)).images
        np.testing.assert_allclose(images.sum((1, 2)), base.images.sum((1, 2)), rtol=0.08)


def test_correlated_noise_keeps_its_variance():
    noise = smooth_noise(np.random.default_rng(1).normal(size=(50, 64, 64)), 1.0)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert np.mean(noise[:, 1:] * noise[:, :-1]) > 0.5


def test_flag_scores_count_rows():
    row = {"family": "noise_wrong", "n_wrong": 10, "n_wrong_flagged": 9, "n_good": 50, "n_good_flagged": 1}
    row |= {"n_visible": 6, "n_visible_flagged": 6}
    nominal, wrong = ({"value": value, "nominal": value == 0} for value in (0.0, 30.0))
    scores = score_flags(Table(rows=[row | nominal, row | wrong]))
    assert list(scores["family"]) == ["noise_wrong", "all"]
    assert scores["n_wrong"][0] == 20
    assert scores["completeness"][0] == 0.9
    assert scores["of_visible"][0] == 1
    assert scores["n_good"][0] == 50  # nominal strength only
    assert scores["false_alarms"][0] == 0.02


@pytest.fixture(scope="module")
def bundle():
    """A network of the right form that learned nothing, for the seed's prior."""
    from galshape_cnn.infer.network.architecture import import_keras
    from galshape_cnn.infer.network.bundle import Bundle
    from galshape_cnn.study.simulate.config import load_config

    import_keras().utils.set_random_seed(1)
    config = load_config("seed")
    small = DEFAULT_NETWORK | {
        "context": [8],
        "patch_width": 8,
        "middle_width": 8,
        "deep_width": 8,
        "dense": [16],
    }
    weights = tuple(np.array(w.value) for w in build_network(small).weights)
    return Bundle(small, weights, {"snr": [5.0, 1000.0]}, config["prior"], {"config": config})


def damaged(bundle, coordinate, factor, shift):
    """The bundle with its last layer's answers changed: factors of its widths, shifts of a mean."""
    components = bundle.network.get("update", bundle.network)["components"]
    bias = np.array(bundle.weights[-1], np.float64)
    rows, columns = np.tril_indices(7)
    factors = bias[8 * components :].reshape(components, 28)
    factors[:, rows == columns] -= np.log(factor)  # of the inverse Cholesky factors
    bias[components : 8 * components].reshape(components, 7)[:, coordinate] += shift
    return replace(bundle, weights=(*bundle.weights[:-1], bias.astype(bundle.weights[-1].dtype)))


def test_atlas_keeps_to_what_the_network_was_made_for(bundle):
    """A network of one survey is judged by galaxies of its own training; that of the package by any."""
    from galshape_cnn.infer.network.bundle import Bundle

    assert domain_of(Bundle.shipped()).levels == AtlasDomain().levels
    assert not domain_of(Bundle.shipped()).unknown
    assert not domain_of(Bundle.shipped()).without
    limits = {"snr": [10.0, 100.0], "n": [0.5, 6.0], "hlr": [0.43, 2.61]}
    mean, variance = (np.array(one) for one in bundle.weights[:2])
    mean[-3], variance[-3:] = 0, [0, 1, 0]  # a known sky, no masks
    own = domain_of(replace(bundle, domain=limits, weights=(mean, variance, *bundle.weights[2:])))
    assert own.levels == (20, 60)
    assert own.beta == 2.0
    assert 200 < own.unit < 400
    assert own.without == ("sky_fitted",)
    assert set(own.unknown) == {"masked", "undersampled", "unseen_psf"}
    drawn = draw_base(16, 1, domain=own)
    hlr = drawn.params[:, 2]
    assert (hlr > 0.43).all()
    assert (hlr < 2.61).all()
    assert hlr.max() > 1.5 * hlr.min()
    assert drawn.moffat(3.0) == galsim.Moffat(beta=2.0, fwhm=3.0)
    data, error, _, params, _ = atlas._observe(drawn, FAMILIES["sky_wrong"].change(drawn, 0.3, None), 60)
    assert (error == own.unit).all()
    np.testing.assert_allclose(np.sqrt(((data - params[:, 7, None, None]) ** 2).sum((1, 2))), 60 * own.unit)
    np.testing.assert_allclose(params[:, 7], 0.3 * own.unit)
    table = Table({"snr": [30, 60, 200]})
    assert list(in_domain(table, limits)["snr"]) == [30, 60]
    assert not len(in_domain(table, limits | {"hlr": [2.0, 9.0]}))


@pytest.fixture(scope="module")
def held_out():
    from galshape_cnn.study.simulate.mock_sets import draw_mocks

    return draw_mocks("universal", 512, engine="fast", seed=11)


def calibration(bundle, held_out):
    """Checks of the network's own posterior."""
    galaxies = measure_galaxies(ValidatedNetwork(bundle), *held_out, with_posterior=0, seed=1)
    for name in SHAPE_PARAMETERS:  # the exact posterior is not the point here
        galaxies[f"exact_error_{name}"] = galaxies[f"error_{name}"]
    return verdict(galaxies)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "checks"),
    [
        ({"factor": np.sqrt(0.5)}, {"68 % intervals cover", "rms error / stated sigma"}),
        ({"shift": 0.8}, {"mean error / stated sigma"}),
    ],
    ids=["covariance halved", "scaled wrongly"],
)
def test_bundle_damaged_on_purpose_fails(held_out, damage, checks):
    from galshape_cnn.infer.network.bundle import Bundle

    how = {"coordinate": 2, "factor": 1.0, "shift": 0.0} | damage
    shipped = Bundle.shipped()
    found = calibration(damaged(shipped, **how), held_out)
    assert not passed(found)
    assert checks <= failed_checks(found)
    assert len(failed_checks(found)) > len(failed_checks(calibration(shipped, held_out)))


SIZES = {"draws": 8, "slow_draws": 2, "galaxies": 32, "posterior": 2, "atlas": 2}


def test_whole_validation(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "run_atlas", partial(atlas.run_atlas, families=["noise_wrong"]))
    monkeypatch.setattr(validate, "ENOUGH", SIZES["galaxies"])
    steps, store = [], tmp_path / "b.asdf"
    options = {"workers": 1, "progress": lambda *step: steps.append(step), "store": store}
    table = validate_bundle(bundle, tmp_path, sizes=SIZES, **options)
    assert not passed(table)
    assert all(done <= total for _, _, done, total in steps)
    assert set(dict.fromkeys(step[0] for step in steps)) >= {"seed galaxy", "prior", "failure atlas"}
    stored = type(bundle).read(store)
    assert stored.sha256 == bundle.sha256
    assert stored.trust == region_of(Table.read(tmp_path / "trust.ecsv"))
    figures, bins = stored.provenance["validation"], Table.read(tmp_path / "bins.ecsv")
    assert figures["checks"] == len(table)
    assert figures["checks_passed"] == np.sum(table["passed"])
    row = bins[(bins["axis"] == "all") & (bins["parameter"] == "n")][0]
    assert figures["over_the_prior"]["n"]["rmse"] == [row["rmse"], row["rmse_se"]]
    page = (tmp_path / "index.html").read_text()
    assert "FAILED" in page
    assert page.count("data:image/png;base64,") == 12
    assert 'src="http' not in page
    assert "never a success" in page
    names = {one.name for one in tmp_path.iterdir()}
    assert {"seed.ecsv", "galaxies.ecsv", "atlas.ecsv", "bins.ecsv", "flags.ecsv", "verdict.ecsv"} <= names
    assert not any(name.startswith(".") for name in names)
    _check_second_run(bundle, tmp_path, table, monkeypatch)


def _check_second_run(bundle, folder, table, monkeypatch):
    """A finished section is taken as it is; another network's is not."""
    monkeypatch.setattr(atlas, "run_atlas", None)
    again = validate_bundle(bundle, folder, sizes=SIZES, workers=1)
    np.testing.assert_array_equal(again["measured"], table["measured"])
    other = replace(bundle, weights=(*bundle.weights[:-1], bundle.weights[-1] + 1))
    monkeypatch.setattr(validate._Run, "network", property(lambda run: pytest.fail("measured again")))
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        validate_bundle(other, folder, sizes=SIZES, workers=1)


def test_impossible_arguments(bundle, tmp_path):
    with pytest.raises(FileError, match="no folder"):
        validate_bundle(bundle, tmp_path / "nowhere")
    with pytest.raises(InputError, match="seed=-1"):
        validate_bundle(bundle, tmp_path, seed=-1)
    with pytest.raises(InputError, match="sizes has unknown keys"):
        validate_bundle(bundle, tmp_path, sizes={"galaxy": 3})
    with pytest.raises(FileError, match="does not exist"):
        validate_bundle(tmp_path / "none.asdf", tmp_path)
    with pytest.raises(InputError, match="store needs 1000 galaxies of the prior or more, this run has 192"):
        validate_bundle(bundle, tmp_path, quick=True, store=tmp_path / "new.asdf")
    with pytest.raises(FileError, match="cannot write the bundle"):
        validate_bundle(bundle, tmp_path, store=tmp_path / "nowhere" / "new.asdf")
