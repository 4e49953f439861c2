# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Numbers with units: converted where they fit, refused by the name of the argument where not."""

import re

import astropy.units as u
import galsim
import numpy as np
import pytest
from astropy.nddata import NDData
from astropy.table import QTable

from galshape_cnn import (
    Exposure,
    PSFConvolvedSersic2D,
    ShapeEstimator,
    Stamps,
    add_magnitudes,
    cramer_rao_bound,
    inject,
)
from galshape_cnn.errors import InputError
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.observe.noise.ccd import detector_error
from galshape_cnn.observe.noise.model import NoiseModel
from galshape_cnn.quantities import (
    flux_unit,
    plain_magnitude,
    plain_number,
    plain_values,
    truth_value,
    whole_number,
)
from galshape_cnn.scale import measure_stream
from galshape_cnn.study.simulate.mock_sets import draw_mocks

E = u.electron
PIXELS = np.random.default_rng(3).normal(size=(96, 96))
DATA = NDData(PIXELS, unit=u.nJy)
PSF = galsim.Gaussian(fwhm=3).drawImage(nx=15, ny=15, scale=1).array.astype(float)
GALAXY = {"flux": 1e5, "n": 3.0, "hlr": 0.3, "g1": 0.0, "g2": 0.1}
UNIFORM = {"kind": "uniform", "low": 0.1, "high": 0.6}
PRIOR = {"flux": UNIFORM, "n": {"kind": "uniform", "low": 1, "high": 2}, "hlr": UNIFORM, "g": UNIFORM}


def measure(data=DATA, **keywords):
    return ShapeEstimator()(data, psf=PSF, positions=[[48, 48]], **{"error": 1 * u.nJy} | keywords)


def bound(error=400.0, **keywords):
    psf = galsim.Moffat(beta=2, fwhm=0.5)
    return cramer_rao_bound(GALAXY, psf, error, **{"pixel_scale": 0.23} | keywords)


def exposed(**keywords):
    exposure = Exposure(DATA, psf=PSF, error=1 * u.nJy, **keywords)
    return ShapeEstimator()([exposure], positions=[[48, 48]], method="ml")


def injected(**keywords):
    return inject(DATA, psf=PSF, error=1 * u.nJy, **{"n": 1} | keywords)


def galaxies(**columns):
    return QTable({"flux": [9.0], "n": [1.0], "hlr": [2.0], "g1": [0.0], "g2": [0.0]} | columns)


