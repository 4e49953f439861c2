"""
Which filters, and how many exposures
=====================================

Exposures that are fitted together share one shape.  What does each of them add?
`~galshape_cnn.cramer_rao_bound` takes a list of PSFs and errors and answers before any image is taken.
"""

import galsim
import matplotlib.pyplot as plt
import numpy as np

from galshape_cnn import cramer_rao_bound

shape = {"n": 1.5, "hlr": 0.5, "g1": 0.1, "g2": 0.05}
# seeing (arcsec), noise per pixel of one exposure, and flux in each filter: the sky is brighter in the red
SEEING = {"g": 0.95, "r": 0.85, "i": 0.75, "z": 0.75}
NOISE = {"g": 0.7, "r": 1.0, "i": 1.6, "z": 2.6}
FLUX = {"g": 150.0, "r": 300.0, "i": 420.0, "z": 500.0}


def bound(bands):
    """Bound of one exposure in each of some filters."""
    names = ["flux"] if len(bands) == 1 else [f"flux_{band}" for band in bands]
    galaxy = shape | {name: FLUX[band] for name, band in zip(names, bands, strict=True)}
    psfs = [galsim.Moffat(beta=3, fwhm=SEEING[band]) for band in bands]
    errors = [NOISE[band] for band in bands]
    return cramer_rao_bound(galaxy, psfs, error=errors, pixel_scale=0.26, bands=bands)


# %%
# Filters
# -------
#
# One exposure in each filter, alone and all together.  The flux of each filter is a parameter of its own, so
# a further filter adds what it says of the shape, and one unknown.

sets = ["g", "r", "i", "z", "gr", "gri", "griz"]
found = {name: bound(list(name)) for name in sets}
for name, least in found.items():
    print(f"{name:5} S/N {least.snr:5.1f}   n {least.n:.2f}   hlr {least.hlr:.3f}   g1 {least.g1:.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.bar(sets, [found[name].g1 for name in sets], color=["#BBBBBB"] * 4 + ["#0072B2"] * 3)
left.set(ylabel="Cramér–Rao bound of g1", title="one exposure in each filter")

# %%
# Exposures
# ---------
#
# Equal exposures gain with the root of their number.  Where the seeing changes from one to the next, the
# sharpest ones decide, and nothing is lost by fitting the worst along with them: its weight is what it knows.

rng = np.random.default_rng(1)
seeing = np.clip(rng.normal(0.85, 0.15, 8), 0.6, 1.3)
psfs = [galsim.Moffat(beta=3, fwhm=width) for width in seeing]
galaxy = shape | {"flux": 300.0}
number = np.arange(1, len(psfs) + 1)
joint = [cramer_rao_bound(galaxy, psfs[:k], error=1.0, pixel_scale=0.26).g1 for k in number]
alone = [cramer_rao_bound(galaxy, psf, error=1.0, pixel_scale=0.26).g1 for psf in psfs]

right.plot(number, joint, "o-", color="#0072B2", label="first to this one together")
right.plot(number, alone, "s", color="#BBBBBB", label="this one alone")
right.plot(number, joint[0] / np.sqrt(number), ":", color="k", label=r"$1/\sqrt{N}$ of the first")
right.set(xlabel="exposure", title="seeing from night to night", ylim=(0, None))
right.legend(fontsize=8)
plt.show()
