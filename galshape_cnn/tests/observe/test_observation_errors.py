# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Every way to get a call wrong, before a stamp is cut."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty
from astropy.table import QTable, Table
from astropy.wcs import WCS

from galshape_cnn.errors import InputError, NoiseError, PositionError, PSFError
from galshape_cnn.flags import Flag
from galshape_cnn.observe.observation import prepare
from galshape_cnn.tests.cutout_scene import IMAGE, PSF, SHAPE, SOURCES, celestial, field, one


def nddata(**changes):
    values = {"uncertainty": StdDevUncertainty(np.ones((64, 64))), "psf": PSF}
    return NDData(field((64, 64)), **{**values, **changes})


ONES = np.ones((64, 64))
BAD_INPUT = [
    (InputError, {"data": np.zeros((3, 3))}, "data has 3x3 pixels; at least 8x8"),
    (InputError, {"data": [nddata(), np.zeros((3, 3))], "error": 1.0}, r"data\[1\] has 3x3 pixels"),
    (InputError, {"data": np.zeros(5)}, r"data has shape \(5,\)"),
    (InputError, {"data": "image.fits"}, "data is a str.*read files first"),
    (InputError, {"data": 5.0}, "data is a float|data has shape"),
    (InputError, {"data": None}, "data is a NoneType"),
    (InputError, {"data": []}, "data is empty"),
    (InputError, {"data": np.zeros((64, 64), complex)}, "data has dtype complex128"),
    (InputError, {"error": np.ones((64, 63))}, r"error has shape \(64, 63\), data has shape \(64, 64\)"),
    (InputError, {"mask": np.zeros((5, 5), bool)}, r"mask has shape \(5, 5\)"),
    (InputError, {"mask": np.zeros((64, 64))}, "mask has dtype float64; bool is needed"),
    (InputError, {"mask": 1}, "mask has dtype int64; bool is needed"),
    (InputError, {"data": np.zeros((64, 64), bool)}, "data has dtype bool"),
    (InputError, {"unit": "nJy"}, "unit='nJy' is that of the results.*but data has no unit"),
    (InputError, {"listed": "x"}, r"listed is not understood; allowed: \(\(M, 2\) array"),
    (InputError, {"listed": [(1, 2)]}, "listed is not understood"),
    (InputError, {"listed": ([[1, 2]], -1)}, r"listed\[1\]=-1; allowed: a whole number"),
    (PositionError, {"positions": [(1e300, 7.5)]}, r"the first is x, y = 1e\+300, 7.5 and"),
    (InputError, {"recenter": "no"}, "recenter='no'; allowed: True or False"),
    (InputError, {"psf_includes_pixel": None}, "psf_includes_pixel=None; allowed: True or False"),
    (InputError, {"normalize_psf": 3}, "normalize_psf=3; allowed: True or False"),
    (InputError, {"stamp_size": 100_000}, "stamp_size=100000; allowed: up to 1024 pixels"),
    (PSFError, {"psf": PSF.astype(complex)}, "psf has complex values"),
    (PSFError, {"data": np.zeros((3, 64, 64)), "psf": "stars"}, "psf='stars' needs one image with stars"),
    (InputError, {"stamp_size": 3}, "stamp_size=3; a whole number of pixels >= 8"),
    (InputError, {"stamp_size": 64.5}, "stamp_size=64.5"),
    (InputError, {"wcs": "TAN"}, "wcs is a str; an astropy WCS"),
    (InputError, {"wcs": WCS(naxis=2)}, "wcs has no celestial axes"),
    (InputError, {"data": nddata(), "error": 2.0, "psf": None}, "error contradicts data.uncertainty"),
    (
        InputError,
        {"data": nddata(), "psf": PSF**2, "error": None},
        r"psf contradicts the one that data\[0\] carries",
    ),
    (
        InputError,
        {"data": nddata(mask=ONES == 1), "mask": ONES == 0, "psf": None},
        "mask contradicts data.mask",
    ),
    (
        InputError,
        {"data": nddata(wcs=celestial()), "wcs": celestial(rotation=1), "psf": None},
        "wcs contradicts",
    ),
    (InputError, {"data": [nddata(unit=u.nJy), nddata(unit=u.m)], "psf": None}, r"data\[1\] has unit m"),
    (
        InputError,
        {"data": [nddata(wcs=celestial()), nddata()], "psf": None},
        r"data\[1\] has no WCS but others",
    ),
    (InputError, {"data": np.zeros((3, 64, 64)), "error": [1.0, 2.0]}, "error holds 2 entries for 3 cutouts"),
    (NoiseError, {"error": None}, "no noise information: give error="),
    (NoiseError, {"error": -1.0}, "error=-1.0; one number for all pixels must be finite and > 0"),
    (NoiseError, {"error": -ONES}, "error has 4096 negative pixels"),
    (NoiseError, {"error": 0 * ONES}, "error is zero, NaN or infinite in every"),
    (NoiseError, {"error": np.nan * ONES}, "error is NaN in every"),
    (
        NoiseError,
        {"data": nddata(uncertainty=InverseVariance(0 * ONES)), "psf": None},
        "data.uncertainty is zero",
    ),
    (NoiseError, {"data": nddata(uncertainty=StdDevUncertainty(-ONES)), "psf": None}, "negative pixels"),
    (NoiseError, {"error": 1 * u.adu}, "error has unit adu, which does not fit data of unit none"),
    (PSFError, {"psf": None}, "psf is missing"),
    (PSFError, {"psf": np.ones((64, 64))}, "psf is even-sized"),
    (PSFError, {"psf": -PSF}, "psf has a sum of"),
    (PSFError, {"data": [nddata(), nddata(psf=None)], "psf": None}, r"psf is missing in data\[1\]"),
    (PositionError, {"positions": [[500, 500], [-9, 3]]}, "positions: none of the 2 lies inside the image"),
    (PositionError, {"positions": [[1, 2, 3]]}, r"positions has shape \(1, 3\)"),
    (PositionError, {"positions": []}, "positions"),
    (PositionError, {"positions": "all"}, "positions is a str"),
    (
        PositionError,
        {"positions": SkyCoord(1, 2, unit="deg")},
        "positions are on the sky, but the image has no WCS",
    ),
    (PositionError, {"positions": Table({"a": [1.0], "b": [2.0]})}, "positions has columns a, b"),
    (
        PositionError,
        {"positions": Table({"x": ["a"], "y": ["b"]})},
        "column x of positions does not hold numbers",
    ),
    (
        PositionError,
        {"positions": QTable({"x": [1] * u.deg, "y": [1] * u.deg})},
        "column x of positions has unit deg",
    ),
    (
        PositionError,
        {"data": np.zeros((3, 64, 64)), "positions": [[1, 2]]},
        "positions has 1 rows for 3 cutouts",
    ),
]


