# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Files that are there whole or not at all."""

import os
from functools import partial

import pytest
from astropy.table import QTable

from galshape_cnn import read_blocks, read_image, write_table
from galshape_cnn.errors import FileError, InputError
from galshape_cnn.files import check_output_path, made_folder, output_folder, written_whole


def test_a_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "table.ecsv"
    path.write_text("old")
    with written_whole(str(path)) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
        assert beside.name == path.name  # writers go by the suffix
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(28, "No space left"), FileError), (KeyError("x"), KeyError)]
)
def test_nothing_is_left_of_a_failure(tmp_path, error, raised):
    path = tmp_path / "table.ecsv"
    path.write_text("old")

    def write():
        with written_whole(path) as beside:
            beside.write_text("half")
            raise error

    with pytest.raises(raised):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_folder_that_is_missing_is_named(tmp_path):
    path = tmp_path / "no folder" / "table.ecsv"
    with (
        pytest.raises(FileError, match="cannot write .*no folder.*table.ecsv': No such file or directory$"),
        written_whole(path),
    ):
        pass


def test_outputs_are_checked_before_any_work(tmp_path):
    old = tmp_path / "old.fits"
    old.touch()
    assert check_output_path(str(old), (".fits",), overwrite=True) == old
    for path, error, message in (
        (old, FileError, "it exists"),
        (tmp_path / "a.txt", InputError, "suffix '.txt'; allowed: .fits"),
        (tmp_path / "none" / "a.fits", FileError, "cannot write .*: no folder .*none"),
    ):
        with pytest.raises(error, match=message):
            check_output_path(path, (".fits",))


def test_folders_are_made_with_those_above(tmp_path):
    assert made_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot make the folder .*file"):
        made_folder(tmp_path / "file")


@pytest.mark.parametrize("kept", ["", "a", "a/b"])
def test_a_failure_leaves_no_folder_that_it_made_and_is_empty(tmp_path, kept):
    (tmp_path / kept).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileError, match="no image"), output_folder(tmp_path / "a" / "b"):
        raise FileError("no image")
    assert sorted(tmp_path.rglob("*")) == before


def written_table(folder):
    (folder / "table.ecsv").touch()
    return folder / "table.ecsv"


def test_a_failure_keeps_what_was_written(tmp_path):
    with pytest.raises(FileError), output_folder(tmp_path / "a" / "b") as folder:
        check_output_path(written_table(folder), (".ecsv",))
    assert (tmp_path / "a" / "b" / "table.ecsv").exists()
    with output_folder(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("wrong", [3, None, ["a.fits"]])
def test_names_of_files_are_texts_or_paths(wrong):
    said = f"path is a {type(wrong).__name__}; the name of a file is needed"
    for function in (read_image, read_blocks, partial(write_table, QTable({"a": [1]}))):
        with pytest.raises(InputError, match=said):
            function(wrong)
