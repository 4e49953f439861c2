# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Survey images, with the commands of the user guide; they need ``--real-data DIR``."""

import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from scipy.special import gammainc, gammaincinv

from galshape_cnn import ShapeEstimator
from galshape_cnn.cli import main
from galshape_cnn.flags import Flag
from galshape_cnn.infer.catalog.catalog import ShapeCatalog
from galshape_cnn.observe.io.fits import read_image

# what is said of the noise and the PSFs of real images
pytestmark = pytest.mark.filterwarnings("default::galshape_cnn.errors.GalshapeWarning")

BANDS = ("g", "r", "z")
EXPOSURES = {
    "g": ("c4d_141029_043225", "N26"),
    "r": ("c4d_141029_043420", "N26"),
    "z": ("c4d_131122_030338", "S21"),
}
GALFIT_FLUX = 10 ** (0.4 * (26.563 - 20))
GALFIT_RADIUS = 30.0


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def command(tmp_path, place, *arguments):
    """Table that ``galshape measure`` writes for one galaxy."""
    (tmp_path / "place.csv").write_text("ra,dec\n{},{}\n".format(*place))
    out = tmp_path / "out.ecsv"
    positions = ["--positions", str(tmp_path / "place.csv")]
    assert main(["measure", *map(str, arguments), *positions, "--method", "ml", "-o", str(out)]) == 0
    return QTable.read(out)


def pa_error(row):
    """Cramer-Rao bound of the position angle in degrees, g1 and g2 being alike and uncorrelated."""
    return np.degrees(0.5 * row["g1_err"] / np.hypot(row["g1"], row["g2"]))


@pytest.fixture(scope="module")
def decals(real_data, tmp_path_factory):
    folder = real_data / "legacysurvey_dr9_cutout"
    cutout, psf = (folder / f"{name}_59.1067_-30.4848.fits" for name in ("cutout", "copsf"))
    tables = {}
    for band in BANDS:
        hdus = ["--band", band, "--psf", psf, "--neighbours", "ignore"]
        place = 59.1067, -30.4848
        tables[band] = command(tmp_path_factory.mktemp(band), place, cutout, *hdus)[0]
    return tables


@pytest.mark.parametrize(
    ("band", "n", "r_eff", "q", "mag"),
    [("g", 0.68, 1.92, 0.70, 19.53), ("r", 0.82, 1.81, 0.71, 18.99), ("z", 0.92, 1.73, 0.72, 18.63)],
)
def test_decals_galaxy(decals, band, n, r_eff, q, mag):
    """Published ranges of the galaxy, and an independent fit with GalSim and scipy."""
    row = decals[band]
    assert 0.65 < row["n"] < 0.95
    assert 1.7 < row["r_eff"].to_value("arcsec") < 1.95
    assert 0.69 < row["q"] < 0.73
    assert row["n"] == pytest.approx(n, abs=0.02)
    assert row["r_eff"].to_value("arcsec") == pytest.approx(r_eff, abs=0.02)
    assert row["q"] == pytest.approx(q, abs=0.01)
    assert row["mag"].value == pytest.approx(mag, abs=0.01)


def test_decals_position_angles_agree_within_their_errors(decals):
    pa = {band: row["pa"].to_value("deg") for band, row in decals.items()}
    error = {band: pa_error(row) for band, row in decals.items()}
    assert abs(pa["g"] - pa["r"]) < 3
    assert abs(pa["g"] - pa["z"]) < 3
    # r and z are 3.4 degrees apart, 2.7 standard deviations
    assert abs(pa["r"] - pa["z"]) < 3 * np.hypot(error["r"], error["z"])


def test_decals_flags_tell_of_the_faint_neighbour(decals):
    about_the_light = Flag.NEIGHBOR | Flag.POOR_FIT
    assert all(row["flags"] & about_the_light == about_the_light for row in decals.values())


