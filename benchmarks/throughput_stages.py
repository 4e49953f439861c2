# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Processor time of one thread: by stage, beside the arithmetic that is needed, and by form of the PSF.

Sections of ``bench_throughput.py``.
"""

import os
import tempfile
import time
from functools import partial
from itertools import product

import numpy as np
from csv_tables import write
from throughput_mocks import tiles, write_cube


def _as_worker():
    """Set this process up as a worker is; before JAX is imported."""
    from galshape_cnn.environment import keep_freed_memory
    from galshape_cnn.scale.workers import ONE_THREAD

    os.environ.update(ONE_THREAD)
    keep_freed_memory()


def stages(folder, arguments):
    """Processor time of the stages of method "network" in a process set up as a worker, seen from outside."""
    _as_worker()
    from galshape_cnn import ShapeEstimator
    from galshape_cnn.infer.likelihood import rendering
    from galshape_cnn.infer.measure import bounds, estimates, quality
    from galshape_cnn.observe import observation as cutout
    from galshape_cnn.scale import open_source

    spent = {}
    places = [
        ("reading the file", None, None),
        ("cutting", cutout, "cut_stamps"),
        ("recentring, neighbours", cutout, "find_centers"),
        ("transfer functions of the PSFs", rendering, "transfer_functions"),
        ("network and second look", estimates, "sky_free_posterior"),
        ("moments of its answer", estimates, "posterior_moments"),
        ("bounds, chi-square, residuals", bounds, "examine"),
        ("errors under misfit", bounds, "structure_of"),
        ("point sources", quality, "chi2_of_points"),
    ]
    for name, module, function in places[1:]:
        setattr(module, function, partial(_counted, spent, name, getattr(module, function)))
    n = arguments.n or 2048
    with tempfile.TemporaryDirectory() as work:
        write_cube(f"{work}/cube.fits", n, tiles())
        source, estimator = open_source(f"{work}/cube.fits"), ShapeEstimator()
        for first in (0, n // 2):  # the first half compiles
            spent.clear()
            begin = time.process_time()
            for start in range(first, first + n // 2, 512):
                data, keywords = _counted(spent, places[0][0], source.read, start, start + 512)
                estimator(data, threads=1, strict=False, **keywords)
            total = time.process_time() - begin
    spent["the rest: checks, flags, rows"] = total - sum(spent.values())
    rows = [[k, f"{1e3 * v / (n // 2):.2f}", f"{100 * v / total:.0f}"] for k, v in spent.items()]
    rows.append(["together", f"{1e3 * total / (n // 2):.2f}", "100"])
    write(folder, "stages", ["stage", "CPU ms each", "%"], rows)
    write(folder, "ratio", ["of one core", "value"], _ratio(estimator.live_network(), total / (n // 2)))


def needed_operations(network):
    """Operations that a galaxy of 64 x 64 needs: of the network, and of two renderings with derivatives."""
    pixels, context, *_ = network._inputs(_some_stamps(), 1, True, np.zeros(64))
    program = network._forward.function.jitted.lower([pixels, context]).compile()
    return program.cost_analysis()["flops"] / 64, 2 * rendering_operations(64)


def rendering_operations(size, bandwidth=1):
    """Operations of the matrix products of one rendering with derivatives, counted from their shapes."""
    from galshape_cnn.forward.grid import FourierGrid

    half, modes = size // 2, len(FourierGrid(size, bandwidth).kx)
    along_y, along_x = half * modes * modes, half * modes * half
    return 2 * 4 * (6 * along_y + 7 * along_x)  # multiply and add, four parities; x is free along y


def _some_stamps():
    from galshape_cnn import Stamps

    stamps = Stamps(*(array[:64] for array in tiles(64)))
    return stamps.in_units_of(stamps.noise_unit)


def _ratio(network, seconds):
    """Rows of the ratio of the time that a galaxy takes to that of its products at the rate of this core."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        peak = matrix_rate()
    parts = needed_operations(network)
    return [
        ["CPU time of a galaxy, ms", f"{1e3 * seconds:.2f}"],
        ["matrix product of 2048 x 2048, GFLOP/s", f"{peak / 1e9:.0f}"],
        ["operations of the network, million", f"{parts[0] / 1e6:.0f}"],
        ["operations of two renderings with derivatives, million", f"{parts[1] / 1e6:.0f}"],
        ["time x rate / operations", f"{seconds * peak / sum(parts):.1f}"],
    ]


def _counted(spent, name, function, *args, **keywords):
    """Call a function and add up its processor time; JAX is waited for."""
    import jax

    begin = time.process_time()
    result = jax.block_until_ready(function(*args, **keywords))
    spent[name] = spent.get(name, 0) + time.process_time() - begin
    return result