REFUSED = {
    "gain has unit s; allowed: numbers, or a Quantity in electron / nJy": lambda: measure(gain=2 * u.s),
    "gain has unit electron / adu; allowed": lambda: measure(gain=2 * E / u.adu),
    "gain=-2.0; allowed": lambda: measure(gain=-2.0),
    "gain has unit s": lambda: detector_error(PIXELS, 2 * u.s, 5.0),
    "read_noise has unit nJy; allowed: numbers, or a Quantity in electron": lambda: measure(
        error=None, gain=1, read_noise=1 * u.nJy
    ),
    "read_noise='5'": lambda: measure(error=None, gain=1, read_noise="5"),
    "sky_level has unit electron; allowed: numbers, or a Quantity in nJy": lambda: measure(
        error=None, gain=1, read_noise=1, sky_level=1 * E
    ),
    "noise_scale=<Quantity 2. s>": lambda: measure(noise_scale=2 * u.s),
    "error has unit s": lambda: measure(error=1 * u.s),
    "stamp_size=<Quantity 64. pix>": lambda: measure(stamp_size=64 * u.pix),
    "psf_oversampling": lambda: measure(psf_oversampling=2 * u.pix),
    "seed has unit s; allowed: no unit": lambda: measure(seed=2 * u.s),
    "seed=1.5; allowed: a whole number, at least 0": lambda: measure(seed=1.5),
    "seed='a'": lambda: measure(seed="a"),
    "threads=0; allowed: a whole number, at least 1": lambda: measure(threads=0),
    "threads has unit pix": lambda: measure(threads=2 * u.pix),
    "unit='banana'": lambda: measure(unit="banana"),
    "unit='mag(AB)' is one of logarithms": lambda: measure(unit=u.ABmag),
    "positions has unit arcsec": lambda: ShapeEstimator()(
        DATA, psf=PSF, error=1 * u.nJy, positions=[[4, 4]] * u.arcsec
    ),
    "prior 'flux': low has unit s": lambda: Prior(PRIOR | {"flux": UNIFORM | {"low": 0.1 * u.s}}),
    "prior 'hlr': high='6'; allowed: a plain finite number of pixels": lambda: Prior(
        PRIOR | {"hlr": UNIFORM | {"high": "6"}}
    ),
    "prior 'g': kind=None": lambda: Prior(PRIOR | {"g": 3}),
    "prior 'g': kind=['uniform']": lambda: Prior(PRIOR | {"g": {"kind": ["uniform"]}}),
    "prior is a str": lambda: Prior("flat"),
    "zeropoint has unit nJy; allowed: numbers, or a Quantity in mag": lambda: exposed(zeropoint=25 * u.nJy),
    "exposure 'exposure1': gain has unit electron / adu": lambda: exposed(gain=2 * E / u.adu),
    "band '': gain=0; allowed": lambda: exposed(gain=0),
    "wavelength has unit s": lambda: exposed(wavelength=5 * u.s),
    "zeropoint='25'": lambda: add_magnitudes(QTable({"flux": [1.0], "flux_err": [1.0]}), "25"),
    "zeropoint has unit s": lambda: add_magnitudes(QTable({"flux": [1.0], "flux_err": [1.0]}), 25 * u.s),
    "pixel_scale has unit s; allowed: numbers, or a Quantity in arcsec / pix": lambda: bound(
        pixel_scale=0.23 * u.s
    ),
    "gain has unit s; allowed: numbers, or a Quantity in electron": lambda: bound(gain=2 * u.s),
    "error has another unit than params['flux']": lambda: bound(400 * u.nJy),
    "params['n'] has unit s": lambda: cramer_rao_bound(GALAXY | {"n": 3 * u.s}, PSF, 400.0),
    "params['x'] has unit s": lambda: cramer_rao_bound(GALAXY | {"x": 3 * u.s}, PSF, 400.0),
    "params['sky'] has unit s": lambda: cramer_rao_bound(GALAXY | {"sky": 3 * u.s}, PSF, 400.0),
    "params['hlr'] is in s": lambda: cramer_rao_bound(GALAXY | {"hlr": 3 * u.s}, PSF, 400.0),
    "ivar has unit 1 / s2; allowed": lambda: Stamps(
        np.ones((1, 9, 9)) * u.nJy, np.ones((1, 9, 9)) / u.s**2, PSF
    ),
    "data has unit s; allowed": lambda: Stamps(np.ones((1, 9, 9)) * u.s, np.ones((1, 9, 9)), PSF, unit=u.nJy),
    "hlr has unit arcsec; allowed: numbers, or a Quantity in pix": lambda: PSFConvolvedSersic2D(
        1, 1, 3 * u.arcsec, psf=PSF
    ),
    "n has unit s": lambda: PSFConvolvedSersic2D(1, 1 * u.s, 3, psf=PSF),
    "n has unit s; allowed: no unit": lambda: injected(n=3 * u.s),
    "gain has unit s; allowed: numbers, or": lambda: injected(gain=2 * u.s),
    "clearance has unit pix": lambda: injected(clearance=2 * u.pix),
    "column flux of catalogue has unit s": lambda: injected(catalogue=galaxies(flux=[9] * u.s)),
    "column n of catalogue has unit s": lambda: injected(catalogue=galaxies(n=[1] * u.s)),
    "column hlr of catalogue has unit s": lambda: injected(catalogue=galaxies(hlr=[2] * u.s)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused_by_name(message):
    """One error of the package that says which argument, what came and what is allowed."""
    with pytest.raises(InputError) as caught:
        REFUSED[message]()
    assert message in str(caught.value)


def test_noise_in_units():
    """Quantities give the numbers that they stand for."""
    counts = NDData(PIXELS + 100, unit=u.adu)
    known = {"gain": 2 * E / u.adu, "read_noise": 2 * E, "sky_level": 0.3 * u.adu}
    plain = {name: value.value for name, value in known.items()}
    assert detector_error(counts, **known) == detector_error(counts, **plain)
    noise = NoiseModel(**known)
    assert vars(noise.in_units_of(counts)) == vars(NoiseModel(**plain))
    assert noise.in_units_of(counts).error_of(counts, None, None) == detector_error(counts, **plain)
    assert NoiseModel(2 * E / u.nJy).in_units_of(DATA).gain == 2
    assert NoiseModel(2 * E / u.nJy).in_units_of(DATA, u.uJy).gain == pytest.approx(2000)


def test_gain_counts_fluxes_in_their_unit():
    """With ``unit`` the gain is one per unit of the results, also where it makes the noise of the pixels."""
    pixels = NDData(PIXELS * np.sqrt(50 / 2 + 25 / 4), unit=u.uJy)
    direct = NoiseModel(2.0, 5.0, 50.0).error_of(pixels, None, None)
    assert NoiseModel(2e-3, 5.0, 50.0).error_of(pixels, None, None, u.nJy) == pytest.approx(direct)


def test_what_fits_is_converted():
    assert plain_values(3, u.s, "a") == 3
    np.testing.assert_allclose(plain_values([1, 2] * u.uJy, u.nJy, "a"), [1000, 2000])
    masked = plain_values(np.ma.masked_invalid([1, np.nan]), None, "a")
    assert masked.mask.tolist() == [False, True]
    assert plain_number(1 * u.m, "a", "", unit=u.nm) == pytest.approx(1e9)
    assert plain_magnitude(25 * u.ABmag, "a") == plain_magnitude(25 * u.mag, "a") == plain_magnitude(25, "a")
    assert whole_number(np.int64(3), "a", 1) == whole_number(3.0, "a", 1) == 3
    assert whole_number(2**63 + 1, "a", 0) == 2**63 + 1
    assert flux_unit("uJy") == u.uJy
    assert flux_unit(None) is None
    assert Stamps(np.ones((1, 9, 9)) * u.nJy, np.ones((1, 9, 9)), PSF).unit == u.nJy
    stamps = Stamps(np.ones((1, 9, 9)) * u.uJy, np.ones((1, 9, 9)) / u.uJy**2, PSF, unit=u.nJy)
    assert stamps.data[0, 0, 0] == pytest.approx(1e3)
    assert stamps.ivar[0, 0, 0] == pytest.approx(1e-6)
    assert bound(pixel_scale=0.23 * u.arcsec).n == bound(pixel_scale=0.23 * u.arcsec / u.pix).n == bound().n
    assert bound(gain=2 * E).n == bound(gain=2).n > bound().n
    assert Exposure(DATA, wavelength=0.6 * u.um).wavelength == pytest.approx(600)


@pytest.mark.parametrize("value", [True, "3", None, [3], 3.5, np.nan, np.inf, 3 * u.s])
def test_whole_numbers(value):
    with pytest.raises(InputError, match=rf"^number(={re.escape(repr(value))}; allowed| has unit s)"):
        whole_number(value, "number", 1)


@pytest.mark.parametrize("value", [True, np.True_, "2", b"2", None, np.nan])
@pytest.mark.parametrize(
    "check", [plain_magnitude, lambda value, name: plain_number(value, name, "a number")]
)
def test_words_and_truths_are_no_numbers(check, value):
    with pytest.raises(InputError, match=rf"^number={re.escape(repr(value))}; allowed"):
        check(value, "number")


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", 2 * u.s])
def test_counts_are_refused_before_any_work(value, tmp_path):
    """Workers, rows of a block, galaxies of a set: not cut off, not an error of another library."""
    for name in ("workers", "block_rows"):
        with pytest.raises(InputError, match=name):
            measure_stream(
                ShapeEstimator(), PIXELS[None], tmp_path / "a", psf=PSF, error=1.0, **{name: value}
            )
    with pytest.raises(InputError, match="^n"):
        draw_mocks("seed", value)


def test_truth_values():
    assert [truth_value(one, "a") for one in (True, np.False_, 1, 0)] == [True, False, True, False]
    for wrong in ("yes", None, 2, 1.0, np.ones(1)):
        with pytest.raises(InputError, match="a=.*; allowed: True or False"):
            truth_value(wrong, "a")
    psf = galsim.Gaussian(fwhm=0.7)
    for name in ("fit_sky", "fit_centroid", "psf_includes_pixel", "normalize_psf"):
        with pytest.raises(InputError, match=f"{name}='no'; allowed: True or False"):
            cramer_rao_bound(GALAXY, psf, 1.0, pixel_scale=0.2, **{name: "no"})
