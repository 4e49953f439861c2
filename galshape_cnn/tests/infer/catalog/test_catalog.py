# Licensed under a 3-clause BSD style license - see LICENSE.rst
import copy
import pickle
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.infer.catalog.catalog import ShapeCatalog
from galshape_cnn.infer.catalog.measurement import Measurement, sample_quantiles

COLUMNS = (
    "id x_centroid y_centroid flux n hlr g1 g2 flux_err n_err hlr_err g1_err g2_err "
    "flux_std n_std hlr_std g1_std g2_std snr chi2 q pa r_eff flags quality q_err pa_err r_eff_err "
    "flux_crb n_crb hlr_crb g1_crb g2_crb rff"
).split()


class StampsStandIn(SimpleNamespace):
    """The attributes of Stamps that a catalogue reads."""

    def __len__(self):
        return len(self.data)

    def __getitem__(self, rows):
        return StampsStandIn(**{k: v[rows] if k in ("data", "ivar") else v for k, v in vars(self).items()})


def make_stamps(n, size=16, **kwargs):
    values = {
        "data": np.zeros((n, size, size)),
        "ivar": np.ones((n, size, size)),
        "psf": np.ones((1, 1, 1)),
        "psf_oversampling": 1,
        "jacobian": np.tile(np.eye(2), (n, 1, 1)),
        "origin": np.stack([10 * np.arange(n), 20 * np.arange(n)], -1),
        "center": None,
        "skycoord": None,
        "flags": np.zeros(n, np.int64),
    }
    return StampsStandIn(**values | kwargs)


def make_measurement(n, seed=1, **kwargs):
    rng = np.random.default_rng(seed)
    params = np.column_stack(
        [
            rng.uniform(10, 20, n),
            rng.uniform(1, 4, n),
            rng.uniform(2, 4, n),
            *rng.uniform(-0.4, 0.4, (2, n)),
            *rng.uniform(6, 9, (2, n)),
            np.zeros(n),
        ]
    )
    root = rng.normal(0, 0.1, (2, n, 5, 5))
    covariance, crb = root @ np.swapaxes(root, -1, -2)
    values = {"params": params, "covariance": covariance, "crb": crb, "flags": np.zeros(n, np.int64)}
    values |= {name: rng.uniform(1, 2, n) for name in ("snr", "chi2", "ess")}
    return Measurement(**values | kwargs)


def make_observation(groups, **kwargs):
    n = sum(len(index) for index, _ in groups)
    values = {"groups": groups, "n": n, "table": None, "unit": None, "has_sky": False}
    return SimpleNamespace(**values | kwargs)


def make_catalog(n=3, method="network", stamps=None, measurement=None, **kwargs):
    stamps = make_stamps(n) if stamps is None else stamps
    measurement = make_measurement(n) if measurement is None else measurement
    observation = make_observation([(np.arange(n), stamps)], **kwargs)
    return ShapeCatalog.from_measurements(observation, [measurement], method=method, meta={"version": "1"})


def sky_stamps(n=4, jacobian=((-0.2, 0.01), (0.03, 0.25))):
    skycoord = np.column_stack([np.full(n, 150.0), np.linspace(-60, 60, n)])
    jacobian = np.tile(np.asarray(jacobian, float), (n, 1, 1))
    return make_stamps(n, skycoord=skycoord, jacobian=jacobian, center=np.full((n, 2), 7.0))


def test_empty_is_not_measured():
    empty = Measurement.empty(3)
    assert np.isnan(empty.params).all()
    assert (empty.flags == Flag.NOT_MEASURED).all()
    assert empty.samples is None


def test_rows_are_whole_numbers():
    for wrong in ("a", 1.0, None):
        with pytest.raises(InputError, match=f"row {wrong!r}; allowed: a whole number, from -3 to 2"):
            make_catalog(3).model(wrong)
    with pytest.raises(IndexError, match="row 3 of a catalogue of 3 galaxies"):
        make_catalog(3).model(3)


def test_measurement_refuses_wrong_shape():
    with pytest.raises(InputError, match=r"snr has shape \(2,\); expected \(3,\)"):
        make_measurement(3, snr=np.zeros(2))
    with pytest.raises(InputError, match=r"samples has shape \(3, 5\)"):
        make_measurement(3, samples=np.zeros((3, 5)))


def test_measurement_leaves_the_callers_arrays_writeable():
    snr = np.ones(2)
    measurement = make_measurement(2, snr=snr)
    snr[0] = 2
    with pytest.raises(ValueError, match="read-only"):
        measurement.snr[0] = 3


