# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Survey images of several bands measured together; they need ``--real-data DIR``."""

import warnings

import numpy as np
import pytest
from astropy.table import QTable, Table

from galshape_cnn import Exposure, ShapeEstimator
from galshape_cnn.cli import main
from galshape_cnn.errors import GalshapeWarning
from galshape_cnn.flags import Flag
from galshape_cnn.observe.detect.sources import find_galaxies
from galshape_cnn.observe.io.fits import read_image

# what is said of the noise and the PSFs of real images
pytestmark = pytest.mark.filterwarnings("default::galshape_cnn.errors.GalshapeWarning")

DECAM = (
    ("g", "c4d_141029_043225", "N26"),
    ("r", "c4d_141029_043420", "N26"),
    ("z", "c4d_131122_030338", "S21"),
)


def measured(tmp_path, rows, places, *options):
    """Table that ``galshape measure --exposures`` writes."""
    Table(rows=rows).write(tmp_path / "list.ecsv")
    Table(rows=places, names=("ra", "dec")).write(tmp_path / "places.csv")
    command = ["measure", "--exposures", tmp_path / "list.ecsv", "--positions", tmp_path / "places.csv"]
    out = tmp_path / "out.ecsv"
    assert main([*map(str, command), "--method", "ml", *options, "-o", str(out)]) == 0
    return QTable.read(out)


def test_decals_bands_together_are_better_than_the_best_alone(real_data, tmp_path):
    """The galaxy in the middle: its published magnitudes, and errors below those of r, which has the best."""
    folder = real_data / "legacysurvey_dr9_cutout"
    cutout, psf = (str(folder / f"{name}_59.1067_-30.4848.fits") for name in ("cutout", "copsf"))
    rows = [
        {"image": cutout, "hdu": str(1 + 2 * k), "weight": str(2 + 2 * k), "psf": f"{psf}[{k}]", "band": band}
        | {"zeropoint": 22.5}
        for k, band in enumerate("grz")
    ]
    (tmp_path / "all").mkdir()
    (tmp_path / "r").mkdir()
    row = measured(tmp_path / "all", rows, [(59.1067, -30.4848)])[0]
    alone = measured(tmp_path / "r", rows[1:2], [(59.1067, -30.4848)])[0]
    for band, magnitude in zip("grz", (19.53, 18.99, 18.63), strict=True):
        assert row[f"mag_{band}"].value == pytest.approx(magnitude, abs=0.06)
    assert row["n_exposures"] == 3
    for name in ("n", "hlr", "g1", "g2"):
        assert row[f"{name}_crb"] < 0.95 * alone[f"{name}_crb"]
    assert row["q"] == pytest.approx(alone["q"], abs=0.02)


def test_decam_exposures_together(real_data, tmp_path):
    """TPV WCS, PsfEx, weight and DQ from the files; the galaxy is the one that each measures alone."""
    folder, rows = real_data / "decam_legacypipe_tc9", []
    for band, stem, ccd in DECAM:
        image, weight, mask = (
            str(folder / f"{stem}_{kind}_{band}_ls9.{ccd}.fits") for kind in ("ooi", "oow", "ood")
        )
        psf = str(folder / f"{stem}_ooi_{band}_ls9-{ccd}-psfex.fits")
        rows.append({"image": image, "band": band, "weight": weight, "mask": mask, "psf": psf})
    row = measured(tmp_path, rows, [(9.1232, 3.3976)], "--stamp-size", "96")[0]
    assert row["n_exposures"] == 3
    assert 4 < row["n"] < 5.5
    assert 2.9 < row["r_eff"].to_value("arcsec") < 3.9
    assert row["snr"] > 500


def test_hsc_bands(real_data, tmp_path):
    """Unnamed HDUs, a mask of named planes, PSFs that are not square."""
    folder = real_data / "hsc_gri_300"
    rows = [
        {"image": str(folder / f"hsc_{band}.fits"), "hdu": "1", "mask": "2", "variance": "3", "band": band}
        | {"psf": str(folder / f"psf_{band}.fits")}
        for band in "gri"
    ]
    Table(rows=rows).write(tmp_path / "list.csv")
    out = tmp_path / "out.ecsv"
    assert main(["measure", "--exposures", str(tmp_path / "list.csv"), "--method", "ml", "-o", str(out)]) == 0
    table = QTable.read(out)
    assert len(table) > 10
    assert (table["n_exposures"] == 3).mean() > 0.8
    bright = table[table["snr"] > 50]
    assert np.isfinite(bright["flux_i_err"]).mean() > 0.9


@pytest.mark.slow
def test_kids_bands_without_wcs(real_data):
    """Aligned images without WCS, noise map or PSF: pixels of the same place are one galaxy."""
    folder, exposures = real_data / "kids_viking_bands", []
    for band in "riZ":
        image = read_image(folder / f"{band}.fits")
        data = np.array(image.data[600:1400, 600:1400], float)
        step = np.diff(data, axis=1) / np.sqrt(2)
        sigma = 1.4826 * np.median(np.abs(step - np.median(step)))
        exposures.append(Exposure(data, psf="stars", error=sigma, band=band))
    places = Table({"x": [400.0, 500.0], "y": [400.0, 380.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GalshapeWarning)
        catalog = ShapeEstimator()(exposures, positions=places, method="ml")
    assert len(catalog) == 2
    assert (catalog.n_exposures == 3).all()
    assert catalog.bands == ("r", "i", "Z")
    assert "sky_centroid" not in catalog.to_table().colnames


def test_shapes_that_vary_explain_the_brightest_decals_galaxies(real_data):
    """One shape does not hold in g, r and z; one that changes by power laws of the wavelength does."""
    folder = real_data / "legacysurvey_dr9_cutout"
    cutout, psf = (str(folder / f"{name}_59.1067_-30.4848.fits") for name in ("cutout", "copsf"))
    exposures = [
        Exposure(read_image(cutout, sci=1 + 2 * k, weight=2 + 2 * k, psf=f"{psf}[{k}]"), band=band,
                 zeropoint=22.5, wavelength=wavelength)
        for k, (band, wavelength) in enumerate((("g", 480), ("r", 640), ("z", 920)))
    ]  # fmt: skip
    found, pixels = find_galaxies(exposures[1].data), np.asarray(exposures[1].data.data)
    x, y = (np.rint(np.asarray(found[name])).astype(int) for name in "xy")
    light = [pixels[max(b - 6, 0) : b + 7, max(a - 6, 0) : a + 7].sum() for a, b in zip(x, y, strict=True)]
    brightest = found[np.argsort(light)[::-1][:3]]
    one = ShapeEstimator()(exposures, positions=brightest, method="ml")
    assert (one.flags & Flag.SHAPE_VARIES > 0).all()
    varied = ShapeEstimator()(exposures, positions=brightest, method="ml", vary={"hlr": 1, "n": 1, "g": 1})
    assert not (varied.flags & Flag.SHAPE_VARIES).any()
    assert (varied.chi2 < one.chi2).all()
