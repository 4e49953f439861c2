# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The network against the exact posterior, on galaxies drawn by GalSim.

Sections::

    python benchmarks/bench_network.py seed --n 5000          # galaxies of the seed's prior
    python benchmarks/bench_network.py own --bundle B.asdf    # a network of the seed's configuration alone
    python benchmarks/bench_network.py psfs --n 600           # PSFs unlike those of the training
    python benchmarks/bench_network.py calibration --n 30000  # coverage over the domain
    python benchmarks/bench_network.py speed                  # galaxies per second

``seed`` gives both methods the prior the galaxies are drawn from.  ``own`` measures as users do, arrays in
and no option set, so that everything is as the bundle has it.  ``psfs`` draws the same galaxies with
each kind of PSF; ``--psf NAME=FILE.fits[EXT]`` adds measured ones (effective, one sample per pixel).
``calibration`` draws galaxies of the training's prior with GalSim, or many more with ``--engine fast``.
``--bundle`` measures another network than the one that ships.  ``-o TABLE.csv`` keeps the numbers, as the
documentation shows them.
"""

import argparse
import os
import time
from pathlib import Path

import galsim
import numpy as np
from astropy.io import fits
from astropy.table import Table
from csv_tables import write

from galshape_cnn import ShapeEstimator, Stamps
from galshape_cnn.flags import Flag
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.study.simulate.galsim_stamps import draw_galaxy, draw_psf, nearest_index
from galshape_cnn.study.simulate.mock_files import read_mocks
from galshape_cnn.study.simulate.mock_sets import draw_mocks
from galshape_cnn.study.validate.estimates import ValidatedNetwork
from galshape_cnn.study.validate.statistics import coverage, errors_of, ranks, rmse, rmse_ratio

TRUTH = list(SHAPE_PARAMETERS)
MIDDLE = 31.5


def estimates(estimator, stamps, method, **keywords):
    """Five parameters and their stated deviations."""
    catalog = estimator(stamps, method=method, **keywords)
    return np.array(catalog.parameters, float), np.array(catalog.covariance), catalog


def compare(label, truth, network, exact):
    """One row of the table for each parameter."""
    mine, best = errors_of(network, truth), errors_of(exact, truth)
    rows = []
    for k, name in enumerate(TRUTH):
        ratio, ratio_se = rmse_ratio(mine[:, k], best[:, k])
        value, value_se = rmse(mine[:, k])
        rows.append(
            {
                "case": label, "parameter": name, "n": len(truth), "rmse": value, "rmse_se": value_se,
                "exact_rmse": rmse(best[:, k])[0], "ratio": ratio, "ratio_se": ratio_se,
            }
        )  # fmt: skip
    return rows


def covered(truth, mean, covariance):
    """Fractions of truths within one and two stated deviations."""
    pull = (truth - mean) / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return [{f"within_{k}_sigma": np.mean(np.abs(pull[:, i]) < k) for k in (1, 2)} for i in range(5)]


def seed_prior(args):
    """Galaxies of the seed's prior, S/N 10 to 100, photon noise, known sky."""
    config = load_config("seed")
    if args.mocks:
        stamps, table = read_mocks(args.mocks)
        stamps, table = stamps[: args.n], table[: args.n]
    else:
        stamps, table = draw_mocks(config, args.n, seed=args.seed, workers=os.cpu_count())
    truth = np.stack([np.asarray(table[name], float) for name in TRUTH], 1)
    estimator = load(args.bundle)
    keywords = {"fit_sky": False, "prior": config["prior"]}
    network, covariance, _ = estimates(estimator, stamps, "network", **keywords)
    exact, _, catalog = estimates(estimator, stamps, "posterior", **keywords)
    rows = compare("the seed's prior", truth, network, exact)
    rows = [row | more for row, more in zip(rows, covered(truth, network, covariance), strict=True)]
    own, _, _ = estimates(estimator, stamps, "network", fit_sky=False)
    rows += compare("prior of the training", truth, own, exact)
    print(f"effective draws of the posterior: median {np.median(catalog.ess):.0f}")
    return rows


def own_network(args):
    """A network trained for the seed's prior, by default options, beside the exact posterior of its prior."""
    if args.mocks:
        stamps, table = read_mocks(args.mocks)
    else:
        stamps, table = draw_mocks("seed", args.n, seed=args.seed, workers=os.cpu_count())
    stamps, table = stamps[: args.n], table[: args.n]
    truth = np.stack([np.asarray(table[name], float) for name in TRUTH], 1)
    validated, known = ValidatedNetwork(load(args.bundle).bundle), np.zeros(len(stamps), bool)
    network = validated.measure(stamps, known)
    # without ``prior`` the posterior reaches beyond the sizes of the training
    exact, _, catalog = estimates(validated.estimator, stamps, "posterior", prior=validated.bundle.prior)
    lost = int(np.sum(~np.isfinite(network.params[:, :5]).all(1)))
    print(f"rows that are not finite: {lost} of {len(stamps)}")
    # other rows hold no exact posterior
    sampled = np.asarray(catalog.flags) & (Flag.NOT_SAMPLED | Flag.LOW_ESS) == 0
    print(f"posterior sampled: {sampled.sum()} of {len(stamps)}")
    mine, best = network.params[sampled, :5], exact[sampled]
    rows = compare("default options", truth[sampled], mine, best)
    shares = covered(truth[sampled], mine, network.covariance[sampled])
    return [row | more for row, more in zip(rows, shares, strict=True)]


