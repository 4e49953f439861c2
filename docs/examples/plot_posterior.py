"""
The posterior of a faint galaxy
===============================

At S/N 20 a Sérsic index is hardly measured, and its error bar is no Gaussian.  ``method="posterior"`` returns
samples of the exact posterior, and says how many independent ones they are worth.
"""

import galsim
import matplotlib.pyplot as plt
import numpy as np

from galshape_cnn import ShapeEstimator

# %%
# One galaxy, in pixels
# ---------------------

psf = galsim.Moffat(beta=3, fwhm=3.0)
galaxy = galsim.Sersic(n=1.2, half_light_radius=3.0, flux=1.0).shear(g1=0.2, g2=-0.1)
image = galsim.Convolve(galaxy, psf).drawImage(nx=64, ny=64, scale=1).array.astype(float)
image *= 20 / np.sqrt(np.sum(image**2))  # S/N = 20 for a noise of one
truth = np.array([image.sum(), 1.2, 3.0, 0.2, -0.1])
data = image + np.random.default_rng(4).normal(size=image.shape)

# %%
# Measure it three ways
# ---------------------

estimator = ShapeEstimator()
catalogs = {m: estimator(data, psf=psf, error=1.0, method=m) for m in ("network", "ml", "posterior")}
names = ("flux", "n", "hlr", "g1", "g2")
print(f"{'truth':>10}" + "".join(f"{value:9.3g}{'':9}" for value in truth))
for method, catalog in catalogs.items():
    values = catalog.parameters[0]
    errors = np.sqrt(np.diag((catalog.crb_covariance if method == "ml" else catalog.covariance)[0]))
    pairs = zip(values, errors, strict=True)
    print(f"{method:>10}" + "".join(f"{value:9.3g} ± {error:<6.2g}" for value, error in pairs))

# %%
# Draws
# -----
#
# ``samples(0)`` are equally weighted draws.  The effective sample size says how much they are worth: the mean
# is known to the posterior's width over its square root.

posterior = catalogs["posterior"]
samples = posterior.samples(0)
print(f"{len(samples)} draws, effective sample size {posterior.ess[0]:.0f}")

figure, axes = plt.subplots(5, 5, figsize=(8, 8), layout="constrained")
for i in range(5):
    for j in range(5):
        axis = axes[i, j]
        if j > i:
            axis.axis("off")
            continue
        if i == j:
            axis.hist(samples[:, i], bins=20, color="#0072B2", alpha=0.6)
        else:
            axis.plot(samples[:, j], samples[:, i], ".", ms=3, color="#0072B2", alpha=0.4)
            axis.axhline(truth[i], color="#D55E00", lw=1)
            axis.plot(*catalogs["ml"].parameters[0, [j, i]], "k+", ms=9)
        axis.axvline(truth[j], color="#D55E00", lw=1)
        axis.set(xticks=[], yticks=[])
        if i == 4:
            axis.set_xlabel(names[j])
        if j == 0 and i:
            axis.set_ylabel(names[i])

# %%
# Orange is the truth, the cross the maximum of the likelihood.  Size, flux and n are one long banana: at this
# S/N the data know a combination of the three.  A single number with a symmetric error bar, whichever it is,
# cannot say that.
