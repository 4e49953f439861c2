# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``--prior`` and ``--seed`` are the keywords of the estimator."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator
from galshape_cnn.cli import main

PRIOR = """
snr = {kind = "loguniform", low = 5, high = 500}
n = {kind = "uniform", low = 0.9, high = 1.1}
hlr = {kind = "loguniform", low = 1, high = 10}
g = {kind = "uniform", low = 0, high = 0.7}
"""


@pytest.fixture
def image(tmp_path):
    y, x = np.mgrid[-15:16, -15:16]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.4**2))
    y, x = np.mgrid[:64, :64]
    data = PSFConvolvedSersic2D(900, 1.0, 3.0, 0.1, 0.2, 31.5, 31.5, psf=psf)(x, y)
    data += np.random.default_rng(1).normal(size=data.shape)
    fits.writeto(tmp_path / "image.fits", data)
    fits.writeto(tmp_path / "psf.fits", psf)
    return data, psf


def test_prior_and_seed(image, tmp_path):
    (tmp_path / "prior.toml").write_text(PRIOR)
    args = [str(tmp_path / "image.fits"), "--psf", str(tmp_path / "psf.fits"), "--error", "1"]
    args += ["--noise-scale", "none", "--noise-correlation", "none", "--overwrite"]
    args += ["-o", str(tmp_path / "o.ecsv")]
    wide = ShapeEstimator()(image[0], psf=image[1], error=1.0, noise_scale=None, noise_correlation=None)
    for options, n in (
        (["--method", "network"], wide.n),
        (["--method", "network", "--prior", str(tmp_path / "prior.toml")], None),
        (["--method", "posterior", "--prior", str(tmp_path / "prior.toml"), "--seed", "7"], None),
    ):
        assert main(["measure", *args, *options]) == 0
        table = QTable.read(tmp_path / "o.ecsv")
        if n is not None:
            assert table["n"] == n
            continue
        assert 0.9 <= table["n"][0] <= 1.1
        assert table["n_std"][0] < 0.06 < wide.n_std[0]  # of a uniform density 0.2 wide: 0.058
    assert table.meta["options"]["seed"] == 7
    assert table.meta["options"]["prior"]["n"]["high"] == 1.1


def test_what_is_no_prior_is_refused(image, tmp_path, capsys):
    (tmp_path / "bad.toml").write_text("n = 3")
    args = [str(tmp_path / "image.fits"), "--psf", str(tmp_path / "psf.fits"), "--error", "1"]
    args += ["-o", str(tmp_path / "o.ecsv")]
    for options, status, said in (
        (["--prior", str(tmp_path / "bad.toml")], 1, "bad.toml: a prior needs n, hlr, g"),
        (["--prior", str(tmp_path / "no.toml")], 1, "no.toml"),
        (["--seed", "-1"], 2, "argument --seed: -1 is not a whole number of at least 0"),
    ):
        assert main(["measure", *args, *options]) == status
        assert said in capsys.readouterr().err
    (tmp_path / "prior.toml").write_text(PRIOR)
    assert main(["measure", *args, "--method", "ml", "--prior", str(tmp_path / "prior.toml")]) == 1
    assert "prior is given, but --method ml uses none" in capsys.readouterr().err
    assert not (tmp_path / "o.ecsv").exists()
