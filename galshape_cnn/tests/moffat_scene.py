# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A Sersic galaxy seen through a Moffat profile, for tests of what else may lie in its stamp."""

import galsim
import numpy as np

TRUTH = {"n": 1.5, "hlr": 4.0, "g1": 0.1, "g2": -0.1}
#: Parameters, with flux, of each galaxy.
PARAMETERS = ("flux", *TRUTH)
GALAXY = galsim.Sersic(n=TRUTH["n"], half_light_radius=TRUTH["hlr"]).shear(g1=TRUTH["g1"], g2=TRUTH["g2"])


def moffat(fwhm):
    """Profile, and array of unit sum, (41, 41)."""
    profile = galsim.Moffat(beta=2.5, fwhm=fwhm)
    array = profile.drawImage(nx=41, ny=41, scale=1.0).array.astype(float)
    return profile, array / array.sum()


def drawn(light, psf, side):
    """Image (side, side) of a profile seen through another."""
    return galsim.Convolve(light, psf).drawImage(nx=side, ny=side, scale=1.0).array.astype(float)


def errors(catalog, flux, stated="err"):
    """Errors, and errors over stated ones, of flux, n, hlr, g1, g2 of `GALAXY`, (N, 5) each."""
    table, truth = catalog.to_table(), {"flux": flux} | TRUTH
    off = np.transpose([np.array(table[name]) - truth[name] for name in PARAMETERS])
    return off, off / np.transpose([np.array(table[f"{name}_{stated}"]) for name in PARAMETERS])
