# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sources in a stamp: found, divided, masked; and what that does to the measurement."""

from dataclasses import replace

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator, Stamps
from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE, chosen
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.measure.neighbours import listed_positions
from galshape_cnn.observe.detect.segmentation import TARGET, UNMODELLED, find_scenes, masks
from galshape_cnn.observe.observation import prepare

SIZE, MIDDLE = 64, 31.5
R2 = np.add.outer(np.arange(-15, 16.0) ** 2, np.arange(-15, 16.0) ** 2)
PSF = np.exp(-R2 / (2 * 1.3**2)) / np.exp(-R2 / (2 * 1.3**2)).sum()
GALAXY = [3000.0, 1.5, 3.0, 0.2, 0.1, MIDDLE, MIDDLE, 0.0]


def draw(*sources, size=SIZE):
    grid = FourierGrid(size)
    transfer = transfer_functions(PSF[None], grid)
    params = np.array(sources, np.float32)
    return np.asarray(render(params, transfer, grid), float).sum(0)


def neighbour(flux=1500.0, dx=11.0, dy=0.0, hlr=2.5):
    return [flux, 1.0, hlr, 0.0, 0.0, MIDDLE + dx, MIDDLE + dy, 0.0]


def noisy_stamps(image, n=1, seed=0, **keywords):
    data = image + np.random.default_rng(seed).normal(size=(n, *image.shape))
    return Stamps(data, np.ones_like(data), PSF, **keywords)


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def test_an_isolated_galaxy_is_alone():
    for scene in find_scenes(noisy_stamps(draw(GALAXY), 10)):
        assert len(scene.peaks) == 0
        assert set(np.unique(scene.labels)) <= {0, TARGET, UNMODELLED}
        assert scene.labels[31, 31] == TARGET
        assert masks([scene])[0].mean() < 0.02  # noise peaks, rarely


def test_a_neighbour_is_found_and_gets_its_own_pixels():
    for scene in find_scenes(noisy_stamps(draw(GALAXY, neighbour()), 5)):
        np.testing.assert_allclose(scene.peaks, [[MIDDLE + 11, MIDDLE]], atol=1.6)
        assert scene.labels[31, 42] == TARGET + 1
        assert scene.labels[31, 31] == TARGET
        mask = masks([scene])[0]
        assert mask[31, 42]
        assert not mask[scene.labels == TARGET].any()
        assert not masks([scene], [[0]])[0][31, 42]


def test_segments_meet_at_the_saddle():
    scene = find_scenes(noisy_stamps(100 * draw(GALAXY, neighbour(3000.0, 12.0))))[0]
    row = scene.labels[31, 31:45]
    border = 31 + np.argmax(row != TARGET)
    lowest = 31 + np.argmin(draw(GALAXY, neighbour(3000.0, 12.0))[31, 31:44])
    assert abs(border - lowest) <= 1


def test_a_peak_on_a_neighbours_flank_is_no_third_source():
    bright = neighbour(60000.0, 14.0, 0.0, 5.0)
    assert {len(s.peaks) for s in find_scenes(noisy_stamps(draw(GALAXY, bright), 10))} == {1}


def test_a_listed_galaxy_needs_no_peak_of_its_own():
    stamps = noisy_stamps(draw(GALAXY, neighbour(dx=6.0)))
    assert len(find_scenes(stamps)[0].peaks) == 0
    listed = np.array([[MIDDLE, MIDDLE], [MIDDLE + 6, MIDDLE], [5.0, 5.0], [500.0, 3.0]])
    peaks = find_scenes(stamps, [listed])[0].peaks
    np.testing.assert_array_equal(peaks, [[MIDDLE + 6, MIDDLE]])  # neither itself, nor sky, nor outside


def test_listed_positions_are_those_of_the_same_image():
    image = np.zeros((200, 200))
    observation = prepare(
        image, error=1.0, psf=PSF, positions=[[50, 60], [58, 60], [150, 150]], recenter=False
    )
    listed = listed_positions(observation)[0]
    near = listed[0] + observation.groups[0][1].origin[0]
    assert near.tolist() == [[58, 60]]
    assert len(listed[2]) == 0
    cutouts = prepare(np.zeros((2, 64, 64)), error=1.0, psf=PSF)
    assert [len(one) for one in listed_positions(cutouts)[0]] == [0, 0]


