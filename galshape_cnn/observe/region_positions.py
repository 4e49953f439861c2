# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Positions from regions (DS9, CRTF), read by the package ``regions``."""

import numpy as np
from astropy.table import Table

from galshape_cnn.errors import PositionError
from galshape_cnn.observe.catalog_conventions import READ_AS

__all__ = ["are_regions", "table_of_regions"]


def are_regions(positions):
    """Whether something is `regions.Regions` or a list of regions; the package need not be installed."""
    if hasattr(positions, "regions"):
        return True
    listed = isinstance(positions, (list, tuple)) and len(positions) > 0
    kinds = [type(one).__mro__ for one in positions] if listed else []
    return listed and all(any(base.__module__.startswith("regions.") for base in bases) for bases in kinds)


def table_of_regions(regions):
    """Centres of regions, but for excluded ones and texts: x, y (0-based pixels) or ra, dec; ``text``.

    ``PositionError`` if there is none, if one has no centre, or if some are in pixels and others on the sky.
    """
    listed = list(regions)
    kept = [one for one in listed if _counts(one)]
    if not kept:
        raise PositionError(f"positions holds {len(listed)} regions, and none that marks a galaxy")
    centers = [getattr(one, "center", None) for one in kept]
    for one, center in zip(kept, centers, strict=True):
        if center is None or not getattr(center, "isscalar", True):
            raise PositionError(
                f"positions holds a {type(one).__name__}, which has no centre; circles, ellipses, boxes and "
                "points are needed"
            )
    on_sky = [hasattr(center, "icrs") for center in centers]
    if any(on_sky) != all(on_sky):
        raise PositionError("positions holds regions in pixels and regions on the sky; one kind is needed")
    if on_sky[0]:
        pair = {"ra": [c.icrs.ra.deg for c in centers], "dec": [c.icrs.dec.deg for c in centers]}
    else:
        pair = {"x": [float(c.x) for c in centers], "y": [float(c.y) for c in centers]}
    table = Table(pair)
    texts = [str(one.meta.get("text", "") or "") for one in kept]
    if any(texts):
        table["text"] = np.ma.array(texts, mask=[not text for text in texts])
    left = len(listed) - len(kept)
    left_out = f", {left} left out (excluded, or text)" if left else ""
    table.meta[READ_AS] = f"centres of {len(kept)} regions{left_out}"
    return table


def _counts(one):
    """Whether a region marks a galaxy: it isn't excluded, and no mere text."""
    included = one.meta.get("include", True) not in (False, 0, "0", "-")
    return included and "Text" not in type(one).__name__
