# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Where the command line keeps compiled functions."""

import os
import subprocess
import sys

import pytest

from galshape_cnn.cli.compile_cache import compile_cache
from galshape_cnn.environment import CACHE_VARIABLE
from galshape_cnn.forward.kernel.library import instructions


def test_compiled_functions_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with compile_cache():
        folder = os.environ[CACHE_VARIABLE]
    if sys.platform == "linux":
        assert folder == str(tmp_path / "galshape_cnn" / "programs")
    assert CACHE_VARIABLE not in os.environ


def test_the_users_choice_stays(monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    with compile_cache():
        assert os.environ[CACHE_VARIABLE] == "off"


def test_without_a_home_nothing_is_kept(monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with compile_cache():
        assert os.environ[CACHE_VARIABLE] == ""


def test_jax_keeps_what_long_commands_compile(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    with compile_cache(by_jax=True):
        assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "jax")
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    with compile_cache(by_jax=True):
        assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_jax_is_not_given_a_folder_that_others_can_write(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "shared"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    (tmp_path / "shared").mkdir()
    os.chmod(tmp_path / "shared", 0o777)
    if os.name != "nt":
        with compile_cache(by_jax=True):
            assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


RUN = """
import sys
from galshape_cnn.cli import main
code = main(["measure", *sys.argv[1:], "--overwrite"])
print(code, "keras" in sys.modules)
"""


@pytest.mark.skipif(not instructions(), reason="the package was installed without a compiler")
def test_the_command_compiles_nothing_and_needs_no_keras(tmp_path):
    from astropy.io import fits

    from galshape_cnn.study.simulate.mock_sets import draw_mocks

    stamps, _ = draw_mocks("seed", 3, engine="fast")
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(stamps.data, name="SCI"),
        fits.ImageHDU(stamps.ivar, name="IVAR"),
    ]
    psf = stamps.psf[:, 1::2, 1::2]
    hdus.append(fits.ImageHDU(psf / psf.sum((1, 2), keepdims=True), name="PSF"))
    fits.HDUList(hdus).writeto(tmp_path / "cube.fits")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "GALSHAPE_"))}
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), CACHE_VARIABLE: str(tmp_path / "kept")}
    for method in ("network", "ml", "posterior"):
        how = ["-o", str(tmp_path / f"{method}.ecsv"), "--method", method]
        command = [sys.executable, "-c", RUN, str(tmp_path / "cube.fits"), *how]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
        assert done.stdout.splitlines()[-1].split() == ["0", "False"], done.stderr
    assert not [path for path in tmp_path.rglob("*") if "kept" in path.parts and path.is_file()]
