# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Files that only their owner can change."""

import os
import stat

import pytest

from galshape_cnn.errors import FileError
from galshape_cnn.own_files import is_own_folder, make_own_folder, own_entries, read_own, write_own

pytestmark = pytest.mark.skipif(os.name == "nt", reason="owners and modes of POSIX")


@pytest.fixture
def folder(tmp_path):
    make_own_folder(tmp_path / "kept" / "galshape-1")
    os.chmod(tmp_path / "kept", 0o700)
    return tmp_path / "kept" / "galshape-1"


def test_what_is_written_is_closed_to_others_whatever_the_umask(folder):
    old = os.umask(0)
    try:
        write_own(folder / "a", b"one")
        write_own(folder / "a", b"two")
        make_own_folder(folder.parent / "new")
    finally:
        os.umask(old)
    assert read_own(folder / "a") == b"two"
    assert stat.S_IMODE(os.stat(folder / "a").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(folder.parent / "new").st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["a"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_not_read(folder, mode):
    write_own(folder / "a", b"one")
    os.chmod(folder / "a", mode)
    with pytest.raises(FileError, match="only you can write"):
        read_own(folder / "a")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
@pytest.mark.parametrize("level", [0, 1])
def test_nor_is_one_in_a_folder_that_others_can_write(folder, mode, level):
    write_own(folder / "a", b"one")
    os.chmod([folder, folder.parent][level], mode)
    with pytest.raises(FileError, match="only you can write"):
        read_own(folder / "a")
    with pytest.raises(FileError, match="others can write"):
        make_own_folder([folder, folder.parent][level])
    assert own_entries(folder.parent, "galshape-") == []


@pytest.mark.parametrize("what", ["file", "folder", "root"])
def test_links_are_not_followed(folder, tmp_path, what):
    write_own(folder / "a", b"one")
    if what == "file":
        (folder / "b").symlink_to(folder / "a")
        with pytest.raises(OSError, match="symbolic|links|levels"):
            read_own(folder / "b")
        assert [path.name for path in own_entries(folder.parent, "galshape-")] == ["a"]
        return
    link = folder.parent / "galshape-2" if what == "folder" else tmp_path / "galshape-link"
    link.symlink_to(folder if what == "folder" else folder.parent)
    inside = link / "a" if what == "folder" else link / "galshape-1" / "a"
    assert not is_own_folder(link)
    with pytest.raises(FileError):
        read_own(inside)
    with pytest.raises(FileError, match="is a link"):
        make_own_folder(link)
    assert own_entries(link, "") == []
    assert len(own_entries(folder.parent, "galshape-")) == 1


def test_another_users_file_is_not_read(folder, monkeypatch):
    write_own(folder / "a", b"one")
    monkeypatch.setattr(os, "getuid", lambda: os.stat(folder).st_uid + 1)
    with pytest.raises(FileError):
        read_own(folder / "a")
    assert not is_own_folder(folder)


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "a", 0o600)
    with pytest.raises(FileError, match="not a file"):
        read_own(folder / "a")
