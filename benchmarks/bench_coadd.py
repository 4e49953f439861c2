# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Five exposures of one band measured together, against their coadd and against the best of them.

Galaxies are drawn from the prior of the network that ships and rendered by GalSim into five exposures with
pixels of 0.26 arcsec, PSFs (Moffat, beta = 3) of 3.0 to 5.2 pixels, noise that differs by up to a factor of
2.7, and orientations of their own.  The coadd is what a survey makes of them: each exposure and its PSF are
resampled with GalSim's Lanczos interpolation (a = 3) to the grid of the first, and averaged with
inverse-variance weights.  Its noise, and the correlation of that, are measured by the package, as those of
any image are.  S/N of one exposure (root mean square of the five) is log-uniform from 5 to 50.

    python benchmarks/bench_coadd.py -o results --galaxies 512 --tables docs/user_guide/tables
    python benchmarks/bench_coadd.py --show results
"""

import argparse
import warnings
from pathlib import Path

import galsim
import numpy as np
from bench_exposures import SIDE, SPACING, camera, galaxies
from csv_tables import write

from galshape_cnn import Exposure, ShapeEstimator
from galshape_cnn.flags import quality_of

SCALE = 0.26  # arcsec per pixel
#: FWHM of the PSF in pixels, and orientation in radians.
SETUP = ((3.0, 0.0), (3.4, 0.7), (4.0, -0.5), (4.6, 1.9), (5.2, 2.6))
SNR = 5.0, 15.0, 50.0  # of one exposure
WAYS = ("jointly", "coadd", "best one")
METHODS = ("network", "ml")
SIZE = int((SIDE * SPACING * 1.42 + 20) / SCALE) // 2 * 2 + 1


def local_wcs(wcs):
    """The WCS about the field's centre as GalSim has it, u to the west."""
    return galsim.JacobianWCS(*(np.diag([-1, 1]) @ wcs.pixel_scale_matrix * 3600).ravel())


def draw(truth, sky, fwhm, wcs):
    """Image without noise, and PSF with its pixel, drawn with the exposure's pixels."""
    local, psf = local_wcs(wcs), galsim.Moffat(beta=3, fwhm=fwhm * SCALE)
    image, half = np.zeros((SIZE, SIZE)), int(0.45 * SPACING / SCALE)
    x, y = wcs.world_to_pixel(sky)
    for row, (cx, cy) in enumerate(zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True)):
        flux, n, hlr, g1, g2 = truth[row]
        galaxy = galsim.Sersic(n, half_light_radius=hlr, flux=flux).shear(g1=g1, g2=g2)
        stamp = galsim.Convolve(galaxy, psf).drawImage(
            nx=2 * half + 1, ny=2 * half + 1, wcs=local, offset=(float(x[row] - cx), float(y[row] - cy))
        )
        image[cy - half : cy + half + 1, cx - half : cx + half + 1] += stamp.array
    wide = 2 * int(6 * fwhm) + 1
    effective = galsim.Convolve(psf, local.toWorld(galsim.Pixel(1)))
    return image, effective.drawImage(nx=wide, ny=wide, wcs=local, method="no_pixel").array


def resampled(array, wcs, grid, size):
    """An image on the grid of another, about the centre of both."""
    image = galsim.InterpolatedImage(
        galsim.Image(array),
        wcs=local_wcs(wcs),
        x_interpolant="lanczos3",
        calculate_stepk=False,
        calculate_maxk=False,
    )
    return image.drawImage(nx=size, ny=size, wcs=local_wcs(grid), method="no_pixel").array


def coadd(exposures):
    """Their average, weighted by inverse variance, as an exposure."""
    weights = np.array([one.error**-2.0 for one in exposures])
    share, grid = weights / weights.sum(), exposures[0].wcs
    wide = max(len(one.psf) for one in exposures)
    sums = [0.0, 0.0]
    for one, part in zip(exposures, share, strict=True):
        for k, (array, size) in enumerate(((one.data, SIZE), (one.psf, wide))):
            sums[k] = sums[k] + part * resampled(array, one.wcs, grid, size)
    return Exposure(sums[0], psf=sums[1], error=float(weights.sum() ** -0.5), wcs=grid, band="r")


def field(seed):
    """Exposures of a field, listed positions, true flux, n, hlr, g1, g2 (N, 5) and S/N (N,)."""
    rng = np.random.default_rng([seed, 20])
    sky, listed, truth = galaxies(rng)
    truth = np.column_stack([np.ones(len(truth)), truth[:, 3:]])
    sigma = np.exp(rng.uniform(-0.5, 0.5, len(SETUP)))
    cameras = [camera(SCALE, angle, False, SIZE) for _, angle in SETUP]
    # brightness first: S/N of one exposure from images of unit flux
    unit = [draw_power(truth, fwhm) for fwhm, _ in SETUP]
    power = np.mean([one / s**2 for one, s in zip(unit, sigma, strict=True)], axis=0)
    snr = np.exp(rng.uniform(*np.log([SNR[0], SNR[-1]]), len(truth)))
    truth[:, 0] = snr / np.sqrt(power)
    exposures = []
    for (fwhm, _), wcs, one in zip(SETUP, cameras, sigma, strict=True):
        image, psf = draw(truth, sky, fwhm, wcs)
        image += rng.normal(0.3 * one, one, image.shape)
        exposures.append(Exposure(image, psf=psf, error=float(one), wcs=wcs, band="r"))
    return exposures, listed, truth, snr


