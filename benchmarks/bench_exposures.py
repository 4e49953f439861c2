# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Several images of one galaxy: pulls, coverage and scatter of the three methods, beside each other.

Five exposures in three bands, of different PSF (FWHM 2.2 to 6 pixels), pixel scale (0.2, 0.26 and 0.4
arcsec), depth and orientation, with bad columns, of galaxies whose listed positions are off by up to 0.2
arcsec in each direction: one pixel of the finest exposure.  Shapes are drawn from the prior of the network
that ships (lengths in pixels of the first exposure) and rendered by GalSim; n is rounded to 0.05, for speed.
S/N, of all exposures together, is log-uniform from 15 to 150.  With ``--vary`` n and hlr are power laws of
the wavelength, whose exponents are drawn from the prior of such slopes, and are measured as such.

    python benchmarks/bench_exposures.py --galaxies 500 -o results
    python benchmarks/bench_exposures.py --galaxies 500 --vary -o varied
    python benchmarks/bench_exposures.py --show results
"""

import argparse
import time
import warnings
from pathlib import Path

import astropy.units as u
import galsim
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from galshape_cnn import Exposure, ShapeEstimator
from galshape_cnn.infer.posterior.varying_prior import SLOPES

#: Band, arcsec per pixel, FWHM of the PSF in pixels, orientation in radians, mirrored.
SETUP = (
    ("g", 0.20, 3.0, 0.0, False),
    ("r", 0.26, 3.2, 0.7, False),
    ("r", 0.26, 6.0, 2.1, True),
    ("r", 0.40, 2.2, -1.0, False),
    ("z", 0.26, 4.0, 0.3, False),
)
BANDS = {"g": 480.0, "r": 640.0, "z": 920.0}
FLUXES = tuple(f"flux_{band}" for band in BANDS)
NAMES = (*FLUXES, "n", "hlr", "g1", "g2")
VARYING = (*FLUXES, *(f"{name}_{band}" for name in ("n", "hlr") for band in BANDS), "g1", "g2")
METHODS = ("network", "posterior", "ml")
SIDE, SPACING = 8, 40.0  # galaxies along a field, and arcsec between them
SNR = 15.0, 150.0  # of all exposures together
OFFSET = 0.2  # arcsec
CENTRE = SkyCoord(30.0, -20.0, unit="deg")


def camera(scale, angle, mirrored, side):
    """TAN WCS about the field's centre."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [30, -20], [(side + 1) / 2] * 2
    c, s = np.cos(angle), np.sin(angle)
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) @ np.diag([-1 if mirrored else 1, 1]) * scale / 3600
    return wcs


def galaxies(rng, varied):
    """Sky positions of a field, listed ones, and parameters (N, P) of a flux that is one on average."""
    prior, count = ShapeEstimator().live_network().prior, SIDE**2
    _, n, hlr, g1, g2 = prior.sample(rng, count).T
    grid = np.stack(np.meshgrid(*2 * [np.arange(SIDE) - (SIDE - 1) / 2]), -1).reshape(-1, 2)
    place = SPACING * grid + rng.uniform(-1, 1, (count, 2))
    sky = CENTRE.spherical_offsets_by(*(place.T * u.arcsec))
    listed = sky.spherical_offsets_by(*(rng.uniform(-OFFSET, OFFSET, (2, count)) * u.arcsec))
    colours = np.exp(rng.normal(0, 0.4, (count, 3)))
    hlr = hlr * SETUP[0][1]
    if varied:
        far = np.log(list(BANDS.values()))
        far -= (far.min() + far.max()) / 2
        n, hlr = (
            one[:, None] * np.exp(rng.normal(0, SLOPES[name], (count, 1)) * far)
            for name, one in (("n", n), ("hlr", hlr))
        )
    return sky, listed, np.column_stack([colours, np.round(n / 0.05).clip(6, 124) * 0.05, hlr, g1, g2])


