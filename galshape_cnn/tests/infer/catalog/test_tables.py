# Licensed under a 3-clause BSD style license - see LICENSE.rst
import os
import warnings

import asdf
import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable, Table

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.infer.catalog.magnitudes import add_magnitudes
from galshape_cnn.infer.catalog.tables import TABLE_SUFFIXES, stacked, write_table
from galshape_cnn.tests.infer.catalog.test_catalog import make_catalog, sky_stamps

SUFFIXES = [".ecsv", ".fits", ".parquet", ".asdf", ".vot"]


@pytest.fixture
def table():
    inputs = QTable(
        {"id": ["a", "b", "c", "d"], "band": ["g", "r", "z", "i"], "mag": [20.0, 21, 22, 23] * u.mag}
    )
    stamps = sky_stamps()
    stamps.skycoord[1] = np.nan
    return make_catalog(4, stamps=stamps, has_sky=True, unit=u.nJy, table=inputs).to_table()


def read(path):
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return QTable.read(path, format="votable" if path.suffix == ".vot" else None)


def test_suffixes():
    assert list(TABLE_SUFFIXES) == SUFFIXES


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbers_and_units_survive(table, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_table(table, path)
    back = read(path)
    for name in set(table.colnames) - {"sky_centroid", "id", "band"}:
        assert u.Quantity(back[name]).unit == u.Quantity(table[name]).unit, name
        np.testing.assert_array_equal(u.Quantity(back[name]).value, u.Quantity(table[name]).value)
    assert list(back["band"]) == ["g", "r", "z", "i"]
    assert back["flags"].dtype.kind == "i"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sky_position_survives(table, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_table(table, path)
    back = read(path)
    if suffix == ".vot":
        sky = SkyCoord(back["sky_centroid.ra"], back["sky_centroid.dec"])
    else:
        sky = back["sky_centroid"]
    np.testing.assert_array_equal(sky.ra.deg, table["sky_centroid"].ra.deg)
    np.testing.assert_array_equal(sky.dec.deg, table["sky_centroid"].dec.deg)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_is_in_the_file(table, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_table(table, path)
    if suffix == ".fits":
        assert "flags.EDGE.value = 8" in read(path).meta["comments"]
    elif suffix == ".vot":
        assert '<INFO ID="flags.EDGE.value" name="flags.EDGE.value" value="8"/>' in path.read_text()
    else:
        assert read(path).meta == table.meta


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_descriptions_and_ucds_survive(table, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_table(table, path)
    if suffix == ".asdf":
        with asdf.open(path) as file:
            assert file["descriptions"]["flux"] == "total flux of the Sersic profile"
            assert file["ucds"]["flux"] == "phot.flux"
        return
    back = read(path)
    for name in set(table.colnames) & set(back.colnames) - {"band", "mag"}:
        assert back[name].info.description == table[name].info.description
        assert back[name].info.meta["ucd"] == table[name].info.meta["ucd"]


def test_fits_says_it_to_readers_other_than_astropy(table, tmp_path):
    write_table(table, tmp_path / "out.fits")
    with fits.open(tmp_path / "out.fits") as hdus:
        hdus.verify("exception")
        header = hdus[1].header
        number = [header[f"TTYPE{i}"] for i in range(1, header["TFIELDS"] + 1)].index("sky_centroid.ra") + 1
    assert header[f"TUCD{number}"] == "pos.eq.ra"
    assert header[f"TUNIT{number}"] == "deg"
    assert header[f"TCOMM{number}"] == "sky position of the centre, ICRS"


def test_unit_unknown_to_fits_survives(tmp_path):
    with u.add_enabled_units([u.nmgy]):
        for suffix in (".fits", ".vot", ".ecsv"):
            write_table(QTable({"flux": [1.0] * u.nmgy}), tmp_path / f"out{suffix}")
            assert str(read(tmp_path / f"out{suffix}")["flux"].unit) == "nmgy"


def test_the_table_is_not_modified(table, tmp_path):
    meta, names = dict(table.meta), list(table.colnames)
    write_table(table, tmp_path / "out.fits")
    assert dict(table.meta) == meta
    assert table.colnames == names


def test_unknown_suffix(table, tmp_path):
    with pytest.raises(InputError, match=r"suffix '.txt'; allowed: .ecsv, .fits, .parquet, .asdf, .vot"):
        write_table(table, tmp_path / "out.txt")


def test_existing_file_is_kept_unless_asked(table, tmp_path):
    path = tmp_path / "out.ecsv"
    path.write_text("precious")
    with pytest.raises(FileError, match="it exists"):
        write_table(table, path)
    assert path.read_text() == "precious"
    write_table(table, path, overwrite=True)
    assert len(read(path)) == 4


def test_unwritable_output(table, tmp_path):
    with pytest.raises(FileError, match="no folder"):
        write_table(table, tmp_path / "missing" / "out.ecsv")
    (tmp_path / "folder.fits").mkdir()
    with pytest.raises(FileError, match="it is a folder"):
        write_table(table, tmp_path / "folder.fits", overwrite=True)


def test_failure_leaves_the_old_file_and_no_litter(table, tmp_path, monkeypatch):
    path = tmp_path / "out.ecsv"
    write_table(table, path)
    before = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FileError, match="No space left on device"):
        write_table(table, path, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["out.ecsv"]


def test_what_is_no_table_of_fluxes_is_refused(tmp_path):
    with pytest.raises(InputError, match="table is a str; an astropy Table is needed"):
        write_table("flux", tmp_path / "a.fits")
    with pytest.raises(InputError, match="table is a ndarray; an astropy Table is needed"):
        add_magnitudes(np.ones(3), 25)
    with pytest.raises(InputError, match="table has no column flux; flux, flux_err are needed"):
        add_magnitudes(QTable({"flux_g": [1.0], "flux_g_err": [0.1]}), 25)
    assert not list(tmp_path.iterdir())


def test_parts_of_a_run_keep_the_metadata_of_one():
    """Lists are values there, such as an array; appended to each other they were 112 x 7 for 7 x 7."""
    array = np.eye(3).tolist()
    meta = {"noise": {"array": array, "area": 3.0}, "range": [0.3, 6.2], "name": "first"}
    parts = [Table({"a": [k, k]}, meta=meta | {"name": str(k)} | {str(k): [k]}) for k in range(3)]
    parts[2].meta["noise"] = {"array": array, "excess": [1.1]}
    whole = stacked(parts)
    assert list(whole["a"]) == [0, 0, 1, 1, 2, 2]
    assert whole.meta["noise"] == {"array": array, "area": 3.0, "excess": [1.1]}
    assert whole.meta["range"] == [0.3, 6.2]
    assert whole.meta["name"] == "0"
    assert [whole.meta[str(k)] for k in range(3)] == [[0], [1], [2]]
    assert parts[0].meta == meta | {"name": "0", "0": [0]}  # as it was
