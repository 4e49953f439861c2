# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sets of mock galaxies with known parameters, drawn by GalSim or the fast renderer.

Galaxies are drawn in blocks.  Block ``k`` is a function of the configuration, the seed and
``k`` alone, and is kept in a folder beside the output until the set is complete, so an
interrupted simulation goes on where it stopped.
"""

import hashlib
import json
import os
import shutil
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial

import numpy as np
from astropy.table import Table, vstack

from galshape_cnn.errors import InputError
from galshape_cnn.files import check_output_path, made_folder, written_whole
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.processes import NO_MAIN_GUARD, worker_pool
from galshape_cnn.quantities import whole_number
from galshape_cnn.study.simulate.mock_files import MOCK_SUFFIXES, read_mocks, write_set

__all__ = ["BLOCK_SIZE", "draw_mocks", "read_mocks", "write_mocks"]

#: Galaxies in one block.
BLOCK_SIZE = 64

_ENGINES = ("galsim", "fast")
_SMALLEST_YIELD = 0.02  # part of the galaxies drawn that must lie inside ``snr_range``
_SEED_OFFSET = 1 << 32  # keeps these streams apart from those of training


def write_mocks(config, n, output, *, engine="galsim", seed=1, overwrite=False, workers=1):
    """Simulate galaxies and write them to a file.

    Parameters
    ----------
    config : path-like, str, mapping or None
        As `galshape_cnn.study.simulate.config.load_config` takes it, or what it returns.
    n : int
        Number of galaxies, at least 1.
    output : path-like
        ``.asdf`` or ``.fits``; see `galshape_cnn.study.simulate.mock_files` for what they hold.
    engine : {'galsim', 'fast'}, optional
        ``'galsim'`` draws galaxy and PSF with GalSim, some 10 galaxies a second and core; the
        Sérsic index takes one of the 62 values of
        `galshape_cnn.study.simulate.galsim_stamps.INDEX_VALUES`, 5 % apart.  ``'fast'`` uses the
        renderer that trains networks, hundreds a second.
    seed : int, optional
        Non-negative; the same seed gives the same galaxies.
    overwrite : bool, optional
        Whether an existing file may be replaced.
    workers : int, optional
        Processes for the engine ``'galsim'``.

    Raises
    ------
    InputError
        If an argument is impossible.
    FileError
        If the output exists or cannot be written, or the configuration cannot be read.
    """
    output = os.path.abspath(check_output_path(output, MOCK_SUFFIXES, overwrite))
    config = _checked(config, n, engine, seed)
    mark = hashlib.sha256(json.dumps([config, seed, engine, BLOCK_SIZE], sort_keys=True).encode()).hexdigest()
    folder = os.path.join(os.path.dirname(output), f".{os.path.basename(output)}.{mark[:8]}.blocks")
    made_folder(folder)
    stamps, truth = draw_mocks(config, n, engine=engine, seed=seed, workers=workers, folder=folder)
    write_set(output, stamps, truth, {"config": config, "seed": seed, "engine": engine})
    shutil.rmtree(folder)


def draw_mocks(config, n, *, engine="galsim", seed=1, workers=1, folder=None, report=None):
    """Simulate galaxies; as `write_mocks`.

    ``folder``, which exists, is for blocks from which a simulation goes on; ``report`` receives the number of
    galaxies so far.

    Returns stamps of 64 x 64 pixels, the source's photon noise, if any, in ``ivar``, and a table with ``id``,
    flux, n, hlr, g1, g2, x, y (stamp pixels), ``sky``, ``sigma`` (noise of a pixel without source), ``snr``,
    ``fit_sky``, ``psf_fwhm`` (pixels, without the pixel).  ``InputError`` if an argument is impossible, or
    nearly no galaxy lies inside ``snr_range``.
    """
    config = _checked(config, n, engine, seed)
    blocks, kept, number = [], 0, 0
    with _mapper(workers if engine == "galsim" and n > BLOCK_SIZE else 1) as (run, width):
        while kept < n:
            numbers = range(number, number + min(width, -(-(n - kept) // BLOCK_SIZE)))
            for block in _blocks(config, engine, seed, numbers, run, folder):
                blocks.append(block)
                kept += len(block[1])
                number += 1
            if kept < _SMALLEST_YIELD * number * BLOCK_SIZE:
                raise InputError(
                    f"snr_range={config['snr_range']}: only {kept} of {number * BLOCK_SIZE} are in it"
                )
            if report is not None:
                report(min(kept, n))
    return _merged(blocks, n)


def _checked(config, n, engine, seed):
    from galshape_cnn.study.simulate.config import load_config

    whole_number(n, "n", 1)
    if engine not in _ENGINES:
        raise InputError(f"engine={engine!r}; allowed: {', '.join(map(repr, _ENGINES))}")
    whole_number(seed, "seed", 0)
    return config if hasattr(config, "keys") else load_config(config)


@contextmanager
def _mapper(workers):
    """A mapping function over processes, and how many calls it takes at once."""
    if workers <= 1:
        yield map, 1
        return
    try:
        with worker_pool(workers) as pool:
            yield pool.map, 2 * workers
    except BrokenProcessPool as error:
        raise InputError(f"workers={workers}: {NO_MAIN_GUARD}") from error


def _blocks(config, engine, seed, numbers, run, folder):
    """Blocks of the given numbers, from the folder where they are already there."""
    paths = {k: None if folder is None else os.path.join(folder, f"{k:06d}.npz") for k in numbers}
    todo = [k for k in numbers if paths[k] is None or not os.path.exists(paths[k])]
    stream = _stream(config, seed)
    drawn = [_drawn(stream, k, engine) for k in todo]
    if engine == "galsim":
        rendered = _galsim_images(drawn, run)
    else:
        rendered = (_fast_images(one) for one in drawn)
    fresh = {}
    for k, one, (images, psfs) in zip(todo, drawn, rendered, strict=True):
        fresh[k] = _observed(one, images, psfs, config, k)
        if folder is not None:
            _save(paths[k], fresh[k])
    for k in numbers:
        yield fresh[k] if k in fresh else _load(paths[k])


def _stream(config, seed):
    from galshape_cnn.study.simulate.stream import MockStream

    return MockStream(config, _SEED_OFFSET + seed)


def _drawn(stream, number, engine):
    """Parameters of one block; photon noise always stated in the noise map."""
    drawn = stream.draw(number, BLOCK_SIZE)
    nuisance = drawn["nuisance"]
    nuisance["poisson_in_map"] = nuisance["poisson_in_map"] + nuisance["poisson"]
    nuisance["poisson"] = np.zeros(BLOCK_SIZE)
    if engine == "galsim":
        from galshape_cnn.study.simulate.galsim_stamps import nearest_index

        drawn["params"][:, 1] = nearest_index(drawn["params"][:, 1])
    return drawn


def _galsim_images(drawn, run):
    from galshape_cnn.study.simulate.galsim_stamps import draw_block
    from galshape_cnn.study.simulate.psf_families import family_parameters

    draw = partial(draw_block, families=family_parameters())
    return run(draw, [one["params"] for one in drawn], [one["psfs"] for one in drawn])


def _fast_images(drawn):
    from galshape_cnn.study.simulate.fast_stamps import draw_block

    return draw_block(drawn["params"], drawn["psfs"])


def _observed(drawn, images, psfs, config, number):
    """Noise, masks and selection on S/N: (stamps, truth) of one block."""
    import jax

    from galshape_cnn.study.simulate.stream import observe

    nuisance = jax.tree.map(
        lambda a: np.asarray(a, bool if a.dtype == bool else np.float32), drawn["nuisance"]
    )
    amplitude = drawn["params"][:, SINGLE.flux].astype(np.float32)
    data, ivar, flux, snr = (
        np.asarray(a, float) for a in observe(images, amplitude, nuisance, drawn["seed"])
    )
    sigma = drawn["sigma"][:, None, None]
    low, high = config.get("snr_range", (0.0, np.inf))
    # Blocks are in order of their PSF's width; a part of one must be as good as another.
    order = np.random.default_rng([drawn["seed"], 1]).permutation(BLOCK_SIZE)
    # GalSim's transform of an obscured aperture is NaN at very few wave numbers
    drawn_well = np.isfinite(images).all((1, 2)) & np.isfinite(psfs).all((1, 2))
    keep = order[((snr >= low) & (snr <= high) & drawn_well)[order]]
    stamps = Stamps((data * sigma)[keep], (ivar / sigma**2)[keep], psfs[keep], psf_oversampling=2)
    columns = {"id": number * BLOCK_SIZE + np.arange(BLOCK_SIZE), "flux": flux * drawn["sigma"]}
    columns |= dict(zip(SINGLE.names[SINGLE.searched], drawn["params"].T[SINGLE.searched], strict=True))
    columns |= {"sky": drawn["nuisance"]["sky"] * drawn["sigma"], "sigma": drawn["sigma"], "snr": snr}
    columns |= {"fit_sky": drawn["nuisance"]["fit_sky"] > 0.5, "psf_fwhm": drawn["psfs"]["fwhm"]}
    return stamps, Table(columns)[keep]


def _merged(blocks, n):
    """The first n galaxies of all blocks."""
    stamps = [block[0] for block in blocks]
    parts = {name: np.concatenate([getattr(s, name) for s in stamps])[:n] for name in ("data", "ivar", "psf")}
    truth = vstack([table for _, table in blocks], metadata_conflicts="silent")[:n]
    return Stamps(parts["data"], parts["ivar"], parts["psf"], psf_oversampling=2), truth


def _save(path, block):
    stamps, truth = block
    table = {f"truth_{name}": np.asarray(truth[name]) for name in truth.colnames}
    psf = stamps.psf.astype(np.float32)
    with written_whole(path) as beside:
        np.savez(beside, data=stamps.data, ivar=stamps.ivar, psf=psf, **table)


def _load(path):
    with np.load(path) as saved:
        truth = {key.removeprefix("truth_"): saved[key] for key in saved.files if key.startswith("truth_")}
        return Stamps(saved["data"], saved["ivar"], saved["psf"], psf_oversampling=2), Table(truth)
