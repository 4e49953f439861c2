# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Any range of the galaxies of any input, and what an input is known by."""

import tracemalloc

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData
from astropy.table import Table

from galshape_cnn import Stamps
from galshape_cnn.errors import FileError, InputError, PositionError
from galshape_cnn.fingerprint import fingerprint
from galshape_cnn.flags import Flag
from galshape_cnn.infer.measure.neighbours import listed_positions
from galshape_cnn.observe.observation import prepare
from galshape_cnn.scale import measure_stream, open_source, read_blocks
from galshape_cnn.scale import run as run_module
from galshape_cnn.tests.standin import StandInEstimator
from galshape_cnn.tests.stream_scene import SIDE, N, assert_same, moments, write_cube


@pytest.fixture
def cube(tmp_path):
    return write_cube(tmp_path / "cube.fits", *moments())


def test_sources_agree(cube, tmp_path):
    data, psf = moments()
    stamps = Stamps(data, np.ones_like(data), psf)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["data"], file["ivar"], file["psf"] = data, np.ones_like(data), psf
    sources = [
        open_source(stamps),
        open_source(data, error=1.0, psf=psf),
        open_source(cube),
        open_source(tmp_path / "set.h5"),
    ]
    for source in sources:
        assert len(source) == N
        part, keywords = source.read(30, 34)
        pixels = getattr(part, "data", part)
        np.testing.assert_array_equal(pixels, data[30:34])
        assert len(part) if part is stamps else len(np.asarray(pixels)) == 4
        assert len(keywords.get("psf", np.zeros(4))) == 4
    assert len({source.identity for source in sources}) == len(sources)


def test_a_cube_of_psfs_stays_in_its_file(tmp_path):
    psf = np.random.default_rng(2).uniform(1, 2, (400, 65, 65))
    path = write_cube(tmp_path / "cube.fits", *moments(4))
    with fits.open(path, mode="append") as hdus:
        hdus["SCI"].data, hdus["ERR"].data = (np.resize(hdus[k].data, (400, SIDE, SIDE)) for k in (1, 2))
        hdus["PSF"].data = psf
        hdus.writeto(path, overwrite=True)
    source = open_source(path)
    tracemalloc.start()
    _, keywords = source.read(200, 203)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(keywords["psf"], psf[200:203])
    assert keywords["psf"].dtype.isnative
    assert peak < psf.nbytes / 8


def test_rows_of_psfs_of_every_form(cube, tmp_path):
    data, psf = moments()
    path = write_cube(tmp_path / "oversampled.fits", data, 3 * psf)
    with fits.open(path, mode="update") as hdus:
        hdus["PSF"].header["OVERSAMP"] = 2
    _, keywords = open_source(path).read(5, 8)
    np.testing.assert_allclose(keywords["psf"].array, psf[5:8], rtol=1e-6)
    assert keywords["psf"].oversampling == 2
    _, keywords = open_source(cube, psf=list(psf), error=np.ones_like(data)).read(5, 8)
    np.testing.assert_array_equal(keywords["psf"], psf[5:8])
    assert keywords["error"].shape == (3, SIDE, SIDE)
    _, keywords = open_source(cube, psf=psf[0], error=2.0).read(5, 8)
    assert keywords["psf"].shape == (17, 17)
    assert keywords["error"] == 2.0


@pytest.mark.parametrize("suffix", [".fits", ".asdf"])
def test_sets_of_simulate_are_read_as_they_are(tmp_path, suffix):
    from galshape_cnn.study.simulate.mock_files import write_set

    data, psf = moments(6)
    truth = Table({"id": np.arange(6), "flux": np.ones(6)})
    path = str(tmp_path / f"mocks{suffix}")
    stamps = Stamps(data, np.full_like(data, 4.0), psf, psf_oversampling=2)
    write_set(path, stamps, truth, {"config": {}, "seed": 1, "engine": "fast"})
    part, keywords = open_source(path).read(2, 5)
    np.testing.assert_array_equal(part, data[2:5])
    np.testing.assert_array_equal(keywords["error"].array, 4.0)
    assert keywords["psf"].shape == (3, 17, 17)
    assert keywords["psf_oversampling"] == 2


