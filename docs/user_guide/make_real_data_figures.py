# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Run the commands of the page on survey images; write its tables and draw its pictures.

Run as ``python make_real_data_figures.py DATA_DIR [decals field decam exposures pair galfit]`` in
this folder.  The data are not part of the repository, so the results are.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from astropy.table import QTable, Table
from matplotlib.figure import Figure
from PIL import Image

from galshape_cnn import ShapeEstimator
from galshape_cnn.cli import main as galshape
from galshape_cnn.flags import Flag
from galshape_cnn.observe.io.fits import read_image

HERE = Path(__file__).parent
IMAGES, TABLES = HERE / "images", HERE / "tables"
DECAM = (
    ("g", "c4d_141029_043225", "N26"),
    ("r", "c4d_141029_043420", "N26"),
    ("z", "c4d_131122_030338", "S21"),
)
PIXEL = 0.262  # arcsec, of DECaLS
#: Galaxies of the HSC and HST cutouts: file, right ascension, declination.
PAIR = {"A": ("", 150.318477, 2.039512), "B": ("1", 150.330232, 2.070863), "C": ("1", 150.330013, 2.070305)}


def measure(*arguments):
    """Table that ``galshape measure`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.ecsv"
        if galshape(["measure", *map(str, arguments), "--method", "ml", "-o", str(out)]):
            raise SystemExit("galshape measure failed")
        return QTable.read(out)


def write(name, rows):
    """Table of the page, values as text."""
    Table(rows=rows).write(TABLES / f"{name}.csv", format="ascii.csv", overwrite=True)


def number(row, name, digits, error=True):
    """A value with its bound, as text."""
    value, bound = (float(getattr(row[one], "value", row[one])) for one in (name, f"{name}_err"))
    return f"{value:.{digits}f} ± {bound:.{digits}f}" if error else f"{value:.{digits}f}"


def decals_images(folder):
    """The three bands of the DECaLS cutout."""
    cutout, psf = (folder / f"{name}_59.1067_-30.4848.fits" for name in ("cutout", "copsf"))
    for band in "grz":
        yield f"DECaLS {band}", read_image(cutout, band=band, psf=psf)


def decam_files(folder):
    """Band, image, weight, mask and PSF of the single exposures."""
    for band, stem, ccd in DECAM:
        files = [folder / f"{stem}_{kind}_{band}_ls9.{ccd}.fits" for kind in ("ooi", "oow", "ood")]
        yield band, *files, folder / f"{stem}_ooi_{band}_ls9-{ccd}-psfex.fits"


def save(figure, name):
    """PNG of few colours: a third of the size."""
    figure.savefig(IMAGES / name, dpi=75)
    Image.open(IMAGES / name).quantize(128).save(IMAGES / name, optimize=True)


def draw(images, position, name, size=None):
    """Data, model and residual of one galaxy in each image."""
    figure = Figure(figsize=(8.5, 8.2), layout="constrained")
    rows = figure.subplots(3, 3)
    for axes, (title, image) in zip(rows, images, strict=True):
        options = {} if size is None else {"stamp_size": size}
        catalog = ShapeEstimator()(image, positions=position, method="ml", **options)
        catalog.plot(0, axes=axes)
        axes[0].set_title(f"{title}: data")
    save(figure, name)


def decals(folder):
    """The galaxy in the middle of the DECaLS cutout."""
    from astropy.coordinates import SkyCoord

    folder = folder / "legacysurvey_dr9_cutout"
    place = SkyCoord([59.1067], [-30.4848], unit="deg")
    draw(decals_images(folder), place, "decals.png")
    cutout, psf = (folder / f"{name}_59.1067_-30.4848.fits" for name in ("cutout", "copsf"))
    rows, neighbours = [], []
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("ra,dec\n59.1067,-30.4848\n")
        file.flush()
        for band in "grz":
            for how, text in (("mask", "masked (default)"), ("ignore", "left in"), ("fit", "fitted")):
                options = "--band", band, "--psf", psf, "--positions", file.name, "--neighbours", how
                row = measure(cutout, *options)[0]
                if how == "mask":
                    rows.append(galaxy_row(band, row))
                neighbours.append(neighbour_row(band, text, row))
    write("decals", rows)
    write("decals_neighbours", neighbours)


def galaxy_row(band, row):
    """Parameters of the galaxy in the middle, with errors that count its structure, and the bound of n."""
    texts = {"band": band, "S/N": f"{row['snr']:.0f}", "n": number(row, "n", 2)}
    texts |= {"bound of n": f"{row['n_crb']:.3f}", "r_eff (arcsec)": number(row, "r_eff", 2)}
    texts |= {"q": number(row, "q", 3), "pa (deg)": number(row, "pa", 1), "mag": number(row, "mag", 2)}
    return texts | {"chi-square": f"{row['chi2']:.2f}"}


def neighbour_row(band, how, row):
    """The same with the neighbour left in, masked or fitted, without errors."""
    texts = {"band": band, "neighbour": how, "flux (nMgy)": f"{u_of(row['flux']):.2f}"}
    texts |= {"n": f"{row['n']:.3f}", "r_eff (arcsec)": f"{u_of(row['r_eff']):.3f}", "q": f"{row['q']:.3f}"}
    return texts | {"chi-square": f"{row['chi2']:.3f}", "quality": row["quality"]}


def field(folder):
    """All sources of the DECaLS cutout, found in each band and matched."""
    folder = folder / "legacysurvey_dr9_cutout"
    cutout, psf = (folder / f"{name}_59.1067_-30.4848.fits" for name in ("cutout", "copsf"))
    tables = {band: measure(cutout, "--band", band, "--psf", psf) for band in "grz"}
    images = {band: read_image(cutout, band=band) for band in "grz"}
    reference, rows, places, colours = tables["r"], [], [], []
    for row in reference[reference["snr"] > 30]:
        matches = {}
        for band, table in tables.items():
            distance = np.hypot(
                *(u_of(table[f"{axis}_centroid"]) - row[f"{axis}_centroid"].value for axis in "xy")
            )
            if distance.min() < 1.5:
                matches[band] = table[np.argmin(distance)]
        inside = 5 < row["x_centroid"].value < 250 and 5 < row["y_centroid"].value < 250
        twice = row["flags"] & Flag.FAR_CENTROID  # the centre of another row
        if len(matches) == 3 and inside and not twice:
            places.append((row["x_centroid"].value, row["y_centroid"].value))
            rows += [field_row(len(places), band, one) for band, one in matches.items()]
            colours.append(colour_row(len(places), matches, images))
    write("decals_field", rows)
    write("decals_colours", colours)
    print({band: len(table) for band, table in tables.items()}, len(places), "in three bands")
    draw_field(read_image(cutout, band="r"), reference, places)


def u_of(column):
    """Plain numbers of a column."""
    return np.asarray(getattr(column, "value", column))


def field_row(index, band, row):
    """One row of the page's table."""
    texts = {"galaxy": index, "band": band, "mag": number(row, "mag", 2), "n": number(row, "n", 2)}
    texts["r_eff (arcsec)"] = number(row, "r_eff", 3)
    texts |= {"q": number(row, "q", 3), "pa (deg)": number(row, "pa", 1)}
    return texts | {"chi-square": f"{row['chi2']:.2f}"}


