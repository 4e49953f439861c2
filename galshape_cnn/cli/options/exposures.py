# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``--exposures`` and ``--vary``: a list of images of the same galaxies, measured together."""

from pathlib import Path

import numpy as np

from galshape_cnn.cli.options.detection import is_cutout, targets
from galshape_cnn.cli.options.psf import parse_psf, read_psf_error
from galshape_cnn.errors import FileError, InputError

__all__ = [
    "add_exposures_option",
    "add_vary_option",
    "exposures_source",
    "listed_exposures",
    "read_exposures",
    "vary_from",
]

#: Columns of the list, and which of them are numbers.
_NEEDED = ("image", "band")
_FILES = ("psf", "error", "variance", "weight", "mask")
_NUMBERS = ("zeropoint", "gain", "wavelength")
_MEASURED = "background"  # an error that is measured where the image shows no sources
_WORDS = ("name", "hdu", "noise_scale", "noise_correlation", "psf_error")
_COLUMNS = (*_NEEDED, *_FILES, *_NUMBERS, *_WORDS)

#: Options that say of one image what the list says of each.
_OF_ONE = (
    "sci", "err", "var", "ivar", "weight", "error", "mask", "bad_bits", "band", "psf", "psf_ext", "gain",
    "read_noise", "sky_level", "noise_scale", "noise_correlation", "trim_psf",
)  # fmt: skip


def add_exposures_option(parser):
    """Add ``--exposures`` to a parser."""
    parser.add_argument(
        "--exposures",
        metavar="LIST",
        help="table (.ecsv .csv .fits) of images of the same galaxies, measured together, in place of "
        "IN.fits: columns image, band, and if wanted psf, error, variance, weight, mask (files, file[HDU], "
        "or psf as for --psf; error also 'background' or a number such as 0.5), zeropoint, gain, wavelength, "
        "hdu, name, noise_scale, noise_correlation, psf_error; galaxies are found in the first image "
        "without --positions",
    )


def add_vary_option(parser):
    """Add ``--vary`` to a parser."""
    parser.add_argument(
        "--vary",
        metavar="ORDERS",
        help="with --exposures: what of the shape varies between bands, and its polynomial "
        "order in ln(wavelength), such as hlr=1,n=1,g=0; the list then has a column wavelength",
    )


def vary_from(args):
    """The estimator's keyword ``vary`` where the option is given; an empty dict otherwise.

    `InputError` if it is no list of names and numbers, or given without ``--exposures``.
    """
    if args.vary is None:
        return {}
    if args.exposures is None:
        raise InputError("--vary is of use with --exposures only: one image has one wavelength")
    pairs = [item.partition("=") for item in args.vary.split(",")]
    try:
        return {"vary": {name.strip(): int(text) for name, _, text in pairs}}
    except ValueError:
        raise InputError(
            f"--vary {args.vary}: names and whole numbers are needed, such as hlr=1,n=1"
        ) from None


def read_exposures(path):
    """Exposures of a list in a file, its columns as the help of the option says; their images stay on disk.

    Files are looked for beside the list. ``FileError`` if it or one of them cannot be read, or a column is
    missing or unknown.
    """
    from galshape_cnn.observe.io.tables.table_files import read_table

    table = read_table(path)
    missing = [name for name in _NEEDED if name not in table.colnames]
    unknown = [name for name in table.colnames if name not in _COLUMNS]
    if missing or unknown:
        problem = f"lacks the column {missing[0]!r}" if missing else f"has an unknown column {unknown[0]!r}"
        raise FileError(f"{path} {problem}; allowed: {', '.join(map(repr, _COLUMNS))}")
    if not len(table):
        raise FileError(f"{path} has no rows; one for each exposure is needed")
    return [_exposure(row, table.colnames, Path(path)) for row in table]


def exposures_source(args):
    """`ExposuresSource` of the galaxies in the exposures of the list that ``galshape measure`` was given.

    Raises as `listed_exposures`.
    """
    from astropy.nddata import StdDevUncertainty

    from galshape_cnn.observe.exposure import opened
    from galshape_cnn.scale.exposures_source import ExposuresSource

    exposures, keywords = listed_exposures(args)
    first = opened(exposures[0])
    image = first.data
    if first.error is not None:  # one number, see `_level_or_file`; what is found stands out of it
        image.uncertainty = StdDevUncertainty(np.broadcast_to(first.error, image.data.shape))
    return ExposuresSource(exposures, targets(args, image), keywords)


