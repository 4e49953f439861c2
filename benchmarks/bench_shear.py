# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Multiplicative and additive bias of the mean shear, m and c, from pairs of opposite shear.

Galaxies of random n, size, shape and S/N (10 to 200, half-light radius .5 to 3 FWHM of the PSF) are drawn
with shears of +0.02 and -0.02 in both components.  What scatters is made to cancel:

- both signs of the shear have the same noise, and the same noise is added to their copies;
- the partner of each galaxy is turned by 90 degrees, and so is its noise, with the other sign: shapes cancel,
  and of m what is odd in the noise;
- each group is measured six times, with the noise n of the image and the noise v that is added turned into
  each other: n cos t + v sin t and v cos t - n sin t, at t of 0, 120 and 240 degrees, the second with either
  sign.  These are as likely as n and v, whatever the measurement does with them.  What is of first, second or
  fourth order in the noise cancels in m, since it goes round once, twice or four times with t, or not at all.

So a galaxy is drawn 24 times, and every single image has noise as any other.  Estimated is
m = (g+ - g-) / 2 gamma - 1 and c = (g+ + g-) / 2 of `galshape_cnn.mean_shear`, with errors by leaving out one
chunk of galaxies at a time.  The column ``plain m`` is m of the average of g1 and g2 without response.

    python benchmarks/bench_shear.py run sersic -n 4096 -o /tmp/shear
    python benchmarks/bench_shear.py table /tmp/shear -o docs/shear
    python benchmarks/bench_shear.py precision -n 2048 -o docs/shear
    python benchmarks/bench_shear.py rate

