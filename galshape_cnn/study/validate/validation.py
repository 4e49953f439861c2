# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`validate_bundle`: tables, figures, page and verdict of a network.

Each section ends in an ECSV table, which a second run for the same network, seed and size
takes as it is: an interrupted validation goes on where it stopped.  The galaxies of the prior
give the region in which each method is trusted, and the flags that the atlas scores use it.
"""

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.files import check_writable_folder, written_whole
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.quantities import whole_number

__all__ = ["FULL", "QUICK", "draw_figures", "validate_bundle"]

#: Numbers of galaxies: noise realisations at the seed galaxy (network; slow methods), galaxies
#: of the prior (network; slow methods), galaxies for each point of the atlas.
QUICK = {"draws": 96, "slow_draws": 96, "galaxies": 192, "posterior": 64, "atlas": 6}
FULL = {"draws": 1000, "slow_draws": 400, "galaxies": 5120, "posterior": 5120, "atlas": 60}
#: Galaxies of the prior that a region of trust needs.
ENOUGH = 1000

_VERSION = 5  # of the sections; a change makes earlier tables void
_DRAWN = ("prior", "psf", "noise", "nuisance", "snr_range")  # sections of a configuration that make galaxies


def validate_bundle(
    bundle, folder, *, quick=False, seed=1, progress=None, sizes=None, workers=None, store=None
):
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
        Called as ``progress(section, what, done, total)``.
    sizes : mapping, optional
        Numbers of galaxies instead of `QUICK` or `FULL`.
    workers : int, optional
        Processes that draw galaxies with GalSim; all processors by default.
    store : path-like, optional
        Bundle to write: the network with the region in which it was found trustworthy, which
        its users' flags then use, and with the figures of this validation in its provenance.

    Returns
    -------
    verdict : `~astropy.table.Table`
        One row for each check, failed ones first; see `galshape_cnn.study.validate.criteria`.

    Raises
    ------
    InputError
        If ``seed`` or ``sizes`` are impossible, or ``store`` is wanted of fewer than `ENOUGH` galaxies.
    FileError
        If the bundle cannot be read, or the folder or ``store`` not be written to.
    """
    bundle = _read(bundle)
    check_writable_folder(folder, "the validation")
    sizes = _checked_sizes(quick, seed, sizes)
    _check_store(store, sizes)
    run = _Run(bundle, Path(folder), seed, sizes, progress or (lambda section, what, done, total: None))
    workers = os.cpu_count() if workers is None else workers
    tables = run.tables(workers)
    verdict = _write_results(run, tables)
    if store is not None:
        figures = {"validation": _figures_of(run, tables)}
        replace(run.bundle, provenance=run.bundle.provenance | figures).write(store)
    return verdict


def _figures_of(run, tables):
    """What a bundle keeps of its validation: the verdict, and accuracy and calibration over its prior."""
    whole = tables["bins"][tables["bins"]["axis"] == "all"]
    quantities = ("rmse", "rmse_ratio", "cover68", "cover95", "pull_std")
    passes = np.asarray(tables["verdict"]["passed"], bool)
    return {
        "seed": int(run.seed),
        "sizes": dict(run.sizes),
        "checks": len(passes),
        "checks_passed": int(passes.sum()),
        "over_the_prior": {
            str(row["parameter"]): {name: [float(row[name]), float(row[f"{name}_se"])] for name in quantities}
            for row in whole
        },
    }


def _read(bundle):
    if bundle is None:
        return Bundle.shipped()
    return bundle if isinstance(bundle, Bundle) else Bundle.read(bundle)


def _checked_sizes(quick, seed, sizes):
    whole_number(seed, "seed", 0)
    default = QUICK if quick else FULL
    unknown = set(sizes or {}) - set(default)
    if unknown:
        raise InputError(f"sizes has unknown keys {sorted(unknown)}; allowed: {sorted(default)}")
    return default | dict(sizes or {})


def _check_store(store, sizes):
    if store is None:
        return
    if sizes["galaxies"] < ENOUGH:
        raise InputError(
            f"store needs {ENOUGH} galaxies of the prior or more, this run has {sizes['galaxies']}; "
            "allowed: the full validation"
        )
    if Path(store).is_dir():
        raise FileError(f"cannot write the bundle {str(store)!r}: it is a folder")
    check_writable_folder(Path(store).absolute().parent, f"the bundle {str(store)!r}")


