# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Mocks like those of the Euclid Morphology Challenge, and the table of its single-Sérsic galaxies.

Bretonnière et al. 2023 (arXiv:2209.12907) compare tools by the median B of (p - t)/t of the semi-major
radius, of p - t of the axis ratio and of log10(p/t) of n, by the 68 % quantile D of its distance from B, and
by the share O of radii that are wrong by more than half, in five bins of magnitude.  Their mocks are not
public in full.  From the paper: 0.1 arcsec a pixel, zero point 23.9, ln r ~ N(1.0, 0.4) in pixels,
ln[(n - .25)/(30 - n)] ~ N(-3.9, 0.6) within 0.3 to 5.5, depth of 5 sigma near magnitude 25.3.  Guessed here:
that depth is of an aperture of 2 arcsec; r is the semi-major radius; both components of (a - b)/(a + b) are
N(0, 0.3), their modulus below 0.7; the PSF is an Airy disc of 1.2 m at 0.75 micron with a third of it hidden
and a jitter of 0.04 arcsec; bins are one magnitude wide, filled evenly; galaxies lie alone, within half a
pixel of the middle::

    python benchmarks/bench_challenge.py -o docs/performance -n 800

``posterior`` is run with its own prior and with that of the mocks, as far as a product of densities of
flux, n, hlr and g can be it.  The row of the bound has D of normal deviates as wide as the Cramér-Rao bound.
"""

import argparse
import time
from pathlib import Path

import galsim
import numpy as np
from csv_tables import write
from peer_tools import elliptical

MAGNITUDES = (20.7, 21.7, 22.7, 23.8, 24.8)
ZERO_POINT, SCALE, SIDE, PSF_SIDE = 23.9, 0.1, 64, 201
SIGMA = 10 ** (-0.4 * (25.3 - ZERO_POINT)) / 5 / np.sqrt(np.pi * (1 / SCALE) ** 2)  # of a pixel
LARGEST_G, N_LIMITS = 0.7, (0.3, 5.5)
#: B and D of r_e, O, D of n and of q, as published.
PUBLISHED = {
    "SE++": (".013 .012 .008 .000 -.009", ".019 .028 .049 .100 .165", ".023 .040 .051 .060 .057",
             ".018 .028 .051 .104 .163", ".009 .015 .028 .054 .096"),
    "ProFit": (".029 .020 .016 .026 .071", ".032 .035 .052 .101 .181", ".009 .017 .023 .057 .159",
               ".032 .042 .064 .117 .206", ".021 .026 .040 .076 .156"),
    "Galapagos-2": (".017 .015 .014 .020 .047", ".046 .043 .055 .097 .183", ".004 .014 .030 .079 .172",
                    ".032 .036 .047 .090 .253", ".030 .040 .060 .104 .201"),
    "DeepLeGATo": (".035 .037 .030 .025 .043", ".045 .044 .047 .081 .113", ".041 .024 .004 .003 .013",
                   ".073 .081 .087 .122 .164", ".033 .031 .030 .059 .101"),
}  # fmt: skip
QUANTITIES = ("r_e B", "r_e D", "r_e O", "n D", "q D")
HEADER = ["tool", "quantity", *(f"mag {m}" for m in MAGNITUDES)]


def telescope():
    """The PSF without the pixel, in pixels."""
    airy = galsim.Airy(lam=750, diam=1.2, obscuration=0.33, scale_unit=galsim.arcsec)
    return galsim.Convolve(airy, galsim.Gaussian(sigma=0.04)).dilate(1 / SCALE)


def shapes(rng, count):
    """n, r_eff in pixels, g1, g2."""
    indices = np.zeros(0)
    while len(indices) < count:
        odds = np.exp(rng.normal(-3.9, 0.6, 2 * count))
        drawn = (0.25 + 30 * odds) / (1 + odds)
        indices = np.append(indices, drawn[(drawn > N_LIMITS[0]) & (drawn < N_LIMITS[1])])
    g = rng.normal(0, 0.3, (4 * count, 2))
    g = g[np.hypot(*g.T) < LARGEST_G][:count]
    return indices[:count], np.exp(rng.normal(1.0, 0.4, count)), g


def drawn(rng, magnitude, count, psf):
    """Noisy stamps, and flux, n, hlr, g1, g2, x, y of the galaxies."""
    n, r_eff, g = shapes(rng, count)
    flux = 10 ** (-0.4 * (magnitude + rng.uniform(-0.5, 0.5, count) - ZERO_POINT))
    modulus = np.hypot(*g.T)
    hlr = r_eff * np.sqrt((1 - modulus) / (1 + modulus))
    at = rng.uniform(-0.5, 0.5, (count, 2))
    n = np.round(n * 16) / 16  # GalSim tabulates each
    truth = np.column_stack([flux, n, hlr, g, at + (SIDE - 1) / 2])
    data = np.empty((count, SIDE, SIDE), np.float32)
    for image, row, offset in zip(data, truth, at, strict=True):
        galaxy = galsim.Sersic(row[1], half_light_radius=row[2], flux=row[0]).shear(g1=row[3], g2=row[4])
        final = galsim.Convolve(galaxy, psf)
        image[:] = final.drawImage(nx=SIDE, ny=SIDE, scale=1, offset=tuple(offset)).array
    return data + rng.normal(0, SIGMA, data.shape).astype(np.float32), truth


def histogram(values, kind, edges):
    """A prior like a sample, in pieces."""
    counts, _ = np.histogram(values, edges)
    ends = zip(edges[:-1], edges[1:], strict=True)
    parts = [{"kind": kind, "low": float(low), "high": float(high)} for low, high in ends]
    return {"kind": "mixture", "weights": (counts / counts.sum()).tolist(), "parts": parts}


def prior_of_mocks(magnitude):
    """What the mocks of a bin are drawn from, but for the dependence of hlr on ellipticity."""
    n, r_eff, g = shapes(np.random.default_rng(1), 200_000)
    modulus = np.hypot(*g.T)
    hlr = r_eff * np.sqrt((1 - modulus) / (1 + modulus))
    flux = 10 ** (-0.4 * (magnitude + np.array([0.5, -0.5]) - ZERO_POINT))
    return {
        "flux": {"kind": "loguniform", "low": float(flux[0]), "high": float(flux[1])},
        "n": histogram(n, "uniform", np.linspace(*N_LIMITS, 40)),
        "hlr": histogram(hlr, "loguniform", np.geomspace(0.2, 20, 40)),
        "g": {"kind": "rayleigh", "sigma": 0.3, "low": 0.0, "high": LARGEST_G},
    }


def quantities(params):
    """r_eff, q and log10 n."""
    with np.errstate(all="ignore"):
        r_eff, q, _ = elliptical(params.T)
        return r_eff, q, np.log10(params[:, 1])


def statistics(found, truth):
    """B, D, O of r_eff, D of n, D of q, and the standard error of D of r_eff."""
    ours, true = quantities(found), quantities(truth)
    b = [ours[0] / true[0] - 1, ours[2] - true[2], ours[1] - true[1]]
    b = [np.where(np.isfinite(one), one, 9.0) for one in b]  # a failure is an outlier
    middle = [np.median(one) for one in b]
    spread = [np.quantile(np.abs(one - m), 0.68) for one, m in zip(b, middle, strict=True)]
    return [middle[0], spread[0], np.mean(np.abs(b[0]) > 0.5), spread[1], spread[2]]


def by_bound(rng, truth, psf):
    """Answers of an estimator as good as the bound, without bias: of the same galaxies."""
    from galshape_cnn import cramer_rao_bound

    out = truth[:, :5].copy()
    for row, known in zip(out, truth, strict=True):
        bound = cramer_rao_bound(known[:5], psf, SIGMA, center=tuple(known[5:]), shape=(SIDE, SIDE))
        row += rng.multivariate_normal(np.zeros(5), bound.covariance)
    out[:, 1:3] = np.maximum(out[:, 1:3], 1e-3)
    return out


def methods(magnitude):
    """Rows of the table: names and options."""
    return {
        "galshape network": {"method": "network"},
        "galshape ml": {"method": "ml"},
        "galshape posterior, own prior": {"method": "posterior"},
        "galshape posterior, prior of the mocks": {"method": "posterior", "prior": prior_of_mocks(magnitude)},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path())
    parser.add_argument("-n", type=int, default=800, help="galaxies in a bin")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    from galshape_cnn import ShapeEstimator

    psf, estimator = telescope(), ShapeEstimator()
    effective = galsim.Convolve(psf, galsim.Pixel(1.0))
    # one sample a pixel does not sample this PSF
    sampled = effective.drawImage(nx=PSF_SIDE, ny=PSF_SIDE, scale=0.5, method="no_pixel").array
    table = {name: [] for name in methods(MAGNITUDES[0])}
    table["Cramér-Rao bound"] = []
    covered, seconds = {name: [] for name in table}, dict.fromkeys(table, 0.0)
    for k, magnitude in enumerate(MAGNITUDES):
        rng = np.random.default_rng([args.seed, k])
        data, truth = drawn(rng, magnitude, args.n, psf)
        for name, options in methods(magnitude).items():
            begin = time.process_time()
            rows = estimator(
                data, psf=sampled, psf_oversampling=2, error=SIGMA, threads=1, **options
            ).to_table()
            seconds[name] += time.process_time() - begin
            found = np.column_stack([np.asarray(rows[p]) for p in ("flux", "n", "hlr", "g1", "g2")])
            table[name].append(statistics(found, truth))
            error = np.asarray(rows["n_err" if options["method"] == "ml" else "n_std"])
            covered[name].append(np.mean(np.abs(found[:, 1] - truth[:, 1]) < error))
        table["Cramér-Rao bound"].append(statistics(by_bound(rng, truth, psf), truth))
    rows = [[name, what, *(f"{float(cell):.3f}" for cell in cells.split())]
            for name, columns in PUBLISHED.items()
            for what, cells in zip(QUANTITIES, columns, strict=True)]  # fmt: skip
    for name, bins in table.items():
        rows += [[name, what, *(f"{one[i]:.3f}" for one in bins)] for i, what in enumerate(QUANTITIES)]
        if covered[name]:
            rows.append([name, "n covered %", *(f"{100 * one:.0f}" for one in covered[name])])
            print(f"{name}: {len(MAGNITUDES) * args.n / seconds[name]:.0f} galaxies/s of one core")
    write(args.output, "challenge", HEADER, rows)


if __name__ == "__main__":
    main()