def colour_row(index, matches, images):
    """Colours by the fitted profiles beside those in one aperture, which needs no model."""
    row = matches["r"]
    xy = row["x_centroid"].value, row["y_centroid"].value
    radius = min(2.5 * row["r_eff"].to_value("arcsec") / PIXEL + 4, 21)  # four pixels for the PSF
    texts, found = {"galaxy": index}, {band: aperture(images[band], xy, radius) for band in "grz"}
    for blue, red in ("gr", "rz"):
        own = [u_of(matches[band]["flux"]) for band in (blue, red)]
        own_err = [u_of(matches[band]["flux_err"]) for band in (blue, red)]
        texts[f"{blue} - {red}"] = colour(own, own_err)
        texts[f"{blue} - {red} in aperture"] = colour(*zip(found[blue], found[red], strict=True))
    return texts | {"radius (arcsec)": f"{radius * PIXEL:.1f}"}


def colour(flux, error):
    """Difference of two magnitudes, as text."""
    value = -2.5 * np.log10(flux[0] / flux[1])
    bound = 2.5 / np.log(10) * np.hypot(error[0] / flux[0], error[1] / flux[1])
    return f"{value:.3f} ± {bound:.3f}"


def aperture(image, xy, radius):
    """Flux and error in a circle, the sky being the clipped mean of a ring around it."""
    from astropy.stats import SigmaClip
    from photutils.aperture import ApertureStats, CircularAnnulus, CircularAperture, aperture_photometry

    circle, ring = CircularAperture(xy, radius), CircularAnnulus(xy, radius + 3, radius + 15)
    weight = image.uncertainty.array
    error = np.sqrt(1 / np.where(weight > 0, weight, np.inf))
    sky = ApertureStats(image.data, ring, error=error, sigma_clip=SigmaClip(3))
    one = aperture_photometry(image.data - sky.mean, circle, error=error)[0]
    sky_error = sky.std / np.sqrt(sky.sum_aper_area.value) * circle.area
    return one["aperture_sum"], np.hypot(one["aperture_sum_err"], sky_error)


