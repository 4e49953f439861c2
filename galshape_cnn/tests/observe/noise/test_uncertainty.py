# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Every description of noise gives the same inverse variance."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import (
    InverseVariance,
    NDData,
    NDUncertainty,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)

from galshape_cnn.errors import InputError, NoiseError
from galshape_cnn.observe.noise.uncertainty import Noise, noise_from_error, noise_from_uncertainty, same_noise

SIGMA = np.random.default_rng(3).uniform(1, 2, (9, 11))
KINDS = [
    lambda unit: StdDevUncertainty(SIGMA, unit=unit),
    lambda unit: VarianceUncertainty(SIGMA**2, unit=unit and unit**2),
    lambda unit: InverseVariance(SIGMA**-2, unit=unit and unit**-2),
]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("unit", [None, u.nJy])
def test_kinds_agree(make, unit):
    noise = noise_from_uncertainty(make(unit), unit)
    np.testing.assert_allclose(noise.inverse_variance(), SIGMA**-2, rtol=1e-12)


@pytest.mark.parametrize("make", KINDS)
def test_units_are_converted(make):
    noise = noise_from_uncertainty(make(u.uJy), u.nJy)
    np.testing.assert_allclose(noise.inverse_variance(), (1000 * SIGMA) ** -2.0, rtol=1e-12)


@pytest.mark.parametrize("make", KINDS)
def test_unit_of_parent(make):
    parent = NDData(np.zeros_like(SIGMA), uncertainty=make(None), unit=u.adu)
    noise = noise_from_uncertainty(parent.uncertainty, u.adu)
    np.testing.assert_allclose(noise.inverse_variance(), SIGMA**-2, rtol=1e-12)


class RelativeToTen(NDUncertainty):
    """An uncertainty kind the package does not know, but that knows its variance."""

    @property
    def uncertainty_type(self):
        return "relative"

    def _data_unit_to_uncertainty_unit(self, value):
        return value

    def _propagate_add(self, *args):
        raise NotImplementedError

    _propagate_subtract = _propagate_multiply = _propagate_divide = _propagate_add

    def _convert_to_variance(self):
        return VarianceUncertainty((10 * self.array) ** 2)

    _convert_to_std = _convert_to_ivar = _convert_to_variance


def test_other_kinds_represent_themselves():
    noise = noise_from_uncertainty(RelativeToTen(SIGMA / 10), None)
    np.testing.assert_allclose(noise.inverse_variance(), SIGMA**-2, rtol=1e-12)


def test_unknown_kind():
    with pytest.raises(NoiseError, match="UnknownUncertainty, which does not say its variance"):
        noise_from_uncertainty(UnknownUncertainty(SIGMA), None)


@pytest.mark.parametrize("error", [2.0, 2, 2 * u.dimensionless_unscaled, np.full((9, 11), 2.0)])
def test_error_forms(error):
    np.testing.assert_allclose(noise_from_error(error, None).inverse_variance(), 0.25)


def test_error_quantity_is_converted():
    assert noise_from_error(2 * u.uJy, u.nJy).inverse_variance() == pytest.approx(0.25e-6)


def test_bad_pixels_have_no_weight_and_input_is_untouched():
    sigma = SIGMA.copy()
    sigma[0, :3] = np.nan, 0, np.inf
    before = sigma.copy()
    ivar = noise_from_error(sigma, None).inverse_variance()
    np.testing.assert_array_equal(ivar[0, :3], 0)
    assert (ivar == 0).sum() == 3
    np.testing.assert_array_equal(sigma, before)


def test_only_what_is_asked_for_is_converted():
    sigma = SIGMA.copy()
    sigma[8, 10] = -1
    noise = noise_from_error(sigma, None)
    assert noise[:4, :4].inverse_variance().shape == (4, 4)
    with pytest.raises(NoiseError, match=r"error has 1 negative pixels \(lowest -1\)"):
        noise.inverse_variance()


@pytest.mark.parametrize("error", [0, -1, np.nan, np.inf])
def test_scalar_error_must_be_positive(error):
    with pytest.raises(NoiseError, match="error=.*must be finite and > 0"):
        noise_from_error(error, None)


@pytest.mark.parametrize(
    ("value", "match"), [(np.nan, "is NaN in every"), (0, "is zero, NaN or infinite in every")]
)
def test_noise_without_any_information(value, match):
    with pytest.raises(NoiseError, match=match):
        Noise(np.full((5, 5), value), "std").check_usable()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: noise_from_error("much", None), "error is a str"),
        (lambda: noise_from_error(2 * u.adu, None), "unit adu, which does not fit data of unit none"),
        (lambda: noise_from_error(2 * u.m, u.nJy), "unit m, which does not fit data of unit nJy"),
        (
            lambda: noise_from_uncertainty(StdDevUncertainty(None), None),
            "without an array.*no noise information",
        ),
    ],
)
def test_bad_noise(call, match):
    with pytest.raises(NoiseError, match=match):
        call()


def test_same_noise():
    one = noise_from_error(SIGMA, None)
    assert same_noise(one, noise_from_uncertainty(VarianceUncertainty(SIGMA**2), None))
    assert not same_noise(one, noise_from_error(SIGMA * 1.01, None))
    with pytest.raises(InputError, match="error has shape"):
        same_noise(one, noise_from_error(np.ones((3, 3)), None))
