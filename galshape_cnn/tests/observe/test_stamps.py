# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Stamps: what is refused, what is copied, and what rows keep."""

import dataclasses
import pickle

import astropy.units as u
import numpy as np
import pytest

from galshape_cnn import Stamps
from galshape_cnn.errors import InputError, NoiseError, PSFError

N, SIDE = 4, 16


def arrays(**changes):
    """Valid arguments of `Stamps`, with some replaced."""
    rng = np.random.default_rng(1)
    psf = np.zeros((N, 5, 5))
    psf[:, 2, 2] = np.linspace(0.5, 1, N)
    values = {
        "data": rng.normal(size=(N, SIDE, SIDE)),
        "ivar": np.ones((N, SIDE, SIDE)),
        "psf": psf,
        "jacobian": np.broadcast_to(0.2 * np.eye(2), (N, 2, 2)) * np.arange(1, N + 1)[:, None, None],
        "origin": np.arange(2 * N).reshape(N, 2),
        "center": np.full((N, 2), 7.0) + np.arange(N)[:, None],
        "skycoord": np.column_stack([np.arange(N), -np.arange(N)]).astype(float),
        "flags": np.arange(N),
        "unit": u.nJy,
    }
    return {**values, **changes}


def make(**changes):
    return Stamps(**arrays(**changes))


def test_defaults():
    stamps = Stamps(np.zeros((N, SIDE, SIDE)), np.ones((N, SIDE, SIDE)), np.ones((3, 3)) / 9)
    assert len(stamps) == N
    assert stamps.psf.shape == (1, 3, 3)
    np.testing.assert_array_equal(stamps.jacobian, np.broadcast_to(np.eye(2), (N, 2, 2)))
    np.testing.assert_array_equal(stamps.center, np.full((N, 2), 7.5))
    assert stamps.skycoord is stamps.nuisance is None
    assert stamps.flags.dtype == stamps.origin.dtype == np.int64
    np.testing.assert_array_equal(stamps.flags, np.zeros(N))
    np.testing.assert_array_equal(stamps.origin, np.zeros((N, 2)))
    assert stamps.data.dtype == stamps.ivar.dtype == np.float32
    assert stamps.psf.dtype == np.float64


@pytest.mark.parametrize("index", [2, -1, slice(1, 3), [3, 0], np.array([True, False, True, False])])
def test_rows_keep_everything(index):
    whole = make()
    part = whole[index]
    rows = np.atleast_1d(np.arange(N)[index])
    assert len(part) == len(rows)
    for name in ("data", "ivar", "psf", "jacobian", "origin", "center", "skycoord", "flags"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows])
    assert part.unit == u.nJy


def test_shared_psf_stays_shared():
    assert make(psf=np.ones((3, 3)) / 9)[[1, 2]].psf.shape == (1, 3, 3)


def test_arrays_are_copies_and_read_only():
    given = arrays()
    stamps = Stamps(**given)
    before = stamps.data.copy()
    given["data"][:] = 7
    np.testing.assert_array_equal(stamps.data, before)
    for value in (stamps.data, stamps[0].ivar, pickle.loads(pickle.dumps(stamps)).psf):
        with pytest.raises(ValueError, match="read-only"):
            value[:] = 0


def test_masked_and_nan_pixels_are_zero():
    given = arrays()
    given["data"][0, 3, 3] = np.nan
    given["ivar"][1, 4, 4] = 0
    stamps = Stamps(**given)
    assert stamps.data[0, 3, 3] == stamps.ivar[0, 3, 3] == stamps.data[1, 4, 4] == 0
    assert np.isnan(given["data"][0, 3, 3])
    assert (stamps.ivar == 0).sum() == 2


