# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Configurations with an option that is misspelt, missing or impossible."""

import math

import pytest

from galshape_cnn.cli import main
from galshape_cnn.errors import InputError
from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.tests.study.train.test_training import write_toml


def changed(path, section, old, new=None, value=None):
    """The configuration of the seed with an option of another name or value, or without it."""
    config = load_config("seed")
    config.setdefault("domain", {"snr": [5.0, 1000.0]})
    config["network"].setdefault("update", {"dense": [256, 192], "components": 3})
    config.setdefault("update", dict(load_config("universal")["update"]))
    part = config
    for name in section.split(".") if section else ():
        part = part[name]
    content = part.pop(old)
    if new is not None:
        part[new] = content if value is None else value
    write_toml(path, config)
    return path


@pytest.mark.parametrize("name", ["universal", "seed"])
def test_shipped_ones_are_in_order(name):
    assert load_config(name)["training"]["steps"] > 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            ("training", "batch_size", "batchsize"),
            r"\[training\]: unknown option batchsize; did you mean batch_size",
        ),
        (
            ("noise", "poisson_fraction", "poison_fraction"),
            r"\[noise\]: .* poison_fraction; did you mean poisson_f",
        ),
        (("nuisance", "mask_fraction", "masks"), r"\[nuisance\]: unknown option masks"),
        (
            ("psf", "moffat_beta", "moffatbeta"),
            r"\[psf\]: unknown option moffatbeta; did you mean moffat_beta",
        ),
        (("psf", "fwhm", "width"), r"\[psf\]: unknown option width"),
        (("network", "patch_width"), r"\[network\] lacks patch_width"),
        (("network.update", "dense", "width"), r"\[network.update\]: unknown option width"),
        (("update", "epochs", "epoch"), r"\[update\]: unknown option epoch; did you mean epochs"),
        (("domain", "snr", "srn"), r"\[domain\]: unknown option srn; did you mean snr"),
        (("training", "validation_every", "validation_every", "often"), "'often'; a whole number above 0"),
        (
            ("training", "validation_every", "validation_every", 0),
            "validation_every = 0; a whole number above 0",
        ),
        (("training", "learning_rate", "learning_rate", math.nan), "learning_rate = nan; a number above 0"),
        (("psf", "ellipticity", "ellipticity", 2.0), "ellipticity = 2.0; a number in"),
        (("", "snr_range", "snr_range", [100.0, 10.0]), "low < high"),
    ],
)
def test_refused_before_any_work(tmp_path, capsys, change, match):
    path = changed(tmp_path / "mine.toml", *change)
    with pytest.raises(InputError, match=match):
        load_config(path)
    assert main(["train", str(path), "-o", str(tmp_path / "mine.asdf")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["simulate", str(path), "-n", "3", "-o", str(tmp_path / "mocks.fits")]) == 1