def test_scatter_restores_input_order_and_pads_samples():
    first, second = make_measurement(2, 1, samples=np.ones((2, 4, 5))), make_measurement(1, 2)
    second = make_measurement(1, 2, samples=np.ones((1, 2, 5)))
    both = Measurement.scatter(4, [([3, 0], first), ([1], second)])
    np.testing.assert_array_equal(both.params[[3, 0, 1]], np.concatenate([first.params, second.params]))
    np.testing.assert_array_equal(both.flags, [0, 0, Flag.NOT_MEASURED, 0])
    assert both.samples.shape == (4, 4, 5)
    assert np.isfinite(both.samples[1]).all(1).sum() == 2


@pytest.mark.parametrize(
    ("index", "match"),
    [([0], "index of 1 rows"), ([0, 5], "allowed: 0 to 2"), ([1, 1], "more than one part")],
)
def test_scatter_refuses_wrong_index(index, match):
    with pytest.raises(InputError, match=match):
        Measurement.scatter(3, [(index, make_measurement(2))])


@pytest.mark.parametrize("method", ["network", "ml", "posterior"])
@pytest.mark.parametrize("has_sky", [False, True])
def test_columns_have_the_contract_order(method, has_sky):
    stamps = sky_stamps(3) if has_sky else None
    table = make_catalog(method=method, stamps=stamps, has_sky=has_sky).to_table()
    expected = list(COLUMNS)
    if method == "posterior":
        expected.insert(expected.index("flags"), "ess")
    if has_sky:
        expected.insert(3, "sky_centroid")
    assert table.colnames == expected
    assert all(table[name].info.description for name in table.colnames)


def test_units():
    table = make_catalog(4, stamps=sky_stamps(), has_sky=True, unit=u.nJy).to_table()
    assert table["flux"].unit == table["flux_err"].unit == table["flux_std"].unit == u.nJy
    assert table["hlr"].unit == table["hlr_std"].unit == table["r_eff"].unit == u.arcsec
    assert table["x_centroid"].unit == u.pix
    assert table["pa"].unit == u.deg
    plain = make_catalog()
    assert plain.hlr.unit == u.pix
    assert isinstance(plain.flux, np.ndarray)
    assert not isinstance(plain.flux, u.Quantity)
    assert plain.sky_centroid is None


def test_each_column_is_an_attribute():
    catalog = make_catalog(4, stamps=sky_stamps(), has_sky=True, unit=u.adu, method="posterior")
    table = catalog.to_table()
    for name in set(table.colnames) - {"sky_centroid"}:
        np.testing.assert_array_equal(getattr(catalog, name), table[name])
    with pytest.raises(ValueError, match="read-only"):
        catalog.g1[0] = 1
    with pytest.raises(AttributeError):
        catalog.method = "ml"


def test_pixel_frame_keeps_the_numbers_and_shifts_the_centroid():
    measurement = make_measurement(3)
    catalog = make_catalog(measurement=measurement)
    np.testing.assert_array_equal(catalog.parameters, measurement.params[:, :5])
    np.testing.assert_array_equal(catalog.crb_covariance, measurement.crb)
    np.testing.assert_allclose(catalog.x_centroid.value, measurement.params[:, 5] + [0, 10, 20])
    np.testing.assert_allclose(catalog.y_centroid.value, measurement.params[:, 6] + [0, 20, 40])


def test_shape_on_the_sky_is_the_same_for_any_pixel_grid():
    """A matrix of second moments carried by the Jacobian is an independent oracle."""
    stamps, measurement = sky_stamps(), make_measurement(4)
    catalog = make_catalog(4, stamps=stamps, measurement=measurement, has_sky=True)
    for i in range(4):
        g1, g2, hlr = measurement.params[i, [3, 4, 2]]
        shear = np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2)
        moments = stamps.jacobian[i] @ (hlr**2 * shear @ shear) @ stamps.jacobian[i].T
        assert catalog.hlr[i].value == pytest.approx(np.linalg.det(moments) ** 0.25)
        values, vectors = np.linalg.eigh(moments)
        assert catalog.q[i] == pytest.approx(np.sqrt(values[0] / values[1]))
        assert catalog.r_eff[i].value == pytest.approx(np.sqrt(values[1]))
        west, north = vectors[:, 1]
        assert catalog.pa[i].value == pytest.approx(np.degrees(np.arctan2(-west, north)) % 180)


