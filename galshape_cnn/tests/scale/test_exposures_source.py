# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Several exposures in streams: the rows of one call, whatever the blocks, workers and interruptions."""

import os
import pickle
import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import Table

from galshape_cnn import Exposure, ShapeEstimator
from galshape_cnn.errors import FileError, InputError, PositionError, PSFError
from galshape_cnn.scale import measure_dask, measure_stream, open_source, read_blocks
from galshape_cnn.scale.exposures_source import ExposuresSource
from galshape_cnn.tests.exposure_scene import SETUP, exposure, galaxies
from galshape_cnn.tests.stream_scene import assert_same, moments, write_cube

pytestmark = pytest.mark.filterwarnings("ignore:.*could not be measured")

OPTIONS = {"method": "ml", "neighbours": "mask"}


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Three exposures in files, and positions: one off all images, one unknown, one listed twice."""
    folder, rng = tmp_path_factory.mktemp("field"), np.random.default_rng(2)
    sky, truth = galaxies(rng, side=2)
    exposures = []
    for number, setup in enumerate(SETUP):
        one = exposure(rng, sky, truth, setup, side=2)
        errors = fits.ImageHDU(np.full(one.data.shape, one.error), name="ERR")
        path = folder / f"{number}.fits"
        fits.HDUList([fits.PrimaryHDU(one.data, one.wcs.to_header()), errors]).writeto(path)
        exposures.append(Exposure(path, psf=one.psf, band=one.band, zeropoint=25.0 + number))
    ra, dec = sky.ra.deg, sky.dec.deg
    table = {"ra": [*ra, ra[0], np.nan, ra[0] + 1e-5], "dec": [*dec, dec[0] + 1, np.nan, dec[0]]}
    names = {"name": list("abcdefg"), "FLUX_G": np.arange(7.0)}
    return exposures, Table(table | names)


@pytest.fixture(scope="module")
def expected(field, estimator):
    """Of images in memory, in one call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator(field[0], positions=field[1], **OPTIONS).to_table()


def test_blocks_give_the_rows_of_one_call(field, estimator, expected, tmp_path):
    exposures, positions = field
    summary = measure_stream(
        estimator, exposures, tmp_path / "out", positions=positions, block_rows=3, **OPTIONS
    )
    table = read_blocks(tmp_path / "out")
    assert_same(table, expected)
    assert (summary["rows"], summary["errors"], summary["flags"]["BAND_MISSING"]) == (7, 0, 2)
    assert table["name"].tolist() == list("abcdefg")
    assert table["input_FLUX_G"].tolist() == list(range(7))
    assert table["n_exposures"].tolist() == [3, 3, 3, 3, 0, 0, 3]
    assert {"flux_g", "flux_r_err", "mag_g", "hlr_gradient"} <= set(table.colnames)


def test_a_run_goes_on_and_a_cluster_finishes_it(field, estimator, expected, tmp_path):
    distributed = pytest.importorskip("distributed")
    exposures, positions = field
    run = {"positions": positions, "block_rows": 4, **OPTIONS}
    measure_stream(estimator, exposures, tmp_path / "out", **run)
    first, second = sorted((tmp_path / "out").glob("part-*"))
    kept = first.stat().st_mtime_ns
    second.unlink()
    other = [replace(exposures[0], zeropoint=24.0), *exposures[1:]]
    with pytest.raises(InputError, match="another configuration .input"):
        measure_stream(estimator, other, tmp_path / "out", **run)
    keywords = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.Client(**keywords) as client:
        measure_dask(estimator, exposures, tmp_path / "out", client, **run)
    assert_same(read_blocks(tmp_path / "out"), expected)
    assert first.stat().st_mtime_ns == kept


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ml", "network", "posterior"])
def test_processes_give_the_rows_of_one_call(field, estimator, tmp_path, method):
    exposures, positions = field
    whole = estimator(exposures, positions=positions, method=method).to_table()
    run = {"positions": positions, "method": method, "block_rows": 3}
    measure_stream(estimator, exposures, tmp_path / "out", workers=2, **run)
    assert_same(read_blocks(tmp_path / "out"), whole)


def test_a_source_of_files_is_small_and_opens_each_once(field, monkeypatch):
    from galshape_cnn.observe.io import fits as reader

    exposures, positions = field
    source = ExposuresSource(exposures, positions)
    sent = pickle.dumps(source)
    assert len(sent) < 50_000  # no pixels
    opened = []
    read_image = reader.read_image
    monkeypatch.setattr(
        reader, "read_image", lambda path, **k: (opened.append(path), read_image(path, **k))[1]
    )
    there = pickle.loads(sent)
    for start in (0, 3):
        parts, keywords = there.read(start, start + 3)
        assert len(keywords["positions"]) == 3
        assert [np.shape(one.data.data) for one in parts] == [
            np.shape(one.data.open().data) for one in exposures
        ]
    assert sorted(opened) == sorted({one.data.path for one in exposures})
    assert there.identity == source.identity
    assert source.inputs(2, 4)["name"].tolist() == ["c", "d"]


def cubes(folder, count=6):
    """Cutouts of the same round galaxies in two bands, in files and in memory."""
    files, arrays = [], []
    for seed, band in enumerate("gr"):
        data, psf = moments(count, seed)
        files.append(Exposure(write_cube(folder / f"{band}.fits", data, psf), band=band))
        arrays.append(Exposure(data, psf=psf, error=1.0, band=band))
    return files, arrays