def listed_exposures(args):
    """Exposures of the list that the arguments name, and the estimator's keywords that say how they are cut.

    `FileError` if the list or one of its files cannot be read, `InputError` if an option cannot be used with
    it.
    """
    _check(args)
    keywords = {"psf_oversampling": args.psf_oversampling, "psf_includes_pixel": not args.psf_without_pixel}
    if args.stamp_size is not None:
        keywords["stamp_size"] = args.stamp_size
    return read_exposures(args.exposures), keywords


def _entry(row, name, names):
    """What a row says in one column as text, or None."""
    if name not in names or np.ma.is_masked(row[name]):
        return None
    text = str(row[name]).strip()
    return None if text in ("", "--", "nan", "None") else text


def _number(row, name, names, where):
    text = _entry(row, name, names)
    try:
        return None if text is None else float(text)
    except ValueError:
        raise FileError(f"{where}: {name!r} = {text!r} is no number") from None


def _beside(path, text):
    """A file, looked for beside the list; an HDU of the image itself stays as it is."""
    if text is None or text.isdigit() or Path(text).is_absolute():
        return text
    beside = path.parent / text
    return str(beside) if beside.exists() or (path.parent / text.partition("[")[0]).exists() else text


def _exposure(row, names, path):
    """One exposure of the list."""
    from galshape_cnn.observe.detect.sources import background_noise
    from galshape_cnn.observe.exposure import Exposure
    from galshape_cnn.observe.io.photometry import header_zeropoint

    entry = {name: _entry(row, name, names) for name in _COLUMNS}
    where = f"{path}, row {row.index}"
    if entry["image"] is None or entry["band"] is None:
        raise FileError(f"{where}: image and band are needed")
    profile = None if entry["psf"] is None else parse_psf(entry["psf"])
    doubt = entry["psf_error"]
    files = {name: _beside(path, entry[name]) for name in _FILES}
    error, files["error"] = _level_or_file(entry["error"], files["error"], where)
    image, pixels = _image(_beside(path, entry["image"]), entry, files, profile is None)
    if error == _MEASURED:
        error = background_noise(pixels)
    # the PSF is to be had from stars only, as without --psf: no cutout, and no PSF with it
    if profile is None and getattr(pixels, "psf", None) is None and not is_cutout(pixels):
        profile = "stars"
    numbers = {name: _number(row, name, names, where) for name in _NUMBERS}
    if numbers["zeropoint"] is None and "zeropoint" not in names:
        found = header_zeropoint(pixels.meta or {}, pixels.unit)
        numbers["zeropoint"] = None if found is None or not found.exact else found.magnitude
    scale = entry["noise_scale"]
    if scale not in (None, "estimate"):
        scale = _number(row, "noise_scale", names, where)
    return Exposure(
        image, psf=profile, error=error, band=entry["band"], name=entry["name"], noise_scale=scale,
        noise_correlation=entry["noise_correlation"], **numbers,
        psf_error=None if doubt is None else read_psf_error(doubt if "=" in doubt else _beside(path, doubt)),
    )  # fmt: skip


def _level_or_file(text, file, where):
    """Error of all pixels, a number or that it is measured, and file or HDU of each pixel's; None for none.

    A whole number is an HDU.
    """
    if text is None or text.isdigit():
        return None, file
    if text == _MEASURED:
        return text, None
    try:
        level = float(text)
    except ValueError:
        return None, file
    if not 0 < level < np.inf:
        raise FileError(f"{where}: error = {text!r}; allowed: a file, an HDU, {_MEASURED!r} or a number > 0")
    return level, None


def _image(file, entry, files, own_psf):
    """File of one row with its noise, mask and PSF, and what is in it; of several images that of the band."""
    from galshape_cnn.observe.exposure import ImageFile
    from galshape_cnn.observe.io.fits_hdus import as_index

    hdu = as_index(entry["hdu"])
    choices = {"sci": hdu, "err": files["error"], "var": files["variance"], "weight": files["weight"]}
    choices |= {"mask": files["mask"], "psf": files["psf"] if own_psf else None}
    image = ImageFile(file, {name: as_index(value) for name, value in choices.items()})
    try:
        return image, image.open()
    except FileError as error:
        if hdu is not None or "say which HDU is meant" not in str(error):
            raise
    image = ImageFile(file, image.names | {"band": entry["band"]})
    return image, image.open()


def _check(args):
    """Refuse options that the list, or a run on several exposures, has no use for."""
    for name in (name for name in _OF_ONE if hasattr(args, name)):
        if getattr(args, name) != args.defaults.get(name):
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} is given beside --exposures, whose list says it of each image")
    if getattr(args, "zeropoint", "none") not in ("none", args.defaults.get("zeropoint")):
        raise InputError("--zeropoint is given beside --exposures, whose list has a column zeropoint")