def test_covariance_on_the_sky_matches_samples():
    """Narrow samples carried one by one must have the covariance that was carried."""
    rng = np.random.default_rng(3)
    center = make_measurement(1).params[0]
    root = 1e-4 * rng.normal(size=(5, 5))
    covariance = root @ root.T
    draws = rng.multivariate_normal(center[:5], covariance, size=20_000)
    measurement = make_measurement(1, params=center[None], covariance=covariance[None], samples=draws[None])
    flipped = sky_stamps(1, ((0.2, 0.05), (0.03, 0.25)))
    catalog = make_catalog(1, "posterior", flipped, measurement, has_sky=True)
    scale = np.sqrt(np.outer(np.diag(catalog.covariance[0]), np.diag(catalog.covariance[0])))
    found = np.cov(catalog.samples(0).T)
    np.testing.assert_allclose(found / scale, catalog.covariance[0] / scale, atol=5 / np.sqrt(20_000))
    np.testing.assert_allclose(catalog.hlr_std.value**2, catalog.covariance[:, 2, 2])


def test_sky_centroid_agrees_with_the_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, 60], [50, 50]
    angle = np.radians(20)
    wcs.wcs.cd = 0.2 / 3600 * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    origin, center = np.array([[40, 44]]), np.array([[7.0, 7.0]])
    sky = wcs.pixel_to_world(*(origin + center)[0])
    jacobian = wcs.wcs.cd[None] * 3600 * [[-1], [1]]
    stamps = make_stamps(
        1, origin=origin, center=center, skycoord=[[sky.ra.deg, sky.dec.deg]], jacobian=jacobian
    )
    catalog = make_catalog(1, stamps=stamps, has_sky=True)
    truth = wcs.pixel_to_world(catalog.x_centroid.value[0], catalog.y_centroid.value[0])
    assert np.hypot(*(catalog.measurement.params[0, 5:7] - 7)) > 0.5
    assert catalog.sky_centroid[0].separation(truth).arcsec < 1e-5


def test_missing_sky_position_gives_nan():
    stamps = sky_stamps()
    stamps.skycoord[1] = np.nan
    catalog = make_catalog(4, stamps=stamps, has_sky=True)
    np.testing.assert_array_equal(np.isnan(catalog.sky_centroid.ra.deg), [False, True, False, False])


def test_ml_has_no_posterior_width():
    nan = np.full((3, 5, 5), np.nan)
    table = make_catalog(method="ml", measurement=make_measurement(3, covariance=nan)).to_table()
    assert np.isnan(table["flux_std"]).all()
    assert np.isfinite(table["flux_err"]).all()


def test_groups_of_different_size_come_back_in_order():
    groups = [(np.array([2, 0]), make_stamps(2)), (np.array([1]), make_stamps(1, size=32))]
    parts = [make_measurement(2, 5), make_measurement(1, 6)]
    catalog = ShapeCatalog.from_measurements(make_observation(groups), parts, method="ml", meta={})
    np.testing.assert_array_equal(catalog.flux[[2, 0, 1]], np.concatenate([p.params[:, 0] for p in parts]))
    assert [catalog.stamp(i).data.shape[-1] for i in range(3)] == [16, 32, 16]
    assert catalog[[1]].stamp(0).data.shape[-1] == 32
    assert catalog[1:].stamp(-1).data.shape[-1] == 16


def test_observation_flags_are_kept():
    catalog = make_catalog(3, stamps=make_stamps(3, flags=np.array([0, Flag.EDGE, Flag.NO_DATA])))
    np.testing.assert_array_equal(catalog.flags, [0, Flag.EDGE, Flag.NO_DATA])
    np.testing.assert_array_equal(catalog.is_usable, [True, True, False])
    assert catalog.flag_counts() == {"NO_DATA": 1, "EDGE": 1}


def test_input_columns_follow_flags_and_never_replace_a_column():
    inputs = Table(
        {"id": ["a", "b", "c"], "flux": [1.0, 2, 3], "band": ["g", "r", "z"], "input_flux": [7, 8, 9]}
    )
    inputs["when"] = SkyCoord([1, 2, 3], [4, 5, 6], unit="deg")
    table = make_catalog(table=inputs).to_table()
    assert table.colnames == [*COLUMNS, "input_input_flux", "band", "input_flux", "when"]
    assert list(table["id"]) == ["a", "b", "c"]
    assert list(table["input_input_flux"]) == [1, 2, 3]
    assert inputs.colnames == ["id", "flux", "band", "input_flux", "when"]


def test_default_ids_and_slices():
    catalog = make_catalog(5)
    assert list(catalog.id) == [1, 2, 3, 4, 5]
    assert list(catalog[1:3].id) == [2, 3]
    assert list(catalog[-1].id) == [5]
    assert list(catalog[catalog.id > 3].id) == [4, 5]
    np.testing.assert_array_equal(catalog[[3, 1]].covariance, catalog.covariance[[3, 1]])
    with pytest.raises(IndexError, match="row 5 of a catalogue of 5"):
        catalog[5]


def test_chosen_columns():
    catalog = make_catalog()
    assert catalog.to_table(["n", "id"]).colnames == ["n", "id"]
    with pytest.raises(InputError, match=r"columns: \['ess'\] not in this catalogue; allowed"):
        catalog.to_table(["ess"])


