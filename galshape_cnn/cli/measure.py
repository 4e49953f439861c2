# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape measure``: images in, table of shapes out."""

import argparse
import math
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from galshape_cnn.cli.options.common import (
    add_estimator_options,
    add_image_options,
    add_posterior_options,
    add_shear_response_option,
    asked_options,
    image_options,
    keep_defaults,
    load_estimator,
    positive_int,
    posterior_options,
    progress_wanted,
    read_images,
)
from galshape_cnn.cli.options.detection import add_detection_options, has_many, targets
from galshape_cnn.cli.options.exposures import (
    add_exposures_option,
    add_vary_option,
    exposures_source,
    vary_from,
)
from galshape_cnn.cli.options.noise import add_noise_options, noise_error, noise_options
from galshape_cnn.cli.options.psf import add_psf_error_option, psf_error_from, stars_if_needed
from galshape_cnn.cli.wording import in_options
from galshape_cnn.errors import InputError

__all__ = ["add_parser", "is_table", "run", "source_from", "summary"]

_SHOWN = 10  # errors printed; a folder of blocks lists all
#: Galaxies above which processes gain more than the seconds that they take to start.
_MANY = 20_000
#: The same where they began to start while the image was searched, and how many do at most.
_MANY_OF_IMAGE, _MOST_EARLY = 500, 8
_LONG_LIST = 2**15  # bytes of a list of positions: some hundreds of rows


def add_parser(commands):
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "measure",
        help="measure the galaxies of a FITS file",
        description="Measure the galaxies of a FITS file: one row each, with bounds and flags. Without "
        "--positions, an image of up to 128 pixels (or each plane of a cube) is the cutout of one galaxy; "
        "in a larger image the galaxies are found by segmentation (photutils).",
    )
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument(
        "input",
        metavar="IN.fits",
        nargs="*",
        default=[],
        help="image with noise, mask and WCS, cube of cutouts, or many cutouts",
    )
    add_exposures_option(images)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="table: .ecsv .fits .parquet .asdf .vot; or, without a suffix, a folder of Parquet files for "
        "any number of galaxies: the same command goes on where it was interrupted",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing table or run")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="processes (default: one for each core where there are more than 20,000 galaxies, "
        "at most 8 where a large image has more than 500, else threads)",
    )
    where.add_argument("--scheduler", metavar="ADDR", help="measure on the Dask cluster of this scheduler")
    parser.add_argument(
        "--block-rows", type=positive_int, default=8192, metavar="N", help="rows of a Parquet file (8192)"
    )
    parser.add_argument(
        "--positions",
        metavar="CAT",
        help="table with x, y (0-based pixels) or ra, dec (degrees), a catalogue of Source Extractor or "
        "another tool, or regions of DS9; file.fits[TABLE] where there are several tables",
    )
    parser.add_argument("--stamp-size", type=positive_int, metavar="N", help="pixels used around each galaxy")
    parser.add_argument("--no-fit-sky", action="store_true", help="take the sky level as exactly zero")
    add_shear_response_option(parser)
    _add_magnitude_option(parser)
    add_noise_options(parser)
    add_psf_error_option(parser)
    add_vary_option(parser)
    add_estimator_options(parser)
    add_posterior_options(parser)
    add_image_options(parser)
    add_detection_options(parser)
    keep_defaults(parser)
    return parser


def run(args):
    """Measure and write the table, or the folder."""
    start = time.perf_counter()
    if is_table(args.output):
        text = _into_table(args)
    else:
        text = _into_folder(args)
    print(f"{text}, {time.perf_counter() - start:.1f} s -> {args.output}")


def _say_what_changes(source, suffix):
    """Say, before any work, which columns of the positions the output cannot hold as they are."""
    from galshape_cnn.infer.catalog.writable import warn_of_changes
    from galshape_cnn.scale.run import source_columns

    warn_of_changes(source_columns(source), suffix)


def is_table(output):
    """Whether an output is a single table: it has such a suffix, or another one and is no folder."""
    from galshape_cnn.infer.catalog.tables import TABLE_SUFFIXES

    suffix = Path(output).suffix.lower()
    return suffix in TABLE_SUFFIXES or (bool(suffix) and not Path(output).is_dir())


