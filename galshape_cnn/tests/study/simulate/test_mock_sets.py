# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.study.simulate import mock_sets as simulate
from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.study.simulate.galsim_stamps import INDEX_VALUES, nearest_index
from galshape_cnn.study.simulate.mock_sets import draw_mocks, read_mocks, write_mocks
from galshape_cnn.study.simulate.stream import MockStream

PARAMS = ("flux", "n", "hlr", "g1", "g2", "x", "y", "sky")


def chi_square(stamps, truth):
    """Reduced chi-square of each stamp about the true model, drawn by the renderer."""
    grid = grid_for(64, stamps.psf_oversampling)
    transfer = transfer_functions(stamps.psf.astype(np.float32), grid, stamps.psf_oversampling)
    params = np.stack([truth[name] for name in PARAMS], 1).astype(np.float32)
    residual = stamps.data - np.asarray(render(params, transfer, grid))
    return (residual**2 * stamps.ivar).sum((1, 2)) / (stamps.ivar > 0).sum((1, 2))


@pytest.fixture(scope="module")
def seed_mocks():
    return draw_mocks("seed", 40, engine="galsim", seed=3)


def test_galsim_stamps_fit_their_stated_truth(seed_mocks):
    # 4096 pixels: one standard deviation is 0.022
    np.testing.assert_allclose(chi_square(*seed_mocks), 1, atol=0.1)


def test_fast_stamps_fit_their_stated_truth():
    stamps, truth = draw_mocks(None, 40, engine="fast", seed=3)
    np.testing.assert_allclose(chi_square(stamps, truth), 1, atol=0.16)  # up to 30 % masked


def test_seed_configuration_stays_in_its_ranges(seed_mocks):
    _, truth = seed_mocks
    g = np.hypot(truth["g1"], truth["g2"])
    for values, low, high in (
        (truth["snr"], 10, 100), (truth["hlr"] * 0.23, 0.1, 0.6), (truth["psf_fwhm"] * 0.23, 0.5, 1.0),
        (truth["sigma"], 200, 400), (truth["flux"], 0.3e5, 4e5), (g, 0, 0.67),
    ):  # fmt: skip
        assert values.min() >= low * (1 - 1e-5)
        assert values.max() <= high * (1 + 1e-5)
    assert set(truth["n"]) <= set(INDEX_VALUES)
    assert not truth["sky"].any()


def test_part_of_a_block_is_not_sorted_by_psf_width(seed_mocks):
    assert np.any(np.diff(seed_mocks[1]["psf_fwhm"]) < 0)


def test_galaxy_whose_psf_is_not_finite_is_left_out():
    config = load_config(None)
    drawn = simulate._drawn(simulate._stream(config, 1), 0, "fast")
    images, psfs = (np.array(one) for one in simulate._fast_images(drawn))
    _, before = simulate._observed(drawn, images, psfs, config, 0)
    psfs[before["id"][0], 5, 5] = np.nan
    stamps, after = simulate._observed(drawn, images, psfs, config, 0)
    assert list(after["id"]) == list(before["id"][1:])
    assert len(stamps) == len(after)


def test_indices_are_rounded_by_less_than_a_step():
    n = np.linspace(0.3, 6.2, 500)
    assert np.abs(np.log(nearest_index(n) / n)).max() < 0.5 * np.log(6.2 / 0.3) / 61 + 1e-3


@pytest.mark.parametrize("suffix", ["asdf", "fits"])
def test_file_gives_back_what_was_drawn(tmp_path, suffix):
    path = tmp_path / f"mocks.{suffix}"
    write_mocks("seed", 5, path, engine="fast", seed=2)
    stamps, truth = read_mocks(path)
    drawn, expected = draw_mocks("seed", 5, engine="fast", seed=2)
    for name in ("data", "ivar", "psf"):
        np.testing.assert_array_equal(getattr(stamps, name), getattr(drawn, name))
    assert truth.colnames == expected.colnames
    for name in truth.colnames:
        np.testing.assert_array_equal(truth[name], expected[name])
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_interrupted_simulation_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "mocks.asdf"
    n = simulate.BLOCK_SIZE + 3
    observed, calls = simulate._observed, []

    def failing(*args):
        calls.append(args[-1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return observed(*args)

    monkeypatch.setattr(simulate, "_observed", failing)
    with pytest.raises(KeyboardInterrupt):
        write_mocks(None, n, path, engine="fast", seed=2)
    assert not path.exists()
    write_mocks(None, n, path, engine="fast", seed=2)
    assert calls == [0, 1, 1]  # the finished block was not drawn again
    expected, _ = draw_mocks(None, n, engine="fast", seed=2)
    np.testing.assert_array_equal(read_mocks(path)[0].data, expected.data)


def test_seeds_differ_from_each_other_and_from_training():
    config = load_config()
    ours = draw_mocks(config, 20, engine="fast", seed=1)[1]["hlr"]
    assert not np.isin(draw_mocks(config, 20, engine="fast", seed=2)[1]["hlr"], ours).any()
    assert not np.isin(MockStream(config, 1).draw(0, simulate.BLOCK_SIZE)["params"][:, 2], ours).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n=0; allowed: a whole number"),
        ({"engine": "magic"}, "engine='magic'; allowed: 'galsim', 'fast'"),
        ({"seed": -1}, "seed=-1; allowed: a whole number, at least 0"),
    ],
)
def test_impossible_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        draw_mocks("seed", **({"n": 3} | arguments))


def test_empty_selection_is_refused():
    config = load_config("seed") | {"snr_range": [1e6, 2e6]}
    with pytest.raises(InputError, match="snr_range=.*only 0 of"):
        draw_mocks(config, 3, engine="fast")


def test_output_is_checked_first(tmp_path):
    (tmp_path / "old.fits").write_text("")
    with pytest.raises(FileError, match="it exists"):
        write_mocks(None, 3, tmp_path / "old.fits")
    with pytest.raises(InputError, match="suffix '.txt'; allowed: .asdf, .fits"):
        write_mocks(None, 3, tmp_path / "new.txt")
    with pytest.raises(FileError, match="no folder"):
        write_mocks(None, 3, tmp_path / "nowhere" / "new.fits")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileError, match="do not exist"):
        read_mocks(tmp_path / "none.asdf")
    for name in ("bad.asdf", "bad.fits"):
        (tmp_path / name).write_text("nonsense")
        with pytest.raises(FileError, match="does not hold mocks"):
            read_mocks(tmp_path / name)