def test_samples_need_the_posterior():
    with pytest.raises(InputError, match="method='posterior' only; this catalogue has 'ml'"):
        make_catalog(method="ml").samples(0)


def test_misuse_is_named():
    observation = make_observation([(np.arange(2), make_stamps(2))])
    with pytest.raises(InputError, match="method='fast'; allowed: network, ml, posterior"):
        ShapeCatalog.from_measurements(observation, [make_measurement(2)], method="fast", meta={})
    with pytest.raises(InputError, match="0 measurements came for 1 groups"):
        ShapeCatalog.from_measurements(observation, [], method="ml", meta={})
    with pytest.raises(InputError, match=r"ids has shape \(3,\); expected \(2,\)"):
        ShapeCatalog.from_measurements(
            observation, [make_measurement(2)], method="ml", meta={}, ids=[1, 2, 3]
        )


def test_meta_explains_itself_and_is_a_copy():
    meta = {"versions": {"galshape_cnn": "1"}}
    observation = make_observation([(np.arange(2), make_stamps(2))])
    catalog = ShapeCatalog.from_measurements(observation, [make_measurement(2)], method="ml", meta=meta)
    table = catalog.to_table()
    assert meta == {"versions": {"galshape_cnn": "1"}}
    assert table.meta["method"] == "ml"
    assert table.meta["flags"]["EDGE"] == {
        "value": Flag.EDGE,
        "level": "note",
        "description": "stamp is cut by the edge of the image",
    }
    table.meta["versions"]["galshape_cnn"] = "2"
    assert catalog.meta["versions"]["galshape_cnn"] == "1"


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(observer="me"),
        lambda meta: meta.pop("method"),
        lambda meta: meta["versions"].__setitem__("numpy", "2"),
        lambda meta: meta["exposures"].append("z"),
        lambda meta: meta["exposures"][0].clear(),
    ],
)
def test_meta_cannot_be_changed(change):
    meta = {"versions": {"galshape_cnn": "1"}, "exposures": [{"name": "g"}, "r"]}
    observation = make_observation([(np.arange(2), make_stamps(2))])
    catalog = ShapeCatalog.from_measurements(observation, [make_measurement(2)], method="ml", meta=meta)
    for one in (catalog, catalog[:1], copy.deepcopy(catalog), pickle.loads(pickle.dumps(catalog))):
        with pytest.raises(TypeError, match=r"cannot be changed; that of its table, to_table\(\).meta, can"):
            change(one.meta)
        assert one.meta["exposures"] == meta["exposures"]
        change(one.to_table().meta)


def test_pickle_with_and_without_stamps():
    catalog = make_catalog(4, stamps=sky_stamps(), has_sky=True, unit=u.adu)
    whole = pickle.dumps(catalog)
    small = pickle.dumps(catalog.without_stamps())
    assert len(small) < len(whole) - catalog.stamps[0].data.nbytes
    back = pickle.loads(small)
    for name in back.to_table().colnames[4:]:
        np.testing.assert_array_equal(back.to_table()[name], catalog.to_table()[name])
    assert pickle.loads(whole).stamp(1).data.shape == (1, 16, 16)
    with pytest.raises(InputError, match=r"stripped by without_stamps\(\)"):
        back.model(0)
    with pytest.raises(ValueError, match="read-only"):
        back.measurement.snr[0] = 1


def test_nan_rows_stay():
    catalog = make_catalog(3, measurement=Measurement.empty(3), stamps=sky_stamps(3), has_sky=True)
    table = catalog.to_table()
    assert len(table) == 3
    assert np.isnan(table["g1"]).all()
    assert repr(catalog) == "<ShapeCatalog: 3 galaxies, method='network', quality 0: 0, 1: 0, 2: 3>"


def test_quantiles_are_where_a_new_draw_is_as_likely_to_lie():
    """Few independent draws: intervals of their quantiles cover what they say."""
    rng, probabilities = np.random.default_rng(8), (0.16, 0.84)
    inside, plain = [], []
    for _ in range(4000):
        draws, new = rng.normal(size=(24, 1)), rng.normal()
        low, high = sample_quantiles(draws, 24, probabilities)[:, 0]
        inside.append(low < new < high)
        low, high = np.quantile(draws, probabilities)
        plain.append(low < new < high)
    error = np.sqrt(0.68 * 0.32 / 4000)
    assert abs(np.mean(inside) - 0.68) < 4 * error
    assert np.mean(plain) < 0.68 - 3 * error


def test_quantiles_of_a_galaxy_not_measured_are_nan():
    assert np.isnan(sample_quantiles(np.empty((0, 5)), 0.0, (0.5,))).all()
