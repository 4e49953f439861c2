# Licensed under a 3-clause BSD style license - see LICENSE.rst
import galsim
import numpy as np
import pytest

from galshape_cnn.study.inject.galaxies import checked_kinds, default_prior, galaxy_rows
from galshape_cnn.study.inject.profiles import galaxy_profile, open_real_galaxies


def rows_of(kind, count=12):
    return galaxy_rows(default_prior(3.5, 64), {kind: 1.0}, 0, count, 5, 0.2)


@pytest.mark.parametrize("kind", ["sersic", "bulge_disc", "clumpy", "spiral"])
def test_profiles_have_unit_flux_and_follow_seed_and_number(kind):
    for row in rows_of(kind, 3):
        profile = galaxy_profile(row, seed=5)
        assert profile.flux == pytest.approx(1.0)
        assert profile == galaxy_profile(row, seed=5)
        if kind in ("clumpy", "spiral"):
            assert profile != galaxy_profile(row, seed=6)


@pytest.mark.parametrize("kind", ["clumpy", "spiral"])
def test_structure_follows_the_smooth_disc(kind):
    """Light is centred on the position, on average, and about half of it is within the half-light radius."""
    offsets, radii = [], []
    for row in rows_of(kind, 24):
        row = dict(zip(row.colnames, row.values(), strict=True)) | {"g1": 0.0, "g2": 0.0}
        image = (
            # knots are points: seen through a PSF that is small beside the disc
            galsim.Convolve(galaxy_profile(row, seed=5), galsim.Gaussian(sigma=row["hlr"] / 8))
            .drawImage(nx=201, ny=201, scale=row["hlr"] / 12, method="sb")
            .array
        )
        y, x = (np.indices(image.shape) - 100) / 12
        offsets.append([np.sum(image * x), np.sum(image * y)] / image.sum())
        radii.append(image[np.hypot(x, y) < 1].sum() / image.sum())
    error = np.std(offsets, axis=0) / np.sqrt(len(offsets))
    assert (np.abs(np.mean(offsets, axis=0)) < 4 * np.maximum(error, 1e-3)).all()
    assert 0.4 < np.mean(radii) < 0.6


def test_galaxies_do_not_depend_on_how_many_there_are():
    few, many = (
        galaxy_rows(default_prior(3.5, 64), {"sersic": 0.5, "clumpy": 0.5}, 0, n, 5, 1.0) for n in (4, 9)
    )
    for name in few.colnames:
        np.testing.assert_array_equal(few[name], many[name][:4])


def test_weights_are_shares():
    assert checked_kinds({"sersic": 3, "real": 1, "clumpy": 0}) == {"sersic": 0.75, "real": 0.25}


def test_real_galaxies_are_turned(real_data):
    folder = real_data / "cosmos_hst_faint"
    catalog = open_real_galaxies(folder / "real_galaxy_catalog_26_extension_example.fits")
    first, second = (galaxy_profile(row, 1, catalog) for row in rows_of("real", 2))
    assert first.flux == pytest.approx(1.0)
    assert first != second
