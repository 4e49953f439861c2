# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Cutouts of a cube are read several at a time, and are what they would be one by one."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty

from galshape_cnn.errors import InputError, NoiseError
from galshape_cnn.observe import inputs as frames
from galshape_cnn.observe.observation import prepare
from galshape_cnn.tests.cutout_scene import PSF, celestial

N = 37


def cutouts(side):
    """Galaxies off the middle, some with masked, infinite or huge pixels; noise of each pixel; mask."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    places = (side - 1) / 2 + rng.choice([0, 0.4, -5.3], (2, N, 1, 1))
    data = 90 * np.exp(-((x - places[0]) ** 2 + (y - places[1]) ** 2) / 12)
    sigma, mask = rng.uniform(0.5, 2, data.shape), rng.uniform(size=data.shape) < 0.02
    data += sigma * rng.normal(size=data.shape)
    data[3, 5, 6], data[4, 7, 7], sigma[5, 1:9, 3] = np.nan, 1e30, [np.nan, np.inf, 0, 0, 1, 1, 1, 1]
    return data.astype(">f4"), sigma, mask


def assert_alike(cube, single):
    assert len(cube.groups) == len(single.groups) == 1
    for name in ("data", "ivar", "psf", "jacobian", "origin", "center", "skycoord", "flags"):
        one, other = (getattr(observation.groups[0][1], name) for observation in (cube, single))
        np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize("side", [64, 47])
@pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
def test_cube_equals_its_cutouts(side, kind, monkeypatch):
    data, sigma, mask = cutouts(side)
    with np.errstate(divide="ignore"):
        sigma = {StdDevUncertainty: sigma, VarianceUncertainty: sigma**2, InverseVariance: sigma**-2.0}[kind]
    psf = np.resize(PSF, (N, *PSF.shape))
    common = {"wcs": celestial(), "unit": u.nJy}
    single = [
        NDData(d, uncertainty=kind(s), mask=m, psf=p, **common)
        for d, s, m, p in zip(data, sigma, mask, psf, strict=True)
    ]
    single = prepare(single, unit=u.uJy)
    # what follows is not read one by one
    monkeypatch.setattr(frames.Frame, "read", None)
    assert_alike(
        prepare(NDData(data, uncertainty=kind(sigma), mask=mask, psf=psf, **common), unit=u.uJy), single
    )
    assert (np.hypot(*(single.groups[0][1].origin).T) > 0).sum() > 5


@pytest.mark.parametrize("error", [1.5, "map", "list"])
def test_error_of_a_cube_of_any_form(error):
    data, sigma, mask = cutouts(64)
    error = {"map": sigma, "list": list(sigma)}.get(error, error)
    single = prepare(list(data), psf=PSF, error=error, mask=list(mask), stamp_size=40)
    assert_alike(prepare(data, psf=PSF, error=error, mask=mask, stamp_size=40), single)


def test_the_bad_cutout_is_named():
    data, sigma, _ = cutouts(64)
    sigma[20, 3, 3] = -1
    with pytest.raises(NoiseError, match=r"data\[20\].uncertainty has 1 negative"):
        prepare(NDData(data, uncertainty=StdDevUncertainty(sigma)), psf=PSF)
    with pytest.raises(NoiseError, match="error has 1 negative"):
        prepare(data, psf=PSF, error=sigma)
    with pytest.raises(InputError, match="mask has shape"):
        prepare(data, psf=PSF, error=1.0, mask=np.zeros((N, 5, 5), bool))