@pytest.mark.parametrize("by_hand", [True, False])
def test_decals_masking_the_neighbour_changes_little(real_data, estimator, decals, by_hand):
    folder = real_data / "legacysurvey_dr9_cutout"
    psf = folder / "copsf_59.1067_-30.4848.fits"
    image = read_image(folder / "cutout_59.1067_-30.4848.fits", sci=3, ivar=4, psf=f"{psf}[1]")
    y, x = np.indices(image.data.shape)
    mask = np.hypot(x - 150, y - 122) < 6 if by_hand else None
    row = decals["r"]
    catalog = estimator(image, positions=[[126.4, 130.4]], mask=mask, method="ml")
    corner = np.round(catalog.stamp(0).origin[0]).astype(int)
    assert catalog.stamp(0).ivar[0, 122 - corner[1], 150 - corner[0]] == 0
    assert catalog.n[0] == pytest.approx(row["n"], abs=2 * row["n_err"])
    assert catalog.q[0] == pytest.approx(row["q"], abs=0.005)
    assert catalog.chi2[0] < row["chi2"] - 0.1


def test_decals_field_is_of_use_once_its_noise_is_known(real_data, tmp_path):
    """Blank pixels scatter 0.9 times what the inverse variance says, and are correlated."""
    folder = real_data / "legacysurvey_dr9_cutout"
    cutout, psf = (str(folder / f"{name}_59.1067_-30.4848.fits") for name in ("cutout", "copsf"))
    noise = {"as it is": ["--noise-scale", "none", "--noise-correlation", "none"], "mended": []}
    poor, chi2 = {}, {}
    for name, options in noise.items():
        out = tmp_path / f"{name}.ecsv"
        arguments = [cutout, "--band", "r", "--psf", psf, "--method", "ml", "-o", str(out), *options]
        assert main(["measure", *arguments]) == 0
        table = QTable.read(out)
        poor[name] = np.mean(table["flags"] & Flag.POOR_FIT > 0)
        chi2[name] = np.median(table["chi2"])
    assert chi2["as it is"] < 0.88
    assert chi2["mended"] == pytest.approx(1, abs=0.02)
    assert poor["as it is"] > 0.9
    assert poor["mended"] < 0.25


@pytest.fixture(scope="module")
def decam(real_data, tmp_path_factory):
    folder, tables = real_data / "decam_legacypipe_tc9", {}
    for band, (stem, ccd) in EXPOSURES.items():
        names = (f"{stem}_{kind}_{band}_ls9.{ccd}.fits" for kind in ("ooi", "oow", "ood"))
        image, weight, mask = (folder / name for name in names)
        psf = folder / f"{stem}_ooi_{band}_ls9-{ccd}-psfex.fits"
        options = ["--weight", weight, "--mask", mask, "--psf", psf, "--stamp-size", 96]
        tables[band] = command(tmp_path_factory.mktemp(band), (9.1232, 3.3976), image, *options)[0]
    return tables


def test_decam_exposures_agree(decam):
    """TPV WCS, PsfEx, weight and DQ, sky not subtracted: one elliptical galaxy on three nights and chips."""
    first = decam["r"]
    for row in decam.values():
        assert row["sky_centroid"].separation(first["sky_centroid"]).arcsec < 0.1
        assert 4 < row["n"] < 5.5
        assert 2.9 < row["r_eff"].to_value("arcsec") < 3.9
        assert row["q"] == pytest.approx(first["q"], abs=0.03)
        assert row["pa"].to_value("deg") == pytest.approx(first["pa"].to_value("deg"), abs=1.5)
        assert row["snr"] > 300
        assert row["flags"] & Flag.POOR_FIT