class _Run:
    """One validation: what is measured, and where results are kept."""

    def __init__(self, bundle, folder, seed, sizes, say):
        self.bundle, self.folder, self.seed, self.sizes, self.say = bundle, folder, seed, sizes, say
        self.config = bundle.provenance.get("config") or "universal"
        self.seconds = {}
        self._subject = None

    @property
    def network(self):
        """The live network with its present region of trust, made when first needed."""
        from galshape_cnn.study.validate.estimates import ValidatedNetwork

        if self._subject is None or self._subject.bundle is not self.bundle:
            self._subject = ValidatedNetwork(self.bundle)
        return self._subject

    def _key(self, name):
        """What the table of a section depends on."""
        trust = self.bundle.trust if name == "atlas" else {}
        parts = [self.bundle.sha256, trust, self.seed, self.sizes, _VERSION, name]
        return _digest(parts)

    def section(self, name, make):
        """Table of a section, from its file when that belongs to this run."""
        path, key = self.folder / f"{name}.ecsv", self._key(name)
        if path.exists():
            table = Table.read(path)
            if table.meta.get("key") == key:
                self.seconds[name] = table.meta["seconds"]
                return table
        started = time.monotonic()
        table = make()
        table.meta |= {"key": key, "seconds": round(time.monotonic() - started, 1)}
        table.meta |= {"seed": self.seed, "network_sha256": self.bundle.sha256}
        self.seconds[name] = table.meta["seconds"]
        write_table(table, path)
        return table

    def tables(self, workers):
        """Every table by name."""
        from galshape_cnn.study.validate.atlas import run_atlas, score_flags
        from galshape_cnn.study.validate.benchmark_prior import bin_galaxies, van_trees
        from galshape_cnn.study.validate.benchmark_seed import in_domain, run_seed_benchmark
        from galshape_cnn.study.validate.criteria import judge
        from galshape_cnn.study.validate.trust_region import find_region, region_of

        counts = {"draws": self.sizes["draws"], "slow_draws": self.sizes["slow_draws"]}
        options = {"seed": self.seed, "report": self._saying("seed galaxy")}
        seed_table = self.section("seed", lambda: run_seed_benchmark(self.network, **counts, **options))
        galaxies = self.section("galaxies", lambda: self._galaxies(workers))
        tables = {"seed": seed_table, "galaxies": galaxies, "bins": bin_galaxies(galaxies)}
        tables |= {"trust": find_region(galaxies), "van_trees": van_trees(galaxies, self.bundle.prior)}
        if len(galaxies) >= ENOUGH:
            self.bundle = replace(self.bundle, trust=region_of(tables["trust"]))
        options = {"count": self.sizes["atlas"], "seed": self.seed, "report": self._saying("failure atlas")}
        tables["atlas"] = self.section("atlas", lambda: run_atlas(self.network, **options))
        tables["flags"] = score_flags(tables["atlas"])
        known = in_domain(seed_table, self.bundle.domain)
        return tables | {"verdict": judge(tables["bins"], known, tables["flags"], galaxies)}

    def _saying(self, section):
        return lambda what, done, total: self.say(section, what, done, total)

    def _galaxies(self, workers):
        """Draw and measure galaxies of the prior; the drawn ones are kept until then."""
        from galshape_cnn.study.simulate.config import load_config
        from galshape_cnn.study.simulate.mock_sets import draw_mocks
        from galshape_cnn.study.validate.benchmark_prior import measure_galaxies

        number, say = self.sizes["galaxies"], self._saying("prior")
        # Which galaxies are drawn depends on what the network was trained for, and on no weight.
        config = self.config if isinstance(self.config, dict) else load_config(self.config)
        drawn = {key: part for key, part in config.items() if key in _DRAWN}
        blocks = self.folder / f".blocks-{_digest([drawn, self.seed])[:8]}"
        blocks.mkdir(exist_ok=True)
        stamps, truth = draw_mocks(
            config,
            number,
            engine="galsim",
            seed=self.seed,
            workers=workers,
            folder=blocks,
            report=lambda done: say("drawn by GalSim", done, number),
        )
        table = measure_galaxies(
            self.network, stamps, truth, seed=self.seed, report=say,
            with_posterior=min(self.sizes["posterior"], number),
        )  # fmt: skip
        shutil.rmtree(blocks)
        return table


def _digest(parts):
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_table(table, path):
    """Write ECSV beside the target, then rename."""
    with written_whole(path) as beside:
        table.write(beside, format="ascii.ecsv")


def _write_results(run, tables):
    """Derived tables, figures and the page."""
    from galshape_cnn.study.report.plots import save_figure
    from galshape_cnn.study.validate.page import write_page

    run.say("figures and page", "", 0, 1)
    for name in ("bins", "van_trees", "trust", "flags", "verdict"):
        write_table(tables[name], run.folder / f"{name}.ecsv")
    for name, figure in draw_figures(tables).items():
        save_figure(figure, run.folder / f"{name}.png")
    write_page(run.folder, tables, run.bundle, run.seconds, run.sizes, run.seed)
    run.say("figures and page", "", 1, 1)
    return tables["verdict"]


def draw_figures(tables):
    """Figures of a validation, by the name of their file, from its tables, by the names of theirs."""
    from galshape_cnn.study.validate import atlas_plots
    from galshape_cnn.study.validate import plots as validation_plots

    bins, galaxies, atlas = tables["bins"], tables["galaxies"], tables["atlas"]
    with np.errstate(all="ignore"):
        return {
            "seed": validation_plots.plot_seed(tables["seed"]),
            "rmse": validation_plots.plot_bins(bins, "rmse", tables["van_trees"]),
            "scatter": validation_plots.plot_bins(bins, "scatter"),
            "bias": validation_plots.plot_bins(bins, "bias"),
            "efficiency": validation_plots.plot_bins(bins, "efficiency"),
            "calibration": validation_plots.plot_calibration(galaxies, bins),
            "predictions": validation_plots.plot_predictions(galaxies),
            "maps": atlas_plots.plot_prior_maps(galaxies),
            "trust": atlas_plots.plot_trust(tables["trust"]),
            "atlas": atlas_plots.plot_atlas(atlas),
            "neighbours": atlas_plots.plot_neighbours(atlas),
            "flags": atlas_plots.plot_flags(tables["flags"]),
        }
