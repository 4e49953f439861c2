# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sources found in an image: all of them, none in noise, none twice."""

import numpy as np
import pytest
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty

from galshape_cnn.cli import main
from galshape_cnn.errors import InputError, NoiseError, PositionError
from galshape_cnn.observe.detect.sources import Detection, background_noise, find_galaxies, segmented
from galshape_cnn.observe.observation import prepare
from galshape_cnn.study.simulate.field import simulate_field

SHAPE = (300, 300)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


def image(*sources, level=0.0, seed=2):
    """Unit noise and Gaussian sources (x, y, peak, sigma)."""
    data = np.random.default_rng(seed).normal(size=SHAPE) + level
    for x, y, peak, sigma in sources:
        data += peak * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / (2 * sigma**2))
    return NDData(data, uncertainty=StdDevUncertainty(np.ones(SHAPE)))


def places(found):
    return np.column_stack([found["x"], found["y"]])


def test_simulated_field():
    field = simulate_field(seed=3, n_galaxies=6, size=320, snr=(60, 300))
    found = places(find_galaxies(field.to_nddata()))
    true = np.column_stack([field.truth[f"{axis}_centroid"].value for axis in "xy"])
    distance = np.hypot(*(true[:, None] - found).T)
    assert (distance.min(0) < 2).sum() >= 5


def test_noise_has_no_sources():
    with pytest.raises(PositionError, match=r"no source found in the image; give positions \(--positions\)"):
        find_galaxies(image(level=50.0))


def test_brightest_first_and_none_twice():
    found = places(find_galaxies(image((60, 80, 8, 3), (200, 210, 40, 4), level=7.0)))
    np.testing.assert_allclose(found, [[200, 210], [60, 80]], atol=0.5)


def test_large_sources_get_large_stamps():
    found = find_galaxies(image((60, 80, 8, 3), (180, 190, 60, 14)))
    assert found["stamp_size"].tolist() == [192, 64]
    psf = np.ones((3, 3))
    observation = prepare(image((60, 80, 8, 3), (180, 190, 60, 14)), psf=psf, positions=found)
    assert [(rows.tolist(), stamps.data.shape[1]) for rows, stamps in observation.groups] == [
        ([1], 64),
        ([0], 192),
    ]
    assert observation.table is None
    same = prepare(image(), psf=psf, positions=found, stamp_size=96)
    assert [stamps.data.shape for _, stamps in same.groups] == [(2, 96, 96)]
    found["stamp_size"][0] = 2
    with pytest.raises(
        InputError, match="column stamp_size of positions must hold whole numbers of pixels >= 8"
    ):
        prepare(image(), psf=psf, positions=found)


def test_noise_of_blank_pixels():
    data = image((60, 80, 8, 3), (150, 150, 60, 20))
    scaled = NDData(3 * data.data + 100, mask=X < 5)
    assert background_noise(scaled) == pytest.approx(3, rel=0.02)
    cube = NDData(np.array([data.data, 7 * data.data]))
    np.testing.assert_allclose(background_noise(cube)[:, 0, 0], [1, 7], rtol=0.02)
    with pytest.raises(NoiseError, match="has no scatter"):
        background_noise(NDData(np.ones(SHAPE)))
    with pytest.raises(NoiseError, match="no pixel of the image is unmasked"):
        background_noise(NDData(np.ones(SHAPE), mask=np.ones(SHAPE, bool)))


def test_blends_are_separated_unless_told_otherwise():
    blend = image((140, 150, 40, 3), (152, 150, 30, 3))
    assert len(find_galaxies(blend)) == 2
    assert len(find_galaxies(blend, detection=Detection(contrast=1.0))) == 1


def test_large_galaxy_does_not_hide_what_is_beside_it():
    """A background measured once would be lifted by the galaxy and drown the faint source."""
    found = places(find_galaxies(image((150, 150, 60, 30), (258, 150, 6, 3)), detection=Detection(box=64)))
    assert np.hypot(*(found - [258, 150]).T).min() < 1.5


def test_thresholds_matter():
    faint = image((60, 80, 3, 3), (200, 210, 40, 4))
    assert len(find_galaxies(faint)) == 2
    assert len(find_galaxies(faint, detection=Detection(threshold=30.0))) == 1


def test_masked_and_uninformed_pixels_do_not_count():
    data = image((60, 80, 20, 3), (200, 210, 40, 4))
    weight = np.where(np.hypot(X - 200, Y - 210) < 30, 0.0, 1.0)
    uncertainty = InverseVariance(weight)
    found = places(find_galaxies(NDData(data.data, uncertainty=uncertainty)))
    np.testing.assert_allclose(found, [[60, 80]], atol=0.5)
    with pytest.raises(PositionError, match="no source"):
        find_galaxies(NDData(data.data, uncertainty=uncertainty, mask=X < 120))
    with pytest.raises(NoiseError, match="no pixel of the image is unmasked"):
        find_galaxies(NDData(data.data, uncertainty=data.uncertainty, mask=np.ones(SHAPE, bool)))


def test_noise_is_needed():
    with pytest.raises(NoiseError, match="the image has no noise"):
        find_galaxies(NDData(np.zeros(SHAPE)))


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0}, {"npixels": 0}, {"fwhm": -1}, {"box": 3}, {"contrast": 2.0}]
)
def test_thresholds_that_make_no_sense(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))}=.*; allowed: "):
        Detection(**wrong)


def test_options_of_the_command_line(tmp_path, capsys):
    from astropy.io import fits

    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.ones((40, 40)), name="SCI")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    out = ["-o", str(tmp_path / "a.ecsv"), "--error", "1", "--psf", "gaussian:fwhm=3"]
    assert main(["measure", str(tmp_path / "a.fits"), *out, "--find"]) == 1
    assert "no source found" in capsys.readouterr().err
    assert main(["measure", str(tmp_path / "a.fits"), *out, "--find", "--detect-threshold", "-1"]) == 1
    assert "--detect-threshold=-1.0; allowed: a number above 0" in capsys.readouterr().err
    files = [str(tmp_path / "a.fits")] * 2
    assert main(["measure", *files, *out, "--find"]) == 1
    assert "--find needs one image" in capsys.readouterr().err


def test_light_and_centroids_are_those_of_photutils():
    from photutils.segmentation import SegmentationImage, SourceCatalog

    found = segmented(image((60, 80, 8, 3), (200, 210, 40, 4), (208, 218, 30, 3), level=7.0))
    catalog = SourceCatalog(found.flat, SegmentationImage(found.labels), convolved_data=found.smooth)
    assert found.count == len(catalog) == 3
    np.testing.assert_allclose(found.light(found.flat), catalog.segment_flux, rtol=1e-12)
    np.testing.assert_allclose(found.centroids(), catalog.centroid, rtol=1e-12)