def unseen_psfs(args):
    """PSFs of equal width: profiles without the pixel, or effective arrays."""
    kolmogorov = galsim.Kolmogorov(fwhm=3.0)
    aberrated = galsim.OpticalPSF(
        lam_over_diam=1.0, defocus=0.06, astig1=0.05, astig2=-0.04, coma1=0.06, coma2=-0.05,
        trefoil1=0.04, spher=0.03, obscuration=0.35, nstruts=4, strut_thick=0.05, pad_factor=2,
    )  # fmt: skip
    kinds = {
        "Moffat, in the training": galsim.Moffat(2.5, fwhm=3.2),
        "Kolmogorov x aberrated telescope": galsim.Convolve(kolmogorov, aberrated),
        "elliptical, e = 0.15": galsim.Moffat(2.5, fwhm=3.2).shear(e1=0.106, e2=-0.106),
        "two Moffats and a halo": galsim.Add(
            0.75 * galsim.Moffat(3.0, fwhm=2.8), 0.2 * galsim.Moffat(2.2, fwhm=4.5).shear(g1=0.05),
            0.05 * galsim.Moffat(1.8, fwhm=12),
        ),
    }  # fmt: skip
    for spec in args.psf:
        name, _, source = spec.partition("=")
        kinds[name] = psf_from_file(source)
    return kinds


def psf_from_file(source):
    """Effective PSF of a FITS file as a profile with the pixel inside it."""
    path, _, extension = source.partition("[")
    array = fits.getdata(path, int(extension.rstrip("]") or 0)).astype(float)
    return array[0] if array.ndim == 3 else array


def draw_with(psf, params):
    """Stamps and the PSF array of one PSF."""
    if isinstance(psf, galsim.GSObject):
        return np.stack([draw_galaxy(row, psf) for row in params]), draw_psf(psf), 2
    # an array at one sample per pixel: no pixel is added to the galaxy
    profile = galsim.InterpolatedImage(
        galsim.Image(psf, scale=1.0), x_interpolant="lanczos15", flux=psf.sum()
    )
    images = [draw_effective(row, profile) for row in params]
    return np.stack(images), psf, 1


def draw_effective(params, profile):
    """One stamp with an effective PSF."""
    flux, n, hlr, g1, g2, x, y = params
    galaxy = galsim.Sersic(n, half_light_radius=hlr, flux=flux).shear(g1=g1, g2=g2)
    image = galsim.Convolve(galaxy, profile, gsparams=galsim.GSParams(maximum_fft_size=16384))
    return image.drawImage(nx=64, ny=64, scale=1, method="no_pixel", offset=(x - MIDDLE, y - MIDDLE)).array


def psf_section(args):
    """The same galaxies with each kind of PSF, S/N 10 to 100 loguniform."""
    rng = np.random.default_rng(args.seed)
    n = args.n
    shear = np.minimum(rng.rayleigh(0.25, n), 0.65) * np.exp(2j * np.pi * rng.uniform(size=n))
    index = nearest_index(np.where(rng.uniform(size=n) < 0.5, rng.uniform(0.5, 6, n), rng.uniform(0.7, 2, n)))
    params = np.column_stack(
        [np.ones(n), index, np.exp(rng.uniform(np.log(1.0), np.log(6.0), n)), shear.real, shear.imag,
         *(MIDDLE + rng.uniform(-0.5, 0.5, (2, n)))]
    )  # fmt: skip
    snr, noise = np.exp(rng.uniform(np.log(10), np.log(100), n)), rng.standard_normal((n, 64, 64))
    estimator, rows, reference = load(args.bundle), [], None
    for name, psf in unseen_psfs(args).items():
        unit, array, oversampling = draw_with(psf, params)
        flux = snr / np.sqrt((unit**2).sum((1, 2)))
        stamps = Stamps(
            unit * flux[:, None, None] + noise, np.ones_like(unit), array[None], psf_oversampling=oversampling
        )
        truth = params[:, :5].copy()
        truth[:, 0] = flux
        network, covariance, _ = estimates(estimator, stamps, "network", fit_sky=False)
        exact, _, _ = estimates(estimator, stamps, "posterior", fit_sky=False)
        here = compare(name, truth, network, exact)
        here = [row | more for row, more in zip(here, covered(truth, network, covariance), strict=True)]
        reference = reference or here
        rows += [
            row | {"degradation": row["ratio"] / first["ratio"]}
            for row, first in zip(here, reference, strict=True)
        ]
        print(name, " ".join(f"{row['ratio']:.3f}" for row in here), flush=True)
    return rows