def test_masking_removes_most_of_the_bias(estimator):
    stamps = noisy_stamps(draw(GALAXY, neighbour(3000.0, 8.0, 6.0)), 12)
    bias = {}
    for how in ("ignore", "mask"):
        catalog = estimator(stamps, method="ml", neighbours=how)
        pulls = (catalog.parameters - GALAXY[:5]) / np.sqrt(np.diagonal(catalog.crb_covariance, 0, 1, 2))
        bias[how] = np.abs(np.median(pulls, 0)).max()
    assert bias["ignore"] > 10
    assert bias["mask"] < 4


def test_a_faint_listed_neighbour_without_a_peak_is_separated(estimator):
    """Started as the needle that moments made of it, it stayed one: the flux was high by three bounds."""
    galsim = pytest.importorskip("galsim")
    psf, flux, tile = galsim.Moffat(beta=2.5, fwhm=3.0), 780.0, 80
    galaxy = galsim.Sersic(n=1.5, half_light_radius=3, flux=flux).shear(g1=0.2, g2=0.1)
    other = galsim.Sersic(n=1, half_light_radius=2.5, flux=0.3 * flux)
    angles = np.arange(8) * np.pi / 4
    away = 6.5 * np.column_stack([np.cos(angles), np.sin(angles)])
    tiles = [
        galsim.Convolve(galaxy + other.shift(*d), psf).drawImage(nx=tile, ny=tile, scale=1).array
        for d in away
    ]
    image = np.concatenate(tiles, 1) + np.random.default_rng(5).normal(size=(tile, 8 * tile))
    own = np.column_stack([(tile - 1) / 2 + tile * np.arange(8), np.full(8, (tile - 1) / 2)])
    catalog = estimator(
        image, psf=psf, error=1.0, positions=np.concatenate([own, own + away + 0.35]), method="ml",
        neighbours="fit", recenter=False,
    )  # fmt: skip
    pull = ((catalog.flux - flux) / catalog.flux_err)[:8]
    assert abs(np.median(pull)) < 3 * 1.25 / np.sqrt(8)
    assert (np.abs(pull) < 4).all()


def test_what_is_done_is_recorded(estimator):
    stamps = noisy_stamps(draw(GALAXY, neighbour(3000.0, 10.0)))
    alone = noisy_stamps(draw(GALAXY))
    catalog = estimator(stamps)
    assert catalog.meta["neighbours"] == "mask"
    assert catalog.flags[0] & Flag.NEIGHBOR
    assert 0.02 < catalog.neighbour_fraction[0] < 0.4
    assert catalog.to_table().colnames[-1] == "neighbour_fraction"
    assert (catalog.stamp(0).ivar == 0).any()
    assert not (estimator(stamps, neighbours="ignore").stamp(0).ivar == 0).any()
    assert estimator(alone).neighbour_fraction[0] == 0
    ignored = estimator(alone, neighbours="ignore")
    assert "neighbour_fraction" not in ignored.column_names
    np.testing.assert_array_equal(ignored.parameters, estimator(alone).parameters)


def test_the_unit_of_flux_does_not_matter(estimator):
    stamps = noisy_stamps(draw(GALAXY, neighbour(3000.0, 10.0)), 2)
    small = Stamps(stamps.data * 2.0**-70, stamps.ivar.astype(float) * 2.0**140, PSF)
    one, other = estimator(stamps), estimator(small)
    np.testing.assert_array_equal(one.neighbour_fraction, other.neighbour_fraction)
    np.testing.assert_array_equal(one.hlr.value, other.hlr.value)


def test_masked_pixels_of_the_user_stay_masked(estimator):
    stamps = noisy_stamps(draw(GALAXY, neighbour()))
    ivar = stamps.ivar.copy()
    ivar[:, :5] = 0
    catalog = estimator(replace(stamps, ivar=ivar))
    assert (catalog.stamp(0).ivar[:, :5] == 0).all()


def test_unknown_treatment_is_refused(estimator):
    with pytest.raises(InputError, match="neighbours='kill'; allowed: 'ignore', 'mask', 'fit'"):
        estimator(noisy_stamps(draw(GALAXY)), neighbours="kill")