def _into_table(args):
    """Measure everything, then write one table."""
    from galshape_cnn.infer.catalog.tables import check_table_path, write_table
    from galshape_cnn.infer.catalog.writable import CHANGED
    from galshape_cnn.scale.run import measure_all

    check_table_path(args.output, args.overwrite)
    with _processes(args) as processes:
        source = source_from(args, processes)
        _say_what_changes(source, Path(args.output).suffix.lower())
        source, how = _how(args, source)
        with _pool(args, _job(source, how, load_estimator(args.bundle)), processes) as pool:
            rows = measure_all(pool, len(source), progress_wanted(args))
    table = rows.catalog.to_table()
    _finish(args, source.example(), table)
    for row, error in rows.errors[:_SHOWN]:
        print(f"galshape: warning: row {row}: {in_options(error)}", file=sys.stderr)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=CHANGED)  # has been said
        write_table(table, args.output, args.overwrite)
    return summary(rows.catalog, len(rows.errors))


def _into_folder(args):
    """Measure block by block, going on where an earlier run was interrupted."""
    from galshape_cnn.scale.dataset import BlockFolder
    from galshape_cnn.scale.run import configuration_of, fill_folder

    with _processes(args) as processes:
        source = source_from(args, processes)
        _say_what_changes(source, ".parquet")
        estimator = load_estimator(args.bundle)
        settings = {"zeropoint": args.zeropoint}
        source, how = _how(args, source)
        configuration = configuration_of(estimator, source, how, settings)
        if args.overwrite:
            BlockFolder.clear(args.output)
        folder = BlockFolder(args.output, configuration, len(source), args.block_rows)
        if folder.missing():
            example = source.example()
            with folder.begun(), _pool(args, _job(source, how, estimator), processes) as pool:
                fill_folder(folder, pool, progress_wanted(args), partial(_finish, args, example))
    counts = folder.finish()
    return counted(counts["rows"], args.method, counts["clean"], counts["flags"], counts["errors"])


def _finish(args, example, table):
    """Add to a table what the estimator does not know: magnitudes, and options of the command."""
    if args.exposures is None:  # those of a list have zero points of their own
        _add_magnitude_columns(args, table, example)
    table.meta["command"] = asked_options(args)


def summary(catalog, errors=0):
    """Rows and flags in a line, such as ``measured 3 galaxies (ml): 2 of quality 0, EDGE 1``.

    ``errors`` are rows that could not be tried.
    """
    clean = int(np.count_nonzero(catalog.quality == 0))
    return counted(len(catalog), catalog.method, clean, catalog.flag_counts(), errors)


def counted(rows, method, clean, flags, errors=0):
    """The line of `summary` from counts: of galaxies, rows of quality 0, each flag, rows not tried."""
    counts = [f"{name} {count}" for name, count in flags.items()]
    failed = [f"{errors} with an error"] if errors else []
    noun = "galaxy" if rows == 1 else "galaxies"
    return f"measured {rows} {noun} ({method}): " + ", ".join([f"{clean} of quality 0", *counts, *failed])


def source_from(args, processes=None):
    """Source of the galaxies that the parsed arguments describe.

    Galaxies are searched for in one of the ``processes``, if there are any, while stars are here.  Files that
    cannot be read raise `FileError`, options that contradict them `InputError`.
    """
    from galshape_cnn.scale.file_sources import FileSource, MockSource
    from galshape_cnn.scale.images import replaced
    from galshape_cnn.scale.sources import ImageSource, is_mock_set, open_source

    vary_from(args)  # refused before anything is read
    if args.exposures is not None:
        return exposures_source(args)
    paths, names, keywords = image_options(args)
    if args.stamp_size is not None:
        keywords["stamp_size"] = args.stamp_size
    if len(paths) > 1:
        return _with_positions(args, [], FileSource(tuple(paths), names, keywords))
    if is_mock_set(paths[0]) and not any(names.values()):
        plain = "psf" not in keywords
        return MockSource(paths[0], {k: v for k, v in keywords.items() if not (plain and "psf_" in k)})
    image, keywords = read_images(args)
    if args.stamp_size is not None:
        keywords["stamp_size"] = args.stamp_size
    if np.ndim(image.data) == 3:
        return _with_positions(args, image, open_source(paths[0], names=names, **keywords))
    keywords |= noise_error(args, image)
    # its thread waits for one of the processes, if there are any: two searches by one hinder each other
    with ThreadPoolExecutor(1) as pool:
        search = pool.submit(targets, args, image, keywords.get("error"), processes)
        try:
            stars_if_needed(image, keywords, has_many(args, image))
        finally:
            positions = search.result()
    if names["blank_noise"]:  # measured once, not again by every worker
        keywords["error"], names["blank_noise"] = float(np.ravel(image.uncertainty.array)[0]), False
    if positions is None:
        return FileSource(tuple(paths), names, keywords)
    return ImageSource(paths[0], positions, names, keywords, opened=replaced(image, keywords))


