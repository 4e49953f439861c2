# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""From the user's data to stamps: every form of the input."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.table import QTable, Table
from astropy.wcs import WCS

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.observe.cutting import bucket_size
from galshape_cnn.observe.observation import prepare
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.tests.cutout_scene import IMAGE, PSF, SHAPE, SOURCES, celestial, field, one
from galshape_cnn.wcs import sky_geometry


def test_image_with_positions():
    stamps = one(prepare(IMAGE, psf=PSF, error=1.0, positions=np.round(SOURCES)))
    assert stamps.data.shape == (3, 64, 64)
    np.testing.assert_allclose(stamps.origin + stamps.center, SOURCES, atol=0.2)
    assert (np.abs(stamps.center - 31.5) <= 0.5).all()
    x, y = stamps.origin[0]
    np.testing.assert_array_equal(stamps.data[0], IMAGE[y : y + 64, x : x + 64].astype(np.float32))
    np.testing.assert_array_equal(stamps.flags & Flag.EDGE != 0, [False, False, False])
    assert stamps.psf.sum() == pytest.approx(1)


def test_positions_are_kept_without_recentring():
    given = SOURCES + [0.7, -0.4]
    stamps = one(prepare(IMAGE, psf=PSF, error=1.0, positions=given, recenter=False))
    np.testing.assert_allclose(stamps.origin + stamps.center, given)


def test_galaxy_lands_in_the_middle_after_recentring():
    stamps = one(prepare(IMAGE, psf=PSF, error=1.0, positions=SOURCES + 2.2))
    np.testing.assert_allclose(stamps.origin + stamps.center, SOURCES, atol=0.2)
    assert (np.abs(stamps.center - 31.5) <= 0.5).all()


UNCERTAINTIES = [
    StdDevUncertainty(np.full(SHAPE, 2.0)),
    VarianceUncertainty(np.full(SHAPE, 4.0)),
    InverseVariance(np.full(SHAPE, 0.25)),
]


@pytest.mark.parametrize("uncertainty", UNCERTAINTIES)
@pytest.mark.parametrize("cls", [NDData, CCDData])
def test_nddata_equals_arrays(uncertainty, cls):
    mask = np.zeros(SHAPE, bool)
    mask[90, 100] = True
    data = cls(IMAGE, uncertainty=uncertainty, mask=mask, wcs=celestial(), unit=u.nJy, psf=PSF)
    stamps = one(prepare(data, positions=SOURCES))
    plain = one(prepare(IMAGE, error=2.0, mask=mask, wcs=celestial(), psf=PSF, positions=SOURCES))
    for name in ("data", "ivar", "psf", "jacobian", "origin", "center", "skycoord", "flags"):
        np.testing.assert_allclose(getattr(stamps, name), getattr(plain, name), err_msg=name)
    assert stamps.unit == u.nJy
    assert plain.unit is None
    assert stamps.flags[0] & Flag.CENTER_MASKED


@pytest.mark.parametrize(
    "data",
    [
        IMAGE * u.nJy,
        np.ma.masked_array(IMAGE, IMAGE > 1e9),
        IMAGE.astype(">f4"),
    ],
)
def test_array_forms(data):
    stamps = one(prepare(data, psf=PSF, error=np.ones(SHAPE), positions=SOURCES))
    np.testing.assert_allclose(
        stamps.data, one(prepare(IMAGE, psf=PSF, error=1, positions=SOURCES)).data, rtol=1e-6
    )


def test_masks_and_nan_are_zero_ivar_and_input_is_untouched():
    image, error, mask = IMAGE.copy(), np.ones(SHAPE), np.zeros(SHAPE, np.uint8)
    image[80, 95], error[81, 95], mask[82, 95] = np.nan, np.nan, 4
    copies = image.copy(), error.copy(), mask.copy()
    stamps = one(prepare(image, psf=PSF, error=error, mask=mask, positions=SOURCES[:1], recenter=False))
    x, y = stamps.origin[0]
    np.testing.assert_array_equal(
        np.argwhere(stamps.ivar[0] == 0), [[80 - y, 95 - x], [81 - y, 95 - x], [82 - y, 95 - x]]
    )
    assert (stamps.data[0][stamps.ivar[0] == 0] == 0).all()
    for before, after in zip(copies, (image, error, mask), strict=True):
        np.testing.assert_array_equal(before, after)


