# Licensed under a 3-clause BSD style license - see LICENSE.rst
import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.study.simulate.field import simulate_field


@pytest.fixture(scope="module")
def field():
    return simulate_field(seed=3, n_galaxies=6, size=320)


def test_same_seed_same_field(field):
    again = simulate_field(seed=3, n_galaxies=6, size=320)
    np.testing.assert_array_equal(again.image, field.image)
    np.testing.assert_array_equal(again.truth["g1"], field.truth["g1"])
    assert not np.array_equal(simulate_field(seed=4, n_galaxies=6, size=320).image, field.image)


def test_truth_is_in_its_ranges(field):
    truth = field.truth
    assert ((truth["n"] >= 0.5) & (truth["n"] <= 5)).all()
    assert ((truth["hlr"] >= 0.2 * u.arcsec) & (truth["hlr"] <= 1.2 * u.arcsec)).all()
    assert (np.hypot(truth["g1"], truth["g2"]) <= 0.7).all()
    assert ((truth["snr"] > 6) & (truth["snr"] <= 300)).all()


def test_noise_is_what_the_error_map_says():
    """Far from all sources the image over its error is normal."""
    empty = simulate_field(seed=5, n_galaxies=1, size=400, snr=(8, 9))
    good = ~empty.mask & (empty.image < 5 * empty.error)
    y, x = np.indices(empty.image.shape)
    star = np.argwhere(empty.image == empty.image.max()).mean(0)
    good &= np.hypot(y - star[0], x - star[1]) > 150
    ratio = (empty.image / empty.error)[good]
    assert len(ratio) > 10_000
    assert abs(ratio.std() - 1) < 5 / np.sqrt(2 * len(ratio)) + 0.01


def test_bad_pixels_are_masked(field):
    assert 0 < field.mask.mean() < 0.1
    assert np.abs(field.image[field.mask]).max() > 900
    assert field.image[~field.mask].max() < 900


def test_sky_positions_follow_the_wcs(field):
    x, y = field.wcs.world_to_pixel(field.truth["sky_centroid"])
    np.testing.assert_allclose(x, field.truth["x_centroid"].value, atol=1e-6)
    np.testing.assert_allclose(y, field.truth["y_centroid"].value, atol=1e-6)
    detected = SkyCoord(field.positions["ra"], field.positions["dec"])
    distance = detected.separation(field.truth["sky_centroid"])
    assert (distance > 0 * u.arcsec).all()
    assert (distance < 0.4 * u.arcsec).all()


def test_brightest_galaxy_is_elongated_along_its_true_angle():
    """Second moments about the true centre, with the sky's own axes as an oracle."""
    field = simulate_field(seed=11, n_galaxies=4, size=320, snr=(280, 300))
    truth = field.truth[np.argmax(np.hypot(field.truth["g1"], field.truth["g2"]))]
    y, x = np.indices(field.image.shape)
    near = np.hypot(x - truth["x_centroid"].value, y - truth["y_centroid"].value) < 12
    near &= ~field.mask
    sky = field.wcs.pixel_to_world(x[near], y[near])
    east, north = (np.asarray(o.to_value("arcsec")) for o in truth["sky_centroid"].spherical_offsets_to(sky))
    weight = field.image[near] * np.exp(-(east**2 + north**2) / 2)
    moments = [(weight * a * b).sum() for a, b in ((east, east), (north, north), (east, north))]
    angle = 0.5 * np.degrees(np.arctan2(2 * moments[2], moments[1] - moments[0]))
    assert abs((angle - truth["pa"].value + 90) % 180 - 90) < 10


def test_psf_varies_and_has_unit_flux(field):
    corner, middle = field.psf(0, 0), field.psf(160, 160)
    assert [corner.flux, middle.flux] == pytest.approx([1, 1])
    assert corner != middle


def test_nddata(field):
    data = field.to_nddata()
    assert isinstance(data.uncertainty, StdDevUncertainty)
    assert data.unit == u.nJy
    assert data.mask is not None
    assert data.wcs is field.wcs


def test_file_reads_back(field, tmp_path):
    path = tmp_path / "field.fits"
    field.write(path)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "ERR", "MASK", "PSF", "TRUTH", "POSITIONS"]
        np.testing.assert_array_equal(hdus["SCI"].data, field.image)
        assert hdus["PSF"].data.sum() == pytest.approx(1, abs=0.03)
    assert QTable.read(path, hdu="TRUTH")["hlr"].unit == u.arcsec
    with pytest.raises(FileError, match="it exists"):
        field.write(path)
    field.write(path, overwrite=True)
    with pytest.raises(FileError, match="cannot write"):
        field.write(tmp_path / "missing" / "field.fits")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n_galaxies": 0}, "n_galaxies=0; allowed: at least 1"),
        ({"size": 100}, "size=100; allowed: at least 200"),
        ({"snr": (9, 3)}, "0 < low <= high"),
        ({"n_galaxies": 400, "size": 200}, "do not fit into size=200"),
    ],
)
def test_misuse(arguments, match):
    with pytest.raises(InputError, match=match):
        simulate_field(**arguments)
