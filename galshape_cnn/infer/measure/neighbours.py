# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies with neighbours, and what is done about them.

``"ignore"`` measures every stamp as it is.  ``"mask"`` gives the pixels that belong to
other sources (`galshape_cnn.observe.detect.segmentation`) no weight.  ``"fit"`` subtracts the
best Sérsic models of the neighbours, found in a joint fit with the galaxy
(`galshape_cnn.infer.fit.joint_fit`), and takes into account that these are known only as well
as the pixels allow: their derivatives go along as images of unknown amplitude, and the
bound is that of the joint fit with the neighbours' parameters marginalised.
"""

from dataclasses import replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.infer.likelihood.sandwich import information, sandwich, widened
from galshape_cnn.infer.measure.neighbour_fit import fit_neighbours
from galshape_cnn.infer.measure.pipeline import measure_stamps, model_images
from galshape_cnn.observe.detect.centroids import mask_flags, neighbor_flags
from galshape_cnn.observe.detect.segmentation import TARGET, find_scenes

__all__ = ["NEIGHBOURS", "examined", "joined", "listed_positions", "measure_isolated"]

#: What may be done about neighbours.
NEIGHBOURS = ("ignore", "mask", "fit")

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
        Any number of one size; see `galshape_cnn.infer.measure.pipeline.measured_together`.
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
    searched = options.neighbours != "ignore"
    crowded = np.flatnonzero(_is_crowded(stamps, listed)) if searched else []
    if not len(crowded):
        measured = _with_bound(measure_stamps(stamps, network, options), stamps, None, options)
        return replace(measured, neighbour_fraction=np.full(len(stamps), 0 if searched else np.nan)), stamps
    some = stamps[crowded]
    scenes = find_scenes(some.in_units_of(some.noise_unit), [listed[row] for row in crowded])
    treated = _with_rows(stamps, crowded, some.with_pixels(*_masked(some, scenes)))
    fit = None
    if options.neighbours == "fit":
        fit = fit_neighbours(some, scenes, treated[crowded], network, options)
        treated = _with_rows(treated, crowded[fit.rows], fit.stamps)
    measured = measure_stamps(treated, network, options)
    measured = _with_bound(measured, treated, None if fit is None else crowded[fit.rows], options)
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


def examined(stamps):
    """Flag neighbours in stamps that were not made here.

    Parameters
    ----------
    stamps : Stamps
        That the user made.

    Returns
    -------
    stamps : Stamps
        Carry ``NEIGHBOR`` where it applies.
    """
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


def _with_rows(stamps, rows, others):
    """Stamps of which some rows are replaced by others."""
    data, ivar = stamps.data.copy(), stamps.ivar.copy()
    data[rows], ivar[rows] = others.data, others.ivar
    nuisance = None
    if others.nuisance is not None:
        nuisance = np.zeros((len(stamps), *others.nuisance.shape[1:]), np.float32)
        nuisance[rows] = others.nuisance
    return stamps.with_pixels(data, ivar, nuisance)


def _with_bound(measured, stamps, fitted, options):
    """Measurement with what its estimates are worth.

    With correlated noise that is the covariance of the weighted fit; where neighbours were
    fitted it contains theirs.  Widths of the network, which knew of neither, follow.
    """
    if options.correlation is None and fitted is None:
        return measured
    rows = fitted if options.correlation is None else np.arange(len(stamps))
    if not len(rows):
        return measured
    unit = stamps.noise_unit[rows]
    some, inside = stamps[rows].in_units_of(unit), measured[rows].in_units_of(unit)
    gain = None if options.gain is None else options.gain * unit
    naive, actual = information(some, inside.params, gain, options.correlation)
    reached, singular = sandwich(naive, actual, options.fit_sky)
    covariance = inside.covariance
    if options.method == "network":
        covariance = widened(covariance, inside.crb, reached)
    parts = {"crb": reached, "covariance": covariance}
    parts["flags"] = inside.flags | np.where(singular, Flag.SINGULAR, 0)
    changed = replace(inside, **parts).in_units_of(1 / unit)
    out = {name: getattr(measured, name).copy() for name in parts}
    for name, array in out.items():
        array[rows] = getattr(changed, name)
    return replace(measured, **out)


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
