# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pages of galaxies in several exposures: every image of a row, and columns of every band."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from PIL import Image

from galshape_cnn import Exposure, ShapeEstimator
from galshape_cnn.cli import main
from galshape_cnn.errors import FileError, InputError
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.catalog.tables import TABLE_SUFFIXES, write_table
from galshape_cnn.study.report.exposures_from_table import exposures_from_table
from galshape_cnn.study.report.from_table import read_catalog_table
from galshape_cnn.study.report.html_report import write_report
from galshape_cnn.study.report.thumbnails import exposure_thumbnails
from galshape_cnn.tests.exposure_scene import SETUP, exposure, galaxies

pytestmark = pytest.mark.filterwarnings("ignore:.*could not be measured")


@pytest.fixture(scope="module")
def scene():
    """Three exposures of four galaxies, the second of which is masked for some, and one galaxy in none."""
    rng = np.random.default_rng(5)
    sky, truth = galaxies(rng, side=2)
    exposures = [
        replace(exposure(rng, sky, truth, one, side=2, zeropoint=25.0), wavelength=wavelength)
        for one, wavelength in zip(SETUP, (480, 640, 640), strict=True)
    ]
    mask = np.zeros(exposures[1].data.shape, bool)
    mask[: len(mask) // 2] = True
    exposures[1] = replace(exposures[1], mask=mask)
    return exposures, Table({"ra": [*sky.ra.deg, 30], "dec": [*sky.dec.deg, -21], "name": list("abcde")})


@pytest.fixture(scope="module")
def catalog(scene):
    return ShapeEstimator()(scene[0], positions=scene[1], method="ml", neighbours="ignore")


def blocks(path):
    """The JSON blocks of a page, and which exposures a picture shows."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', text, re.DOTALL)
    page = {name: json.loads(body) for name, body in found}
    return page | {"shown": json.loads(re.search(r"const SHOWN = (.*);", text)[1])}


def test_a_picture_has_a_strip_for_each_exposure(catalog, tmp_path):
    write_report(catalog, tmp_path / "page.html")
    page = blocks(tmp_path / "page.html")
    names = np.array(catalog.exposures)
    assert page["shown"] == [names[seen].tolist() for seen in catalog.seen]
    assert {len(shown) for shown in page["shown"]} == {0, 2, 3}
    for picture, shown in zip(page["pictures"], page["shown"], strict=True):
        if not shown:
            assert picture == ""
            continue
        image = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert image.size == (3 * 64, len(shown) * 64)
    for name in ("flux_g", "flux_r", "mag_g", "snr_r", "hlr", "n_exposures", "hlr_gradient"):
        values = np.ma.filled(np.ma.asarray(catalog.to_table()[name]), np.nan)
        np.testing.assert_allclose(np.array(page["rows"][name], float), np.asarray(values, float), rtol=1e-5)
    for name in ("flux_g_err", "g1_err", "mag_r_err", "hlr_gradient_err", "r_eff_err"):
        assert sum(value is not None for value in page["rows"][name]) == 4
    assert page["rows"]["name"] == list("abcde")


def test_residuals_of_every_exposure_are_noise(catalog):
    found = {(row, number): images for row, number, images in exposure_thumbnails(catalog)}
    assert set(found) == set(zip(*np.nonzero(catalog.seen), strict=True))
    for images in found.values():
        assert np.nanstd(images.residual) == pytest.approx(1, abs=0.08)


def test_shapes_that_vary_are_columns_of_bands(scene, tmp_path):
    exposures, positions = scene
    options = {"method": "ml", "neighbours": "ignore", "vary": {"hlr": 1}}
    varied = ShapeEstimator()(exposures, positions=positions[:2], **options)
    write_report(varied, tmp_path / "page.html")
    rows = blocks(tmp_path / "page.html")["rows"]
    assert {"hlr_g", "hlr_r", "hlr_g_err", "r_eff_r", "r_eff_r_err", "n"} <= set(rows)
    assert "hlr" not in rows


@pytest.mark.parametrize(("method", "vary"), [("ml", {"hlr": 1}), ("network", {"hlr": 1, "n": 1, "g": 1})])
def test_a_table_of_shapes_that_vary_gives_the_catalog_back(scene, tmp_path, method, vary):
    """Each band's values and errors, and the gradient's, in a table that went through a file."""
    exposures, positions = scene
    varied = ShapeEstimator()(exposures, positions=positions, method=method, neighbours="ignore", vary=vary)
    write_table(varied.to_table(), tmp_path / "shapes.fits")
    table = read_catalog_table(tmp_path / "shapes.fits", True)
    again = exposures_from_table(table, [replace(one, wavelength=None) for one in exposures])
    np.testing.assert_allclose(again.parameters, varied.parameters, rtol=1e-9)
    suffix = "err" if method == "ml" else "std"
    for name in ("hlr_g", "hlr_r", *(f"{name}_g" for name in vary if name == "n"), "flux_r"):
        first, second = (np.asarray(getattr(one, f"{name}_{suffix}")) for one in (again, varied))
        np.testing.assert_allclose(first, second, rtol=1e-6, err_msg=name)
    for name in ("hlr_gradient", "hlr_gradient_err"):
        first, second = (np.asarray(getattr(one, name)) for one in (again, varied))
        np.testing.assert_allclose(first, second, rtol=1e-6, err_msg=name)
    own, before = again.by_exposure.params, varied.by_exposure.params
    np.testing.assert_allclose(own[..., : SINGLE.centre.start], before[..., : SINGLE.centre.start], rtol=1e-4)
    write_report(again, tmp_path / "page.html")
    write_report(varied, tmp_path / "before.html")
    page, other = (blocks(tmp_path / name)["rows"] for name in ("page.html", "before.html"))
    for name in ("hlr_gradient", f"hlr_gradient_{suffix}", f"hlr_r_{suffix}", f"mag_r_{suffix}", "snr_g"):
        np.testing.assert_allclose(
            np.array(page[name], float), np.array(other[name], float), rtol=1e-4, err_msg=name
        )
    width = 2.5 / np.log(10) * np.asarray(getattr(varied, f"flux_r_{suffix}") / varied.flux_r)
    np.testing.assert_allclose(np.array(page[f"mag_r_{suffix}"], float), width, rtol=1e-4)


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_a_table_and_its_exposures_give_the_catalog_back(scene, catalog, tmp_path, suffix):
    write_table(catalog.to_table(), tmp_path / f"shapes{suffix}")
    again = exposures_from_table(read_catalog_table(tmp_path / f"shapes{suffix}", True), scene[0])
    np.testing.assert_allclose(again.parameters, catalog.parameters, rtol=1e-9)
    np.testing.assert_array_equal(again.flags, catalog.flags)
    np.testing.assert_array_equal(again.seen, catalog.seen)
    for name in ("id", "hlr_err", "flux_g_err", "snr_r", "hlr_gradient", "mag_g"):
        first, second = (np.asarray(getattr(one, name)) for one in (again, catalog))
        np.testing.assert_allclose(first, second, rtol=1e-9, err_msg=name)
    assert again.inputs["name"].tolist() == list("abcde")
    own, before = again.by_exposure.params, catalog.by_exposure.params
    np.testing.assert_allclose(own[..., : SINGLE.centre.start], before[..., : SINGLE.centre.start], rtol=1e-4)
    origins = [[one.stamp(0, k).origin[0] for k in (0, 2)] for one in (again, catalog)]
    places = [one.by_exposure.params[0, [0, 2], SINGLE.centre] + at for one, at in
              zip((again, catalog), origins, strict=True)]  # fmt: skip
    np.testing.assert_allclose(*places, atol=1e-3)
    np.testing.assert_allclose(own[..., SINGLE.sky], before[..., SINGLE.sky], atol=0.1)


def test_command_writes_a_page(scene, catalog, tmp_path, capsys):
    from astropy.io import fits

    for number, one in enumerate(scene[0]):
        hdus = [fits.PrimaryHDU(one.data, one.wcs.to_header())]
        hdus.append(fits.ImageHDU(np.full(one.data.shape, one.error), name="ERR"))
        fits.HDUList(hdus).writeto(tmp_path / f"{number}.fits")
    profiles = [f"moffat:fwhm={scale * fwhm},beta=3.5" for _, scale, fwhm, *_ in SETUP]
    files = [f"{k}.fits" for k in range(3)]
    Table({"image": files, "band": ["g", "r", "r"], "psf": profiles}).write(tmp_path / "list.csv")
    write_table(catalog.to_table(), tmp_path / "shapes.ecsv")
    command = ["report", str(tmp_path / "shapes.ecsv"), "--exposures", str(tmp_path / "list.csv"), "-o"]
    assert main([*command, str(tmp_path / "page.html")]) == 0
    assert "wrote 5 galaxies" in capsys.readouterr().out
    assert len(blocks(tmp_path / "page.html")["shown"][0]) == 3
    assert main([*command, str(tmp_path / "two.html"), "--psf", "x.fits"]) == 1
    assert "--psf is given beside --exposures" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "shapes.ecsv"), "-o", str(tmp_path / "two.html")]) == 2


def test_what_does_not_belong_together_is_refused(scene, catalog, tmp_path):
    table = catalog.to_table()
    with pytest.raises(InputError, match="no column flux_z; it is of other bands"):
        exposures_from_table(table, [scene[0][0], replace(scene[0][1], band="z")])
    cutouts = [Exposure(np.zeros((3, 64, 64)), psf=np.ones((3, 3)), error=1.0, band=band) for band in "gr"]
    with pytest.raises(InputError, match="the table has 5 rows, the exposures hold 3 cutouts"):
        exposures_from_table(table, cutouts)
    write_table(table["id", "flux_g"], tmp_path / "few.ecsv")
    with pytest.raises(FileError, match="not a table of shapes in several exposures: no column x_centroid"):
        read_catalog_table(tmp_path / "few.ecsv", True)
