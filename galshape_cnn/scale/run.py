# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`measure_stream`: any number of galaxies with flat memory, on threads, processes or a cluster."""

import warnings
from collections import deque

from astropy.table import QTable

from galshape_cnn.errors import InputError, LostRowsWarning
from galshape_cnn.fingerprint import fingerprint
from galshape_cnn.infer.catalog.columns import pass_through
from galshape_cnn.infer.catalog.writable import warn_of_changes
from galshape_cnn.infer.measure.options import measurement_keywords
from galshape_cnn.parallel import progress_bar
from galshape_cnn.processes import check_main_guard
from galshape_cnn.quantities import whole_number
from galshape_cnn.scale.blocks import join_rows, probe
from galshape_cnn.scale.dataset import BlockFolder
from galshape_cnn.scale.sources import open_source
from galshape_cnn.scale.workers import Job, local_workers

__all__ = [
    "BLOCK_ROWS",
    "CHUNK_ROWS",
    "begin_run",
    "configuration_of",
    "measure_all",
    "measure_stream",
    "recording",
    "settled_noise",
    "source_columns",
    "split_options",
]

#: Rows of a file of the output.
BLOCK_ROWS = 8192
#: Rows a worker measures at a time: a few dozen MB, and a second or so.  Where there are few, each worker has
#: several chunks all the same, of no fewer rows than are worth it: large galaxies come first and take long.
CHUNK_ROWS, _FEWEST_ROWS, _CHUNKS_EACH = 512, 256, 8
#: Rows of the last chunks, so that all workers end at about the same time.
_LAST_ROWS = 64
#: Rows at the beginning of a source from which its noise is estimated.
_NOISE_ROWS = 256
#: Chunks under way for each worker: in work, waiting, or done before one that was begun earlier.
_AHEAD = 4


def measure_stream(
    estimator, data, output, *, workers=None, block_rows=BLOCK_ROWS, progress=False, settings=None, **options
):
    """Measure galaxies into a folder of Parquet files, which may be interrupted and goes on.

    Reading, cutting, measuring and writing overlap.  The numbers do not depend on the number
    of workers or on the size of the blocks.

    Parameters
    ----------
    estimator : ShapeEstimator
        With its network.
    data : Source or object
        As `~galshape_cnn.scale.sources.open_source` takes it.
    output : path-like
        Folder; an unfinished run of the same configuration in it is continued.
    workers : int, optional
        Processes; by default one process with a thread for each core it may use.
    block_rows : int, optional
        Rows of a file.
    progress : bool, optional
        Show a progress bar.
    settings : dict, optional
        Further things that decide the numbers, to be compared when a run goes on.
    **options
        ``method``, ``fit_sky``, ``neighbours``, ``gain``, ``prior``, ``seed``, ``shear_response`` as in a
        call of the estimator; everything else goes to `~galshape_cnn.scale.sources.open_source`.

    Returns
    -------
    summary : dict
        ``rows``, ``clean`` (of quality 0), ``errors`` and ``flags`` (name to count).

    Raises
    ------
    InputError
        If the folder holds a run of another configuration, or the input cannot be used at all.
    FileError
        If a block cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from galshape_cnn import ShapeEstimator
    >>> from galshape_cnn.scale import measure_stream, read_blocks
    >>> y, x = np.mgrid[-31.5:32, -31.5:32]
    >>> galaxy = 100 * np.exp(-np.hypot(x, y) / 3)
    >>> images = galaxy + np.random.default_rng(1).normal(size=(3, 64, 64))
    >>> psf = np.exp(-np.sum(np.mgrid[-6:7, -6:7] ** 2, axis=0) / 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = measure_stream(ShapeEstimator(), images, folder, error=1.0, psf=psf, block_rows=2)
    ...     table = read_blocks(folder)
    >>> summary["rows"], len(table)
    (3, 3)
    """
    if workers is not None:
        check_main_guard()
    source, how, folder = begin_run(estimator, data, output, block_rows, settings, options)
    if folder.missing():
        with folder.begun():
            job = Job(estimator, source, how, probe(estimator, source, how))
            with local_workers(job, workers) as pool:
                fill_folder(folder, pool, progress, recording(options))
    return folder.finish()


def begin_run(estimator, data, output, block_rows, settings, options):
    """Source, options and folder of a run of `measure_stream`, whoever does the work.

    The noise of the source is settled, so that the options are the same for every part of it.
    """
    if not callable(estimator):
        raise InputError(f"estimator is a {type(estimator).__name__}; allowed: a ShapeEstimator")
    how, rest = split_options(options)
    block_rows = whole_number(block_rows, "block_rows", 1)
    source = open_source(data, **rest)
    warn_of_changes(source_columns(source), ".parquet")
    source, how = settled_noise(source, how)
    configuration = configuration_of(estimator, source, how, settings)
    return source, how, BlockFolder(output, configuration, len(source), block_rows)


def recording(options):
    """What adds to the metadata of a block how its files were read, which no estimator knows.

    From the keywords of `measure_stream`; a function for `fill_folder`, or None.
    """
    names = {name: value for name, value in (options.get("names") or {}).items() if value}
    if not names:
        return None

    def finish(table):
        table.meta["options"] = {**table.meta.get("options", {}), "names": names}

    return finish