``run`` goes on where it was interrupted; with other ``--seed`` chunks of all runs are joined.
``precision`` compares the scatter of calibrated shapes, (variance of g) / R², with that of the same network's
two views of the image without the added noise, and with that of four exposures that are as deep together.  R
is the difference between the signs of the shear.  Effective galaxies have no noise.
"""

import argparse
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from csv_tables import write
from shear_galaxies import (
    BINS,
    CASES,
    CHUNK,
    FWHM,
    GAMMA,
    OVER,
    PIXEL,
    SIZE,
    chunk_images,
    draw_truth,
    psf_array,
    sersics,
)
from shear_peers import PEERS

from galshape_cnn import ShapeCatalog, ShapeEstimator, Stamps
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.shear.joint import weighted_columns
from galshape_cnn.infer.shear.likelihood_response import likelihood_response
from galshape_cnn.infer.shear.mean_shear import ShearedViews, shear_of_sums, shear_sums
from galshape_cnn.infer.shear.response import shear_response
from galshape_cnn.observe.observation import prepare

EXPOSURES = 4
FEWEST = 3  # chunks, from which a standard error can be had


def hlr_in_pixels(table):
    """Half-light radii of a table in pixels, also where they are in arcsec."""
    hlr = table["hlr"]
    return hlr.to_value("arcsec") / PIXEL if getattr(hlr, "unit", None) == "arcsec" else np.asarray(hlr)


#: Arguments of `mean_shear`.
SELECTIONS = {
    "all": {},
    "snr > 12": {"select": lambda t: t["snr"] > 12},
    "snr > 12, hlr > 2": {"select": lambda t: (t["snr"] > 12) & (hlr_in_pixels(t) > 2)},
    "weight snr²/(snr² + 144)": {"weights": lambda t: t["snr"] ** 2 / (t["snr"] ** 2 + 144)},
    "weight exp(−|g|²/0.18)": {"weights": lambda t: np.exp(-(t["g1"] ** 2 + t["g2"] ** 2) / 0.18)},
}
METHODS = ("network", "ml", *PEERS)


def measured(network, stamps, added, correlation):
    """Catalogue that holds the response and nothing else; "ml" in place of the network is another method."""
    batch, count = RenderedBatch.from_stamps(stamps), len(stamps)
    noise = {"correlation": correlation, "noise": added}
    if network == "ml":
        start = np.tile([100, 1.5, FWHM, 0, 0, (SIZE - 1) / 2, (SIZE - 1) / 2, 0], (count, 1))
        pixels = batch.stamps.data, batch.stamps.ivar, batch.transfer, batch.grid
        sheared = likelihood_response(batch, maximize_likelihood(*pixels, start).params, **noise)
    else:
        sheared = shear_response(batch, network, np.zeros(count), **noise)
    blank = Measurement.empty(count)
    measurement = replace(blank, flags=np.zeros(count, int), sheared=sheared).in_units_of(1 / batch.unit)
    return ShapeCatalog.from_measurements(prepare(stamps), [measurement], method="network", meta={})


def chunk_sums(network, case, rng):
    """Sums for the mean shear of one chunk: by selection, sign of the shear and bin; last all."""
    galaxies = chunk_images(case, rng)
    if network in PEERS:
        return by_bin(galaxies.truth, PEERS[network](galaxies))[None]
    truth, stamps, added, correlation, _ = galaxies
    catalog = measured(network, stamps, added, correlation)
    if CASES[case].get("wrong"):  # responses to a shear seen through another PSF
        other = Stamps(stamps.data, stamps.ivar, psf_array(FWHM * 1.1), psf_oversampling=OVER)
        catalog = with_response_of(catalog, measured(network, other, added, correlation))
    return np.stack([of_selection(catalog, how, truth) for how in SELECTIONS.values()])


def with_response_of(catalog, other):
    """A catalogue with the derivatives of another."""
    sheared = catalog.measurement.sheared.copy()
    sheared[:, :, 1:3] = other.measurement.sheared[:, :, 1:3]
    return replace(catalog, measurement=replace(catalog.measurement, sheared=sheared))


def of_selection(catalog, how, truth):
    """Sums of both signs, (2, bins + 1, 19)."""
    views = ShearedViews(catalog, **how)
    return by_bin(truth, shear_sums(views, np.arange(len(catalog)))[0])


def by_bin(truth, terms):
    """Sums of both signs, (2, bins + 1, 19), of the terms of each stamp, (N, 19)."""
    out = []
    for half in np.split(terms, 2):
        sums = []
        for name, edges in BINS.items():
            label = np.clip(np.searchsorted(edges, truth[name], side="right") - 1, 0, len(edges) - 2)
            label = np.tile(label, len(half) // len(label))
            sums += [half[label == one].sum(0) for one in range(len(edges) - 1)]
        out.append([*sums, half.sum(0)])
    return np.array(out)


def biases(sums):
    """m, c1, c2, m without the response of the selection, plain m, of sums (2, 19)."""
    shear, response, _ = shear_of_sums(sums)
    plain = sums[:, 1:3] / sums[:, :1]
    without = np.linalg.solve(response, plain[..., None])[..., 0]
    m, of_shapes, of_none = (((g[0] - g[1]) / (2 * GAMMA)).mean() - 1 for g in (shear, without, plain))
    return np.array([m, *shear.mean(0), of_shapes, of_none])


def with_errors(chunks):
    """Biases and standard errors, of chunks (chunks, 2, 19)."""
    total, count = chunks.sum(0), len(chunks)
    left = np.array([biases(total - one) for one in chunks])
    return biases(total), np.sqrt((count - 1) / count * ((left - left.mean(0)) ** 2).sum(0))


def run(args):
    """Measure chunks of galaxies, of one case after the other, and keep their sums."""
    network = ShapeEstimator().live_network() if args.method == "network" else args.method
    args.output.mkdir(parents=True, exist_ok=True)
    files = {case: args.output / f"{args.method}--{case}--{args.seed}.npy" for case in args.cases}
    chunks = {case: list(np.load(file)) if file.exists() else [] for case, file in files.items()}
    for number in range(-(-args.n // CHUNK)):
        for case in args.cases:
            if number < len(chunks[case]):
                continue
            rng = np.random.default_rng([args.seed, list(CASES).index(case), number])
            chunks[case].append(chunk_sums(network, case, rng))
            beside = args.output / f".{files[case].name}"
            np.save(beside, np.stack(chunks[case]))
            beside.replace(files[case])
            print(case, (number + 1) * CHUNK, flush=True)


def table(args):
    """Print and write what was measured: every case and selection, and the bins of the first case."""
    labels = [
        f"{name} {low:g}-{high:g}"
        for name, edges in BINS.items()
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]
    by_case, by_bin = [], []
    for method, case in product(METHODS, CASES):
        runs = [np.load(file) for file in sorted(args.folder.glob(f"{method}--{case}--*.npy"))]
        for number, selection in enumerate(SELECTIONS):
            known = [one[:, number] for one in runs if one.shape[1] > number]
            if sum(map(len, known)) < FEWEST:
                continue
            chunks = np.concatenate(known)
            galaxies = len(chunks) * CHUNK
            by_case.append([method, case, selection, galaxies, *cells(chunks[:, :, -1])])
            if case == "sersic" and not SELECTIONS[selection]:
                bins = (cells(chunks[:, :, index]) for index in range(len(labels)))
                by_bin += [
                    [method, label, galaxies, *one[:3], one[-1]]
                    for label, one in zip(labels, bins, strict=True)
                ]
    args.output.mkdir(parents=True, exist_ok=True)
    found = ["galaxies", "m", "c1", "c2"]
    write(
        args.output,
        "bias",
        ["method", "case", "selection", *found, "m without R_selection", "plain m"],
        by_case,
    )
    write(args.output, "bins", ["method", "bin", *found, "plain m"], by_bin)


def cells(chunks):
    """Biases with their errors, of chunks (chunks, 2, 19), as text."""
    digits = (4, 5, 5, 4, 4)
    return [f"{v:.{d}f}±{e:.{d}f}" for v, e, d in zip(*with_errors(chunks), digits, strict=True)]


def precision(args):
    """Print and write the scatter of calibrated shapes with and without the added noise, by S/N."""
    network, chunks = ShapeEstimator().live_network(), []
    edges = BINS["snr"]
    for number in range(-(-args.n // CHUNK)):
        rng = np.random.default_rng([args.seed, number])
        truth = draw_truth(rng, CHUNK)
        label = np.searchsorted(edges, truth["snr"]) - 1
        noise, added = rng.normal(size=(2, EXPOSURES, CHUNK, SIZE, SIZE))
        found = shapes_of_signs(network, truth, noise, added.astype(np.float32))
        some = [label == one for one in range(len(edges) - 1)] + [label >= 0]
        chunks.append([scatter_sums(truth["g"][rows], found[:, :, rows]) for rows in some])
        print((number + 1) * CHUNK, flush=True)
    chunks, rows = np.array(chunks), []
    names = [f"{low:g}-{high:g}" for low, high in zip(edges[:-1], edges[1:], strict=True)] + ["all"]
    for index, name in enumerate(names):
        one = chunks[:, index]
        value, left = scatters(one.sum(0)), np.array([scatters(one.sum(0) - part) for part in one])
        error = np.sqrt((len(one) - 1) / len(one) * ((left - left.mean(0)) ** 2).sum(0))
        cells = [f"{v:.3f}±{e:.3f}" for v, e in zip(value, error, strict=True)]
        rows.append([name, int(one[:, 0].sum()), *cells])
    columns = ["S/N", "galaxies", "variance with / without added noise", "effective galaxies / galaxies"]
    columns.append(f"the same in {EXPOSURES} exposures")
    args.output.mkdir(parents=True, exist_ok=True)
    write(args.output, "precision", columns, rows)


def shapes_of_signs(network, truth, noise, added):
    """g of galaxies (3, 2, N), complex, by sign of the shear, with and without added noise, and in exposures.

    The noise (E, N, 64, 64) of exposures that are as deep together as the image, which is their mean.
    """
    out, flux = [], None
    for sign in (1, -1):
        light = sersics(truth, sign * GAMMA * (1 + 1j), 0.0, None)
        flux = truth["snr"] / np.sqrt((light.astype(float) ** 2).sum((1, 2))) if flux is None else flux
        light, single = light * flux[:, None, None], noise.sum(0) / np.sqrt(len(noise))
        kinds = [(single, added[0], 1.0), (single, 0 * added[0], 1.0)]
        kinds += [(*one, np.sqrt(len(noise))) for one in zip(noise, added, strict=True)]
        both, none, *each = (sheared(network, light + s * one, s, more) for one, more, s in kinds)
        parts = ([getattr(one, name) for one in each] for name in ("values", "slopes"))
        joint = weighted_columns(*map(np.array, parts))
        out.append([one.shear @ [1, 1j] for one in (both, none, joint)])
    return np.swapaxes(out, 0, 1)


def sheared(network, data, sigma, added):
    """Measured copies of images."""
    stamps = Stamps(data, np.full(data.shape, sigma**-2), psf_array(), psf_oversampling=OVER)
    return measured(network, stamps, added, None).sheared


def scatter_sums(g, found):
    """Sums over galaxies: their number, true |g|², and |g|² and response of what is found (3, 2, N)."""
    spread = (np.abs(found.mean(1)) ** 2).sum(1)
    response = ((found[:, 0] - found[:, 1]) / (2 * GAMMA * (1 + 1j))).real.sum(1)
    return np.array([len(g), (np.abs(g) ** 2).sum(), *spread, *response])


def scatters(sums):
    """Variance with over without added noise, and effective over all galaxies, in one image and several."""
    spread, response = sums[2:].reshape(2, 3)
    both, none, joint = spread / (response / sums[0]) ** 2
    return np.array([both / none, sums[1] / both, sums[1] / joint])


def rate(args):
    """Galaxies a second with and without the response, in processor time and by the clock."""
    import time

    rng = np.random.default_rng(1)
    truth = draw_truth(rng, 1024)
    unit = sersics(truth, 0j, 0.0, None)
    flux = truth["snr"] / np.sqrt((unit.astype(float) ** 2).sum((1, 2)))
    data = unit * flux[:, None, None] + rng.normal(size=unit.shape)
    stamps = Stamps(data, np.ones(data.shape), psf_array(), psf_oversampling=OVER)
    estimator = ShapeEstimator()
    for with_response in (False, True):
        call = partial(estimator, stamps, neighbours="ignore", shear_response=with_response)
        call()
        clock, processor = time.perf_counter(), time.process_time()
        call()
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        spent = f"{1024 / clock:.0f} galaxies/s, {processor:.1f} s of processor time for 1024"
        print(f"shear_response={with_response}: {spent}")


def main():
    """Run the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("cases", nargs="+", choices=CASES)
    one.add_argument("--method", choices=METHODS, default="network")
    one.add_argument("-n", type=int, default=1024, help="galaxies, each drawn 24 times")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("-o", "--output", type=Path, required=True)
    one = commands.add_parser("table")
    one.add_argument("folder", type=Path)
    one.add_argument("-o", "--output", type=Path, required=True)
    one = commands.add_parser("precision")
    one.add_argument("-n", type=int, default=1024, help="galaxies")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("-o", "--output", type=Path, required=True)
    commands.add_parser("rate")
    args = parser.parse_args()
    {"run": run, "table": table, "precision": precision, "rate": rate}[args.command](args)


if __name__ == "__main__":
    main()
