# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The command line: ``galshape demo``, ``measure``, ``simulate``, ``train``, ``validate``, ``report``,
``inject``.

Each command is a module with ``add_parser(subparsers)`` and ``run(args)``.
Modules that are slow to import are imported by ``run``, so that ``--help`` and
``--version`` are quick.
"""

import argparse
import gc
import sys
import warnings
from contextlib import contextmanager

from galshape_cnn import __version__
from galshape_cnn.cli import demo, inject, measure, report, simulate, train, validate
from galshape_cnn.cli.compile_cache import compile_cache
from galshape_cnn.cli.streams import give_up_stdout, standard_streams
from galshape_cnn.cli.wording import in_options, notes_printed
from galshape_cnn.environment import keep_freed_memory
from galshape_cnn.errors import GalshapeError

__all__ = ["main"]

COMMANDS = (demo, measure, simulate, train, validate, report, inject)

_LONG = ("simulate", "train", "validate")  # see `compile_cache`

EXIT_DONE, EXIT_INPUT_ERROR, EXIT_USAGE = 0, 1, 2
EXIT_INTERRUPTED = 130  # as shells count signal 2


def main(args=None):
    """Run the command line.

    Parameters
    ----------
    args : sequence of str, optional
        Arguments without the program's name; by default those of the process.

    Returns
    -------
    status : int
        0 done (flagged rows are not failures), 1 input or file error, 2 usage, 130 interrupted (Ctrl-C).

    Examples
    --------
    >>> from galshape_cnn.cli import main
    >>> main(["measure"])
    2
    """
    with standard_streams():
        try:
            arguments = _parser().parse_args(args)
        except SystemExit as stop:  # argparse has printed its message
            return EXIT_USAGE if stop.code else EXIT_DONE
        if args is None:  # the process is the command's own
            keep_freed_memory()
        cache = compile_cache(arguments.command in _LONG)
        with cache, _rare_collections(), notes_printed(), warnings.catch_warnings():
            warnings.showwarning = _once(_print_warning)
            return _status(arguments)


def _status(arguments):
    """Run a command; what goes wrong is one line."""
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\ngalshape {arguments.command}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # of a reader such as head that has seen enough
        give_up_stdout()
    except (GalshapeError, OSError) as error:
        print(f"galshape {arguments.command}: {in_options(error)}", file=sys.stderr)
        return EXIT_INPUT_ERROR
    return EXIT_DONE


@contextmanager
def _rare_collections():
    """Look for circular garbage less often.

    Imports and the tracing of functions make a million objects that stay, and searching these again and
    again takes an eighth of the time until the first measurement.
    """
    usual = gc.get_threshold()
    gc.set_threshold(100_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _parser():
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog="galshape",
        description="Measure Sersic parameters and shear of galaxies, each with its Cramer-Rao bound.",
    )
    parser.add_argument("--version", action="version", version=f"galshape {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        module.add_parser(commands).set_defaults(run=module.run, command=name)
    return parser


def _once(show):
    """Show each text once: a file may be opened several times, and Python forgets what it has shown."""
    shown = set()

    def show_new(message, *args, **keywords):
        if str(message) not in shown:
            shown.add(str(message))
            show(message, *args, **keywords)

    return show_new


def _print_warning(message, category, filename, lineno, file=None, line=None):
    """One line on the error stream for each warning."""
    print(f"galshape: warning: {in_options(message)}", file=sys.stderr)