def test_edge_and_outside():
    positions = [SOURCES[0], [3, 5], [-40, 20], [np.nan, 20], [299.4, 209.4]]
    observation = prepare(IMAGE, psf=PSF, error=1.0, positions=positions, recenter=False, wcs=celestial())
    stamps = one(observation)
    off, edge = stamps.flags & Flag.OFF_IMAGE != 0, stamps.flags & Flag.EDGE != 0
    np.testing.assert_array_equal(off, [False, False, True, True, False])
    np.testing.assert_array_equal(edge, [False, True, False, False, True])
    assert (stamps.ivar[off] == 0).all()
    assert (stamps.flags[off] & Flag.NO_DATA != 0).all()
    x, y = stamps.origin[1]
    assert (stamps.ivar[1, :, :-x] == 0).all()
    assert (stamps.ivar[1, :-y] == 0).all()
    assert (stamps.ivar[1, -y:, -x:] == 1).all()
    np.testing.assert_array_equal(stamps.data[1, -y:, -x:], IMAGE[: 64 + y, : 64 + x].astype(np.float32))
    assert np.isnan(stamps.skycoord[3]).all()
    assert np.isfinite(stamps.skycoord[:3]).all()


def test_stamp_size_of_an_image():
    small = one(prepare(IMAGE, psf=PSF, error=1.0, positions=SOURCES[:1], stamp_size=32))
    assert small.data.shape == (1, 64, 64)
    assert (small.ivar[0] > 0).sum() == 32 * 32
    assert (small.ivar[0, 16:48, 16:48] > 0).all()
    large = one(prepare(IMAGE, psf=PSF, error=1.0, positions=SOURCES[:1], stamp_size=100))
    assert large.data.shape == (1, 128, 128)
    assert (large.ivar[0] > 0).sum() == 100 * 100


def test_cutouts_of_mixed_sizes_keep_their_order():
    sizes = [(50, 40), (81, 70), (64, 64), (33, 33), (130, 100)]
    cutouts = []
    for ny, nx in sizes:
        data = field((ny, nx), [((nx - 1) / 2, (ny - 1) / 2)], seed=ny)
        cutouts.append(NDData(data, uncertainty=StdDevUncertainty(np.ones((ny, nx))), psf=PSF))
    observation = prepare(cutouts)
    assert observation.n == len(observation) == 5
    assert [(rows.tolist(), stamps.data.shape[1]) for rows, stamps in observation.groups] == [
        ([0, 2, 3], 64),
        ([1], 96),
        ([4], 192),
    ]
    for rows, stamps in observation.groups:
        for row, stamp in zip(rows, range(len(stamps)), strict=True):
            ny, nx = sizes[row]
            np.testing.assert_allclose(
                stamps.center[stamp] + stamps.origin[stamp], [(nx - 1) / 2, (ny - 1) / 2], atol=0.15
            )
            assert (stamps.ivar[stamp] > 0).sum() == ny * nx
            assert not stamps.flags[stamp] & Flag.EDGE


def test_batch_order_and_size_do_not_matter():
    rng = np.random.default_rng(4)
    cube = np.array(
        [field((64, 64), [(31 + dx, 32 - dx)], seed=i) for i, dx in enumerate(rng.uniform(-2, 2, 6))]
    )
    whole = one(prepare(cube, psf=PSF, error=1.0))
    turned = one(prepare(cube[::-1], psf=PSF, error=1.0))
    np.testing.assert_array_equal(whole.data, turned.data[::-1])
    np.testing.assert_allclose(whole.center, turned.center[::-1], atol=1e-5)
    single = one(prepare(cube[2], psf=PSF, error=1.0))
    np.testing.assert_array_equal(single.data[0], whole.data[2])
    np.testing.assert_allclose(single.center[0], whole.center[2], atol=1e-5)


def test_cube_forms():
    cube = np.array([field((64, 64), [(31.5, 31.5)], seed=i) for i in range(3)])
    sigma = np.array([1.0, 2.0, 3.0])
    whole = sigma[:, None, None] * np.ones((3, 64, 64))
    psfs = np.array([PSF, PSF**0.5, PSF**2])
    stamps = [
        one(prepare(cube, psf=psfs, error=whole)),
        one(prepare(cube, psf=psfs, error=sigma)),
        one(prepare(list(cube), psf=list(psfs), error=list(sigma))),
        one(prepare(NDData(cube, uncertainty=VarianceUncertainty(whole**2)), psf=psfs)),
        one(prepare(cube, psf=psfs, error=StdDevUncertainty(whole))),
    ]
    for other in stamps[1:]:
        np.testing.assert_allclose(other.ivar, stamps[0].ivar)
        np.testing.assert_allclose(other.psf, stamps[0].psf)
    np.testing.assert_allclose(stamps[0].ivar[:, 5, 5], sigma**-2, rtol=1e-6)