def source_columns(source):
    """Columns, ``id`` included, that came with the positions and that the table of a run will have."""
    inputs = source.inputs(0, len(source))
    table = pass_through(inputs)
    if inputs is not None and "id" in inputs.colnames:
        table = QTable() if table is None else table
        table["id"] = inputs["id"]
    return table


def split_options(options):
    """Options of the measurement, and the rest, of the keywords of a call."""
    how = {name: options[name] for name in measurement_keywords() if name in options}
    if how.get("psf_error") is not None:  # here it is known what its arrays are
        from galshape_cnn.infer.measure.psf_error import PSFUncertainty

        how["psf_error"] = PSFUncertainty.checked(
            how["psf_error"],
            oversampling=options.get("psf_oversampling", 1),
            includes_pixel=options.get("psf_includes_pixel", True),
            normalize=options.get("normalize_psf", True),
        )
    return how, {name: value for name, value in options.items() if name not in how}


def configuration_of(estimator, source, how, settings=None):
    """Everything that decides the numbers of a run, as texts; ``settings`` are further things."""
    from galshape_cnn import __version__

    network = getattr(getattr(estimator, "bundle", None), "sha256", type(estimator).__name__)
    options = {name: fingerprint(value) for name, value in how.items() if value is not None}
    known = {"version": __version__, "network": network, "input": source.identity, **options}
    return known | {name: fingerprint(value) for name, value in (settings or {}).items()}


def fill_folder(folder, pool, progress=False, finish=None):
    """Measure the blocks that are missing in a folder, by a pool of workers.

    ``finish`` takes the table of a block and changes it before it is written.
    """
    missing, ranges = folder.missing(), folder.ranges()
    bar = progress_bar(sum(stop - start for start, stop in (ranges[n] for n in missing)), progress)
    chunks = [(n, *one) for n in missing for one in _chunks(*ranges[n])]
    parts = []
    for (number, _, stop), rows in _measured(pool, chunks):
        parts.append(rows)
        bar(len(rows))
        if stop == ranges[number][1]:
            whole, parts = join_rows(parts), []
            table = whole.catalog.to_table()
            if finish is not None:
                finish(table)
            folder.write(number, table, whole.errors)


def measure_all(pool, n, progress=False):
    """Measure all rows into one catalogue, without data, in memory, and its errors.

    ``pool`` are those who measure: a ``ThreadWorkers``, ``ProcessWorkers`` or ``DaskWorkers``.
    """
    bar, parts = progress_bar(n, progress), []
    fewest = min(_FEWEST_ROWS, -(-n // pool.count))
    size = max(1, min(CHUNK_ROWS, max(fewest, -(-n // (_CHUNKS_EACH * pool.count)))))
    for _, rows in _measured(pool, [(None, *one) for one in _shrinking_chunks(n, size, pool.count)]):
        parts.append(rows)
        bar(len(rows))
    return join_rows(parts)


def _chunks(start, stop, size=CHUNK_ROWS):
    """Ranges of at most ``size`` rows."""
    return [(first, min(first + size, stop)) for first in range(start, stop, size)]


def _shrinking_chunks(n, size, workers):
    """Ranges of at most ``size`` rows, and of half of a worker's share of those that are left."""
    chunks, start = [], 0
    while start < n:
        step = min(size, max((n - start) // (2 * workers), _LAST_ROWS))
        chunks.append((start, min(start + step, n)))
        start += step
    return chunks


def _measured(pool, chunks):
    """Each chunk and its rows, in order; a few are under way at any time."""
    waiting, todo = deque(), deque(chunks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LostRowsWarning)
        while waiting or todo:
            while todo and len(waiting) < _AHEAD * pool.count:
                chunk = todo.popleft()
                waiting.append((chunk, pool.submit(*chunk[1:])))
            chunk, future = waiting.popleft()
            yield chunk, pool.result(future, *chunk[1:])


def settled_noise(source, how):
    """A source and options in which scale and autocorrelation of the noise are settled for all parts.

    The source is the same, but of several exposures, of which each has noise of its own, one that knows it.
    ``noise_scale`` and ``noise_correlation`` are numbers, arrays or None: measured on the image where they
    were ``'auto'`` or missing, on the first 256 rows where they were ``'estimate'``. ``NoiseError`` if there
    are too few blank pixels for that.
    """
    from galshape_cnn.observe.noise.model import NoiseModel
    from galshape_cnn.observe.observation import prepare

    noise, names = NoiseModel.from_keywords(how), ("noise_scale", "noise_correlation")
    if hasattr(source, "settled"):
        return source.settled(**{name: getattr(noise, name) for name in names}), how | dict.fromkeys(names)
    if noise.is_automatic and not source.is_image:
        kept = {name: getattr(noise, name) for name in names}
        return source, how | {name: None if isinstance(value, str) else value for name, value in kept.items()}
    if noise.is_estimated:
        data, keywords = source.read(0, min(len(source), 1 if noise.is_automatic else _NOISE_ROWS))
        noise = noise.settled(prepare(data, **keywords | {"strict": not noise.is_automatic}))
    return source, how | {name: getattr(noise, name) for name in names}
