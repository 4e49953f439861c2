# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Options shared by several commands: input, network, progress."""

import argparse
import glob
import sys
from pathlib import Path

from galshape_cnn.cli.options.psf import parse_psf
from galshape_cnn.errors import FileError, InputError
from galshape_cnn.infer.measure.options import METHODS

__all__ = [
    "WITHOUT_RECORD",
    "add_estimator_options",
    "add_image_options",
    "add_posterior_options",
    "add_shear_response_option",
    "asked_options",
    "expand_patterns",
    "image_options",
    "keep_defaults",
    "load_estimator",
    "posterior_options",
    "progress_wanted",
    "read_images",
    "read_prior",
]

_PSF_HELP = (
    "file with the effective PSF: one image, a cube or a table column with one per galaxy, a pattern of "
    "files, a PsfEx, Piff, STPSF or STScI model; or a profile: moffat:fwhm=0.7,beta=2.5  gaussian:fwhm=0.7  "
    "kolmogorov:fwhm=0.7  airy:fwhm=0.1,obscuration=0.3 (arcsec with a WCS, else pixels; fwhm=2.5px: pixels; "
    "optional g1=, g2=); or 'stars': estimated from those in the image, as is done without --psf"
)


#: Options that no number depends on, or that the table says in another way: everything else is recorded.
WITHOUT_RECORD = {
    "help", "input", "output", "overwrite", "workers", "scheduler", "block_rows", "progress",
    "bundle",  # by the network's hash
}  # fmt: skip


def asked_options(args):
    """Options of the command that differ from their defaults, for the metadata of its table.

    Plain numbers, texts, truth values and lists of them, by name. Whatever option is added to the command is
    recorded, unless `WITHOUT_RECORD` names it. The arguments hold ``defaults``, see `keep_defaults`.
    """
    known = args.defaults.items()
    changed = {name: getattr(args, name) for name, default in known if getattr(args, name) != default}
    return {name: value for name, value in changed.items() if name not in WITHOUT_RECORD}


def keep_defaults(parser):
    """Keep the defaults of all options of a parser beside them, as ``defaults``."""
    defaults = {action.dest: action.default for action in parser._actions if action.dest != "help"}
    parser.set_defaults(defaults=defaults)


def hdu(text):
    """HDU by number, by name, or in another file."""
    return int(text) if text.isdigit() else text


def positive_float(text):
    """Number above zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def error_level(text):
    """Number above zero, or the word ``background``."""
    return text if text == "background" else positive_float(text)


def whole(text, least=0, allowed="of at least 0"):
    """Whole number, at least zero."""
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number {allowed}")
    return value


def positive_int(text):
    """Whole number above zero."""
    return whole(text, 1, "above 0")


def add_image_options(parser):
    """Add to a parser the options that say what the file holds, where its names don't."""
    group = parser.add_argument_group("what the file holds")
    group.add_argument("--sci", type=hdu, metavar="HDU", help="HDU of the image: name or number")
    noise = group.add_mutually_exclusive_group()
    noise.add_argument("--err", type=hdu, metavar="HDU", help="HDU of the 1-sigma errors")
    noise.add_argument("--var", type=hdu, metavar="HDU", help="HDU of the variances")
    noise.add_argument("--ivar", type=hdu, metavar="HDU", help="HDU of the inverse variances")
    noise.add_argument("--weight", type=hdu, metavar="HDU", help="HDU of the weights (inverse variances)")
    noise.add_argument(
        "--error",
        type=error_level,
        metavar="SIGMA",
        help="1-sigma error of every pixel; 'background': measured in each image where it shows no sources",
    )
    group.add_argument("--mask", type=hdu, metavar="HDU", help="HDU of the mask or data-quality bits")
    group.add_argument(
        "--bad-bits",
        metavar="BITS",
        help="bits that mean bad, as values (4,8) or names of mask planes (SAT,CR); ~4: all but 4 (default: "
        "every bit; of HSC and Rubin planes, and of JWST and Roman, those that mean unusable)",
    )
    group.add_argument("--band", metavar="BAND", help="image of this BAND (or FILTER), if there are several")
    group.add_argument("--psf", metavar="PSF", help=_PSF_HELP)
    group.add_argument(
        "--psf-ext", type=hdu, metavar="HDU", help="HDU of the PSF, in the file of --psf or in the input"
    )
    group.add_argument(
        "--psf-oversampling",
        type=positive_int,
        default=1,
        metavar="N",
        help="PSF samples per pixel (default: 1)",
    )
    group.add_argument(
        "--trim-psf",
        action="store_true",
        help="drop the row and column that make a PSF array even-sized, so that its peak is in the middle",
    )
    group.add_argument(
        "--psf-without-pixel", action="store_true", help="the PSF array is not yet convolved with the pixel"
    )