def image_and_positions():
    data, psf = moments(9)
    image = np.concatenate([np.concatenate(data[k : k + 3], axis=1) for k in (0, 3, 6)])
    x, y = np.meshgrid(np.arange(3) * SIDE + 15.5, np.arange(3) * SIDE + 15.5)
    places = Table({"x": x.ravel(), "y": y.ravel(), "id": 100 + np.arange(9), "band": ["r"] * 9})
    places["x"][4] = 1e5
    return image, psf[0], places


def test_part_of_a_list_of_positions_is_like_the_whole(tmp_path, monkeypatch):
    from astropy.nddata import NDData

    image, psf, places = image_and_positions()
    tables = []
    for size in (1, 2, 9):
        monkeypatch.setattr(run_module, "CHUNK_ROWS", size)
        out = tmp_path / str(size)
        keywords = {"positions": places, "error": 1.0, "psf": psf, "stamp_size": 32}
        measure_stream(StandInEstimator(), NDData(image), out, **keywords)
        tables.append(read_blocks(out))
    for table in tables:
        assert_same(table, tables[0])
        assert list(table["id"]) == list(places["id"])
        assert table["flags"][4] & Flag.OFF_IMAGE
        assert list(table["band"]) == ["r"] * 9
    places["x"] = 1e5
    with pytest.raises(PositionError, match="none of the 9 lies inside"):
        open_source(NDData(image), positions=places, error=1.0, psf=psf)


def test_listed_galaxies_outside_the_part_are_known(tmp_path):
    from astropy.nddata import NDData

    image, psf, places = image_and_positions()
    source = open_source(NDData(image), positions=places, error=1.0, psf=psf)
    _, keywords = source.read(3, 5)
    everything, first = keywords["listed"]
    assert (len(everything), first) == (9, 3)


def test_unknown_data_are_refused():
    with pytest.raises(InputError, match="data is a int; Stamps, an"):
        open_source(5)
    with pytest.raises(InputError, match="paths is empty"):
        open_source([])


def test_fingerprint_follows_the_contents(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    values = [None, 1, 1.5, "a", [1, 2], {"a": 1}, np.arange(3), np.arange(3.0), Table({"x": [1]}), path]
    texts = [fingerprint(value) for value in values]
    assert len(set(texts)) == len(values)
    assert texts == [fingerprint(value) for value in values]
    path.write_text("xy")
    assert fingerprint(path) != texts[-1]


def test_hdf5_needs_its_data_sets(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["data"] = np.zeros((2, 8, 8))
    with pytest.raises(FileError, match="has no data set ivar, psf; data, ivar and psf are needed"):
        open_source(tmp_path / "set.h5").read(0, 1)


def test_an_unknown_position_costs_its_own_row_and_is_no_neighbour(tmp_path):
    """A masked row of a list, or one that no WCS reaches; the galaxy is in the middle of the image."""
    image = np.random.default_rng(3).normal(size=(128, 128))
    image[60:68, 60:68] += 20
    places, options = np.array([[63.5, 63.5], [np.nan, np.nan]]), {"error": 1.0, "psf": np.ones((3, 3)) / 9}
    whole = prepare(image, positions=places, **options)
    alone = prepare(image, positions=places[:1], **options)
    assert len(listed_positions(whole)[0][0]) == 0
    np.testing.assert_array_equal(whole.groups[0][1].flags[0], alone.groups[0][1].flags[0])
    summary = measure_stream(
        StandInEstimator(), NDData(image), tmp_path / "out", positions=places, block_rows=1, **options
    )
    assert (summary["rows"], summary["errors"], summary["flags"]["OFF_IMAGE"]) == (2, 0, 1)
