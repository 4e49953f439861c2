# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""GalSim profiles of the galaxies to be injected, each of unit flux and centred on its position."""

import galsim
import numpy as np

from galshape_cnn.errors import FileError, InputError

__all__ = ["galaxy_profile", "open_real_galaxies"]

#: What GalSim may fold back, as for the mocks: see `galshape_cnn.study.simulate.galsim_stamps`.
GSPARAMS = galsim.GSParams(folding_threshold=2e-3, maximum_fft_size=16384)

_BULGE_SIZE, _BULGE_N = (0.15, 0.5), 4.0  # in half-light radii of the disc
_KNOTS = (10, 60)
_PITCH, _BLOBS, _BLOB_SIZE = (0.15, 0.45), 14, 0.15
_ARM = (0.4, 2.2)  # radii between which arms reach, in half-light radii


def galaxy_profile(row, seed, real=None):
    """Profile of one galaxy.

    Parameters
    ----------
    row : mapping
        From `galshape_cnn.study.inject.galaxies.galaxy_rows`.
    seed : int
        Of the run; the structure is a function of it and of the galaxy's ``id``.
    real : galsim.RealGalaxyCatalog, optional
        For the kind ``real``.

    Returns
    -------
    profile : galsim.GSObject
        Of unit flux, in the unit of ``hlr``, without PSF.
    """
    rng = np.random.default_rng([seed, int(row["id"]) - 1, 1])
    kind, hlr = str(row["kind"]), float(row["hlr"])
    if kind == "real":
        return _real(real, rng)
    shear = galsim.Shear(g1=float(row["g1"]), g2=float(row["g2"]))
    if kind == "sersic":
        return galsim.Sersic(float(row["n"]), hlr, gsparams=GSPARAMS).shear(shear)
    make = {"bulge_disc": _with_bulge, "clumpy": _with_knots, "spiral": _with_arms}[kind]
    return make(
        galsim.Exponential(half_light_radius=hlr, gsparams=GSPARAMS), float(row["structure"]), shear, rng
    )


def _with_bulge(disc, share, shear, rng):
    """A bulge half as elongated as the disc."""
    size = disc.half_light_radius * rng.uniform(*_BULGE_SIZE)
    bulge = galsim.Sersic(_BULGE_N, size, gsparams=GSPARAMS).shear(g1=shear.g1 / 2, g2=shear.g2 / 2)
    return (1 - share) * disc.shear(shear) + share * bulge


def _with_knots(disc, share, shear, rng):
    """Knots that follow the disc."""
    deviate = galsim.BaseDeviate(int(rng.integers(2**31)))
    knots = galsim.RandomKnots(int(rng.integers(*_KNOTS)), profile=disc, rng=deviate)
    return ((1 - share) * disc + share * knots.withFlux(1.0)).shear(shear)


def _with_arms(disc, share, shear, rng):
    """Two arms r = r0 exp(pitch phi) of blobs, each with the light of the disc at its radius."""
    hlr = disc.half_light_radius
    pitch, phase = np.tan(rng.uniform(*_PITCH)), rng.uniform(0, 2 * np.pi)
    radius = hlr * np.geomspace(*_ARM, _BLOBS)
    angle = phase + np.log(radius / radius[0]) / pitch
    light = radius**2 * np.exp(-radius / disc.scale_radius)  # blobs are as far apart as they are far out
    blobs = [
        galsim.Gaussian(half_light_radius=_BLOB_SIZE * r, flux=one, gsparams=GSPARAMS).shift(
            r * np.cos(a + turn), r * np.sin(a + turn)
        )
        for r, a, one in zip(radius, angle, light, strict=True)
        for turn in (0.0, np.pi)
    ]
    arms = galsim.Add(blobs).withFlux(1.0)
    return ((1 - share) * disc + share * arms).shear(shear)


def _real(catalog, rng):
    """One of the galaxies of a catalogue, turned."""
    index = int(rng.integers(catalog.nobjects))
    galaxy = galsim.RealGalaxy(catalog, index=index, flux=1.0, gsparams=GSPARAMS)
    return galaxy.rotate(rng.uniform(0, 360) * galsim.degrees)


def open_real_galaxies(path):
    """Catalogue of HST galaxies, from itself or the FITS file of a `galsim.RealGalaxyCatalog`.

    ``InputError`` if the path is None, ``FileError`` if it cannot be read.
    """
    if path is None:
        raise InputError("kinds has 'real': give real_galaxies=, a catalogue for galsim.RealGalaxyCatalog")
    if isinstance(path, galsim.RealGalaxyCatalog):
        return path
    import os

    folder, name = os.path.split(os.path.abspath(os.fspath(path)))
    try:
        return galsim.RealGalaxyCatalog(name, dir=folder)
    except (OSError, KeyError, galsim.GalSimError) as error:
        raise FileError(f"real galaxies {str(path)!r} cannot be read: {error}") from error
