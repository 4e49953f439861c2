# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape inject``: draw known galaxies into the user's own image, measure them, and judge the result."""

from contextlib import contextmanager

from galshape_cnn.cli.options.common import (
    add_estimator_options,
    add_image_options,
    add_shear_response_option,
    asked_options,
    keep_defaults,
    load_estimator,
    positive_float,
    positive_int,
    progress_wanted,
    read_images,
    read_prior,
)
from galshape_cnn.cli.options.detection import add_threshold_options, detection_from
from galshape_cnn.cli.options.noise import add_noise_options, noise_error, noise_options
from galshape_cnn.cli.options.psf import add_psf_error_option, psf_error_from, stars_if_needed
from galshape_cnn.errors import FileError, InputError
from galshape_cnn.files import output_folder

__all__ = ["add_parser", "run"]


def add_parser(commands):
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "inject",
        help="draw known galaxies into an image and measure them: tables, pictures, one HTML page",
        description="Draw galaxies of known parameters into free places of copies of an image, measure them "
        "as 'measure' does, and write truth and measurement, figures and one HTML page with a verdict. The "
        "same command goes on where it was interrupted.",
    )
    parser.add_argument("input", metavar="IMAGE", nargs=1, help="image with noise, mask and WCS")
    parser.add_argument("-n", "--number", type=positive_int, required=True, metavar="N", help="galaxies")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the results")
    _add_galaxy_options(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=positive_int, metavar="N", help="processes (default: threads)")
    where.add_argument("--scheduler", metavar="ADDR", help="work on the Dask cluster of this scheduler")
    parser.add_argument("--stamp-size", type=positive_int, metavar="N", help="pixels used around each galaxy")
    parser.add_argument("--no-fit-sky", action="store_true", help="take the sky level as exactly zero")
    add_noise_options(parser)
    add_psf_error_option(parser)
    parser.add_argument(
        "--gain-in-map",
        action="store_true",
        help="with --gain: the noise map holds the photon noise of sources, that of the galaxies is added",
    )
    add_estimator_options(parser)
    add_image_options(parser)
    group = parser.add_argument_group("finding sources: those to be avoided, and with --find the galaxies")
    group.add_argument(
        "--find",
        action="store_true",
        help="find the galaxies, as 'measure' does without --positions (default: their positions are given)",
    )
    add_threshold_options(group)
    keep_defaults(parser)
    return parser


def _add_galaxy_options(parser):
    """What is injected, and where."""
    group = parser.add_argument_group("galaxies")
    what = group.add_mutually_exclusive_group()
    what.add_argument(
        "--catalogue",
        metavar="CAT",
        help="table of galaxies: flux or snr; n; hlr or r_eff; g1 and g2, or q and pa",
    )
    what.add_argument(
        "--prior", metavar="PRIOR.toml", help="distributions of snr or flux, n, hlr (pixels), g"
    )
    for name, text in (
        ("snr", "S/N, uniform in its logarithm (default: 10 300)"),
        ("n", "Sersic index, uniform (default: 0.5 5)"),
        (
            "hlr",
            "half-light radius in pixels, uniform in its logarithm (default: 0.3 to 1.5 FWHM of the PSF)",
        ),
    ):
        option = f"--{name}" if name != "n" else "--sersic-n"
        group.add_argument(
            option, dest=f"range_{name}", type=positive_float, nargs=2, metavar=("LOW", "HIGH"), help=text
        )
    group.add_argument(
        "--kinds",
        default="sersic",
        metavar="KIND[=W],...",
        help="sersic (default), bulge_disc, clumpy, spiral, real, or several with weights: sersic=2,clumpy=1",
    )
    group.add_argument(
        "--real-galaxies", metavar="CAT.fits", help="for the kind real: catalogue in the format of GalSim"
    )
    group.add_argument("--pixel-scale", type=positive_float, metavar="ARCSEC", help="for real, without WCS")
    group.add_argument(
        "--clearance",
        type=float,
        default=3.0,
        metavar="R",
        help="semi-major half-light radii around a galaxy without sources to be avoided (default: 3)",
    )
    group.add_argument(
        "--avoid",
        choices=["brighter", "all", "none"],
        default="brighter",
        help="sources to be avoided (default: those brighter than the galaxy)",
    )
    group.add_argument(
        "--shear", type=float, nargs=2, metavar=("G1", "G2"), help="shear of all galaxies (default: 0 0)"
    )
    add_shear_response_option(group)
    group.add_argument("--seed", type=int, default=1, help="seed of the random numbers (default: 1)")


