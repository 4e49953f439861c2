# Licensed under a 3-clause BSD style license - see LICENSE.rst
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.flags import Flag
from galshape_cnn.infer.catalog.display import with_error
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.likelihood.rendering import model_images
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.study.report.compare import match_truth
from galshape_cnn.study.report.plots import (
    choose_rows,
    plot_comparison,
    plot_galaxies,
    pull_histogram,
    save_figure,
)
from galshape_cnn.study.report.thumbnails import Thumbnails, thumbnails
from galshape_cnn.study.simulate.field import simulate_field
from galshape_cnn.tests.standin import StandInEstimator


@pytest.fixture(scope="module")
def field():
    return simulate_field(seed=3, n_galaxies=6, size=320)


@pytest.fixture(scope="module")
def catalog(field):
    estimator = StandInEstimator()
    return estimator(field.to_nddata(), psf=field.psf, positions=field.positions)


def stamps_with_model(shape=(32, 32), n=3):
    psf = np.exp(-np.sum(np.mgrid[-8:9, -8:9] ** 2, axis=0) / 4.0)
    stamps = Stamps(np.zeros((n, *shape)), np.ones((n, *shape)), psf / psf.sum())
    params = np.tile([100.0, 1.0, 2.5, 0.2, 0.1, 15.0, 16.0, 0.5], (n, 1))
    return stamps, params


def test_model_images_have_the_flux_and_keep_bad_rows():
    stamps, params = stamps_with_model()
    params[1, 3] = np.nan
    images = model_images(stamps, params)
    np.testing.assert_array_equal(images[1], 0)
    np.testing.assert_array_equal(images[0], images[2])
    assert (images[0] - 0.5).sum() == pytest.approx(100, rel=0.01)
    peak = np.unravel_index(images[0].argmax(), images[0].shape)
    assert peak == (16, 15)


def test_model_images_of_rectangular_stamps():
    stamps, params = stamps_with_model((25, 40))
    square, _ = stamps_with_model((40, 40))
    np.testing.assert_allclose(model_images(stamps, params), model_images(square, params)[:, :25], atol=1e-5)


def test_thumbnail_residual_is_in_sigma_and_bad_pixels_are_nan():
    data, ivar, model = np.full((8, 8), 3.0), np.full((8, 8), 4.0), np.full((8, 8), 1.0)
    ivar[0, 0] = 0
    images = Thumbnails(data, ivar, model)
    assert images.sigma == 0.5
    assert images.residual[1, 1] == 4.0
    assert np.isnan(images.residual[0, 0])
    assert np.isnan(images.data[0, 0])
    shown, _ = images.stretched()
    assert np.nanmin(shown) > 0


def test_thumbnails_cover_each_row_once(catalog):
    rows = [row for row, _ in thumbnails(catalog)]
    assert sorted(rows) == list(range(len(catalog)))
    chosen = [row for row, _ in thumbnails(catalog[[4, 1]])]
    assert sorted(chosen) == [0, 1]


def test_thumbnail_model_agrees_with_the_catalogs_model(catalog):
    row, images = next(iter(thumbnails(catalog)))
    left, bottom = catalog.placement.origin[row]
    y, x = np.indices(images.model.shape)
    np.testing.assert_allclose(
        catalog.model(row)(x + left, y + bottom), images.model, atol=1e-4 * images.model.max()
    )


def test_plot_of_one_galaxy_is_in_image_pixels(catalog):
    figure = Figure()
    axes = catalog.plot(0, axes=figure.subplots(1, 3))
    left, right = axes[0].get_xlim()
    assert left < catalog.x_centroid[0].value < right
    assert [axis.get_title() for axis in axes] == ["data", "model", "residual / sigma"]


def with_samples(catalog, number=400):
    """The catalogue as ``"posterior"`` would make it."""
    measurement, rng = catalog.measurement, np.random.default_rng(1)
    rows = zip(measurement.params, measurement.crb, strict=True)
    samples = np.array([rng.multivariate_normal(params[:5], crb, number) for params, crb in rows])
    measurement = replace(measurement, samples=samples, covariance=1.44 * measurement.crb)
    return replace(catalog, method="posterior", measurement=measurement)


def test_corner_of_samples(catalog):
    axes = with_samples(catalog).plot_corner(1, axes=Figure().subplots(5, 5))
    assert [axis.get_xlabel() for axis in axes[4]] == ["flux (nJy)", "n", "hlr (arcsec)", "$g_1$", "$g_2$"]
    samples = with_samples(catalog).samples(1)
    low, high = axes[2, 0].get_xlim()
    assert low < np.median(samples[:, 0]) < high
    histogram = sum(bar.get_height() for bar in axes[3, 3].patches)
    assert histogram == pytest.approx(400, rel=0.02)
    assert not axes[0, 4].axison