@pytest.mark.slow
def test_hst_and_hsc_see_one_size(real_data, tmp_path):
    """COSMOS galaxy that a single profile describes in both: semi-major radii within 15 %."""
    folder, radius = real_data / "hsc_hst_cosmos_scarlet", {}
    for telescope, planes in (("HST", 1), ("HSC", 5)):
        (tmp_path / "p.csv").write_text("ra,dec\n" + "150.318477,2.039512\n" * planes)
        files = [str(folder / f"Cut_{telescope}.fits"), "--psf", str(folder / f"PSF_{telescope}.fits")]
        options = ["--positions", str(tmp_path / "p.csv"), "--error", "background", "--method", "ml"]
        out = tmp_path / f"{telescope}.ecsv"
        assert main(["measure", *files, *options, "-o", str(out)]) == 0
        row = QTable.read(out)[planes // 2]
        assert 1 < row["chi2"] < 1.6
        radius[telescope] = row["r_eff"].to_value("arcsec")
    assert radius["HSC"] == pytest.approx(radius["HST"], rel=0.15)


def galfit(real_data, estimator, name, core=0, **options):
    """Fit of a noiseless GALFIT image with a uniform error and the true sky."""
    image = fits.getdata(real_data / "galfit_models_petrofit" / f"{name}.fits.gz").astype(float)
    y, x = np.unravel_index(np.argmax(image), image.shape)
    mask = np.zeros(image.shape, bool)
    mask[y - core : y + core + 1, x - core : x + core + 1] = core > 0
    image, mask = (a[max(y - 128, 0) : y + 128, max(x - 128, 0) : x + 128] for a in (image, mask))
    catalog = estimator(image, error=0.01, mask=mask, fit_sky=False, method="ml", **options)
    assert isinstance(catalog, ShapeCatalog)
    return catalog.flux[0] / GALFIT_FLUX, catalog.n[0], catalog.r_eff[0].value / GALFIT_RADIUS


def galfit_psf(real_data):
    """GALFIT's PSF of 50x50 pixels; its centre is pixel N/2 + 1, so that one row and column are dropped.

    The profile is averaged over the pixel before it is convolved: the PSF is taken to be
    without the pixel.
    """
    array = fits.getdata(real_data / "galfit_models_petrofit" / "f105w_psf.fits.gz").astype(float)
    return {"psf": array[1:, 1:], "psf_includes_pixel": False}


@pytest.mark.parametrize(("name", "oversampling"), [("galfit_n4_psf1", 1), ("galfit_n4_psf4", 4)])
def test_galfit_de_vaucouleurs(real_data, estimator, name, oversampling):
    psf = galfit_psf(real_data) | {"psf_oversampling": oversampling}
    flux, n, radius = galfit(real_data, estimator, name, **psf)
    assert flux == pytest.approx(1, abs=0.01)
    assert n == pytest.approx(4, rel=0.02)
    assert radius == pytest.approx(1, abs=0.01)


def test_galfit_de_vaucouleurs_without_psf(real_data, estimator):
    """The cusp has frequencies beyond those that are rendered, which no PSF takes away here: it is left out.

    The rim of the masked pixels would be taken for neighbours, which there are none of.
    """
    alone = {"psf": galsim.Gaussian(fwhm=0.2), "neighbours": "ignore"}
    flux, n, radius = galfit(real_data, estimator, "galfit_n4_psf0", 2, **alone)
    assert flux == pytest.approx(1, abs=0.01)
    assert n == pytest.approx(4, rel=0.02)
    assert radius == pytest.approx(1, abs=0.01)


def test_galfit_averages_the_cusp_over_its_pixels(real_data):
    """So that what is left out above is the limit of this package's renderer, not of GALFIT."""
    image = fits.getdata(real_data / "galfit_models_petrofit" / "galfit_n4_psf0.fits.gz")
    b = gammaincinv(8, 0.5)
    angle = (np.arange(2000) + 0.5) / 2000 * np.pi / 4
    # light inside the square of one pixel, from the closed form of the light inside a radius
    inside = gammainc(8, b * (0.5 / np.cos(angle) / GALFIT_RADIUS) ** 0.25).mean()
    assert image.max() == pytest.approx(GALFIT_FLUX * inside, rel=1e-3)


def test_galfit_exponential(real_data, estimator):
    point = np.zeros((5, 5))
    point[2, 2] = 1
    flux, n, radius = galfit(real_data, estimator, "galfit_sersic_n1", psf=point)
    assert flux == pytest.approx(1, abs=0.01)
    assert n == pytest.approx(1, rel=0.02)
    assert radius == pytest.approx(1, abs=0.01)
