# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Prove on mocks what a network does: tables, figures, one page, and a verdict.

Each section ends in an ECSV table, which a second run for the same network, seed and size
takes as it is: an interrupted validation goes on where it stopped.
"""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
from astropy.table import Table

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.infer.bundle import Bundle

__all__ = ["FULL", "QUICK", "validate_bundle"]

#: Numbers of galaxies: noise realisations at the seed galaxy (network; slow methods), galaxies
#: of the prior (network; exact posterior), galaxies for each point of the atlas.
QUICK = {"draws": 128, "slow_draws": 48, "galaxies": 192, "posterior": 96, "atlas": 10}
FULL = {"draws": 1000, "slow_draws": 400, "galaxies": 5120, "posterior": 5120, "atlas": 100}

_VERSION = 1  # of the sections; a change makes earlier tables void


def validate_bundle(bundle, folder, *, quick=False, seed=1, progress=None, sizes=None, workers=None):
    """Validate a network.

    Parameters
    ----------
    bundle : Bundle, path-like or None
        The network; None is the one that comes with the package.
    folder : path-like
        Existing folder for ``*.ecsv``, ``*.png`` and ``index.html``.
    quick : bool, optional
        Fewer galaxies, see `QUICK` and `FULL`.
    seed : int, optional
        Non-negative; the same seed gives the same numbers.
    progress : callable, optional
        Receives lines of progress.
    sizes : mapping, optional
        Numbers of galaxies instead of `QUICK` or `FULL`.
    workers : int, optional
        Processes that draw galaxies with GalSim; all processors by default.

    Returns
    -------
    verdict : `~astropy.table.Table`
        One row for each check, failed ones first; see `galshape_cnn.study.verdict`.

    Raises
    ------
    InputError
        If ``seed`` or ``sizes`` are impossible.
    FileError
        If the bundle cannot be read or the folder not be written to.
    """
    bundle = _read(bundle)
    folder = _checked_folder(folder)
    sizes = _checked_sizes(quick, seed, sizes)
    config = bundle.provenance.get("config") or "universal"
    key = hashlib.sha256(
        json.dumps([bundle.sha256, seed, sizes, _VERSION], sort_keys=True).encode()
    ).hexdigest()
    run = _Run(bundle, folder, seed, sizes, config, key, progress or (lambda line: None))
    workers = os.cpu_count() if workers is None else workers
    tables = run.tables(workers)
    return _write_results(run, tables)


def _read(bundle):
    if bundle is None:
        return Bundle.shipped()
    return bundle if isinstance(bundle, Bundle) else Bundle.read(bundle)


def _checked_folder(folder):
    folder = Path(folder)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise FileError(f"cannot write the validation: {str(folder)!r} is not a writable folder")
    return folder


def _checked_sizes(quick, seed, sizes):
    if int(seed) != seed or seed < 0:
        raise InputError(f"seed={seed!r}; allowed: a whole number >= 0")
    default = QUICK if quick else FULL
    unknown = set(sizes or {}) - set(default)
    if unknown:
        raise InputError(f"sizes has unknown keys {sorted(unknown)}; allowed: {sorted(default)}")
    return default | dict(sizes or {})


class _Run:
    """One validation: what is measured, and where results are kept."""

    def __init__(self, bundle, folder, seed, sizes, config, key, say):
        self.bundle, self.folder, self.seed, self.sizes = bundle, folder, seed, sizes
        self.config, self.key, self.say = config, key, say
        self.seconds = {}
        self._subject = None

    @property
    def subject(self):
        """The live network, made when first needed."""
        if self._subject is None:
            from galshape_cnn.study.subject import Subject

            self._subject = Subject(self.bundle)
        return self._subject

    def section(self, name, make):
        """Table of a section, from its file when that belongs to this run."""
        path = self.folder / f"{name}.ecsv"
        if path.exists():
            table = Table.read(path)
            if table.meta.get("key") == self.key:
                self.seconds[name] = table.meta["seconds"]
                return table
        started = time.monotonic()
        table = make()
        table.meta |= {"key": self.key, "seconds": round(time.monotonic() - started, 1)}
        table.meta |= {"seed": self.seed, "network_sha256": self.bundle.sha256}
        self.seconds[name] = table.meta["seconds"]
        write_table(table, path)
        return table

    def tables(self, workers):
        """Every table by name."""
        from galshape_cnn.study.atlas import run_atlas, score_flags
        from galshape_cnn.study.benchmark_prior import bin_galaxies
        from galshape_cnn.study.benchmark_seed import run_seed_benchmark
        from galshape_cnn.study.verdict import judge

        counts = {"draws": self.sizes["draws"], "slow_draws": self.sizes["slow_draws"]}
        seed_table = self.section(
            "seed",
            lambda: run_seed_benchmark(
                self.subject, **counts, seed=self.seed, report=self._saying("seed galaxy")
            ),
        )
        galaxies = self.section("galaxies", lambda: self._galaxies(workers))
        atlas = self.section(
            "atlas",
            lambda: run_atlas(
                self.subject, count=self.sizes["atlas"], seed=self.seed, report=self._saying("failure atlas")
            ),
        )
        bins, flags = bin_galaxies(galaxies), score_flags(atlas)
        tables = {"seed": seed_table, "galaxies": galaxies, "bins": bins, "atlas": atlas, "flags": flags}
        return tables | {"verdict": judge(bins, seed_table, flags, galaxies)}

    def _saying(self, head):
        return lambda line: self.say(f"{head}: {line}")

    def _galaxies(self, workers):
        """Draw and measure galaxies of the prior; the drawn ones are kept until then."""
        from galshape_cnn.study.benchmark_prior import measure_galaxies
        from galshape_cnn.study.simulate import draw_mocks

        number = self.sizes["galaxies"]
        blocks = self.folder / f".blocks-{self.key[:8]}"
        blocks.mkdir(exist_ok=True)
        report = lambda done: self.say(f"prior: GalSim has drawn {done} of {number} galaxies")  # noqa: E731
        stamps, truth = draw_mocks(
            self.config,
            number,
            engine="galsim",
            seed=self.seed,
            workers=workers,
            folder=blocks,
            report=report,
        )
        table = measure_galaxies(
            self.subject, stamps, truth, seed=self.seed, report=self._saying("prior"),
            with_posterior=min(self.sizes["posterior"], number),
        )  # fmt: skip
        shutil.rmtree(blocks)
        return table


def write_table(table, path):
    """Write ECSV beside the target, then rename."""
    beside = path.with_name(f".{path.name}.part")
    try:
        table.write(beside, format="ascii.ecsv", overwrite=True)
        os.replace(beside, path)
    except OSError as error:
        raise FileError(f"cannot write {str(path)!r}: {error}") from error


def _write_results(run, tables):
    """Derived tables, figures and the page."""
    from galshape_cnn.study.plots import save_figure
    from galshape_cnn.study.validation_page import write_page

    run.say("figures and page")
    for name in ("bins", "flags", "verdict"):
        write_table(tables[name], run.folder / f"{name}.ecsv")
    for name, figure in _figures(tables).items():
        save_figure(figure, run.folder / f"{name}.png")
    write_page(run.folder, tables, run.bundle, run.seconds, run.sizes, run.seed)
    return tables["verdict"]


def _figures(tables):
    """Figures by the name of their file."""
    from galshape_cnn.study import atlas_plots, validation_plots

    with np.errstate(all="ignore"):
        return {
            "seed": validation_plots.plot_seed(tables["seed"]),
            "rmse": validation_plots.plot_bins(tables["bins"], "rmse"),
            "bias": validation_plots.plot_bins(tables["bins"], "bias"),
            "calibration": validation_plots.plot_calibration(tables["galaxies"], tables["bins"]),
            "predictions": validation_plots.plot_predictions(tables["galaxies"]),
            "maps": atlas_plots.plot_maps(tables["galaxies"]),
            "atlas": atlas_plots.plot_atlas(tables["atlas"], 60),
            "atlas_bright": atlas_plots.plot_atlas(tables["atlas"], 200),
            "flags": atlas_plots.plot_flags(tables["flags"]),
        }
