# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Folders that only their owner can change."""

import os
import stat

import pytest

from galshape_cnn.errors import FileError
from galshape_cnn.own_files import is_own_folder, make_own_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="owners and modes of POSIX")


@pytest.fixture
def folder(tmp_path):
    make_own_folder(tmp_path / "above" / "kept")
    return tmp_path / "above" / "kept"


def test_what_is_made_is_closed_to_others_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        make_own_folder(tmp_path / "new")
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o700
    make_own_folder(tmp_path / "new")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_is_refused(folder, mode):
    assert is_own_folder(folder)
    os.chmod(folder, mode)
    assert not is_own_folder(folder)
    with pytest.raises(FileError, match="others can write"):
        make_own_folder(folder)


def test_links_files_and_nothing_are_no_folders(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert not is_own_folder(link)
    with pytest.raises(FileError, match="is a link"):
        make_own_folder(link)
    (tmp_path / "file").write_text("")
    assert not is_own_folder(tmp_path / "file")
    assert not is_own_folder(tmp_path / "nothing")
    with pytest.raises(FileError, match="cannot make the folder"):
        make_own_folder(tmp_path / "file" / "below")


def test_another_users_folder_is_refused(folder, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: os.stat(folder).st_uid + 1)
    assert not is_own_folder(folder)