def test_units_of_cutouts_are_converted():
    first = NDData(field((64, 64)), uncertainty=StdDevUncertainty(np.ones((64, 64))), unit=u.uJy)
    second = NDData(field((64, 64)) * 1000, uncertainty=StdDevUncertainty(np.full((64, 64), 1e3)), unit=u.nJy)
    stamps = one(prepare([first, second], psf=PSF, recenter=False))
    np.testing.assert_allclose(stamps.data[0], stamps.data[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stamps.ivar[0], stamps.ivar[1], rtol=1e-5)
    assert stamps.unit == u.uJy


def test_psf_of_each_cutout_and_psf_that_varies():
    seen = []

    def psf(x, y):
        seen.append((x, y))
        return PSF ** (1 + x / 300)

    stamps = one(prepare(IMAGE, psf=psf, error=1.0, positions=SOURCES))
    np.testing.assert_allclose(seen, SOURCES)
    assert len(stamps.psf) == 3
    assert stamps.psf[2].max() > stamps.psf[0].max()


@pytest.mark.parametrize("distorted", [False, True])
def test_jacobian_and_sky_position(distorted):
    wcs = celestial(distorted)
    stamps = one(prepare(IMAGE, psf=PSF, error=1.0, wcs=wcs, positions=SOURCES))
    truth = wcs.pixel_to_world(*(stamps.origin + stamps.center).T)
    found = SkyCoord(*stamps.skycoord.T, unit="deg")
    assert (found.separation(truth).arcsec < 1e-4).all()
    # u is west, v is north: a step along the Jacobian's columns is a step on the sky
    for i, step in enumerate(np.eye(2)):
        there = wcs.pixel_to_world(*(stamps.origin + stamps.center + step).T)
        offset = truth.spherical_offsets_to(there)
        west, north = -offset[0].arcsec, offset[1].arcsec
        np.testing.assert_allclose(stamps.jacobian[:, :, i], np.column_stack([west, north]), atol=1e-4)
    if not distorted:
        np.testing.assert_allclose(stamps.jacobian[0], wcs.wcs.cd * 3600 * [[-1], [1]], atol=1e-5)


@pytest.mark.parametrize(("distorted", "count"), [(False, 1), (True, 3)])
def test_profile_is_drawn_once_where_the_wcs_hardly_changes(distorted, count):
    import galsim

    stamps = one(
        prepare(IMAGE, psf=galsim.Gaussian(fwhm=0.8), error=1, wcs=celestial(distorted), positions=SOURCES)
    )
    assert len(stamps.psf) == count
    assert stamps.psf_oversampling == 2
    np.testing.assert_allclose(stamps.psf.sum(axis=(1, 2)), 1, atol=1e-5)


def test_jacobian_beside_the_pole_and_in_another_frame():
    wcs = celestial()
    wcs.wcs.crval = [10.0, 89.9999]
    wcs.wcs.set()
    jacobian, _ = sky_geometry(wcs, SOURCES)
    np.testing.assert_allclose(np.abs(np.linalg.det(jacobian)), 0.04, rtol=1e-6)
    galactic = WCS(naxis=2)
    galactic.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    galactic.wcs.crval, galactic.wcs.crpix, galactic.wcs.cdelt = [30, 40], [50, 50], [-1e-4, 1e-4]
    jacobian, radec = sky_geometry(galactic, [[49, 49]])
    expected = SkyCoord(30, 40, unit="deg", frame="galactic").icrs
    np.testing.assert_allclose(radec[0], [expected.ra.deg, expected.dec.deg], atol=1e-8)
    assert np.linalg.det(jacobian[0]) == pytest.approx(0.36**2)


def positions_in_every_form():
    wcs = celestial()
    sky = wcs.pixel_to_world(*SOURCES.T)
    ids = [7, 8, 9]
    return wcs, [
        SOURCES,
        SOURCES.tolist(),
        SOURCES * u.pix,
        Table({"id": ids, "x": SOURCES[:, 0], "y": SOURCES[:, 1], "z": [0.1, 0.2, 0.3]}),
        QTable({"x": SOURCES[:, 0] * u.pix, "y": SOURCES[:, 1] * u.pix}),
        Table({"x_centroid": SOURCES[:, 0], "y_centroid": SOURCES[:, 1]}),
        Table({"id": ids, "RA": sky.ra.deg, "Dec": sky.dec.deg}),
        QTable({"ra": sky.ra.to(u.hourangle), "dec": sky.dec}),
        Table({"x": SOURCES[:, 0], "y": SOURCES[:, 1], "ra": sky.ra.deg, "dec": sky.dec.deg}),
        sky,
        sky.galactic,
        QTable({"sky_centroid": sky}),
    ]


@pytest.mark.parametrize("index", range(12))
def test_positions_in_every_form(index):
    wcs, forms = positions_in_every_form()
    stamps = one(prepare(IMAGE, psf=PSF, error=1.0, wcs=wcs, positions=forms[index], recenter=False))
    np.testing.assert_allclose(stamps.origin + stamps.center, SOURCES, atol=1e-6)


def test_other_columns_pass_through():
    table = positions_in_every_form()[1][3]
    observation = prepare(IMAGE, psf=PSF, error=1.0, positions=table)
    assert observation.table.colnames == ["id", "z"]
    np.testing.assert_array_equal(observation.table["id"], [7, 8, 9])
    assert table.colnames == ["id", "x", "y", "z"]


def test_sky_positions_far_away_are_off_the_image():
    sky = SkyCoord([150.0, 150.5, 330.0], [2.0, 2.0, -2.0], unit="deg")
    stamps = one(prepare(IMAGE, psf=PSF, error=1.0, wcs=celestial(True), positions=sky))
    np.testing.assert_array_equal(stamps.flags & Flag.OFF_IMAGE != 0, [False, True, True])


def test_a_listed_galaxy_does_not_move_to_another_of_the_list():
    y, x = np.mgrid[:128, :128]
    image = 60 * np.exp(-((x - 70) ** 2 + (y - 64) ** 2) / 18)
    image += np.random.default_rng(1).normal(size=image.shape)
    both, alone = [[70.2, 64.1], [58.0, 64.0]], [[58.0, 64.0]]
    keywords = {"psf": PSF, "error": 1.0}
    (_, found), (_, lost) = (prepare(image, positions=xy, **keywords).groups[0] for xy in (both, alone))
    np.testing.assert_allclose((found.origin + found.center)[0], [70, 64], atol=0.1)
    np.testing.assert_array_equal((found.origin + found.center)[1], both[1])
    assert found.flags[1] & (Flag.RECENTER_FAILED | Flag.FAR_CENTROID) == Flag.RECENTER_FAILED
    np.testing.assert_allclose((lost.origin + lost.center)[0], [70, 64], atol=0.1)
    assert lost.flags[0] & Flag.FAR_CENTROID
    # a part of the list knows the rest of it
    part = prepare(image, positions=both[1:], listed=(np.array(both), 1), **keywords).groups[0][1]
    np.testing.assert_array_equal(part.center + part.origin, (found.origin + found.center)[1:])


def test_stamps_pass_through():
    stamps = Stamps(np.zeros((2, 16, 16)), np.ones((2, 16, 16)), PSF / PSF.sum(), unit=u.nJy)
    observation = prepare(stamps)
    assert observation.groups[0][1] is stamps
    np.testing.assert_array_equal(observation.groups[0][0], [0, 1])
    with pytest.raises(InputError, match="psf, error given beside Stamps"):
        prepare(stamps, psf=PSF, error=1.0)


def test_all_masked_stamp_is_a_flag():
    stamps = one(prepare(field((64, 64)), psf=PSF, error=1.0, mask=np.ones((64, 64), bool)))
    assert stamps.flags[0] & Flag.NO_DATA
    assert (stamps.ivar == 0).all()


def test_memory_map_is_read_only_where_stamps_are(tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, np.abs(IMAGE))

    class Watched(np.memmap):
        touched = 0

        def __getitem__(self, index):
            part = super().__getitem__(index)
            Watched.touched = max(Watched.touched, np.size(part))
            return part

    image = np.load(path, mmap_mode="r").view(Watched)
    prepare(
        NDData(image, uncertainty=StdDevUncertainty(image, copy=False)),
        psf=PSF,
        positions=SOURCES[:1],
        mask=None,
    )
    assert 0 < Watched.touched <= 64 * 64


@pytest.mark.parametrize(
    ("side", "size"), [(8, 64), (64, 64), (65, 96), (512, 512), (513, 768), (1000, 1024)]
)
def test_buckets(side, size):
    assert bucket_size(side) == size