def test_corner_needs_samples(catalog):
    with pytest.raises(InputError, match="samples exist for method='posterior' only"):
        catalog.plot_corner(0)
    with pytest.raises(InputError, match=r"row 2 has 5 samples; a corner plot needs 20 or more"):
        with_samples(catalog, 5).plot_corner(2)
    with pytest.raises(InputError, match=r"axes has shape \(2,\); allowed: \(5, 5\)"):
        with_samples(catalog).plot_corner(0, axes=Figure().subplots(1, 2))


def test_ratio_to_the_bound(catalog):
    made = with_samples(catalog)
    axes = made.plot_bound_ratio(axes=Figure().subplots(1, 5))
    for axis in axes:
        drawn = np.concatenate([line.get_ydata() for line in axis.lines[:2]])
        np.testing.assert_allclose(drawn, 1.2)
        assert len(drawn) == len(catalog)
    ml = replace(made, method="ml")
    with pytest.raises(InputError, match="method='ml' states no posterior width"):
        ml.plot_bound_ratio()


def test_plot_makes_its_own_figure(catalog):
    import matplotlib.pyplot as plt

    axes = catalog.plot(-1)
    assert len(axes) == 3
    plt.close(axes[0].figure)


def test_comparison_shows_every_parameter(catalog, field):
    table = catalog.to_table()
    figure = plot_comparison(table, match_truth(table, field.truth))
    titles = [axis.get_title() for axis in figure.axes[:5]]
    assert titles == ["flux", "Sérsic index n", "half-light radius", "$g_1$", "$g_2$"]
    assert figure.axes[0].get_xlabel() == "true (nJy)"
    assert figure.axes[2].get_ylabel() == "measured (arcsec)"


def test_rows_chosen_include_flagged_ones_last(catalog):
    flags = np.array([0, Flag.FAR_CENTROID, 0, 0, Flag.NEIGHBOR_LIGHT, 0])
    from dataclasses import replace

    marked = replace(catalog, measurement=replace(catalog.measurement, flags=flags))
    rows = choose_rows(marked, 4)
    assert len(rows) == 4
    assert [bool(flags[row]) for row in rows] == [False, False, False, True]
    assert choose_rows(marked, 100)[-2:] == [row for row in choose_rows(marked, 100) if flags[row]]


def test_galaxies_not_measured_can_be_drawn(catalog, tmp_path):
    from dataclasses import replace

    empty = replace(catalog, measurement=Measurement.empty(len(catalog)))
    assert choose_rows(empty) == []
    save_figure(plot_galaxies(empty, rows=[0, 1]), tmp_path / "empty.png")
    save_figure(plot_galaxies(empty), tmp_path / "none.png")


def test_captions_state_the_width_of_a_posterior_where_there_is_one(catalog):
    covariance = catalog.measurement.covariance
    for factor, expected in ((4, 2 * catalog.n_err[0]), (np.nan, catalog.n_err[0])):
        measured = replace(catalog.measurement, covariance=factor * covariance)
        text = f"n {with_error(catalog.n[0], expected)} "
        assert text in _texts(replace(catalog, measurement=measured))


def _texts(catalog):
    figure = plot_galaxies(catalog, rows=[0])
    return " ".join(text.get_text() for axis in figure.axes for text in axis.texts)


def test_save_figure(catalog, tmp_path):
    path = tmp_path / "galaxies.png"
    save_figure(plot_galaxies(catalog, rows=[0, 2, -1]), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["galaxies.png"]
    with pytest.raises(FileError, match="cannot write"):
        save_figure(Figure(), tmp_path / "missing" / "a.png")


def test_pulls_beyond_the_axis_are_in_the_last_bins():
    axis = Figure().subplots()
    all_, kept = np.array([-30.0, -9, 0.05, 7, np.nan, np.inf]), np.array([-0.1, 0.1, 0.1])
    finite = pull_histogram(axis, {"measured": (all_, {}), "kept": (kept, {})}, 4)
    np.testing.assert_array_equal(finite, kept)
    heights = [[bar.get_height() for bar in bars] for bars in axis.containers]
    assert [sum(one) for one in heights] == [4, 3]
    assert (heights[0][0], heights[0][-1]) == (2, 1)
    x, normal = axis.lines[0].get_data()
    assert np.trapezoid(normal, x) == pytest.approx(len(kept) * 8 / len(heights[0]), rel=1e-3)