def run(args):
    """Inject, measure, and write the results."""
    from galshape_cnn.study.inject.results import tables_of
    from galshape_cnn.study.validate.criteria import passed

    with output_folder(args.output) as folder:
        table = _injected(args, folder)
    verdict = tables_of(table)["verdict"]
    failed = sum(not good for good in verdict["passed"])
    word = "passed" if passed(verdict) else f"FAILED in {failed} of {len(verdict)} checks"
    found = int(table["found"].sum())
    found = f"injected {len(table)} galaxies ({args.method}), {found} measured"
    print(f"{found}: {word} -> {args.output}/index.html")


def _injected(args, folder):
    """Table of the injected and measured galaxies; everything is written into the folder."""
    from galshape_cnn import inject

    image, keywords = read_images(args)
    keywords |= noise_error(args, image)
    stars_if_needed(image, keywords, is_image=True)
    keywords |= noise_options(args, _Opened(image)) | psf_error_from(args) | _galaxies(args)
    if args.stamp_size is not None:
        keywords["stamp_size"] = args.stamp_size
    if args.shear_response:
        keywords["shear_response"] = True
    if args.no_fit_sky:  # otherwise as the network was trained
        keywords["fit_sky"] = False
    with _executor(args.scheduler) as executor:
        return inject(
            image,
            n=args.number,
            method=args.method,
            find=args.find,
            detection=detection_from(args),
            gain_in_map=args.gain_in_map,
            seed=args.seed,
            shear=args.shear,
            estimator=load_estimator(args.bundle),
            output=folder,
            workers=args.workers,
            executor=executor,
            progress=progress_wanted(args),
            record={"command": asked_options(args)},
            **keywords,
        )


class _Opened:
    """An image that was read, in place of a source."""

    def __init__(self, image):
        self._image = image

    def example(self):
        """The image."""
        return self._image


def _galaxies(args):
    """Keywords of `inject` that say what is injected."""
    from astropy.table import Table

    kinds = _kinds(args.kinds)
    known = {"kinds": kinds, "clearance": args.clearance, "avoid": args.avoid}
    known |= {"real_galaxies": args.real_galaxies, "pixel_scale": args.pixel_scale}
    ranges = {name: getattr(args, f"range_{name}") for name in ("snr", "n", "hlr")}
    ranges = {name: value for name, value in ranges.items() if value is not None}
    if args.catalogue is None:
        return known | {"prior": _prior(args.prior, ranges)}
    if ranges:
        raise InputError(
            "--catalogue says what is injected; --snr, --sersic-n and --hlr are of no use with it"
        )
    try:
        return known | {"catalogue": Table.read(args.catalogue)}
    except (OSError, ValueError, TypeError, UnicodeError) as error:  # of any reader
        raise FileError(f"--catalogue {args.catalogue}: {' '.join(str(error).split())}") from error


def _prior(path, ranges):
    """The distributions that differ from the default ones, or None."""
    prior = {} if path is None else read_prior(path)
    for name, (low, high) in ranges.items():
        kind = "uniform" if name == "n" else "loguniform"
        prior[name] = {"kind": kind, "low": low, "high": high}
    return prior or None


def _kinds(text):
    """Kinds of galaxies with their weights."""
    kinds = {}
    for item in filter(None, text.split(",")):
        name, _, weight = (part.strip() for part in item.partition("="))
        try:
            kinds[name] = float(weight or 1)
        except ValueError:
            raise InputError(f"--kinds {text}: {weight!r} is not a number") from None
    return kinds


@contextmanager
def _executor(scheduler):
    """Who works: the Dask cluster of a scheduler, or None for this machine."""
    if scheduler is None:
        yield None
        return
    from galshape_cnn.scale.dask import connected

    with connected(scheduler) as client:
        yield client.get_executor()