def test_pickle_keeps_values():
    stamps = make()
    again = pickle.loads(pickle.dumps(stamps))
    np.testing.assert_array_equal(again.data, stamps.data)
    assert again.unit == stamps.unit


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data": np.zeros((SIDE, SIDE))}, r"data has shape \(16, 16\); \(N, ny, nx\) is needed"),
        ({"data": np.zeros((N, 3, 3)), "ivar": np.ones((N, 3, 3))}, "stamps of 3x3 pixels; at least 8x8"),
        ({"ivar": np.ones((N, SIDE, SIDE + 1))}, r"ivar has shape \(4, 16, 17\); that of data is"),
        ({"data": np.zeros((N, SIDE, SIDE), complex)}, "data has dtype complex128"),
        ({"jacobian": np.zeros((N, 2, 2))}, "jacobian is singular in 4 rows"),
        ({"jacobian": np.eye(3)}, r"jacobian has shape \(3, 3\)"),
        ({"origin": np.zeros((N, 3))}, r"origin has shape \(4, 3\); \(4, 2\) is needed"),
        ({"origin": np.full((N, 2), 0.5)}, "origin must be integers"),
        ({"center": np.full((N, 2), np.nan)}, "center has values that are not finite"),
        ({"flags": np.zeros(N + 1, int)}, r"flags has shape \(5,\)"),
        ({"skycoord": np.zeros((N, 3))}, r"skycoord has shape \(4, 3\)"),
    ],
)
def test_bad_input(changes, match):
    with pytest.raises(InputError, match=match):
        make(**changes)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_bad_ivar(value):
    ivar = np.ones((N, SIDE, SIDE))
    ivar[2, 5, 5] = value
    with pytest.raises(NoiseError, match="ivar has 1 pixels that are negative, NaN or infinite"):
        make(ivar=ivar)


def test_any_unit_of_flux_is_kept():
    stamps = make(ivar=np.full((N, SIDE, SIDE), 1e40))
    assert stamps.ivar[0, 0, 0] == 1e40
    np.testing.assert_array_equal(stamps.noise_unit, 2.0**-66)
    near_one = stamps.in_units_of(stamps.noise_unit)
    assert near_one.ivar.dtype == np.float32
    assert near_one.ivar.max() == pytest.approx(1e40 * 2.0**-132)
    np.testing.assert_allclose(near_one.data * stamps.noise_unit[:, None, None], stamps.data, rtol=1e-6)
    assert make().in_units_of(2.0).data.dtype == np.float32


def test_noise_unit_without_data():
    np.testing.assert_array_equal(make(ivar=np.zeros((N, SIDE, SIDE))).noise_unit, 1)


def test_noise_unit_of_a_single_pixel():
    ivar = np.zeros((N, SIDE, SIDE))
    ivar[:, 5, 7] = 4.0 ** -np.arange(N)
    np.testing.assert_array_equal(make(ivar=ivar).noise_unit, 2.0 ** np.arange(N))


def test_noise_unit_is_of_each_stamp_alone():
    ivar = np.ones((N, SIDE, SIDE)) * 4.0 ** -np.arange(N)[:, None, None]
    stamps = make(ivar=ivar)
    np.testing.assert_array_equal(stamps.noise_unit, 2.0 ** np.arange(N))
    np.testing.assert_array_equal(stamps[2:].noise_unit, stamps.noise_unit[2:])
    np.testing.assert_array_equal(stamps.in_units_of(stamps.noise_unit).ivar.max((1, 2)), 1)


@pytest.mark.parametrize(
    ("psf", "match"),
    [
        (np.ones((4, 4)), r"psf is even-sized \(4x4\).*Crop, pad or resample it to odd sizes"),
        (np.ones((5, 4)), r"psf is even-sized \(5x4\)"),
        (-np.ones((3, 3)), "psf has a sum of -9.*positive sum"),
        (np.zeros((3, 3)), "psf has a sum of 0"),
        (np.full((3, 3), np.nan), "psf holds only NaN"),
        (np.where(np.eye(3) == 1, np.nan, 0.1), "psf holds values that are not finite"),
        (np.ones((3, 3)), "psf has a sum of 9.*more than all light; divide it by its sum"),
        (np.ones((2, 3, 3)) / 9, "psf holds 2 PSFs for 4 galaxies; give one or 4"),
        (np.ones(3), r"psf has shape \(3,\)"),
        ("a PSF", "psf is a str"),
    ],
)
def test_bad_psf(psf, match):
    with pytest.raises(PSFError, match=match):
        make(psf=psf)


@pytest.mark.parametrize("factor", [0, 1.5, "two", -1])
def test_bad_oversampling(factor):
    with pytest.raises(PSFError, match="psf_oversampling=.*whole number"):
        make(psf_oversampling=factor)


def test_a_batch_cannot_be_changed():
    stamps = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stamps.unit = None


def test_batches_are_compared_by_identity():
    stamps = make()
    assert stamps == stamps
    assert stamps != make()


def test_what_is_rarely_given_needs_its_name():
    parts = arrays()
    with pytest.raises(TypeError, match="positional arguments"):
        Stamps(*(parts[name] for name in ("data", "ivar", "psf", "jacobian", "origin", "center")))


