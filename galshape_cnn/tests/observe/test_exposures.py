# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Exposures: what may differ, what must agree, and where each sees a galaxy."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData
from astropy.table import Table

from galshape_cnn import Exposure
from galshape_cnn.errors import InputError, NoiseError, PositionError
from galshape_cnn.observe.exposure_agreement import agreed_exposures
from galshape_cnn.observe.exposures import prepare_exposures
from galshape_cnn.tests.exposure_scene import tangent_wcs

PSF = np.outer([1, 2, 1], [1, 2, 1]) / 16


def blank(side=100, **keywords):
    return Exposure(np.zeros((side, side)), **{"psf": PSF, "error": 1.0} | keywords)


def sky(scale=0.2, angle=0.0, side=100, **keywords):
    return blank(side, wcs=tangent_wcs(scale, angle, side), **keywords)


def places(xy=((49.0, 50.0), (60.0, 41.0))):
    return np.array(xy)


def test_views_agree_with_the_wcs():
    """A point near the galaxy goes from the pixels of one exposure to those of the other as by their WCS."""
    first, second = sky(0.2, 0.3), sky(0.37, -1.2, 140)
    found = prepare_exposures([first, second], places(), recenter=False)
    view = found.view(np.arange(2), 1)
    near = places() + [3.0, -2.0]
    origins = [one.groups[0][1].origin for one in found.observations]
    params = np.tile([1, 1, 1, 0, 0, 0, 0, 0, 0.0], (2, 1))
    params[:, found.model.centre] = near - origins[0]
    moved = view.params(params)[:, 5:7] + origins[1]
    expected = np.column_stack(second.wcs.world_to_pixel(first.wcs.pixel_to_world(*near.T)))
    np.testing.assert_allclose(moved, expected, atol=2e-4)


def test_bands_units_and_zero_points():
    one = sky(band="r", zeropoint=25.0)
    found = prepare_exposures([sky(band="g"), one, sky(band="r", zeropoint=27.5)], places())
    assert found.names == ("g1", "r1", "r2")
    assert found.model.bands == ("g", "r")
    assert found.model.exposures == (0, 1, 1)
    np.testing.assert_allclose(found.factors, [1, 1, 10])
    assert found.zeropoints == (None, 25.0)


def test_units_of_a_band_are_converted():
    def of_unit(unit):
        data = NDData(np.zeros((100, 100)), unit=unit, wcs=tangent_wcs(0.2, 0, 100))
        return Exposure(data, psf=PSF, error=1.0, band="r")

    found = prepare_exposures([of_unit(u.uJy), of_unit(u.nJy)], places())
    np.testing.assert_allclose(found.factors, [1, 1000])
    assert found.units == (u.uJy,)
    with pytest.raises(InputError, match="exposure 'r2' of band 'r' has unit adu"):
        prepare_exposures([of_unit(u.uJy), of_unit(u.adu)], places())


def test_an_exposure_need_not_show_every_galaxy():
    small = sky(side=40)
    found = prepare_exposures([sky(), small], places(((49.0, 50.0), (5.0, 6.0))), recenter=False)
    assert found.seen.tolist() == [[True, True], [True, False]]
    assert found.reference.tolist() == [0, 0]
    turned = prepare_exposures([small, sky()], places(((19.0, 20.0), (50.0, -20.0))), recenter=False)
    assert turned.seen.tolist() == [[True, True], [False, True]]
    assert turned.reference.tolist() == [0, 1]


def test_cutouts_without_wcs_are_aligned():
    cube = np.zeros((3, 64, 64))
    found = prepare_exposures([Exposure(cube, psf=PSF, error=1.0, band=band) for band in "gr"])
    assert len(found) == 3
    assert not found.has_sky
    view = found.view(np.arange(3), 1)
    np.testing.assert_array_equal(view.frame, np.broadcast_to(np.eye(2), (3, 2, 2)))
    np.testing.assert_allclose(view.reference, view.pixel)