def _with_positions(args, data, source):
    """Cutouts, with the positions of the galaxies in them if these are given."""
    from galshape_cnn.scale.sources import PlacedSource

    positions = targets(args, data)
    return source if positions is None else PlacedSource(source, positions)


def _how(args, source):
    """The source, its noise settled, and options of the measurement that are the same for all its parts."""
    from galshape_cnn.scale.run import settled_noise

    how = {"method": args.method, **noise_options(args, source), **psf_error_from(args), **vary_from(args)}
    how |= posterior_options(args)
    if args.no_fit_sky:  # otherwise as the network was trained
        how["fit_sky"] = False
    if args.shear_response:
        how["shear_response"] = True
    return settled_noise(source, how)


def _job(source, how, estimator):
    """What the workers need to know."""
    from galshape_cnn.scale.blocks import probe
    from galshape_cnn.scale.workers import Job

    return Job(estimator, source, how, probe(estimator, source, how))


@contextmanager
def _processes(args):
    """Processes that import what they need while a large image is read and searched; None elsewhere."""
    from galshape_cnn.parallel import usable_cores
    from galshape_cnn.scale.workers import Processes

    is_free = args.workers is None and args.scheduler is None and len(args.input) == 1
    if not (is_free and usable_cores() > 1 and _may_show_many(args)):
        yield None
        return
    processes = Processes(min(usable_cores(), _MOST_EARLY), spared=1)
    try:
        yield processes
    finally:
        processes.close()


def _may_show_many(args):
    """Whether the input is a large image that is searched, or comes with a long list of positions."""
    from galshape_cnn.scale.images import has_large_image

    if args.positions is None:
        return not args.cutout and has_large_image(args.input[0])
    try:
        return Path(args.positions).stat().st_size > _LONG_LIST and has_large_image(args.input[0])
    except OSError:  # it may name a table in a file, or be missing
        return False


def _workers(args, n, processes):
    """Processes, or their number, for ``n`` galaxies; None for threads."""
    from galshape_cnn.parallel import usable_cores

    if args.workers is not None:
        return args.workers
    wanted = usable_cores() if n > _MANY else 1
    if processes is not None and n > _MANY_OF_IMAGE and processes.count >= wanted and processes.are_ready():
        return processes
    return wanted if wanted > 1 else None


@contextmanager
def _pool(args, job, processes):
    """Those who measure: threads, processes, or a cluster."""
    if args.scheduler is None:
        from galshape_cnn.scale.workers import local_workers

        with local_workers(job, _workers(args, len(job.source), processes)) as pool:
            yield pool
        return
    from galshape_cnn.scale.dask import DaskWorkers, connected

    with connected(args.scheduler) as client:
        pool = DaskWorkers(job, client)
        try:
            yield pool
        finally:
            pool.close()


def _add_magnitude_option(parser):
    """Add ``--zeropoint`` to a parser."""
    parser.add_argument(
        "--zeropoint",
        type=_zeropoint,
        metavar="MAG",
        help="add columns mag, mag_err with this zero point; 'header': that of the header, be it a keyword "
        "such as MAGZERO; 'none': no magnitudes (default: from the unit, FLUXMAG0, PHOTFLAM, if it can)",
    )


def _zeropoint(text):
    """Number, or one of two words."""
    if text in ("header", "none"):
        return text
    try:
        magnitude = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, and not 'header' or 'none'") from None
    if not math.isfinite(magnitude):
        raise argparse.ArgumentTypeError(f"{text} is not finite; a magnitude, 'header' or 'none' is needed")
    return magnitude


def _add_magnitude_columns(args, table, data):
    """Append magnitudes to a table where a zero point is given, or known from the first image's header.

    `InputError` if the header's is wanted and there is none.
    """
    from galshape_cnn.infer.catalog.magnitudes import add_magnitudes
    from galshape_cnn.observe.io.photometry import header_zeropoint

    if args.zeropoint == "none":
        return
    if isinstance(args.zeropoint, float):
        add_magnitudes(table, args.zeropoint)
        return
    first = data[0] if isinstance(data, list) else data
    found = None if first is None else header_zeropoint(first.meta or {}, first.unit)  # mocks have no header
    if args.zeropoint == "header" and found is None:
        raise InputError("--zeropoint header: the header states no zero point; give a number")
    if found is not None and (found.exact or args.zeropoint == "header"):
        add_magnitudes(table, found.magnitude, found.source)