def shape_in(truth, band):
    """n, hlr, g1, g2 of galaxies (N, 4) in a band."""
    if truth.shape[1] == len(NAMES):
        return truth[:, 3:]
    number = list(BANDS).index(band)
    return truth[:, [3 + number, 6 + number, 9, 10]]


def images(truth, setup, sky):
    """WCS, PSF array, pixels along a side and stamps of one exposure, without noise."""
    band, scale, fwhm, angle, mirrored = setup
    side = int((SIDE * SPACING * 1.42 + 20) / scale)
    wcs = camera(scale, angle, mirrored, side)
    jacobian = np.diag([-1, 1]) @ wcs.pixel_scale_matrix * 3600  # u to the west
    local, psf = galsim.JacobianWCS(*jacobian.ravel()), galsim.Moffat(beta=3, fwhm=fwhm * scale)
    x, y = wcs.world_to_pixel(sky)
    size, stamps, shapes = 2 * int(0.45 * SPACING / scale) + 1, [], shape_in(truth, band)
    for row, (cx, cy) in enumerate(zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True)):
        n, hlr, g1, g2 = shapes[row]
        galaxy = galsim.Sersic(n, half_light_radius=hlr, flux=truth[row, list(BANDS).index(band)])
        galaxy = galsim.Convolve(galaxy.shear(g1=g1, g2=g2), psf)
        offset = (float(x[row] - cx), float(y[row] - cy))
        stamps.append((cy, cx, galaxy.drawImage(nx=size, ny=size, wcs=local, offset=offset).array))
    effective = galsim.Convolve(psf, local.toWorld(galsim.Pixel(1)))
    wide = 2 * int(8 * fwhm) + 1  # a shorter one lacks light of the wings
    array = effective.drawImage(nx=wide, ny=wide, wcs=local, method="no_pixel").array
    return wcs, array, side, stamps


def field(seed, varied=False):
    """Exposures of a field, listed positions, the true parameters (N, P) and S/N (N,)."""
    rng = np.random.default_rng(seed)
    sky, listed, truth = galaxies(rng, varied)
    parts = [images(truth, setup, sky) for setup in SETUP]
    sigma = rng.uniform(0.6, 1.6, len(SETUP))
    power = sum(
        np.array([(stamp**2).sum() for *_, stamp in part[3]]) / one**2
        for part, one in zip(parts, sigma, strict=True)
    )
    snr = np.exp(rng.uniform(*np.log(SNR), len(truth)))
    amplitude = snr / np.sqrt(power)
    exposures = []
    for (band, *_), (wcs, psf, side, stamps), one in zip(SETUP, parts, sigma, strict=True):
        image = rng.normal(0.3 * one, one, (side, side))
        for factor, (cy, cx, stamp) in zip(amplitude, stamps, strict=True):
            half = stamp.shape[0] // 2
            image[cy - half : cy + half + 1, cx - half : cx + half + 1] += factor * stamp
        mask = np.zeros(image.shape, bool)
        mask[:, rng.integers(97) :: 97] = True
        image[mask] = 1e4
        exposures.append(Exposure(image, psf=psf, error=one, mask=mask, wcs=wcs, band=band,
                                  wavelength=BANDS[band]))  # fmt: skip
    truth[:, :3] *= amplitude[:, None]
    return exposures, listed, truth, snr