def draw_power(truth, fwhm):
    """Sum of the squares of the pixels of each galaxy, of unit flux, in an exposure."""
    psf, out = galsim.Moffat(beta=3, fwhm=fwhm * SCALE), []
    for _, n, hlr, g1, g2 in truth:
        galaxy = galsim.Sersic(n, half_light_radius=hlr).shear(g1=g1, g2=g2)
        out.append((galsim.Convolve(galaxy, psf).drawImage(nx=101, ny=101, scale=SCALE).array ** 2).sum())
    return np.array(out)


def measured(exposures, listed, method, estimator):
    """Parameters, errors and flags of each way; the best exposure is that of the smallest bound of g."""

    def one(images):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = estimator(images, positions=listed, method=method, threads=1)
        covariance = found.error_covariance if method == "ml" else found.covariance
        bound = found.crb_covariance[:, 3, 3] + found.crb_covariance[:, 4, 4]
        errors = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        return found.parameters, errors, found.flags, np.nan_to_num(bound, nan=np.inf)

    singles = [one([image]) for image in exposures]
    best = np.argmin([single[3] for single in singles], axis=0)
    chosen = [np.stack(arrays)[best, np.arange(len(best))] for arrays in zip(*singles, strict=True)]
    return dict(zip(WAYS, (one(exposures), one([coadd(exposures)]), chosen), strict=True))


def run(out, count, seed):
    """Measure fields until there are enough galaxies; one file for each."""
    out.mkdir(parents=True, exist_ok=True)
    estimator = ShapeEstimator()
    for number in range(seed, seed + -(-count // SIDE**2)):
        path = out / f"coadd_{number}.npz"
        if path.exists():
            continue
        exposures, listed, truth, snr = field(number)
        known = {"truth": truth, "snr": snr}
        for method in METHODS:
            for way, found in measured(exposures, listed, method, estimator).items():
                for name, value in zip(("params", "errors", "flags"), found, strict=False):
                    known[f"{method}_{way}_{name}"] = value
        np.savez(path, **known)


def table(out):
    """Rows of the table: what each way leaves, in ranges of S/N."""
    fields = [dict(np.load(path)) for path in sorted(out.glob("coadd_*.npz"))]
    if not fields:
        raise SystemExit(f"there are no results in {out}")
    data = {key: np.concatenate([one[key] for one in fields]) for key in fields[0]}
    for method in METHODS:
        sound = np.all([quality_of(data[f"{method}_{way}_flags"]) <= 1 for way in WAYS], axis=0)
        sound &= np.all([np.isfinite(data[f"{method}_{way}_params"]).all(1) for way in WAYS], axis=0)
        for low, high in zip(SNR, SNR[1:], strict=False):
            rows = np.flatnonzero(sound & (data["snr"] >= low) & (data["snr"] < high))
            for way in WAYS:
                yield [
                    f'``"{method}"``',
                    f"{low:.0f} to {high:.0f}",
                    way,
                    len(rows),
                    *_line(data, method, way, rows),
                ]


def _line(data, method, way, rows):
    """Scatter and offset of ln flux and ln hlr, scatter and response of the shear, std of the pulls."""
    truth = data["truth"][rows]
    params, errors = (data[f"{method}_{way}_{name}"][rows] for name in ("params", "errors"))
    rng = np.random.default_rng(0)
    again = rng.integers(len(rows), size=(400, len(rows)))
    for column in (0, 2):
        off = np.log(np.maximum(params[:, column], 1e-9) / truth[:, column])
        yield _with_error(_half_width(off), [_half_width(off[some]) for some in again])
        yield _with_error(np.median(off), [np.median(off[some]) for some in again])
    off, g = params[:, 3:5] - truth[:, 3:5], truth[:, 3:5]
    yield _with_error(_half_width(off), [_half_width(off[some]) for some in again])
    slope = [(off[some] * g[some]).sum() / (g[some] ** 2).sum() for some in again]
    yield _with_error((off * g).sum() / (g**2).sum(), slope)
    pull = off / errors[:, 3:5]
    yield _with_error(pull.std(), [pull[some].std() for some in again])


def _half_width(values):
    """Half of the range that holds 68 %."""
    return 0.5 * np.subtract(*np.percentile(values, [84.13, 15.87]))


def _with_error(value, others):
    return f"{value:.3f} ± {np.std(others):.3f}"


HEADER = (
    "Method", "S/N of one", "Measured", "Galaxies", "Scatter of ln flux", "Median of ln flux",
    "Scatter of ln hlr", "Median of ln hlr", "Scatter of g", "Multiplicative bias of g", "std of pulls of g",
)  # fmt: skip


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("bench_coadd"))
    parser.add_argument("--galaxies", type=int, default=SIDE**2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tables", type=Path, help="folder for the table; that of the results without it")
    parser.add_argument("--show", type=Path, help="only print the table of an earlier run")
    args = parser.parse_args()
    if args.show is None:
        run(args.output, args.galaxies, args.seed)
    folder = args.show or args.output
    write(args.tables or folder, "coadd", HEADER, table(folder))


if __name__ == "__main__":
    main()