def calibration(args):
    """How often the network's own intervals hold the truth, galaxies of the training's prior."""
    validated, ranked = ValidatedNetwork(load(args.bundle).bundle), []
    for first in range(0, args.n, 5000):  # what fits into memory
        number = min(5000, args.n - first)
        cores = os.cpu_count() if args.engine == "galsim" else 1
        stamps, table = draw_mocks(None, number, engine=args.engine, seed=args.seed + first, workers=cores)
        truth = np.stack([np.asarray(table[name], float) for name in TRUTH], 1)
        ranked.append(ranks(validated.draws(stamps, table["fit_sky"], seed=args.seed + first), truth))
        print(f"{first + number} galaxies", flush=True)
    ranked = np.concatenate(ranked)
    rows = []
    for k, name in enumerate(TRUTH):
        (inner, inner_se), (outer, outer_se) = (coverage(ranked[:, k], level) for level in (0.68, 0.95))
        row = {"parameter": name, "n": len(ranked), "drawn_by": args.engine}
        rows.append(row | {"in_68": inner, "in_68_se": inner_se, "in_95": outer, "in_95_se": outer_se})
    return rows


def speed(args):
    """Stamps to catalogue with bounds, and training mocks, per second."""
    from galshape_cnn.study.simulate.stream import MockStream

    y, x = np.mgrid[-15:16, -15:16]
    psf = (1 + (x**2 + y**2) / 4.0) ** -2.5
    stream = MockStream(load_config(None), 3)
    mock = stream.simulate(0, 1024)
    stamps = Stamps(mock["data"], mock["ivar"], (psf / psf.sum())[None])
    estimator, rows = load(args.bundle), []
    for method, number in (("network", 1024), ("ml", 512), ("posterior", 128)):
        estimator(stamps[:number], method=method)  # compiles
        started = time.perf_counter()
        estimator(stamps[:number], method=method)
        rows.append({"what": method, "per_second": number / (time.perf_counter() - started)})
    started = time.perf_counter()
    for number in range(1, 5):
        stream.batch(number, 256)
    rows.append({"what": "training mocks", "per_second": 1024 / (time.perf_counter() - started)})
    return rows


def load(bundle):
    """The estimator under test."""
    return ShapeEstimator() if bundle is None else ShapeEstimator.load(bundle)


SECTIONS = {
    "seed": seed_prior, "own": own_network, "psfs": psf_section, "calibration": calibration, "speed": speed,
}  # fmt: skip


def documented(section, row):
    """A row as the documentation shows it: its columns and their texts."""
    if section == "calibration":
        out = {"parameter": row["parameter"], "N": row["n"], "drawn by": row["drawn_by"]}
        for level in ("68", "95"):
            out[f"{level} % covers (%)"] = f"{100 * row[f'in_{level}']:.1f}±{100 * row[f'in_{level}_se']:.1f}"
        return out
    if section == "speed":
        return {"what": row["what"], "galaxies/s": f"{row['per_second']:.0f}"}
    out = {"parameter": row["parameter"], "N": row["n"]}
    ratio = f"{row['ratio']:.3f}±{row['ratio_se']:.3f}"
    if section == "psfs":
        more = {"the same over that of the first PSF": f"{row['degradation']:.3f}"}
        return {"PSF": row["case"]} | out | {"RMSE over exact RMSE": ratio} | more
    out = (
        {"options" if section == "own" else "prior": row["case"]}
        | out
        | {"RMSE": f"{row['rmse']:.4f}±{row['rmse_se']:.4f}"}
    )
    out |= {"exact RMSE": f"{row['exact_rmse']:.4f}", "ratio": ratio}
    for k in (1, 2):
        held = row.get(f"within_{k}_sigma")
        out[f"within {k} σ (%)"] = "" if held is None else f"{100 * held:.1f}"
    return out


def main():
    """Run one section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("section", choices=list(SECTIONS))
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--bundle")
    parser.add_argument("--engine", choices=("galsim", "fast"), default="galsim", help="of the calibration")
    parser.add_argument("--mocks", help="a set that 'galshape simulate seed' wrote, instead of drawing one")
    parser.add_argument("--psf", action="append", default=[], metavar="NAME=FILE.fits[EXT]")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    rows = SECTIONS[args.section](args)
    print(f"{len(os.sched_getaffinity(0))} cores, network {load(args.bundle).bundle.sha256[:12]}")
    table = Table(rows=rows)
    for name in table.colnames:
        if table[name].dtype.kind == "f":
            table[name].info.format = ".4g"
    table.pprint_all()
    if args.output:
        shown = [documented(args.section, row) for row in rows]
        cells = [list(row.values()) for row in shown]
        write(args.output.parent, args.output.stem, list(shown[0]), cells)


if __name__ == "__main__":
    main()