def add_estimator_options(parser):
    """Add ``--method``, ``--bundle`` and ``--progress`` to a parser."""
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="network",
        help="network: fast posterior mean (default); ml: maximum likelihood; posterior: exact posterior",
    )
    parser.add_argument(
        "--bundle", metavar="B.asdf", help="trained network (default: the one that comes with the package)"
    )
    parser.add_argument("--progress", action="store_true", help="show progress even when not on a terminal")


def progress_wanted(args):
    """Whether to show a progress bar: on a terminal, or when asked for."""
    return args.progress or sys.stdout.isatty()


def add_shear_response_option(parser):
    """Add ``--shear-response`` to a parser."""
    parser.add_argument(
        "--shear-response",
        action="store_true",
        help="measure how the shapes respond to a shear of the sky, for mean_shear (methods network and ml)",
    )


def add_posterior_options(parser):
    """Add ``--prior`` and ``--seed`` of the measurement to a parser."""
    parser.add_argument(
        "--prior",
        metavar="PRIOR.toml",
        help="for posterior and network, in place of the prior of the training: distributions of snr or "
        "flux, n, hlr (pixels), g",
    )
    parser.add_argument(
        "--seed",
        type=whole,
        default=0,
        metavar="N",
        help="of the draws of posterior, and of the noise of --shear-response (default: 0)",
    )


def posterior_options(args):
    """The estimator's keywords ``prior`` and ``seed``, where asked for.

    `FileError` if the file of the prior cannot be read, `InputError` if it holds none.
    """
    how = {"seed": args.seed} if args.seed else {}
    if args.prior is None:
        return how
    from galshape_cnn.infer.posterior.prior import Prior

    try:
        return how | {"prior": Prior(read_prior(args.prior))}
    except InputError as error:
        raise InputError(f"--prior {args.prior}: {error}") from error


def read_prior(path):
    """Distributions by name, of the TOML file of ``--prior``; `FileError` if it cannot be read."""
    import tomllib

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"--prior {path}: {error}") from error


def load_estimator(bundle):
    """The estimator of the bundle of a path, or for None the one that comes with the package."""
    from galshape_cnn import ShapeEstimator

    return ShapeEstimator() if bundle is None else ShapeEstimator.load(bundle)


def read_images(args):
    """Image, cube of cutouts, or list of cutouts that the arguments describe, and keywords of the estimator.

    What is given explicitly replaces what the file says: ``--error`` its noise, a ``--psf`` profile its PSF.
    ``FileError`` if a file cannot be read, ``PSFError`` if a PSF profile is impossible.
    """
    from galshape_cnn.observe.io.pairing import names_of_each, with_own_psf
    from galshape_cnn.scale.images import open_image

    paths, names, keywords = image_options(args)
    each = names_of_each(paths, names)
    images = [open_image(path, own, keywords) for path, own in zip(paths, each, strict=True)]
    images = [with_own_psf(image, row, len(images), names) for row, image in enumerate(images)]
    return images[0] if len(paths) == 1 else images, keywords


def image_options(args):
    """What the arguments say about the input, without reading it; errors as of `read_images`.

    Input files, options of `galshape_cnn.scale.images.open_image`, and keywords of the estimator, which
    replace what the files say.
    """
    profile = None if args.psf is None else parse_psf(args.psf)
    names = ("sci", "err", "var", "ivar", "weight", "mask", "band", "bad_bits")
    names = {name: getattr(args, name) for name in names}
    names["psf"] = None if profile is not None else _psf_choice(args)
    keywords = {"psf_oversampling": args.psf_oversampling, "psf_includes_pixel": not args.psf_without_pixel}
    names["trim_psf"], names["blank_noise"] = args.trim_psf, args.error == "background"
    if profile is not None:
        keywords["psf"], keywords["psf_includes_pixel"] = profile, True
    if args.error is not None and not names["blank_noise"]:
        keywords["error"] = args.error
    return expand_patterns(args.input), names, keywords


def expand_patterns(inputs):
    """Input files, with patterns such as ``"cutouts/*.fits"`` that the shell has not expanded.

    The files of a pattern come in sorted order; one that matches none raises `FileError`.
    """
    paths = []
    for one in inputs:
        found = sorted(glob.glob(one)) if glob.has_magic(one) and not Path(one).exists() else [one]
        if not found:
            raise FileError(f"{one} matches no file")
        paths += found
    return paths


def _psf_choice(args):
    """HDU or file of the PSF, in the notation ``file.fits[2]``."""
    if args.psf is None or args.psf_ext is None:
        return args.psf_ext if args.psf is None else args.psf
    return f"{args.psf}[{args.psf_ext}]"
