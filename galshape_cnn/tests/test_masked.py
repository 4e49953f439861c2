# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Masks of masked arrays are honoured by every argument that may have one."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, InverseVariance, NDData, NDDataRef, StdDevUncertainty, VarianceUncertainty
from astropy.table import MaskedColumn, QTable
from astropy.utils.masked import Masked

from galshape_cnn import CNNFitter, PSFConvolvedSersic2D, Stamps, cramer_rao_bound, snr
from galshape_cnn.errors import InputError, NoiseError, PSFError
from galshape_cnn.infer.catalog.magnitudes import add_magnitudes
from galshape_cnn.masked import filled, hidden_mask, split_mask
from galshape_cnn.observe.detect.sources import find_galaxies, pixels_and_noise
from galshape_cnn.observe.noise.correlation import correlation_array
from galshape_cnn.observe.noise.uncertainty import noise_from_error, noise_from_uncertainty
from galshape_cnn.observe.observation import prepare
from galshape_cnn.scale import open_source
from galshape_cnn.tests.infer.measure.test_fitter import FakeEstimator
from galshape_cnn.tests.survey_scene import SIDE, SIGMA, pixel_psf, positions, scene

PSF = pixel_psf()
#: A hot column through the first galaxy, which only the mask says.
BAD = np.zeros((SIDE, SIDE), bool)
BAD[40:50, 38:41] = True
IMAGE = np.where(BAD, 500.0, scene())
NOISE = np.full((SIDE, SIDE), SIGMA)

#: Ways to say that pixels are masked.
FORMS = {
    "numpy.ma": lambda values: np.ma.array(values, mask=BAD),
    "Masked": lambda values: Masked(values, mask=BAD),
    "masked Quantity": lambda values: Masked(values * u.nJy, mask=BAD),
}


def weights_of(data, **keywords):
    """Inverse variances of the first galaxy's stamp."""
    observation = prepare(data, positions=positions(), psf=PSF, recenter=False, stamp_size=32, **keywords)
    stamps = observation.groups[0][1]
    return stamps.ivar[0], stamps.data[0]


EXPECTED = weights_of(IMAGE, error=SIGMA, mask=BAD)


@pytest.mark.parametrize("form", FORMS)
def test_error(form):
    error = FORMS[form](NOISE)
    data = IMAGE * getattr(error, "unit", 1)
    for one, other in zip(weights_of(data, error=error), EXPECTED, strict=True):
        np.testing.assert_array_equal(one, other)


KINDS = ((StdDevUncertainty, 1), (VarianceUncertainty, 2), (InverseVariance, -2))