@pytest.mark.parametrize(
    ("exposures", "positions", "error", "message"),
    [
        ([], places(), InputError, "empty list"),
        (
            [sky(band="r", zeropoint=25), sky(band="r")],
            places(),
            InputError,
            "'r2' of band 'r' has no zeropoint",
        ),
        ([sky(band="r"), sky()], places(), InputError, r"data\[1\] has no band"),
        (
            [sky(band="r"), sky(band="err")],
            places(),
            InputError,
            "band 'err': its column flux_err could mean",
        ),
        ([sky(band="g_std"), sky(band="g")], places(), InputError, "band 'g_std': its column flux_g_std"),
        ([sky(band="r"), blank(band="g")], places(), InputError, "exposure 'g1' has no WCS, 'r1' has one"),
        ([blank(100), blank(90)], places(), InputError, "must be aligned, but have shapes"),
        ([sky(name="a"), sky(name="a")], places(), InputError, "two exposures have the name 'a'"),
        ([sky(), sky()], places(((-900.0, 0.0), (0.0, 900.0))), PositionError, "inside any of the 2 images"),
        ([sky(), sky(error=None)], places(), NoiseError, "exposure 'exposure2': "),
        ([Exposure(np.zeros((2, 64, 64)), psf=PSF, error=1.0)], places(), PositionError, "holds cutouts"),
        (
            [Exposure(np.zeros((k, 64, 64)), psf=PSF, error=1.0) for k in (2, 3)],
            None,
            InputError,
            "exposure2: 3",
        ),
        (
            [Exposure(np.zeros((1, side, side)), psf=PSF, error=1.0) for side in (64, 51)],
            None,
            InputError,
            r"must be aligned, but cutouts 0 have shapes \[\(51, 51\), \(64, 64\)\]",
        ),
        (
            [blank(64), Exposure([np.zeros((60, 64))], psf=PSF, error=1.0)],
            None,
            InputError,
            "must be aligned, but cutouts 0 have",
        ),
        ([sky(side=64, band="r"), blank(64, band="g")], None, InputError, "'g1' has no WCS, 'r1' has one"),
    ],
)
def test_contradictions_are_named(exposures, positions, error, message):
    with pytest.raises(error, match=message):
        prepare_exposures(exposures, positions)


@pytest.mark.parametrize(
    "keywords", [{"band": 3}, {"zeropoint": np.nan}, {"gain": 0.0}, {"wavelength": -1}, {"name": 7}]
)
def test_exposures_are_checked_when_made(keywords):
    with pytest.raises(InputError, match=next(iter(keywords))):
        blank(**keywords)


def sides(found):
    """Pixels with data along a row of each galaxy's stamp, in each exposure."""
    out = np.zeros(found.seen.shape, int)
    for number, observation in enumerate(found.observations):
        for index, stamps in observation.groups:
            out[index, number] = (stamps.ivar > 0).any(1).sum(1)
    return out.tolist()


def sized(*sizes):
    return Table({"x": [150.0, 140.0], "y": [150.0, 160.0], "stamp_size": sizes})


def test_stamp_sizes_of_the_list_hold_in_all_exposures():
    """As much sky in each; of larger pixels no fewer than without a size, or as the list says."""
    images = [sky(0.2, side=300), sky(0.1, 0.0, 600), sky(0.4, 0.0, 150), sky(0.2, side=300)]
    found = prepare_exposures(images, sized(96, 40), recenter=False)
    assert sides(found) == [[96, 192, 64, 96], [40, 80, 40, 40]]
    part = agreed_exposures(images, sized(96, 40)).positions[1:2]
    assert sides(prepare_exposures(images, part, recenter=False)) == [[40, 80, 40, 40]]
    assert sides(prepare_exposures(images, sized(96, 40), recenter=False, stamp_size=32)) == 2 * [4 * [32]]


def test_stamp_sizes_of_the_list_hold_without_wcs():
    found = prepare_exposures([blank(300), blank(300)], sized(96, 40), recenter=False)
    assert sides(found) == [[96, 96], [40, 40]]


def test_stamp_sizes_stay_within_what_an_image_allows():
    """Of a finer image that shows but a part of the stamp."""
    found = prepare_exposures([sky(1.0, side=300), sky(0.1, side=100)], sized(96, 512), recenter=False)
    assert found.observations[1].groups[-1][1].data.shape[-1] <= 1024
    with pytest.raises(InputError, match="column stamp_size of positions"):
        prepare_exposures([sky(side=300), sky(side=300)], sized(96, 4))
