# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Configurations with an option that is misspelt, missing or impossible."""

from importlib import resources

import pytest

from galshape_cnn.cli import main
from galshape_cnn.errors import InputError
from galshape_cnn.study.train.training import load_config

TEXT = (resources.files("galshape_cnn.study") / "configs" / "seed.toml").read_text("utf-8")


@pytest.mark.parametrize("name", ["universal", "seed"])
def test_shipped_ones_are_in_order(name):
    assert load_config(name)["training"]["steps"] > 0


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (
            "batch_size = 256",
            "batchsize = 256",
            r"\[training\]: unknown option batchsize; did you mean batch_size",
        ),
        (
            "poisson_fraction",
            "poison_fraction",
            r"\[noise\]: unknown option poison_fraction; did you mean poisson_fr",
        ),
        ("mask_fraction = 0.0", "masks = 0.0", r"\[nuisance\]: unknown option masks"),
        ("moffat_beta", "moffatbeta", r"\[psf\]: unknown option moffatbeta; did you mean moffat_beta"),
        ("patch_width = 48", "", r"\[network\] lacks patch_width"),
        ("dense = [256, 192]", "width = [256, 192]", r"\[network.update\]: unknown option width"),
        ("epochs = 6", "epoch = 6", r"\[update\]: unknown option epoch; did you mean epochs"),
        (
            "validation_every = 200",
            'validation_every = "often"',
            "validation_every = 'often'; a whole number above 0",
        ),
        ("validation_every = 200", "validation_every = 0", "validation_every = 0; a whole number above 0"),
        ("learning_rate = 2e-3", "learning_rate = nan", "learning_rate = nan; a number above 0"),
        ("snr_range = [10.0, 100.0]", "snr_range = [100.0, 10.0]", "low < high"),
        ("ellipticity = 0.0", "ellipticity = true", "ellipticity = True; a number in"),
        ("[psf.fwhm]", "[psf.width]", r"\[psf\]: unknown option width"),
    ],
)
def test_refused_before_any_work(tmp_path, capsys, old, new, match):
    assert old in TEXT
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=match):
        load_config(path)
    assert main(["train", str(path), "-o", str(tmp_path / "mine.asdf")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["simulate", str(path), "-n", "3", "-o", str(tmp_path / "mocks.fits")]) == 1


def test_domain(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TEXT + "\n[domain]\nsrn = [5.0, 1000.0]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"\[domain\]: unknown option srn; did you mean snr"):
        load_config(path)