def roofline(folder, arguments):
    """Floating-point operations a second: matrix products, and the convolutional network, one thread."""
    from threadpoolctl import threadpool_limits

    from galshape_cnn import ShapeEstimator

    with threadpool_limits(1):
        peak = matrix_rate()
    network = ShapeEstimator().live_network()
    pixels, context, *_ = network._inputs(_some_stamps(), 1, True, np.zeros(64))
    operations, best = needed_operations(network)[0], np.inf
    for _ in range(20):
        begin = time.process_time()
        network._forward([pixels, context])  # by the kernel, as in every measurement
        best = min(best, time.process_time() - begin)
    rate = 64 * operations / best
    rows = [
        ["matrix product of 2048 x 2048, GFLOP/s", f"{peak / 1e9:.0f}"],
        ["operations of the network for a galaxy, million", f"{operations / 1e6:.0f}"],
        ["its time, ms", f"{1e3 * best / 64:.2f}"],
        ["its rate, GFLOP/s", f"{rate / 1e9:.0f}"],
        ["share of the matrix rate, %", f"{100 * rate / peak:.0f}"],
    ]
    write(folder, "roofline", ["of one core", "value"], rows)


def matrix_rate(n=2048):
    """Floating-point operations a second of a large matrix product."""
    a = np.random.default_rng(1).normal(size=(n, n)).astype("f4")
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        a @ a
        best = min(best, time.process_time() - start)
    return 2 * n**3 / best


def psfs(folder, arguments):
    """Processor time of a galaxy by form of the PSF, and its ratio to a shared one of 25 x 25 samples."""
    _as_worker()
    from galshape_cnn import ShapeEstimator

    data, ivar, _ = tiles(256)
    widths = np.random.default_rng(1).uniform(2.5, 4, len(data))
    spent, estimator = {}, ShapeEstimator()
    for run in range(6):  # in turn
        for own, (over, side) in product((False, True), ((1, 25), (1, 127), (2, 51), (2, 127))):
            psf = _moffats(widths if own else widths[:1], side, over)
            how = {"psf": psf, "psf_oversampling": over, "error": 1 / np.sqrt(ivar), "strict": False}
            begin = time.process_time()
            estimator(data, threads=1, **how)
            if run:  # the first warms up
                spent.setdefault((own, over, side), []).append(time.process_time() - begin)
    shared = np.array(spent[False, 1, 25])
    rows = []
    for (own, over, side), seconds in spent.items():
        ratio = np.median(np.array(seconds) / shared)
        each = np.median(seconds) / len(data) * 1e3
        rows.append(["own" if own else "shared", side, over, f"{each:.2f}", f"{ratio:.2f}"])
    write(folder, "psfs", ["PSF", "samples", "per pixel", "CPU ms each", "times shared 25"], rows)


def growth(folder, arguments):
    """Processor time of a galaxy by the side of its stamp, and by the number of its exposures."""
    _as_worker()
    from galshape_cnn import Exposure, ShapeEstimator

    estimator, rows = ShapeEstimator(), []
    for side in arguments.size if arguments.size != [64] else (32, 64, 96, 128, 192, 256, 384, 512):
        count = int(np.clip(512 * 64**2 // side**2, 8, 512))
        data, ivar, psf = tiles(count, side)
        how = {"psf": psf, "error": 1 / np.sqrt(ivar), "threads": 1, "strict": False}
        rows.append(["one image", side, 1, count, f"{_least(partial(estimator, data, **how)) / count:.2f}"])
    data, ivar, psf = tiles(256)
    rng, error = np.random.default_rng(2), 1 / np.sqrt(ivar)
    for number in (1, 2, 4, 8):
        pixels = [data + rng.normal(size=data.shape) * error for _ in range(number)]
        some = [Exposure(one, psf=psf, error=np.sqrt(2) * error, band="r") for one in pixels]
        spent = _least(partial(estimator, some, threads=1, strict=False))
        rows.append(["a list", 64, number, len(data), f"{spent / len(data):.2f}"])
    write(folder, "growth", ["input", "pixels", "exposures", "N", "CPU ms each"], rows)


def _least(function, runs=4):
    """Processor time of a call in ms, the least of several; the first warms up."""
    spent = []
    for _ in range(runs):
        begin = time.process_time()
        function()
        spent.append(time.process_time() - begin)
    return 1e3 * min(spent[1:])


def _moffats(fwhm, side, over):
    """Moffat profiles of beta 3, (N, side, side), of unit sum."""
    y, x = (np.mgrid[:side, :side] - side // 2) / over
    radius = fwhm[:, None, None] / (2 * np.sqrt(2 ** (1 / 3) - 1))
    light = (1 + (x**2 + y**2) / radius**2) ** -3.0
    return light / light.sum((1, 2), keepdims=True)