@pytest.mark.parametrize(("kind", "power"), KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_uncertainty(form, kind, power):
    """astropy keeps the array of a masked one as a plain view, of which the mask is found again."""
    values = FORMS[form](NOISE)
    unit = getattr(values, "unit", None)
    masked = values**power
    data = NDDataRef(IMAGE, uncertainty=kind(masked), unit=unit)
    for one, other in zip(weights_of(data), EXPECTED, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    part = data[20:80, 10:90]  # and of parts of them
    found = noise_from_uncertainty(part.uncertainty, unit).inverse_variance()
    np.testing.assert_array_equal(found == 0, BAD[20:80, 10:90])
    np.testing.assert_array_equal(noise_from_error(data.uncertainty, unit).inverse_variance() == 0, BAD)


def test_ccddata_with_a_masked_uncertainty():
    data = CCDData(IMAGE, uncertainty=StdDevUncertainty(np.ma.array(NOISE, mask=BAD)), unit="adu")
    np.testing.assert_array_equal(weights_of(data)[0], EXPECTED[0])


@pytest.mark.parametrize("form", ["numpy.ma", "Masked"])
def test_cube_with_masked_noise(form):
    cube, bad = np.stack([IMAGE[:64, :64]] * 3), np.stack([BAD[:64, :64]] * 3)
    values = np.full(cube.shape, SIGMA)
    error = np.ma.array(values, mask=bad) if form == "numpy.ma" else Masked(values, mask=bad)
    stamps = prepare(cube, error=error, psf=PSF, recenter=False).groups[0][1]
    np.testing.assert_array_equal(stamps.ivar == 0, bad)
    each = prepare(list(cube), error=list(error), psf=PSF, recenter=False).groups[0][1]
    np.testing.assert_array_equal(each.ivar == 0, bad)


def test_a_masked_mask_is_bad():
    mask = np.ma.array(np.zeros_like(BAD), mask=BAD)
    np.testing.assert_array_equal(weights_of(IMAGE, error=SIGMA, mask=mask)[0], EXPECTED[0])


@pytest.mark.parametrize("form", FORMS)
def test_detection_and_its_noise(form):
    error = FORMS[form](NOISE)
    unit = getattr(error, "unit", None)
    for data, given in (
        (NDData(IMAGE, unit=unit), error),
        (NDData(IMAGE, unit=unit, uncertainty=StdDevUncertainty(error)), None),
    ):
        _, sigma, bad = pixels_and_noise(data, given)
        np.testing.assert_array_equal(bad, BAD)
        np.testing.assert_array_equal(sigma[~bad], SIGMA)
    expected = find_galaxies(NDData(IMAGE, mask=BAD), SIGMA)
    assert find_galaxies(data).as_array().tolist() == expected.as_array().tolist()


def test_noise_of_the_detection_in_another_unit():
    data = NDData(IMAGE, unit=u.nJy, uncertainty=VarianceUncertainty((NOISE * 1e-3) ** 2, unit=u.uJy**2))
    np.testing.assert_allclose(pixels_and_noise(data, None)[1], SIGMA, rtol=1e-12)
    np.testing.assert_allclose(pixels_and_noise(data, SIGMA * 1e-3 * u.uJy)[1], SIGMA, rtol=1e-12)


MASKED_PSF = np.ma.array(PSF, mask=np.eye(*PSF.shape, dtype=bool))


@pytest.mark.parametrize(
    "psf",
    [MASKED_PSF, Masked(PSF, mask=MASKED_PSF.mask), Masked(PSF * u.adu, mask=MASKED_PSF.mask),
     [PSF, MASKED_PSF, PSF], np.ma.array([MASKED_PSF] * 3), lambda x, y: MASKED_PSF],
    ids=["numpy.ma", "Masked", "masked Quantity", "list", "one for each", "callable"],
)  # fmt: skip
def test_masked_psf_is_refused(psf):
    with pytest.raises(PSFError, match="has [0-9]+ masked values; replace them"):
        prepare(IMAGE, positions=positions(), psf=psf, error=1.0)


def test_masked_psf_is_refused_elsewhere():
    galaxy = {"flux": 1e4, "n": 1, "hlr": 3, "g1": 0, "g2": 0}
    for call in (
        lambda: cramer_rao_bound(galaxy, MASKED_PSF, error=1),
        lambda: PSFConvolvedSersic2D(psf=MASKED_PSF),
        lambda: Stamps(np.zeros((1, 16, 16)), np.ones((1, 16, 16)), MASKED_PSF),
        lambda: prepare(NDData(IMAGE, psf=MASKED_PSF), positions=positions(), error=1.0),
    ):
        with pytest.raises(PSFError, match="masked values"):
            call()
    stamps = prepare(IMAGE, psf=np.ma.array(PSF), positions=positions(), error=1.0).groups[0][1]
    np.testing.assert_allclose(stamps.psf, [PSF])


@pytest.mark.parametrize("which", ["z", "weights", "both"])
@pytest.mark.parametrize("form", ["numpy.ma", "Masked", "masked Quantity"])
def test_fitter(form, which):
    y, x = np.mgrid[25:66, 20:61].astype(float)
    part = (slice(25, 66), slice(20, 61))
    bad, z, weights = BAD[part], IMAGE[part], np.full((41, 41), 1 / SIGMA)
    unit = u.nJy if form == "masked Quantity" else 1
    wrap = (lambda v: np.ma.array(v, mask=bad)) if form == "numpy.ma" else (lambda v: Masked(v, mask=bad))
    z, weights = z * unit, weights / unit
    z = wrap(z) if which != "weights" else z
    weights = wrap(weights) if which != "z" else weights
    fake = FakeEstimator()
    model = PSFConvolvedSersic2D(1 * unit, 1, 1, 0, 0, x_0=40, y_0=45, psf=PSF)
    CNNFitter(fake)(model, x, y, z, weights=weights)
    stamps, _ = fake.calls[0]
    np.testing.assert_array_equal(stamps.ivar[0] == 0, bad)
    np.testing.assert_allclose(stamps.data[0], np.where(bad, 0, IMAGE[part]), rtol=1e-6)


def test_fitter_with_masked_coordinates():
    y, x = np.mgrid[25:66, 20:61].astype(float)
    bad = BAD[25:66, 20:61]
    x = np.ma.array(np.where(bad, -1e9, x), mask=bad)
    fake, model = FakeEstimator(), PSFConvolvedSersic2D(1, 1, 1, 0, 0, x_0=40, y_0=45, psf=PSF)
    CNNFitter(fake)(model, x, y, IMAGE[25:66, 20:61], weights=np.full(bad.shape, 1 / SIGMA))
    np.testing.assert_array_equal(fake.calls[0][0].ivar[0] == 0, bad)
    with pytest.raises(InputError, match="x and y must hold finite"):
        model.evaluate(x, y, *model.parameters)


def test_bound_and_snr():
    galaxy = {"flux": 4000, "n": 1.5, "hlr": 4, "g1": 0, "g2": 0}
    noise, bad = np.full((40, 40), SIGMA), np.zeros((40, 40), bool)
    bad[18:22, 10:30] = True
    expected = cramer_rao_bound(galaxy, PSF, noise, mask=bad)
    assert expected.flux > 1.05 * cramer_rao_bound(galaxy, PSF, noise).flux
    for error in (np.ma.array(noise, mask=bad), Masked(noise, mask=bad)):
        np.testing.assert_array_equal(cramer_rao_bound(galaxy, PSF, error).covariance, expected.covariance)
    masked = cramer_rao_bound({**galaxy, "flux": 4000 * u.nJy}, PSF, Masked(noise * u.nJy, mask=bad))
    np.testing.assert_array_equal(masked.covariance, expected.covariance)
    unknown = cramer_rao_bound(galaxy, PSF, noise, mask=np.ma.array(np.zeros_like(bad), mask=bad))
    np.testing.assert_array_equal(unknown.covariance, expected.covariance)
    model = np.ones((40, 40))
    assert snr(Masked(model, mask=bad), 2.0) == pytest.approx(np.sqrt((~bad).sum()) / 2)
    assert snr(model, Masked(2 * model, mask=bad)) == pytest.approx(np.sqrt((~bad).sum()) / 2)


def test_stamps():
    data, ivar, bad = IMAGE[None, :64, :64], np.ones((1, 64, 64)), BAD[None, :64, :64]
    masked = Masked(ivar * np.where(bad, -1, 1), mask=bad)
    for one, other in ((np.ma.array(data, mask=bad), ivar), (data, masked)):
        stamps = Stamps(one, other, PSF)
        np.testing.assert_array_equal(stamps.ivar == 0, bad)
        assert (stamps.data[bad] == 0).all()
    with pytest.raises(InputError, match="center has 1 masked values"):
        Stamps(data, ivar, PSF, center=np.ma.array([[31.0, 32.0]], mask=[[True, False]]))
    with pytest.raises(NoiseError, match="negative"):
        Stamps(data, -ivar, PSF)


def test_correlation_of_the_noise():
    array = np.ma.array(np.pad([[1.0]], 1, constant_values=0.1), mask=np.eye(3, dtype=bool))
    with pytest.raises(InputError, match="masked or not finite"):
        correlation_array(array)


def test_streams_keep_mask_unit_and_rows():
    cube, bad = np.stack([IMAGE[:64, :64]] * 5), np.stack([BAD[:64, :64]] * 5)
    for data in (np.ma.array(cube, mask=bad), Masked(cube * u.nJy, mask=bad)):
        part, keywords = open_source(data, psf=PSF, error=SIGMA * getattr(data, "unit", 1)).read(1, 4)
        observation = prepare(part, **keywords)
        assert observation.unit == getattr(data, "unit", None)
        stamps = observation.groups[0][1]
        np.testing.assert_array_equal(stamps.ivar == 0, bad[1:4])
    each = np.arange(1.0, 6.0)
    noises = (
        each,
        list(each),
        StdDevUncertainty(np.ma.array(np.ones_like(cube) * each[:, None, None], mask=bad)),
        np.ma.array(np.ones_like(cube) * each[:, None, None], mask=bad),
    )
    for error in noises:
        data, keywords = open_source(cube, psf=PSF, error=error).read(2, 4)
        stamps = prepare(data, **keywords).groups[0][1]
        np.testing.assert_allclose(stamps.ivar.max((1, 2)), each[2:4] ** -2.0)
    np.testing.assert_array_equal(stamps.ivar == 0, bad[2:4])


def test_identity_of_an_input_knows_its_mask_and_unit():
    cube, bad = np.stack([IMAGE[:64, :64]] * 5), np.stack([BAD[:64, :64]] * 5)
    inputs = (cube, np.ma.array(cube, mask=bad), cube * u.nJy, cube * u.uJy, Masked(cube * u.nJy, mask=bad))
    assert len({open_source(one, psf=PSF, error=1.0).identity for one in inputs}) == len(inputs)
    images = [NDData(IMAGE), NDData(IMAGE, mask=BAD), NDData(IMAGE, uncertainty=StdDevUncertainty(NOISE))]
    found = {open_source(one, positions=positions(), psf=PSF, error=SIGMA).identity for one in images}
    assert len(found) == 3


def test_magnitudes_of_masked_fluxes():
    """A join of catalogues leaves fluxes masked: what is under the mask is no magnitude."""
    for flux in (
        MaskedColumn([100.0, 1e20], mask=[False, True]),
        Masked([100.0, 1e20] * u.nJy, mask=[False, True]),
    ):
        table = QTable({"flux": flux, "flux_err": flux})
        add_magnitudes(table, 22.5)
        np.testing.assert_allclose(table["mag"].value, [17.5, np.nan])


def test_the_three_functions():
    masked = np.ma.array([1.0, 2.0], mask=[True, False])
    values, mask = split_mask(masked)
    assert type(values) is np.ndarray
    assert mask.tolist() == [True, False]
    assert split_mask(np.ma.array([1.0]))[1] is None
    assert split_mask("text") == ("text", None)
    np.testing.assert_array_equal(filled(masked), [np.nan, 2])
    np.testing.assert_array_equal(filled([1, 2]), [1, 2])
    assert hidden_mask(np.ones(3)) is None
    assert hidden_mask([1, 2]) is None
    whole = StdDevUncertainty(np.ma.array(np.ones((6, 8)), mask=np.arange(48).reshape(6, 8) % 5 == 0)).array
    for index in (np.s_[1:4, 2:7], np.s_[::2, ::-1], np.s_[3], np.s_[::-1, 1:1]):
        expected = (np.arange(48).reshape(6, 8) % 5 == 0)[index]
        found = hidden_mask(whole[index])
        np.testing.assert_array_equal(np.zeros_like(expected) if found is None else found, expected)
