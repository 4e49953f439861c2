# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Treatment of neighbours: found, then masked, or fitted and subtracted.

``"ignore"`` measures every stamp as it is.  ``"mask"`` gives the pixels that belong to
other sources (`galshape_cnn.observe.detect.segmentation`) no weight.  ``"fit"`` subtracts the
best Sérsic models of the neighbours, found in a joint fit with the galaxy
(`galshape_cnn.infer.fit.joint_fit`), and takes into account that these are known only as well
as the pixels allow: their derivatives go along as images of unknown amplitude, and the
bound is that of the joint fit with the neighbours' parameters marginalised.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.measure.neighbour_fit import fit_neighbours
from galshape_cnn.observe.detect.centroids import mask_flags, neighbor_flags
from galshape_cnn.observe.detect.segmentation import TARGET, find_scenes, masks
from galshape_cnn.parallel import places_of

__all__ = ["Segmentation", "Treated", "examined", "joined", "listed_positions", "segment", "treat"]

_REACH = 0.5  # of the stamp's side, within which a listed galaxy makes a stamp crowded


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Sources of the crowded stamps of a batch.

    Attributes
    ----------
    searched : bool
        Whether other sources were looked for.
    rows : (M,) int ndarray
        Crowded stamps.
    scenes : list of Scene
        The sources of each.
    """

    searched: bool
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    scenes: list = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Treated:
    """A batch whose neighbours are masked or subtracted.

    Attributes
    ----------
    batch : RenderedBatch
        What is to be measured; the derivatives of fitted neighbours are its ``nuisance``.
    segmentation : Segmentation
        What was found.
    fitted : (N,) bool ndarray
        Rows whose neighbours, or the structure of whose sky, were fitted and subtracted.
    flags : (N,) int64 ndarray
        ``NEIGHBOR`` where there are others, ``MASKED`` where they take much of the stamp.
    """

    batch: RenderedBatch
    segmentation: Segmentation
    fitted: np.ndarray
    flags: np.ndarray

    def __getitem__(self, rows):
        """Some of the stamps, by an ascending array of int."""
        crowded = places_of(rows, len(self.batch))[self.segmentation.rows]
        scenes = [scene for scene, row in zip(self.segmentation.scenes, crowded, strict=True) if row >= 0]
        segmentation = replace(self.segmentation, rows=crowded[crowded >= 0], scenes=scenes)
        return Treated(self.batch[rows], segmentation, self.fitted[rows], self.flags[rows])

    def with_fitted(self, rows, pixels, flags=0):
        """The same with other pixels in some rows, from which more was fitted and subtracted; and flags."""
        stamps, fitted, flagged = self.batch.stamps, self.fitted.copy(), self.flags.copy()
        data, ivar = stamps.data.copy(), stamps.ivar.copy()
        data[rows], ivar[rows], fitted[rows] = pixels.data, pixels.ivar, True
        ivar.setflags(write=False)
        flagged[rows] |= flags
        batch = self.batch.with_stamps(stamps.with_pixels(data, ivar, stamps.nuisance))
        return replace(self, batch=batch, fitted=fitted, flags=flagged)

    def light_on_others(self, params, rows):
        """Share of the light of galaxies, some rows of the batch, on pixels of other sources.

        NaN where it was not looked for, or there is no model.
        """
        if not self.segmentation.searched:
            return np.full(len(rows), np.nan)
        place = places_of(self.segmentation.rows, len(self.batch))[rows]
        fraction, crowded = np.zeros(len(rows)), np.flatnonzero(place >= 0)
        if len(crowded):
            others = np.array([self.segmentation.scenes[k].labels > TARGET for k in place[crowded]])
            fraction[crowded] = self.batch.share_of_light(rows[crowded], params[crowded], others)
        return fraction

    def in_units_of_user(self, stamps):
        """What was measured, as the user's ``stamps``: these themselves if nothing was changed."""
        if not len(self.segmentation.rows) and not self.fitted.any():
            return stamps
        ours, unit = self.batch.stamps, self.batch.unit[self.fitted, None, None]
        data, ivar = stamps.data.copy(), np.where(ours.ivar > 0, stamps.ivar, 0)
        data[self.fitted] = ours.data[self.fitted] * unit
        ivar[self.fitted] = ours.ivar[self.fitted] / unit**2
        return stamps.with_pixels(data, ivar, ours.nuisance)


