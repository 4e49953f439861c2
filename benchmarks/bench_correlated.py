# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Errors of galaxies in correlated noise: pulls without and with the autocorrelation.

One galaxy (n = 1.5, hlr = 3 px, g = (0.2, 0.1)) in a Gaussian PSF of sigma 1.3 px, drawn by GalSim off
centre by up to half a pixel, with noise of GalSim: ``cosmos`` is `galsim.getCOSMOSNoise`, measured in
drizzled images of HST; ``smooth`` is white noise smoothed with 0.7 px; ``white`` is independent.
``--snr`` is the S/N of what is larger than the correlation: that of the table is larger by the square root of
the sum of the autocorrelation.  Printed are standard deviation, quartile range / 1.349 and mean of
(estimate - truth) / error for flux, n, hlr, g1, g2, the error being that of the method: ``_err`` of ``"ml"``,
otherwise ``_std``.

    python benchmarks/bench_correlated.py -n 1000 cosmos smooth white
"""

import argparse
import os

import galsim
import numpy as np

from galshape_cnn import ShapeEstimator
from galshape_cnn.observe.noise.correlation import correlation_array

SIZE, SCALE = 64, 0.03
TRUTH = np.array([1.5, 3.0, 0.2, 0.1])
NAMES = ("flux", "n", "hlr", "g1", "g2")
SUFFIX = {"ml": "err", "network": "std", "posterior": "std"}


def noise_of(kind, rng):
    """GalSim's noise of unit variance on pixels of ``SCALE``."""
    white = galsim.UncorrelatedNoise(variance=1.0, rng=rng, scale=SCALE)
    if kind == "cosmos":
        return galsim.getCOSMOSNoise(rng=rng, variance=1.0)
    if kind == "smooth":
        return white.convolvedWith(galsim.Gaussian(sigma=0.7 * SCALE)).withVariance(1.0)
    return white


def draw(kind, n, snr, seed):
    """Stamps (n, SIZE, SIZE), the PSF, the flux, and the autocorrelation of the noise."""
    psf = galsim.Gaussian(sigma=1.3 * SCALE)
    rng, noise = np.random.default_rng(seed), noise_of(kind, galsim.BaseDeviate(seed))
    correlation = correlation_array(noise, SCALE * np.eye(2))
    galaxy = galsim.Convolve(
        galsim.Sersic(n=TRUTH[0], half_light_radius=TRUTH[1] * SCALE).shear(g1=TRUTH[2], g2=TRUTH[3]), psf
    )
    alone = galaxy.drawImage(nx=SIZE, ny=SIZE, scale=SCALE).array
    flux = snr * np.sqrt(correlation.sum()) / np.sqrt((alone.astype(float) ** 2).sum())
    stamps = np.zeros((n, SIZE, SIZE))
    for stamp in stamps:
        offset = rng.uniform(-0.5, 0.5, 2)
        image = (galaxy * flux).drawImage(galsim.ImageD(SIZE, SIZE, scale=SCALE), offset=offset)
        image.addNoise(noise)
        stamp[:] = image.array
    return stamps, psf.dilate(1 / SCALE), flux, correlation


def pulls(catalog, flux):
    """(estimate - truth) / error of the rows that are usable, (M, 5)."""
    columns = [getattr(catalog, f"{name}_{SUFFIX[catalog.method]}") for name in NAMES]
    sigma = np.column_stack([getattr(column, "value", column) for column in columns])
    out = (catalog.parameters - np.array([flux, *TRUTH])) / sigma
    return out[np.isfinite(out).all(1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="+", choices=("cosmos", "smooth", "white"))
    parser.add_argument("-n", type=int, default=500, help="galaxies of each kind of noise")
    parser.add_argument("--snr", type=float, default=100)
    parser.add_argument("--methods", nargs="+", default=["ml", "network"], choices=tuple(SUFFIX))
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    estimator = ShapeEstimator()
    print(f"{os.cpu_count()} cores, {args.n} galaxies, S/N {args.snr}; s.e. {1 / np.sqrt(2 * args.n):.3f}")
    for kind in args.kinds:
        data, psf, flux, correlation = draw(kind, args.n, args.snr, args.seed)
        print(f"{kind}: autocorrelation {correlation.shape}, sum {correlation.sum():.2f}")
        for method in args.methods:
            for name, value in (("without", None), ("given", correlation), ("estimated", "estimate")):
                catalog = estimator(data, psf=psf, error=1.0, method=method, noise_correlation=value)
                pull = pulls(catalog, flux)
                spread, robust = pull.std(0, ddof=1), 0.7413 * np.subtract(*np.percentile(pull, [75, 25], 0))
                texts = [" ".join(f"{v:5.2f}" for v in values) for values in (spread, robust, pull.mean(0))]
                text = f"std {texts[0]} quartiles {texts[1]} mean {texts[2]}"
                print(f"  {method:9s} {name:9s} {text}", flush=True)


if __name__ == "__main__":
    main()