def measured(exposures, listed, method, estimator, vary):
    """Estimates, covariance, flags and CPU seconds of a field."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        catalog = estimator(exposures, positions=listed, method=method, vary=vary, threads=1)
    covariance = catalog.error_covariance if method == "ml" else catalog.covariance
    spent = time.process_time() - start
    return catalog.parameters, covariance, catalog.flags, np.full(len(catalog), spent / len(catalog))


def run(out, count, seed, methods, vary):
    """Measure fields until there are enough galaxies; one file for each."""
    out.mkdir(parents=True, exist_ok=True)
    estimator = ShapeEstimator()
    for number in range(seed, seed + -(-count // SIDE**2)):
        path = out / f"field_{number}.npz"
        known = dict(np.load(path)) if path.exists() else {}
        missing = [method for method in methods if f"{method}_parameters" not in known]
        if not missing:
            continue
        exposures, listed, known["truth"], known["snr"] = field(number, bool(vary))
        for method in missing:
            found = measured(exposures, listed, method, estimator, vary)
            for name, value in zip(("parameters", "covariance", "flags", "cpu"), found, strict=True):
                known[f"{method}_{name}"] = value
        np.savez(path, **known)


def table(out, largest=1):
    """Lines with pulls, coverage and scatter, of rows whose quality is that or better in all methods."""
    from galshape_cnn.flags import quality_of

    fields = [dict(np.load(path)) for path in sorted(out.glob("field_*.npz"))]
    if not fields:
        raise SystemExit(f"there are no results in {out}")
    methods = [m for m in METHODS if all(f"{m}_parameters" in one for one in fields)]
    data = {key: np.concatenate([one[key] for one in fields]) for key in fields[0]}
    keep = np.all([quality_of(data[f"{m}_flags"]) <= largest for m in methods], axis=0)
    keep &= np.all([np.isfinite(data[f"{m}_parameters"]).all(1) for m in methods], axis=0)
    for least, most in (SNR, (SNR[0], 50.0), (50.0, SNR[1])):
        yield f"S/N {least:.0f} to {most:.0f}"
        yield from _block(data, keep & (data["snr"] >= least) & (data["snr"] <= most), methods)


def _block(data, keep, methods):
    """Lines of some galaxies."""
    truth, count = data["truth"][keep], int(keep.sum())
    std = 1 / np.sqrt(2 * count)
    most, all_but = (100 * np.sqrt(p * (1 - p) / count) for p in (0.68, 0.95))
    yield f"{count} of {len(keep)} galaxies; s.e. of std {std:.3f}, of 68 % {most:.1f}, of 95 % {all_but:.1f}"
    names = NAMES if truth.shape[1] == len(NAMES) else VARYING
    yield f"{'':24}" + "".join(f"{name:>9}" for name in names)
    for method in methods:
        error = data[f"{method}_parameters"][keep] - truth
        sigma = np.sqrt(np.diagonal(data[f"{method}_covariance"][keep], axis1=1, axis2=2))
        pull = error / sigma
        lines = {
            "mean of pulls": pull.mean(0), "std of pulls": pull.std(0),
            "68 %": 100 * (np.abs(pull) < 1).mean(0), "95 %": 100 * (np.abs(pull) < 1.96).mean(0),
        }  # fmt: skip
        exact = data.get("posterior_parameters")
        if exact is not None and method == "network":
            width = np.sqrt(np.diagonal(data["posterior_covariance"][keep], axis1=1, axis2=2))
            scaled = error / width, (exact[keep] - truth) / width
            lines["RMSE over exact, %"], lines["its s.e., %"] = _ratio(*scaled)
        for name, values in lines.items():
            yield f"{method:10}{name:>14}" + "".join(f"{value:9.2f}" for value in values)
        yield f"{method:10}{'CPU ms':>14}{1e3 * np.median(data[f'{method}_cpu'][keep]):9.1f}"


def _ratio(one, other):
    """Excess of the first RMSE over the second, and its standard error, in per cent."""
    square, exact = one**2, other**2
    ratio = square.mean(0) / exact.mean(0)
    error = (square - ratio * exact).std(0) / np.sqrt(len(one)) / exact.mean(0)
    return 100 * (np.sqrt(ratio) - 1), 50 * error / np.sqrt(ratio)


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("bench_exposures"))
    parser.add_argument("--galaxies", type=int, default=SIDE**2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--vary", action="store_true", help="let n and hlr be power laws of the wavelength")
    parser.add_argument("--show", type=Path, help="only print the table of an earlier run")
    args = parser.parse_args()
    if args.show is None:
        vary = {"n": 1, "hlr": 1} if args.vary else None
        run(args.output, args.galaxies, args.seed, args.methods, vary)
    print("\n".join(table(args.show or args.output)))


if __name__ == "__main__":
    main()
