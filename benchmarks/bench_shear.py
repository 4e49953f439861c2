# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Multiplicative and additive bias of the mean shear, m and c, from pairs of opposite shear.

Galaxies of random n, size, shape and S/N (10 to 200, half-light radius .5 to 3 FWHM of the PSF) are drawn
with shears of +0.02 and -0.02 in both components.  What scatters is made to cancel:

- both signs of the shear have the same noise, and the same noise is added to their copies;
- the partner of each galaxy is turned by 90 degrees, and so is its noise, with the other sign: shapes cancel,
  and of m what is odd in the noise (the case "psf e=.05" has the same sign, so that the noise cancels in c);
- each group is measured once more with the image's noise and the added noise exchanged: of m what is
  quadratic in the noise cancels.

So a galaxy is drawn eight times, and every single image has noise as any other.  Estimated is
m = (g+ - g-) / 2 gamma - 1 and c = (g+ + g-) / 2 of `galshape_cnn.mean_shear`, with errors by leaving out one
chunk of galaxies at a time.  The column ``plain m`` is m of the average of g1 and g2 without response.

    python benchmarks/bench_shear.py run sersic -n 4096 -o /tmp/shear
    python benchmarks/bench_shear.py table /tmp/shear -o docs/shear
    python benchmarks/bench_shear.py rate

