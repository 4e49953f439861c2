# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``--exposures`` and ``--vary``: a list of images of the same galaxies, measured together."""

from pathlib import Path

import numpy as np

from galshape_cnn.cli.options.detection import targets
from galshape_cnn.cli.options.psf import parse_psf
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
_WORDS = ("name", "hdu", "noise_scale", "noise_correlation")
_COLUMNS = (*_NEEDED, *_FILES, *_NUMBERS, *_WORDS)

#: Options that say of one image what the list says of each, and those that are not there yet.
_OF_ONE = (
    "sci", "err", "var", "ivar", "weight", "error", "mask", "bad_bits", "band", "psf", "psf_ext", "gain",
    "read_noise", "sky_level", "noise_scale", "noise_correlation", "trim_psf",
)  # fmt: skip
_NOT_YET = ("psf_error",)


def add_exposures_option(parser):
    """Add ``--exposures`` to a parser."""
    parser.add_argument(
        "--exposures",
        metavar="LIST",
        help="table (.ecsv .csv .fits) of images of the same galaxies, measured together, in place of "
        "IN.fits: columns image, band, and if wanted psf, error, variance, weight, mask (files, file[HDU], "
        "or psf as for --psf), zeropoint, gain, wavelength, hdu, name, noise_scale, noise_correlation; "
        "galaxies are found in the first image where --positions is not given",
    )


def add_vary_option(parser):
    """Add ``--vary`` to a parser."""
    parser.add_argument(
        "--vary",
        metavar="ORDERS",
        help="with --exposures and --method ml: what of the shape varies between bands, and its polynomial "
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
    """Exposures of a list in a file; their images stay on disk.

    Parameters
    ----------
    path : str or Path
        Table with the columns ``image`` and ``band``, one row for each exposure, and optionally ``psf``,
        ``error`` (1 sigma), ``variance``, ``weight`` (its inverse), ``mask``, ``zeropoint``, ``gain``,
        ``wavelength``, ``hdu``, ``name``, ``noise_scale``, ``noise_correlation``; empty where one has none.
        Files are looked for beside the list.

    Returns
    -------
    exposures : list of Exposure

    Raises
    ------
    FileError
        If the list or one of its files cannot be read, or a column is missing or unknown.
    """
    from galshape_cnn.observe.io.tables.table_files import read_table

    table = read_table(path)
    missing = [name for name in _NEEDED if name not in table.colnames]
    unknown = [name for name in table.colnames if name not in _COLUMNS]
    if missing or unknown:
        problem = f"lacks the column {missing[0]}" if missing else f"has an unknown column {unknown[0]}"
        raise FileError(f"{path} {problem}; allowed: {', '.join(_COLUMNS)}")
    if not len(table):
        raise FileError(f"{path} has no rows; one for each exposure is needed")
    return [_exposure(row, table.colnames, Path(path)) for row in table]


def exposures_source(args):
    """`ExposuresSource` of the galaxies in the exposures of the list that ``galshape measure`` was given.

    Raises as `listed_exposures`.
    """
    from galshape_cnn.observe.exposure import opened
    from galshape_cnn.scale.exposures_source import ExposuresSource

    exposures, keywords = listed_exposures(args)
    return ExposuresSource(exposures, targets(args, opened(exposures[0]).data), keywords)


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
        raise FileError(f"{where}: {name} = {text!r} is no number") from None


def _beside(path, text):
    """A file, looked for beside the list; an HDU of the image itself stays as it is."""
    if text is None or text.isdigit() or Path(text).is_absolute():
        return text
    beside = path.parent / text
    return str(beside) if beside.exists() or (path.parent / text.partition("[")[0]).exists() else text


def _exposure(row, names, path):
    """One exposure of the list."""
    from galshape_cnn.observe.exposure import Exposure
    from galshape_cnn.observe.io.photometry import header_zeropoint

    entry = {name: _entry(row, name, names) for name in _COLUMNS}
    where = f"{path}, row {row.index}"
    if entry["image"] is None or entry["band"] is None:
        raise FileError(f"{where}: image and band are needed")
    profile = None if entry["psf"] is None else parse_psf(entry["psf"])
    files = {name: _beside(path, entry[name]) for name in _FILES}
    image = _image(_beside(path, entry["image"]), entry, files, profile is None)
    numbers = {name: _number(row, name, names, where) for name in _NUMBERS}
    if numbers["zeropoint"] is None and "zeropoint" not in names:
        pixels = image.open()
        found = header_zeropoint(pixels.meta or {}, pixels.unit)
        numbers["zeropoint"] = None if found is None or not found.exact else found.magnitude
    scale = entry["noise_scale"]
    if scale not in (None, "estimate"):
        scale = _number(row, "noise_scale", names, where)
    return Exposure(
        image, psf=profile, band=entry["band"], name=entry["name"], noise_scale=scale,
        noise_correlation=entry["noise_correlation"], **numbers,
    )  # fmt: skip


def _image(file, entry, files, own_psf):
    """File of one row with its noise, mask and PSF; of several images in it, that of the band."""
    from galshape_cnn.observe.exposure import ImageFile
    from galshape_cnn.observe.io.fits_hdus import as_index

    hdu = as_index(entry["hdu"])
    choices = {"sci": hdu, "err": files["error"], "var": files["variance"], "weight": files["weight"]}
    choices |= {"mask": files["mask"], "psf": files["psf"] if own_psf else None}
    image = ImageFile(file, {name: as_index(value) for name, value in choices.items()})
    try:
        image.open()
    except FileError:
        if hdu is not None:
            raise
        image = ImageFile(file, image.names | {"band": entry["band"]})
        image.open()
    return image


def _check(args):
    """Refuse options that the list, or a run on several exposures, has no use for."""
    for name in (name for name in (*_OF_ONE, *_NOT_YET) if hasattr(args, name)):
        if getattr(args, name) != args.defaults.get(name):
            option = "--" + name.replace("_", "-")
            why = "whose list says it of each image" if name in _OF_ONE else "which it does not work with yet"
            raise InputError(f"{option} is given beside --exposures, {why}")
    if getattr(args, "zeropoint", "none") not in ("none", args.defaults.get("zeropoint")):
        raise InputError("--zeropoint is given beside --exposures, whose list has a column zeropoint")
