# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The folder of kept programs: nobody else can have a program run or a file removed."""

import os

import pytest

from galshape_cnn import compilation as programs
from galshape_cnn.compilation import prove
from galshape_cnn.tests.program_scene import Traced, X, half, kept_programs

folder = kept_programs


@pytest.mark.skipif(os.name == "nt", reason="links and modes of POSIX")
@pytest.mark.parametrize("how", ["link", "writable file", "writable folder"])
def test_a_program_that_others_can_have_put_there_is_not_run(folder, how, tmp_path):
    Traced(half).program()(X)
    prove(folder.parent)
    (path,) = folder.iterdir()
    if how == "link":
        path.rename(tmp_path / "evil")
        path.symlink_to(tmp_path / "evil")
    else:
        os.chmod(path if how == "writable file" else folder, 0o777)
    traced = Traced(half)
    traced.program()(X)
    assert traced.count == 1


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_clearing_follows_no_links(folder, tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(bytes(2000))
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(outside / "precious")
    (folder.parent / "galshape-linked").symlink_to(outside)
    monkeypatch.setattr(programs, "_LARGEST", 0)
    programs._clear(folder.parent)
    assert (outside / "precious").exists()
    assert (folder / "link").is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_programs_are_closed_to_others(folder):
    old = os.umask(0)
    try:
        Traced(half).program()(X)
        prove(folder.parent)
    finally:
        os.umask(old)
    (path,) = folder.iterdir()
    assert [oct(one.stat().st_mode)[-3:] for one in (path, folder, folder.parent)] == ["600", "700", "700"]