def test_cutouts_in_files_and_in_memory_agree(estimator, tmp_path):
    files, arrays = cubes(tmp_path)
    whole = estimator(arrays, **OPTIONS).to_table()
    ones = np.ones_like(arrays[0].data)
    images = [NDData(one.data, uncertainty=StdDevUncertainty(ones), psf=one.psf) for one in arrays]
    in_memory = [
        replace(one, data=cube, psf=None, error=None) for one, cube in zip(arrays, images, strict=True)
    ]
    listed = [
        replace(one, data=[NDData(d, uncertainty=StdDevUncertainty(ones[0])) for d in one.data], error=None)
        for one in arrays
    ]
    assert_same(estimator(files, **OPTIONS).to_table(), whole)
    for number, data in enumerate((files, arrays, listed, in_memory)):
        out = tmp_path / f"out{number}"
        assert measure_stream(estimator, data, out, block_rows=4, **OPTIONS)["rows"] == 6
        assert_same(read_blocks(out), whole)


def test_a_bad_row_costs_itself_only(estimator, tmp_path):
    _, arrays = cubes(tmp_path)
    psf = arrays[1].psf.copy()
    psf[3] = -1.0
    bad = [arrays[0], replace(arrays[1], psf=psf)]
    summary = measure_stream(estimator, bad, tmp_path / "out", **OPTIONS)
    assert summary["errors"] == 1
    table = read_blocks(tmp_path / "out")
    assert table["id"].tolist() == list(range(1, 7))
    assert np.isnan(table["flux_r"][3])
    assert table["quality"][3] == 2
    assert table["n_exposures"].tolist() == [2, 2, 2, 0, 2, 2]
    assert "PSF" in Table.read(tmp_path / "out" / "_errors.ecsv")["error"][0]
    rest = [k for k in range(6) if k != 3]
    whole = estimator(arrays, **OPTIONS).to_table()
    np.testing.assert_array_equal(table["n"][rest], whole["n"][rest])


def test_only_the_rows_of_a_block_are_in_memory(tmp_path):
    data, psf = moments(400)
    exposures = [Exposure(write_cube(tmp_path / f"{band}.fits", data, psf), band=band) for band in "gr"]
    source = open_source(exposures)
    tracemalloc.start()
    parts, _ = source.read(200, 204)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(parts[1].data.data, data[200:204])
    np.testing.assert_array_equal(parts[1].psf, psf[200:204])
    assert peak < data.nbytes / 4


def test_noise_is_measured_once_on_each_image_and_used_by_all_parts(field, estimator, tmp_path):
    """Noise maps that are half of the truth in one image; in the other nothing is found."""
    exposures, positions = field
    images = [one.data.open() for one in exposures[:2]]
    wrong = [
        replace(exposures[0], data=images[0].data, wcs=images[0].wcs, error=SETUP[0][-1] / 2),
        replace(exposures[1], data=images[1].data, wcs=images[1].wcs, error=SETUP[1][-1]),
    ]
    with pytest.warns(UserWarning, match="in g1 .scatter 2.0"):
        whole = estimator(wrong, positions=positions[:3], **OPTIONS)
    with pytest.warns(UserWarning, match="in g1 .scatter 2.0") as said:
        measure_stream(estimator, wrong, tmp_path / "out", positions=positions[:3], block_rows=2, **OPTIONS)
    assert len(said) == 1
    assert_same(read_blocks(tmp_path / "out"), whole.to_table())
    assert read_blocks(tmp_path / "out").meta["noise"] == whole.meta["noise"]


def test_contradictions_are_named_before_any_work(field, tmp_path):
    exposures, positions = field
    two = [Exposure(moments(k)[0], psf=np.ones((3, 3)) / 9, error=1.0, name=f"of{k}") for k in (3, 4)]
    mixed = [NDData(np.zeros((32, 32)), unit=unit) for unit in ("Jy", "Jy", "adu")]
    faults = [
        (two, None, InputError, "of3: 3, of4: 4"),
        ([exposures[0], replace(exposures[1], band="")], positions, InputError, r"data\[1\] has no band"),
        ([replace(exposures[0], zeropoint=None), replace(exposures[1], band="g")], positions, InputError,
         "'g1' of band 'g' has no zeropoint"),
        (exposures, [[-900.0, 0.0]], PositionError, "none of the 1 lies inside any of the 3 images"),
        (two[:1], [[5.0, 5.0]], PositionError, "exposure 'of3' holds cutouts"),
        ([Exposure(mixed, psf=np.ones((3, 3)), error=1.0)], None, InputError, r"data\[2\] has unit adu"),
        ([replace(exposures[0], psf=np.ones((2, 3, 3)))], positions, PSFError, "2 PSFs for the 7 galaxies"),
        ([Exposure(tmp_path / "none.fits", band="i")], positions, FileError, "none.fits"),
    ]  # fmt: skip
    for data, places, error, message in faults:
        with pytest.raises(error, match=message):
            open_source(data, positions=places)
    with pytest.raises(InputError, match="names= is given beside a list of Exposures"):
        open_source(exposures, positions=positions, names={"band": "g"})


def test_another_file_is_another_input(tmp_path):
    files, _ = cubes(tmp_path, 2)
    before = open_source(files).identity
    os.utime(files[1].data.path, ns=(1, 1))
    assert open_source(files).identity != before
    assert open_source(files[::-1]).identity != open_source(files).identity
