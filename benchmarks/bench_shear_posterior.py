# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Multiplicative bias of the shear that the likelihoods of pixels give, without estimates.

Galaxies as in ``bench_shear.py``, but for the distribution of shapes, which is the smooth one that
`galshape_cnn.infer.shear.hierarchical` knows, and S/N from 20: each with shears of +0.02 and -0.02 in both
components and the same noise, and with its partner after a quarter turn.  The priors of S/N, n and size are
those of the galaxies, that of S/N with wider limits.

    python benchmarks/bench_shear_posterior.py run -n 256 -o /tmp/posterior
    python benchmarks/bench_shear_posterior.py table /tmp/posterior
"""

import argparse
from pathlib import Path

import numpy as np
from shear_galaxies import BINS, FWHM, GAMMA, OVER, SIZE, draw_truth, psf_array, quarter_turned, sersics

from galshape_cnn import ShapeEstimator, Stamps
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.infer.shear.hierarchical import EDGE, log_shape_density, posterior_shear, shape_draws

CHUNK, WIDTH, FAINTEST, PARTS = 32, 0.25, 20.0, 6
PRIOR = {
    "snr": {"kind": "loguniform", "low": FAINTEST / 2, "high": 400.0},
    "n": {"kind": "uniform", "low": BINS["n"][0], "high": BINS["n"][-1]},
    "hlr": {"kind": "loguniform", "low": FWHM * BINS["size"][0], "high": FWHM * BINS["size"][-1]},
    "g": {"kind": "uniform", "low": 0.0, "high": EDGE},
}


def smooth_shapes(rng, count):
    """Shapes from the distribution that the likelihood assumes."""
    out = np.empty(0, complex)
    while len(out) < count:
        x, y = rng.uniform(-EDGE, EDGE, (2, 8 * count))
        g = x + 1j * y
        height = np.exp(log_shape_density(g, WIDTH) - log_shape_density(0j, WIDTH))
        out = np.concatenate([out, g[rng.uniform(size=len(g)) < height]])
    return out[:count]


def chunk_draws(network, rng, draws):
    """Shapes and log weights of one chunk, (2 signs, 2 * CHUNK, draws, ...)."""
    truth = draw_truth(rng, CHUNK)
    truth["g"] = smooth_shapes(rng, CHUNK)
    truth["snr"] = np.exp(rng.uniform(np.log(FAINTEST), np.log(200), CHUNK))
    noise = rng.normal(size=(CHUNK, SIZE, SIZE))
    flux = truth["snr"] / np.sqrt((sersics(truth, 0j, 0.0, None).astype(float) ** 2).sum((1, 2)))
    found = []
    for sign in (1, -1):
        pairs = ((truth, noise), (quarter_turned(truth), -np.rot90(noise, 1, (1, 2))))
        data = [sersics(t, sign * GAMMA * (1 + 1j), 0.0, None) * flux[:, None, None] + n for t, n in pairs]
        data = np.concatenate(data)
        stamps = Stamps(data, np.ones(data.shape), psf_array(), psf_oversampling=OVER)
        found.append(shape_draws(RenderedBatch.from_stamps(stamps), network, Prior(PRIOR), n_draws=draws))
    return [np.stack(parts).astype(np.float32) for parts in zip(*found, strict=True)]


def run(args):
    """Draw chunk after chunk, going on where an earlier run was interrupted."""
    network = ShapeEstimator().live_network()
    args.output.mkdir(parents=True, exist_ok=True)
    for number in range(-(-args.n // CHUNK)):
        path = args.output / f"{args.draws}--{number:05d}.npz"
        if path.exists():
            continue
        shapes, log_weights = chunk_draws(network, np.random.default_rng([7, number]), args.draws)
        beside = path.with_name(f".{path.name}")
        np.savez(beside, shapes=shapes, log_weights=log_weights)
        beside.replace(path)
        print((number + 1) * CHUNK, flush=True)


def table(args):
    """Print m, the width of the shapes, and the error of the last m from leaving out parts of the chunks."""
    chunks = [np.load(path) for path in sorted(args.folder.glob(f"{args.draws}--*.npz"))]
    shapes, weights = (np.stack([one[k] for one in chunks]) for k in ("shapes", "log_weights"))

    def m(kept, count, correct):
        found = [
            posterior_shear(
                shapes[kept, s, :, :count].reshape(-1, count, 2),
                weights[kept, s, :, :count].reshape(-1, count),
                correct=correct,
            )
            for s in range(2)
        ]
        return ((found[0].shear - found[1].shear) / (2 * GAMMA)).mean() - 1, found[0].width

    everything = np.ones(len(chunks), bool)
    for count, correct in ((args.draws // 8, False), (args.draws // 8, True), (args.draws, True)):
        value, width = m(everything, count, correct)
        print(
            f"K={count} corrected={correct}: m = {value:+.4f}, width {width:.3f} (true {WIDTH})", flush=True
        )
    parts = np.arange(len(chunks)) % PARTS
    left = np.array([m(parts != part, args.draws, True)[0] for part in range(PARTS)])
    error = np.sqrt((PARTS - 1) / PARTS * ((left - left.mean()) ** 2).sum())
    print(f"+- {error:.4f} for the last, {len(chunks) * CHUNK} galaxies")


def main():
    """Run the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("-n", type=int, default=256, help="galaxies, each drawn four times")
    one.add_argument("-o", "--output", type=Path, required=True)
    two = commands.add_parser("table")
    two.add_argument("folder", type=Path)
    for command in (one, two):
        command.add_argument("--draws", type=int, default=256)
    args = parser.parse_args()
    {"run": run, "table": table}[args.command](args)


if __name__ == "__main__":
    main()