@pytest.mark.parametrize(("exception", "changes", "match"), BAD_INPUT)
def test_bad_input(exception, changes, match):
    call = {"data": field((64, 64)), "psf": PSF, **changes}
    if not hasattr(call["data"], "uncertainty") and not isinstance(call["data"], list):
        call = {"error": 1.0, **call}
    with pytest.raises(exception, match=match):
        prepare(call.pop("data"), **call)


def test_positions_that_contradict_themselves():
    wcs = celestial()
    sky = wcs.pixel_to_world(*SOURCES.T)
    table = Table({"x": SOURCES[:, 0] + 30, "y": SOURCES[:, 1], "ra": sky.ra.deg, "dec": sky.dec.deg})
    with pytest.raises(PositionError, match=r"x, y and ra, dec, which differ by 30.0 pixels"):
        prepare(IMAGE, psf=PSF, error=1.0, wcs=wcs, positions=table)


def test_equal_keywords_are_no_contradiction():
    data = nddata(mask=ONES == 0, wcs=celestial())
    stamps = one(prepare(data, psf=PSF.copy(), error=1.0, mask=ONES == 0, wcs=celestial()))
    assert len(stamps) == 1


def test_noise_that_is_unknown_only_under_the_galaxies_is_a_flag():
    error = np.ones(SHAPE)
    error[20:180, 20:180] = np.nan
    stamps = one(prepare(IMAGE, psf=PSF, error=error, positions=[[100, 90]]))
    assert stamps.flags[0] & Flag.NO_DATA