def test_clumps_of_a_galaxy_are_no_neighbours():
    """A clumpy disc keeps its light; three galaxies around another one are masked as ever."""
    import galsim

    disc = galsim.Exponential(half_light_radius=8)
    psf = galsim.Moffat(beta=3, fwhm=3)
    clumpy = 0.6 * disc + 0.4 * galsim.RandomKnots(20, profile=disc, rng=galsim.BaseDeviate(4))
    one = galsim.Gaussian(half_light_radius=1.5)
    several = one + one.shift(13, 0) + one.shift(-12, 4) + one.shift(0, -14)
    noise = np.random.default_rng(2).normal(size=(2, 96, 96))
    images = []
    for galaxy in (clumpy, several):
        image = galsim.Convolve(galaxy, psf).drawImage(nx=96, ny=96, scale=1).array
        images.append(image * 400 / np.sqrt((image**2).sum()))
    kernel = psf.drawImage(nx=31, ny=31, scale=1).array
    ones = np.ones((2, 96, 96))
    stamps = Stamps(np.array(images) + noise, ones, (kernel / kernel.sum())[None])
    scenes = find_scenes(stamps)
    light = np.array(images)
    y, x = np.mgrid[:96, :96] - 47.5
    near = np.hypot(x, y) < 16
    masked = [
        (image * masks([scene])[0] * near).sum() / (image * near).sum()
        for image, scene in zip(light, scenes, strict=True)
    ]
    assert masked[0] < 0.05
    assert masked[1] > 0.5
    assert len(scenes[1].peaks) == 3


@pytest.mark.parametrize("kernel", ["", "off"])
def test_more_neighbours_than_labels(kernel, monkeypatch):
    """The nearest have labels of their own, the others are masked; none is sky, or the galaxy."""
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    size, apart = 192, 10
    at = np.arange(apart // 2, size, apart, dtype=float)
    places = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    center = places[len(places) // 2 + 9]
    known = places[np.hypot(*(places - center).T) > 1]
    assert len(known) > 300
    y, x = np.mgrid[:size, :size]
    light = 30 * np.exp(-(((x % apart) - apart / 2) ** 2 + ((y % apart) - apart / 2) ** 2) / 8)
    noise = np.random.default_rng(1).normal(size=(size, size))
    stamps = Stamps((light + noise)[None], np.ones((1, size, size)), PSF, center=center[None])
    scene = find_scenes(stamps, [known])[0]
    assert len(scene.peaks) == 253
    labels = scene.labels[labels_of(known)]
    assert (labels > TARGET).all()
    assert len(set(labels) - {UNMODELLED}) == 253
    assert (scene.labels == TARGET).sum() < apart**2
    assert masks([scene])[0][labels_of(known)].all()
    assert masks([]).shape == (0, 0, 0)


def labels_of(places):
    return tuple(np.round(places).astype(int).T[::-1])


@pytest.mark.skipif(chosen() is None, reason="no compiled kernel here")
@pytest.mark.parametrize("kind", ["crowded", "clumpy", "listed", "masked", "blank"])
def test_the_kernel_finds_what_numpy_finds(kind, monkeypatch):
    rng = np.random.default_rng(["crowded", "clumpy", "listed", "masked", "blank"].index(kind))
    size, known, data = 64 if kind != "crowded" else 96, [], []
    for _ in range(12):
        sources = [[9000.0, 1.0, 5.0, 0.1, 0.0, size / 2, size / 2, 0.0]]
        for _ in range(0 if kind == "blank" else rng.integers(0, 9)):
            reach = 9 if kind == "clumpy" else size / 2
            xy = size / 2 + rng.uniform(-reach, reach, 2)
            sources.append([rng.uniform(150, 2500), 1.0, rng.uniform(0.3, 3), 0.0, 0.0, *xy, 0.0])
        data.append(draw(*sources, size=size) * (kind != "blank") + rng.normal(size=(size, size)))
        known.append(np.array(sources)[1:, 5:7] if kind == "listed" else np.zeros((0, 2)))
    ivar = np.ones(np.shape(data))
    if kind == "masked":
        ivar[rng.uniform(size=ivar.shape) < 0.05] = 0
        ivar[:, :, 40:46] = 0
    stamps = Stamps(np.array(data), ivar, PSF)
    ours = find_scenes(stamps, known)
    kept = [[0] * (len(one.peaks) > 0) for one in ours]
    masked = masks(ours), masks(ours, kept)
    monkeypatch.setenv(KERNEL_VARIABLE, "off")
    theirs = find_scenes(stamps, known)
    np.testing.assert_array_equal(masked, (masks(theirs), masks(theirs, kept)))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.peaks, other.peaks)
        np.testing.assert_array_equal(one.labels, other.labels)
    if kind not in ("blank", "clumpy"):
        assert sum(len(one.peaks) for one in ours) > 12