def test_repr_says_what_matters():
    assert repr(make()) == "<Stamps: 4 of 16x16 pixels, PSF (4, 5, 5) at 1x, unit=nJy, with sky positions>"
    assert "no sky positions" in repr(make(skycoord=None))


def test_smallest_stamp():
    assert len(Stamps(np.zeros((1, 8, 8)), np.ones((1, 8, 8)), np.ones((3, 3)) / 9)) == 1
    with pytest.raises(InputError, match="stamps of 9x7 pixels; at least 8x8"):
        Stamps(np.zeros((1, 9, 7)), np.ones((1, 9, 7)), np.ones((3, 3)) / 9)
    with pytest.raises(InputError, match="stamps of 7x9 pixels; at least 8x8"):
        Stamps(np.zeros((1, 7, 9)), np.ones((1, 7, 9)), np.ones((3, 3)) / 9)


@pytest.mark.parametrize(
    ("ivar", "kind"), [(0.0, "f4"), (1.5e-24, "f4"), (0.7e24, "f4"), (0.7e-24, "f8"), (1.5e24, "f8")]
)
def test_precision_follows_the_unit(ivar, kind):
    stamps = make(ivar=np.full((N, SIDE, SIDE), ivar))
    assert stamps.data.dtype == stamps.ivar.dtype == np.dtype(kind)


def test_pixels_replaced():
    stamps = make()
    ivar = np.ones((N, SIDE, SIDE))
    ivar[:, 0] = 0
    other = stamps.with_pixels(np.full((N, SIDE, SIDE), 3.0), ivar)
    np.testing.assert_array_equal(other.data, np.where(ivar > 0, 3.0, 0.0))
    np.testing.assert_array_equal(other.ivar, ivar)
    np.testing.assert_array_equal(other.center, stamps.center)
    assert other.unit == stamps.unit
    ivar[:] = 5
    assert other.ivar.max() == 1


def test_images_of_unknown_amplitude():
    images = np.random.default_rng(2).normal(size=(N, 3, SIDE, SIDE))
    stamps = make(nuisance=images)
    np.testing.assert_array_equal(stamps.nuisance, images.astype(np.float32))
    np.testing.assert_array_equal(stamps[1:3].nuisance, stamps.nuisance[1:3])
    for wrong in (images[:, 0], images[:, :, 1:]):
        with pytest.raises(InputError, match=r"nuisance has shape .*; \(4, [13], 16, 16\) is needed"):
            make(nuisance=wrong)


def test_sky_positions_may_be_unknown():
    skycoord = np.full((N, 2), np.nan)
    np.testing.assert_array_equal(make(skycoord=skycoord).skycoord, skycoord)


def test_a_slice_shares_memory_and_other_rows_do_not():
    stamps = Stamps(np.ones((4, 8, 8)), np.ones((4, 8, 8)), np.ones((4, 3, 3)) / 9)
    assert np.shares_memory(stamps[1:3].data, stamps.data)
    assert not np.shares_memory(stamps[[1, 2]].data, stamps.data)
    assert not stamps[1:3].psf.flags.writeable


def test_psfs_of_the_user_are_copied_unless_nobody_can_change_them():
    mine = np.ones((2, 3, 3)) / 9
    view = mine.view()
    view.setflags(write=False)  # mine still is not
    for psf in (mine, view):
        assert not np.shares_memory(Stamps(np.ones((2, 8, 8)), np.ones((2, 8, 8)), psf).psf, mine)
    stamps = Stamps(np.ones((2, 8, 8)), np.ones((2, 8, 8)), mine)
    again = Stamps(stamps.data, stamps.ivar, stamps.psf)
    assert np.shares_memory(again.psf, stamps.psf)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_units_of_powers_of_two_are_exact(kind):
    rng = np.random.default_rng(1)
    data, unit = rng.normal(size=(3, 8, 8)).astype(kind), np.array([0.25, 1.0, 2.0**20])
    stamps = Stamps(data, np.full(data.shape, 3.0), np.ones((1, 3, 3)) / 9).in_units_of(unit)
    np.testing.assert_array_equal(stamps.data, (data.astype(np.float32) / unit[:, None, None]).astype("f4"))
    np.testing.assert_array_equal(stamps.ivar[:, 0, 0], 3 * unit**2)
    assert stamps.data.dtype == stamps.psf.dtype == np.float32
