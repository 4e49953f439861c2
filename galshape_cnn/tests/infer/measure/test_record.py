# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Every option that changes a number stands in the metadata of the catalogue."""

import inspect

import galsim
import numpy as np
import pytest
from astropy.table import Table

from galshape_cnn import ShapeEstimator
from galshape_cnn.errors import InputError
from galshape_cnn.infer.catalog.formats import TABLE_SUFFIXES
from galshape_cnn.infer.catalog.tables import write_table
from galshape_cnn.infer.measure.options import Options
from galshape_cnn.infer.measure.record import recorded_options
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.observe.io.tables.table_files import read_table
from galshape_cnn.observe.noise.model import NoiseModel
from galshape_cnn.observe.observation import prepare

#: Arguments that are data, or change how a call runs and not what it finds.
NOT_RECORDED = {"self", "data", "mask", "wcs", "progress", "threads", "listed", "strict", "unknown"}
PRIOR = {
    "n": {"kind": "uniform", "low": 0.5, "high": 6.0},
    "hlr": {"kind": "lognormal", "median": 2.0, "sigma": 0.5, "low": 0.3, "high": 12.0},
    "g": {"kind": "uniform", "low": 0.0, "high": np.float64(0.67)},
    "snr": {"kind": "loguniform", "low": 5, "high": 1000},
}
OBSERVATION = prepare(np.zeros((64, 64)), error=1.0, psf=galsim.Gaussian(fwhm=3), positions=[[30, 30]])


def recorded(cutting=None, noise=None, **changes):
    options = {"method": "network", "fit_sky": True, "neighbours": "mask", "prior": None, "seed": 0} | changes
    return recorded_options(Options.checked(**options), noise or NoiseModel(), OBSERVATION, cutting or {})


@pytest.fixture(scope="module")
def catalog():
    image = np.random.default_rng(1).normal(size=(80, 80))
    positions = Table({"X_IMAGE": [41.0], "Y_IMAGE": [41.0]})
    psf = galsim.Moffat(beta=3, fwhm=3)
    call = {
        "method": "network",
        "fit_sky": False,
        "seed": 7,
        "stamp_size": 48,
        "recenter": False,
        "prior": PRIOR,
    }
    return ShapeEstimator()(image, psf=psf, error=1.0, positions=positions, gain=2.0, **call)


def test_every_argument_is_recorded(catalog):
    """A new argument of the call has to be recorded, or named above with a reason."""
    arguments = set(inspect.signature(ShapeEstimator.__call__).parameters)
    assert set(catalog.meta["options"]) == arguments - NOT_RECORDED


def test_values(catalog):
    found = catalog.meta["options"]
    for name, value in {
        "fit_sky": False,
        "seed": 7,
        "stamp_size": 48,
        "recenter": False,
        "gain": 2.0,
    }.items():
        assert found[name] == value
        assert type(found[name]) is type(value)
    assert found["prior"]["g"] == {"kind": "uniform", "low": 0.0, "high": 0.67}
    assert found["psf"].startswith("galsim.Moffat(beta=3.0")
    assert found["positions"] == "X_IMAGE, Y_IMAGE of Source Extractor, counted from 1"
    assert found["read_noise"] is None


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_every_format_holds_them(catalog, tmp_path, suffix):
    write_table(catalog.to_table(), tmp_path / f"a{suffix}")
    meta = read_table(tmp_path / f"a{suffix}").meta
    if suffix in (".fits", ".vot"):
        assert "options.seed = 7" in meta["comments"]
        assert "options.prior.n.high = 6.0" in meta["comments"]
    else:
        assert meta["options"] == catalog.meta["options"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((25, 25)), "array of 25x25"),
        (np.zeros((7, 25, 27)), "array of 25x27, one for each galaxy"),
        (np.zeros(7), "one for each galaxy"),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        ("stars", "stars"),
        (galsim.Gaussian(fwhm=1), "galsim.Gaussian(sigma="),
        (lambda x, y: None, "function <lambda>"),
        (galsim.Sum([galsim.Gaussian(fwhm=k) for k in range(1, 30)]), "galsim.Sum("),
    ],
)
def test_what_is_said_of_a_value(value, text):
    found = recorded({"psf": value})["psf"]
    assert found == text if not isinstance(text, str) else found.startswith(text)
    assert len(str(found)) <= 200
    assert type(found) in (int, float, str)


def test_numbers_of_galaxies_are_not_told():
    """Blocks of a long run say the same, however many galaxies they hold."""
    one, many = ({"psf": np.zeros((n, 9, 9)), "stamp_size": np.full(n, 64)} for n in (1, 512))
    assert recorded(one) == recorded(many)


def test_prior_with_maximum_likelihood_is_refused():
    with pytest.raises(InputError, match="prior is given, but method='ml' uses none"):
        recorded(method="ml", prior=Prior(PRIOR))
