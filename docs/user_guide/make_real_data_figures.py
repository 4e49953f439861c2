# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Draw the pictures of the page on survey images from the files themselves.

Run as ``python make_real_data_figures.py DATA_DIR`` in this folder; the folder of the
data is not part of the repository, so the pictures are.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from galshape_cnn import ShapeEstimator
from galshape_cnn.observe.io import read_image

IMAGES = Path(__file__).parent / "images"
DECAM = (
    ("g", "c4d_141029_043225", "N26"),
    ("r", "c4d_141029_043420", "N26"),
    ("z", "c4d_131122_030338", "S21"),
)


def decals(folder):
    """The three bands of the DECaLS cutout."""
    cutout, psf = (folder / f"{name}_59.1067_-30.4848.fits" for name in ("cutout", "copsf"))
    for index, band in enumerate("grz"):
        image = read_image(cutout, sci=2 * index + 1, ivar=2 * index + 2, psf=f"{psf}[{index}]")
        yield f"DECaLS {band}", image


def decam(folder):
    """The three single exposures."""
    for band, stem, ccd in DECAM:
        names = (f"{stem}_{kind}_{band}_ls9.{ccd}.fits" for kind in ("ooi", "oow", "ood"))
        image, weight, mask = (folder / name for name in names)
        psf = folder / f"{stem}_ooi_{band}_ls9-{ccd}-psfex.fits"
        yield f"DECam {band}", read_image(image, weight=weight, mask=mask, psf=psf)


def draw(estimator, images, position, name, size=None):
    """Data, model and residual of one galaxy in each image."""
    figure = Figure(figsize=(8.5, 8.2), layout="constrained")
    rows = figure.subplots(3, 3)
    for axes, (title, image) in zip(rows, images, strict=True):
        options = {} if size is None else {"stamp_size": size}
        catalog = estimator(image, positions=position, method="ml", **options)
        catalog.plot(0, axes=axes)
        axes[0].set_title(f"{title}: data")
        print(*catalog.to_table()["n", "r_eff", "q", "pa", "chi2", "flags"].pformat(max_width=-1), sep="\n")
    figure.savefig(IMAGES / name, dpi=75)
    Image.open(IMAGES / name).quantize(128).save(IMAGES / name, optimize=True)  # a third of the size


def main(folder):
    """Draw every picture."""
    from astropy.coordinates import SkyCoord

    IMAGES.mkdir(exist_ok=True)
    estimator = ShapeEstimator()
    place = SkyCoord([59.1067], [-30.4848], unit="deg")
    draw(estimator, decals(folder / "legacysurvey_dr9_cutout"), place, "decals.png")
    place = SkyCoord([9.1232], [3.3976], unit="deg")
    draw(estimator, decam(folder / "decam_legacypipe_tc9"), place, "decam.png", size=96)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
