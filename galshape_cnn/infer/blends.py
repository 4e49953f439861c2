# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies with neighbours, and what is done about them.

``"ignore"`` measures every stamp as it is.  ``"mask"`` gives the pixels that belong to
other sources (`galshape_cnn.observe.neighbours`) no weight.
"""

from dataclasses import replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.infer.measure import measure_stamps, model_images
from galshape_cnn.observe.centering import mask_flags, neighbor_flags
from galshape_cnn.observe.neighbours import TARGET, find_scenes

__all__ = ["NEIGHBOURS", "examined", "joined", "listed_positions", "measure_isolated"]

#: What may be done about neighbours.
NEIGHBOURS = ("ignore", "mask")

_REACH = 0.5  # of the stamp's side, within which a listed galaxy makes a stamp crowded


def listed_positions(observation):
    """Where the other galaxies that the user listed lie in each stamp.

    Parameters
    ----------
    observation : Observation
        Of one image; of cutouts nothing is known about others.

    Returns
    -------
    listed : list of list of (K, 2) ndarray
        For each group and stamp, x, y in the stamp.
    """
    if not observation.is_image:
        return [[np.zeros((0, 2))] * len(stamps) for _, stamps in observation.groups]
    from scipy.spatial import KDTree

    tree, listed = KDTree(observation.listed), []
    for index, stamps in observation.groups:
        own, side = observation.first + index, max(stamps.data.shape[1:])
        near = tree.query_ball_point(stamps.origin + stamps.center, side, return_sorted=True)
        others = [[k for k in rows if k != row] for rows, row in zip(near, own, strict=True)]
        places = [observation.listed[rows] for rows in others]
        listed.append([xy - origin for xy, origin in zip(places, stamps.origin, strict=True)])
    return listed


def measure_isolated(stamps, network, options, listed):
    """Measure a batch with its neighbours dealt with.

    Parameters
    ----------
    stamps : Stamps
        Up to `galshape_cnn.infer.measure.BATCH_SIZE` stamps.
    network : AmortizedPosterior
        The live network.
    options : Options
        What to do; its ``neighbours`` decides.
    listed : list of (K, 2) ndarray
        From `listed_positions`.

    Returns
    -------
    measurement : Measurement
        One row per stamp.
    stamps : Stamps
        What was measured: neighbours masked or subtracted; ``stamps`` itself without any.
    """
    if options.neighbours == "ignore":
        return measure_stamps(stamps, network, options), stamps
    crowded = np.flatnonzero(_is_crowded(stamps, listed))
    if not len(crowded):
        measured = measure_stamps(stamps, network, options)
        return replace(measured, neighbour_fraction=np.zeros(len(stamps))), stamps
    some = stamps[crowded]
    scenes = find_scenes(some.in_units_of(some.noise_unit), [listed[row] for row in crowded])
    treated = _with_rows(stamps, crowded, *_masked(some, scenes))
    measured = measure_stamps(treated, network, options)
    return _described(measured, treated, crowded, scenes), treated


def joined(stamps, parts):
    """Stamps with the pixels that were measured.

    Parameters
    ----------
    stamps : Stamps
        All of them.
    parts : list of (Stamps, Stamps)
        Rows of ``stamps`` in order, and what `measure_isolated` made of them.

    Returns
    -------
    stamps : Stamps
        The same object if nothing was changed.
    """
    if all(after is before for before, after in parts):
        return stamps
    data, ivar = (np.concatenate([getattr(after, name) for _, after in parts]) for name in ("data", "ivar"))
    return stamps.with_pixels(data, ivar)


def examined(observation):
    """Flag neighbours in stamps that were not made here.

    Parameters
    ----------
    observation : Observation
        Of stamps that the user made.

    Returns
    -------
    observation : Observation
        Its stamps carry ``NEIGHBOR`` where it applies.
    """
    groups = tuple((index, _flagged(stamps)) for index, stamps in observation.groups)
    return replace(observation, groups=groups)


def _flagged(stamps):
    flags = neighbor_flags(stamps.in_units_of(stamps.noise_unit))
    return replace(stamps, flags=stamps.flags | flags)


def _is_crowded(stamps, listed):
    """Stamps in which another source shows, or is listed nearby."""
    side = max(stamps.data.shape[1:])
    near = np.zeros(len(stamps), bool)
    for row, (others, center) in enumerate(zip(listed, stamps.center, strict=True)):
        distance = np.hypot(*(others - center).T)
        near[row] = ((distance > 1) & (distance < _REACH * side)).any()
    return near | (stamps.flags & Flag.NEIGHBOR > 0)


def _masked(stamps, scenes):
    """Pixels and weights without the neighbours."""
    mask = np.array([scene.mask() for scene in scenes])
    return stamps.data, np.where(mask, 0, stamps.ivar)


def _with_rows(stamps, rows, data, ivar):
    """Stamps of which some rows have other pixels."""
    all_data, all_ivar = stamps.data.copy(), stamps.ivar.copy()
    all_data[rows], all_ivar[rows] = data, ivar
    return stamps.with_pixels(all_data, all_ivar)


def _described(measured, stamps, crowded, scenes):
    """Measurement with the share of light on others' pixels, and flags."""
    fraction, flags = np.zeros(len(stamps)), measured.flags.copy()
    light = model_images(stamps[crowded], measured.params[crowded])
    others = np.array([scene.labels > TARGET for scene in scenes])
    total = light.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        fraction[crowded] = np.where(total > 0, (light * others).sum((1, 2)) / total, np.nan)
    has = np.array([bool(len(scene.peaks)) or scene.mask().any() for scene in scenes])
    flags[crowded] |= np.where(has, Flag.NEIGHBOR, 0)
    flags[crowded] |= mask_flags(stamps.ivar[crowded], stamps.center[crowded]) & Flag.MASKED
    return replace(measured, neighbour_fraction=fraction, flags=flags)
