# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Images in ASDF files, as the Roman pipeline writes them.

An image is the first branch of the tree with ``data``; beside it ``err`` or
``var``, ``ivar``, ``dq`` or ``mask``, ``psf``, ``wcs`` and ``meta`` are used.
Arrays are memory-mapped.
"""

import warnings

import astropy.units as u
import numpy as np
from astropy.nddata import NDData

from galshape_cnn.errors import FileError, warn
from galshape_cnn.observe.io.asdf_scan import check_asdf
from galshape_cnn.observe.io.bitmask import bad_pixels
from galshape_cnn.observe.io.noise_hdus import KINDS, uncertainty_unit
from galshape_cnn.observe.io.photometry import is_logarithmic
from galshape_cnn.wcs import celestial_part

__all__ = ["read_asdf_image"]

#: Keys of noise beside an image, and of which kind it is.
_NOISE = {"err": "err", "error": "err", "var": "var", "variance": "var", "ivar": "ivar", "invvar": "ivar"}
_MASKS = ("dq", "mask")
#: How deep in the tree an image is looked for.
_DEPTH = 3


def read_asdf_image(path, *, sci=None, noise=None, mask=None, psf=None, bad_bits=None):
    """Read an image, or a cube of cutouts, from an ASDF file, as `~galshape_cnn.read_image` does.

    ``sci`` is the branch of the tree that holds the image, such as ``"roman"``; ``noise`` its kind
    (``"err"``, ``"var"``, ``"ivar"``) and key, ``mask`` and ``psf`` keys beside the image; ``bad_bits`` as of
    `galshape_cnn.observe.io.bitmask.bad_pixels`. ``FileError`` if the file is missing or damaged, or holds no
    image.
    """
    import asdf

    if not path.is_file():
        raise FileError(f"{path} does not exist")
    check_asdf(path)
    try:
        with warnings.catch_warnings():
            # Tags of a package that is not installed: what they hold can still be read.
            warnings.simplefilter("ignore", asdf.exceptions.AsdfWarning)
            # NumPy keeps the mapping that asdf lets go of when the file is closed.
            with asdf.open(path, memmap=True, lazy_load=True) as file:
                return _from_branch(_find(file.tree, sci, path), path, noise, mask, psf, bad_bits)
    except FileError:
        raise
    except Exception as error:  # asdf, yaml and NumPy raise many kinds
        raise FileError(f"{path} cannot be read as an ASDF image: {error}") from error


def _find(tree, sci, path):
    """The branch with the image."""
    branch = tree
    if sci is not None:
        for key in str(sci).split("."):
            if not hasattr(branch, "keys") or key not in branch:
                raise FileError(f"{path} has no {sci!r} for sci; it holds {', '.join(_keys(tree))}")
            branch = branch[key]
        if not _is_image(branch):
            raise FileError(f"{path}: {sci} has no data; it holds {', '.join(_keys(branch))}")
        return branch
    found = _first_image(tree, _DEPTH)
    if found is None:
        raise FileError(
            f"{path} has no image ('data' of two or three axes); it holds {', '.join(_keys(tree))}"
        )
    return found


def _keys(branch):
    """What a branch holds, without asdf's own records."""
    names = branch.keys() if hasattr(branch, "keys") else ()
    return [str(name) for name in names if name not in ("asdf_library", "history")]


def _is_image(branch):
    """Whether a branch has pixels."""
    if not hasattr(branch, "keys") or "data" not in branch:
        return False
    return len(getattr(branch["data"], "shape", ())) in (2, 3)  # lists of lists may be endless


def _first_image(branch, depth):
    """First branch with pixels, breadth first."""
    if _is_image(branch):
        return branch
    if depth == 0 or not hasattr(branch, "keys"):
        return None
    return next(
        (found for key in _keys(branch) if (found := _first_image(branch[key], depth - 1)) is not None), None
    )


def _from_branch(branch, path, noise, mask, psf, bad_bits):
    """NDData of what is beside the pixels."""
    pixels, unit = _strip(branch["data"])
    meta = branch.get("meta", {})
    meta = dict(meta) if hasattr(meta, "keys") else {}
    unit = _unit(unit, branch, meta)
    if is_logarithmic(unit):
        raise FileError(f"{path} holds pixels in {unit}, which are logarithms; linear fluxes are needed")
    key = next((one for one in (_MASKS if mask is None else (mask,)) if one in branch), None)
    if mask is not None and key is None:
        raise FileError(f"{path} has no {mask!r} for mask; it holds {', '.join(_keys(branch))}")
    known = {str(key).upper(): value for key, value in meta.items() if isinstance(value, (str, int, float))}
    header = known | {"TELESCOP": str(meta.get("telescope", "")).upper()} | _photometry(meta)
    bad = None if key is None else bad_pixels(_strip(branch[key])[0], header, bad_bits, f"{key} of {path}")
    if psf is not None and psf not in branch:
        raise FileError(f"{path} has no {psf!r} for psf; it holds {', '.join(_keys(branch))}")
    model = branch.get(psf or "psf")
    return NDData(
        pixels,
        uncertainty=_uncertainty(branch, path, noise, unit),
        mask=bad,
        wcs=_wcs(branch.get("wcs", meta.get("wcs")), path),
        psf=None if model is None else np.array(_strip(model)[0], float),
        unit=unit,
        meta=header,
    )


def _strip(array):
    """Array that is read when it is sliced, and its unit."""
    unit = getattr(array, "unit", None)
    array = array.value if isinstance(array, u.Quantity) else array
    return (array if isinstance(array, np.ndarray) else np.asarray(array)), unit


def _unit(unit, branch, meta):
    """Unit of the pixels, wherever it is said."""
    text = unit or branch.get("unit") or meta.get("unit") or meta.get("data_unit")
    try:
        return None if text is None else u.Unit(text)
    except (TypeError, ValueError):
        return None


def _photometry(meta):
    """Area of the pixel, under the name that FITS headers have for it."""
    photometry = meta.get("photometry", {})
    area = photometry.get("pixel_area") if hasattr(photometry, "get") else None
    area = area.to_value(u.sr) if isinstance(area, u.Quantity) else area
    return {} if area is None else {"PIXAR_SR": float(area)}


def _uncertainty(branch, path, noise, unit):
    """Uncertainty under the key given, or the first that is there, in its own unit."""
    kind, key = noise or next(((kind, key) for key, kind in _NOISE.items() if key in branch), (None, None))
    if key is None:
        return None
    if key not in branch:
        raise FileError(f"{path} has no {key!r} for {kind}; it holds {', '.join(_keys(branch))}")
    values, own = _strip(branch[key])
    own = uncertainty_unit(own, kind, unit, f"{path}: {key}", noise is not None)
    return KINDS[kind](values, unit=own, copy=False)


def _wcs(wcs, path):
    """WCS, or None with a warning where its package is not installed."""
    if wcs is None:
        return None
    try:
        return celestial_part(wcs)
    except Exception as error:
        if hasattr(wcs, "keys"):
            warn(
                f"{path}: the WCS cannot be read without the package gwcs (pip install gwcs); shapes are in "
                "pixels"
            )
            return None
        raise FileError(f"{path} has a WCS that cannot be used: {error}") from error