``run`` goes on where it was interrupted; with other ``--seed`` chunks of all runs are joined.
"""

import argparse
import os
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import galsim
import numpy as np
from csv_tables import write

from galshape_cnn import ShapeCatalog, ShapeEstimator, Stamps
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.geometry import transform_shape
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.shear.likelihood_response import likelihood_response
from galshape_cnn.infer.shear.mean_shear import ShearedViews, shear_of_sums, shear_sums
from galshape_cnn.infer.shear.response import shear_response
from galshape_cnn.observe.observation import prepare

SIZE, OVER, FWHM, BETA, GAMMA, CHUNK = 64, 2, 3.04, 2.5, 0.02, 64
FARTHEST = 4.0  # of the distortions of HSM, noise included
FEWEST = 3  # chunks, from which a standard error can be had
SKY = 0.2 * np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
SHEARED_SKY = SKY @ np.array([[1.1, 0.0], [0.0, 0.9]])
BINS = {
    "snr": [10, 20, 40, 80, 200],
    "size": [0.5, 0.8, 1.3, 2.0, 3.0],
    "n": [0.5, 1.5, 3.0, 5.5],
}
SELECTIONS = {
    "all": None,
    "snr > 12": lambda t: t["snr"] > 12,
    "snr > 12, hlr > 2": lambda t: (t["snr"] > 12) & (np.asarray(t["hlr"]) > 2),
}
CASES = {
    "sersic": {},
    "psf e=.05": {"e": 0.05, "sign": 1},
    "other response": {"e": 0.0, "wrong": True},
    "psf 1 % wide": {"told": 1.01},
    "wcs": {"jacobian": SHEARED_SKY},
    "masked": {"masked": True},
    "correlated": {"smooth": 0.6},
    "bulge and disc": {"light": "bulge and disc"},
    "knots": {"light": "knots"},
    "hst": {"light": "hst"},
}
METHODS = ("network", "ml", "hsm")
#: Real galaxies in the format of galsim.RealGalaxyCatalog; drawn at 0.1 arcsec per pixel.
HST = Path(os.environ.get("GALSHAPE_HST", "../shared/data/cosmos_hst_faint"))
HST_CATALOG = "real_galaxy_catalog_26_extension_example.fits"


@cache
def psf_array(fwhm=FWHM, e=0.0):
    """Effective PSF, two samples per pixel, (1, 127, 127)."""
    psf = galsim.Convolve(galsim.Moffat(beta=BETA, fwhm=fwhm).shear(e1=e), galsim.Pixel(1.0))
    array = psf.drawImage(nx=127, ny=127, scale=1 / OVER, method="no_pixel", dtype=float).array
    return (array / array.sum()).astype(np.float32)[None]


def composed(g, gamma):
    """Shape after a further shear, as complex numbers."""
    return (g + gamma) / (1 + np.conj(gamma) * g)


def draw_truth(rng, count):
    """Random galaxies."""
    size = np.exp(rng.uniform(np.log(0.5), np.log(3), count))
    g = 0.5 * np.sqrt(rng.uniform(size=count)) * np.exp(2j * np.pi * rng.uniform(size=count))
    return {
        "snr": np.exp(rng.uniform(np.log(10), np.log(200), count)),
        "size": size,
        "n": rng.uniform(0.5, 5.5, count),
        "g": g,
        "center": 31.5 + rng.uniform(-0.5, 0.5, (count, 2)),
        "seed": rng.integers(2**31, size=count),
        "turn": np.zeros(count),
    }


def quarter_turned(truth):
    """The same galaxies after a quarter turn of the stamp."""
    x, y = truth["center"].T
    center = np.stack([y, SIZE - 1 - x], 1)
    return truth | {"g": -truth["g"], "center": center, "turn": truth["turn"] - 90}


def sersics(truth, gamma, e, jacobian):
    """Images of unit flux of Sersic profiles."""
    sheared = composed(truth["g"], gamma)
    hlr, g1, g2 = FWHM * truth["size"], sheared.real, sheared.imag
    if jacobian is not None:
        _, g1, g2 = transform_shape(1.0, g1, g2, np.linalg.inv(jacobian))
    grid = grid_for(SIZE, OVER)
    ones = np.ones(len(sheared))
    params = np.column_stack([ones, truth["n"], hlr, g1, g2, truth["center"], 0 * ones])
    transfer = transfer_functions(psf_array(FWHM, e), grid, OVER)
    return np.asarray(render(params.astype(np.float32), transfer, grid))


def bulges_and_discs(truth, gamma, e, jacobian):
    """A third of the light in a bulge of n = 4 and half the size, in an exponential disc."""
    count = len(truth["n"])
    disc = sersics(truth | {"n": np.ones(count)}, gamma, e, jacobian)
    bulge = truth | {"n": np.full(count, 4.0), "size": truth["size"] / 2}
    return (2 * disc + sersics(bulge, gamma, e, jacobian)) / 3


def drawn(truth, gamma, e, galaxy):
    """Images by GalSim; a function of a row of the truth gives the galaxy before any shear."""
    psf, count = galsim.Moffat(beta=BETA, fwhm=FWHM).shear(e1=e), len(truth["n"])
    out = np.empty((count, SIZE, SIZE), np.float32)
    for row, image in enumerate(out):
        one = {name: values[row] for name, values in truth.items()}
        light = galaxy(one).rotate(one["turn"] * galsim.degrees)
        light = light.shear(g1=one["g"].real, g2=one["g"].imag).shear(g1=gamma.real, g2=gamma.imag)
        image[:] = galsim.Convolve(light, psf).drawImage(nx=SIZE, ny=SIZE, scale=1).array
    return out


def knots(truth, gamma, e, jacobian):
    """Forty points of light, the same before and after the shear."""

    def galaxy(one):
        rng = galsim.BaseDeviate(int(one["seed"]))
        return galsim.RandomKnots(40, half_light_radius=FWHM * one["size"], rng=rng)

    return drawn(truth, gamma, e, galaxy)


@cache
def hst_galaxies():
    """Real galaxies of unit flux, in pixels of 0.1 arcsec."""
    catalog = galsim.RealGalaxyCatalog(HST_CATALOG, dir=str(HST))
    return [galsim.RealGalaxy(catalog, index=i, flux=1.0).dilate(10.0) for i in range(catalog.nobjects)]


def hst(truth, gamma, e, jacobian):
    """Galaxies of the Hubble Space Telescope, turned at random and sheared further."""

    def galaxy(one):
        galaxies = hst_galaxies()
        return galaxies[int(one["seed"]) % len(galaxies)].rotate(one["seed"] * 1e-3 * galsim.degrees)

    return drawn(truth, gamma, e, galaxy)


LIGHT = {"sersic": sersics, "bulge and disc": bulges_and_discs, "knots": knots, "hst": hst}


def smoothed(noise, sigma):
    """Noise with an autocorrelation, of unit variance, and that autocorrelation."""
    k = 2 * np.pi * np.fft.fftfreq(SIZE)
    power = np.exp(-(k[:, None] ** 2 + k[: SIZE // 2 + 1] ** 2) * sigma**2)
    correlation = np.fft.fftshift(np.fft.irfft2(power, (SIZE, SIZE)))
    peak = correlation.max()
    noise = np.fft.irfft2(np.fft.rfft2(noise) * np.sqrt(power / peak), (SIZE, SIZE))
    middle = slice(SIZE // 2 - 4, SIZE // 2 + 5)
    return noise, correlation[middle, middle] / peak


def chunk_images(case, rng):
    """Galaxies, stamps of both signs one after the other, the noise to be added, and its correlation."""
    options, truth = CASES[case], draw_truth(rng, CHUNK)
    e, jacobian = options.get("e", 0.0), options.get("jacobian")
    images = partial(LIGHT[options.get("light", "sersic")], e=e, jacobian=jacobian)
    noise, correlation = rng.normal(size=(2, CHUNK, SIZE, SIZE)), None
    if "smooth" in options:
        noise, correlation = smoothed(noise, options["smooth"])
    flux = truth["snr"] / np.sqrt((images(truth, 0j).astype(float) ** 2).sum((1, 2)))
    ivar = np.ones((CHUNK, SIZE, SIZE), np.float32)
    if options.get("masked"):
        ivar[rng.uniform(size=ivar.shape) < 0.02] = 0
        ivar[np.arange(CHUNK), :, rng.integers(20, 44, CHUNK)] = 0
    turned = options.get("sign", -1) * np.rot90(noise, 1, (2, 3)), np.rot90(ivar, 1, (1, 2))
    parts = []
    for sign in (1, -1):
        for some, both, weights in ((truth, noise, ivar), (quarter_turned(truth), *turned)):
            light = images(some, sign * GAMMA * (1 + 1j)) * flux[:, None, None]
            parts += [(light + both[i], weights, both[1 - i]) for i in range(2)]
    data, weights, added = (np.concatenate(p) for p in zip(*parts, strict=True))
    where = {}
    if jacobian is not None:
        where = {"jacobian": jacobian, "skycoord": np.tile([150.0, 2.0], (len(data), 1))}
    told = psf_array(FWHM * options.get("told", 1.0), e)
    stamps = Stamps(data, weights, told, psf_oversampling=OVER, **where)
    return truth, stamps, added.astype(np.float32), correlation


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
    truth, stamps, added, correlation = chunk_images(case, rng)
    if network == "hsm":
        return by_bin(truth, hsm_terms(stamps))[None]
    catalog = measured(network, stamps, added, correlation)
    if CASES[case].get("wrong"):  # responses to a shear seen through another PSF
        other = Stamps(stamps.data, stamps.ivar, psf_array(FWHM * 1.1), psf_oversampling=OVER)
        catalog = with_response_of(catalog, measured(network, other, added, correlation))
    return np.stack([of_selection(catalog, select, truth) for select in SELECTIONS.values()])


def with_response_of(catalog, other):
    """A catalogue with the derivatives of another."""
    sheared = catalog.measurement.sheared.copy()
    sheared[:, :, 1:3] = other.measurement.sheared[:, :, 1:3]
    return replace(catalog, measurement=replace(catalog.measurement, sheared=sheared))


def of_selection(catalog, select, truth):
    """Sums of both signs, (2, bins + 1, 19)."""
    views = ShearedViews(catalog, select)
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


def hsm_terms(stamps):
    """Terms of the mean shear by re-Gaussianization (Hirata & Seljak 2003), as GalSim has it, (N, 19).

    Its distortions respond by 2 - |e|^2, which is all the calibration that it has.
    """
    psf = galsim.Image(stamps.psf[0].astype(float), scale=1 / OVER)
    point = galsim.InterpolatedImage(psf).drawImage(nx=63, ny=63, scale=1, method="no_pixel")
    terms = np.zeros((len(stamps), 19))
    for row, data in zip(terms, stamps.data, strict=True):
        found = galsim.hsm.EstimateShear(galsim.Image(data.astype(float), scale=1), point, strict=False)
        e1, e2 = found.corrected_e1, found.corrected_e2
        if found.error_message or not np.hypot(e1, e2) < FARTHEST:
            continue
        one = np.array([1, e1, e2])
        row[:] = np.concatenate([one, (2 - e1**2 - e2**2) * np.eye(2).ravel(), *[one] * 4])
    return terms


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
    """Print and write what was measured."""
    labels = [(name, f"{a:g}-{b:g}") for name, e in BINS.items() for a, b in zip(e[:-1], e[1:], strict=True)]
    labels.append(("all", ""))
    rows = []
    for method, case in product(METHODS, CASES):
        files = sorted(args.folder.glob(f"{method}--{case}--*.npy"))
        if not files:
            continue
        chunks = np.concatenate([np.load(file) for file in files])
        if len(chunks) < FEWEST:
            print(f"{method}, {case}: {len(chunks)} chunks are too few for an error")
            continue
        for number, selection in enumerate(list(SELECTIONS)[: chunks.shape[1]]):
            for index, (name, label) in enumerate(labels):
                if name != "all" and (case != "sersic" or selection != "all"):
                    continue
                value, error = with_errors(chunks[:, number, :, index])
                if not np.isfinite(error).all():  # a cut in pixels leaves nothing in arcsec
                    continue
                cells = [f"{v:.4f}±{e:.4f}" for v, e in zip(value, error, strict=True)]
                rows.append([method, case, selection, f"{name} {label}".strip(), len(chunks) * CHUNK, *cells])
    args.output.mkdir(parents=True, exist_ok=True)
    write(
        args.output,
        "bias",
        [
            "method",
            "case",
            "selection",
            "bin",
            "galaxies",
            "m",
            "c1",
            "c2",
            "m without R_selection",
            "plain m",
        ],
        rows,
    )


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
    one.add_argument("-n", type=int, default=1024, help="galaxies, each drawn eight times")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("-o", "--output", type=Path, required=True)
    one = commands.add_parser("table")
    one.add_argument("folder", type=Path)
    one.add_argument("-o", "--output", type=Path, required=True)
    commands.add_parser("rate")
    args = parser.parse_args()
    {"run": run, "table": table, "rate": rate}[args.command](args)


if __name__ == "__main__":
    main()