def draw_field(image, table, places):
    """The field with its sources; those of the table are numbered."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    scaled = np.arcsinh(image.data * np.sqrt(image.uncertainty.array) / 2)
    axes.imshow(scaled, origin="lower", cmap="gray", vmin=-1, vmax=4)
    axes.plot(u_of(table["x_centroid"]), u_of(table["y_centroid"]), "+", color="tab:orange")
    for index, (x, y) in enumerate(places, 1):
        axes.annotate(str(index), (x + 5, y + 5), color="tab:cyan", fontsize=12)
    axes.set(xlabel="x (pixel)", ylabel="y (pixel)", xlim=(-0.5, 255.5), ylim=(-0.5, 255.5))
    save(figure, "decals_field.png")


def decam(folder):
    """The elliptical galaxy in the single exposures."""
    from astropy.coordinates import SkyCoord

    place = SkyCoord([9.1232], [3.3976], unit="deg")
    files = list(decam_files(folder / "decam_legacypipe_tc9"))
    images = [(f"DECam {band}", read_image(i, weight=w, mask=m, psf=p)) for band, i, w, m, p in files]
    for _, image in images:  # the fit does not care, but the grey scale does
        image.data[...] = image.data - np.median(image.data)
    draw(images, place, "decam.png", size=96)


def exposures(folder):
    """All sources found in the single exposures."""
    tables = {}
    for band, image, weight, mask, psf in decam_files(folder / "decam_legacypipe_tc9"):
        options = ("--weight", weight, "--mask", mask, "--psf", psf, "--find", "--stamp-size", "96")
        tables[band] = measure(image, *options)
    write("decam", decam_rows(tables))


def decam_rows(tables):
    """Sources seen in all exposures, numbered as in r."""
    rows, number_of_source = [], 0
    for source in tables["r"]:
        matches = {}
        for band, table in tables.items():
            distance = table["sky_centroid"].separation(source["sky_centroid"]).arcsec
            if distance.min() < 1:
                matches[band] = table[np.argmin(distance)], distance.min()
        if len(matches) < len(tables):
            continue
        number_of_source += 1
        for band, (row, distance) in matches.items():
            texts = {"source": number_of_source, "band": band, "S/N": f"{row['snr']:.0f}"}
            texts["distance to r (arcsec)"] = f"{distance:.2f}"
            texts |= {"n": number(row, "n", 2), "r_eff (arcsec)": number(row, "r_eff", 2)}
            texts |= {"q": number(row, "q", 2), "pa (deg)": number(row, "pa", 1)}
            rows.append(texts | {"chi-square": f"{row['chi2']:.2f}"})
    return rows


def pair(folder):
    """The same galaxies at 0.168 and 0.03 arcsec per pixel."""
    folder, rows = folder / "hsc_hst_cosmos_scarlet", []
    for name, (suffix, ra, dec) in PAIR.items():
        for telescope, planes in (("HST", 1), ("HSC", 5)):
            with tempfile.NamedTemporaryFile("w", suffix=".csv") as place:
                place.write("ra,dec\n" + f"{ra},{dec}\n" * planes)
                place.flush()
                files = folder / f"Cut_{telescope}{suffix}.fits", "--psf", folder / f"PSF_{telescope}.fits"
                row = measure(*files, "--error", "background", "--positions", place.name)[planes // 2]
            texts = {"galaxy": name, "telescope": telescope, "n": number(row, "n", 2)}
            texts |= {"hlr (arcsec)": number(row, "hlr", 3), "r_eff (arcsec)": number(row, "r_eff", 3)}
            rows.append(texts | {"q": number(row, "q", 2), "chi-square": f"{row['chi2']:.1f}"})
    write("hsc_hst", rows)


def galfit(folder):
    """Models of GALFIT against their truth."""
    folder, rows = folder / "galfit_models_petrofit", []
    point = ("--psf", "gaussian:fwhm=0.2px")
    psf = ("--psf", folder / "f105w_psf.fits.gz", "--trim-psf", "--psf-without-pixel")
    common = ("--error", "0.01", "--no-fit-sky", "--cutout", "--neighbours", "ignore")
    common += ("--zeropoint", "header")
    for title, name, n, options in (
        ("n = 1; no PSF", "galfit_sersic_n1", 1, (*point, "--stamp-size", "256")),
        ("n = 4; PSF in pixels", "galfit_n4_psf1", 4, psf),
        ("n = 4; PSF 4x oversampled", "galfit_n4_psf4", 4, (*psf, "--psf-oversampling", "4")),
        ("n = 4; no PSF", "galfit_n4_psf0", 4, point),
    ):
        row = measure(folder / f"{name}.fits.gz", *options, *common)[0]
        ratios = {"flux": u_of(row["flux"]) / 421.9, "n": row["n"] / n, "r_eff": row["r_eff"].value / 30}
        texts = {key: f"{value:.3f}" for key, value in (ratios | {"mag": row["mag"].value}).items()}
        rows.append({"image": title} | texts)
    write("galfit", rows)


PARTS = {
    one.__name__: one for one in (decals, field, decam, exposures, pair, galfit)
}  # fmt: skip


def main(folder, *parts):
    """Make every part, or those named."""
    for path in (IMAGES, TABLES):
        path.mkdir(exist_ok=True)
    for name in parts or PARTS:
        PARTS[name](Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