def segment(batch, listed, options):
    """Find the sources of stamps in which more than the galaxy shows, or is listed.

    Of a ``RenderedBatch`` of N stamps, their `listed_positions`, and ``Options``, of which
    ``neighbours='ignore'`` looks for none.
    """
    if options.neighbours == "ignore":
        return Segmentation(searched=False)
    crowded = np.flatnonzero(_is_crowded(batch.stamps, listed))
    if not len(crowded):
        return Segmentation(searched=True)
    return Segmentation(True, crowded, find_scenes(batch.stamps[crowded], [listed[row] for row in crowded]))


def treat(batch, segmentation, network, options):
    """Mask the neighbours, or fit and subtract them: ``Options.neighbours`` decides."""
    rows, scenes = segmentation.rows, segmentation.scenes
    fitted, flags = np.zeros(len(batch), bool), np.zeros(len(batch), np.int64)
    if not len(rows):
        return Treated(batch, segmentation, fitted, flags)
    some = batch[rows]
    mask = masks(scenes)
    masked = some.stamps.with_pixels(some.stamps.data, np.where(mask, 0, some.stamps.ivar))
    stamps = _with_rows(batch.stamps, rows, masked)
    if options.neighbours == "fit":
        fit = fit_neighbours(some, scenes, some.with_stamps(masked), network, options)
        stamps = _with_rows(stamps, rows[fit.rows], fit.stamps)
        fitted[rows[fit.rows]] = True
    has = np.array([bool(len(scene.peaks)) for scene in scenes]) | mask.any((1, 2))
    flags[rows] = np.where(has, Flag.NEIGHBOR, 0)
    flags[rows] |= mask_flags(stamps.ivar[rows], stamps.center[rows]) & Flag.MASKED
    return Treated(batch.with_stamps(stamps), segmentation, fitted, flags)


def listed_positions(observation):
    """Where the other galaxies that the user listed lie in each stamp: (K, 2), x, y, by group and stamp.

    Of cutouts nothing is known about others.
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


def joined(stamps, parts):
    """Stamps with the pixels that were measured; the same object if nothing was changed.

    ``parts`` are rows of ``stamps``, in order, each with what was measured of it.
    """
    if all(after is before for before, after in parts):
        return stamps
    data, ivar = (np.concatenate([getattr(after, name) for _, after in parts]) for name in ("data", "ivar"))
    return stamps.with_pixels(data, ivar)


def examined(stamps):
    """The user's own ``Stamps``, flagged ``NEIGHBOR`` where it applies."""
    flags = neighbor_flags(stamps.in_units_of(stamps.noise_unit))
    return replace(stamps, flags=stamps.flags | flags)


def _is_crowded(stamps, listed):
    """Stamps in which another source shows, or is listed nearby."""
    side = max(stamps.data.shape[1:])
    near = np.zeros(len(stamps), bool)
    for row in np.flatnonzero([len(one) for one in listed]):
        distance = np.hypot(*(listed[row] - stamps.center[row]).T)
        near[row] = ((distance > 1) & (distance < _REACH * side)).any()
    return near | (stamps.flags & Flag.NEIGHBOR > 0)


def _with_rows(stamps, rows, others):
    """Stamps of which some rows are replaced by others."""
    data, ivar = stamps.data.copy(), stamps.ivar.copy()
    data[rows], ivar[rows] = others.data, others.ivar
    nuisance = None
    if others.nuisance is not None:
        nuisance = np.zeros((len(stamps), *others.nuisance.shape[1:]), np.float32)
        nuisance[rows] = others.nuisance
    return stamps.with_pixels(data, ivar, nuisance)
