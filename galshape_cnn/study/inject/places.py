# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Free places in an image: away from edges, bad pixels and brighter sources.

Several galaxies go into one copy of the image, a *realisation*, as long as none reaches into the stamp
of another.  Which galaxies go where is a function of the image and of the seed.
"""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.errors import InputError

__all__ = ["AVOID", "Field", "Room", "find_field", "plan_realisations"]

#: Which sources of the image a galaxy is kept away from.
AVOID = ("brighter", "all", "none")

_TRIES, _MOST_TRIES = 60, 3000  # places tried in a realisation that holds galaxies already; in an empty one


@dataclass(frozen=True, eq=False)
class Field:
    """What is in the image before anything is injected.

    Attributes
    ----------
    light : (ny, nx) ndarray
        Pixels less the background.
    sigma : (ny, nx) ndarray
        Noise; one where ``bad``.
    bad : (ny, nx) ndarray of bool
        Pixels that do not count.
    segments : (ny, nx) int ndarray
        Number of the source of each pixel, 0 for none.
    flux : (M + 1,) ndarray
        Light of each source on its pixels, by its number.
    xy : (M, 2) ndarray
        Centroids.
    """

    light: np.ndarray
    sigma: np.ndarray
    bad: np.ndarray
    segments: np.ndarray
    flux: np.ndarray
    xy: np.ndarray

    def brightest_within(self, xy, radius):
        """Light of the brightest source that has a pixel within a radius of a place; 0 without any."""
        labels, _ = self._around(xy, radius)
        return float(self.flux[labels].max(initial=0.0))

    def is_bad_within(self, xy, radius):
        """Whether a pixel within a radius of a place is bad."""
        return bool(self._around(xy, radius)[1].any())

    def _around(self, xy, radius):
        """Sources and bad pixels of a disc."""
        x, y = xy
        ny, nx = self.bad.shape
        rows = slice(max(int(y - radius), 0), min(int(y + radius) + 2, ny))
        columns = slice(max(int(x - radius), 0), min(int(x + radius) + 2, nx))
        inside = np.hypot(np.arange(nx)[columns] - x, np.arange(ny)[rows, None] - y) <= radius
        return self.segments[rows, columns][inside], self.bad[rows, columns][inside]

    def sources_within(self, xy, radius):
        """Number of sources whose centroid is within a radius of a place."""
        return int(np.count_nonzero(np.hypot(*(self.xy - np.asarray(xy)).T) <= radius))

    def nearest(self, xy):
        """Distance of the nearest source, pixels."""
        return float(np.hypot(*(self.xy - np.asarray(xy)).T).min(initial=np.inf))


def find_field(image, detection=None):
    """Find the sources of an image with noise; ``detection`` holds the thresholds."""
    from galshape_cnn.observe.detect.sources import segmented

    found = segmented(image, None, detection)
    light = found.flat * found.sigma
    flux = np.concatenate([[0.0], found.light(light)])
    return Field(light, found.sigma, found.bad, found.labels.astype(np.int32), flux, found.centroids())


@dataclass(frozen=True)
class Room:
    """What a galaxy needs around it.

    Attributes
    ----------
    clearance : float
        Semi-major half-light radii within which there is no bad pixel and no source to be avoided.
    avoid : {'brighter', 'all', 'none'}
        Which sources are avoided.
    least : float
        Smallest radius of the free disc, pixels.
    margin : float
        Distance from the edges, pixels.
    apart : float
        Distance, along x or along y, of two galaxies of one realisation, pixels.
    """

    clearance: float
    avoid: str
    least: float
    margin: float
    apart: float

    def radius(self, r_eff):
        """Radius of the free disc of a galaxy, pixels."""
        return max(self.clearance * r_eff, self.least)

    def is_free(self, field, xy, r_eff, flux):
        """Whether a galaxy of a flux and a semi-major half-light radius, in pixels, may lie at a place."""
        radius = self.radius(r_eff)
        if field.is_bad_within(xy, radius):
            return False
        if self.avoid == "none":
            return True
        allowed = flux if self.avoid == "brighter" else 0.0
        return field.brightest_within(xy, radius) <= allowed

    def is_apart(self, xy, others):
        """Whether a place is far enough from those that are taken."""
        return not len(others) or bool((np.abs(np.asarray(others) - xy).max(1) >= self.apart).all())

    def candidates(self, field, rng, count):
        """Places away from the edges, at random between the pixels' centres."""
        ny, nx = field.bad.shape
        return rng.uniform(self.margin, np.array([nx, ny]) - 1 - self.margin, (count, 2))


def check_room(field, room):
    """Refuse an image without any place far enough from its edges."""
    ny, nx = field.bad.shape
    if min(ny, nx) - 1 <= 2 * room.margin:
        raise InputError(
            f"image has {ny}x{nx} pixels; more than {2 * int(np.ceil(room.margin)) + 1} are needed along "
            "each side for stamps that are not cut by its edges: a smaller stamp_size allows smaller images"
        )


def plan_realisations(field, room, r_eff, flux, seed):
    """Distribute galaxies over copies of the image.

    Parameters
    ----------
    field : Field
        The image.
    room : Room
        What each galaxy needs.
    r_eff, flux : (N,) ndarray
        Semi-major half-light radii in pixels, and about the light, of the galaxies.
    seed : int
        Of the run.

    Returns
    -------
    realisation : (N,) ndarray of int
        Number of the copy of each galaxy, not decreasing; -1 without a free place.
    xy : (N, 2) ndarray
        Its place; NaN without one.
    """
    check_room(field, room)
    realisation, xy = np.full(len(flux), -1), np.full((len(flux), 2), np.nan)
    number, taken = 0, []
    for row in range(len(flux)):
        tries = room.candidates(field, np.random.default_rng([seed, row, 2]), _MOST_TRIES)
        place = _first_free(field, room, tries[:_TRIES], taken, r_eff[row], flux[row]) if taken else None
        if place is None:
            place = _first_free(field, room, tries, [], r_eff[row], flux[row])
            if place is None:
                continue
            number, taken = number + bool(taken), []
        taken.append(place)
        realisation[row], xy[row] = number, place
    return realisation, xy


def _first_free(field, room, tries, taken, r_eff, flux):
    """The first place that is free and apart from others; None without any."""
    for place in tries:
        if room.is_apart(place, taken) and room.is_free(field, place, r_eff, flux):
            return place
    return None
