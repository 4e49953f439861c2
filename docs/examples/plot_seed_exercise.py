"""
The seed exercise in one page
=============================

Simulate galaxies, train a network on them, and compare its errors with the Cramér–Rao bound: the exercise
from which this package grew.  To fit on one page and into half a minute, the network is tiny and its training
hopelessly short. That is the point of the last step: what the network lacks, the exact likelihood supplies.
"""

# %%
# One galaxy, and what can be known about it
# ------------------------------------------
#
# A galaxy of n = 3 whose half-light radius of 0.3 arcsec is little more than a pixel of 0.23 arcsec, and
# smaller than the PSF.  The noise makes S/N = 30.  :func:`galshape_cnn.cramer_rao_bound` says how well an
# unbiased estimator could measure it.

# sphinx_gallery_thumbnail_number = 2

import galsim
import matplotlib.pyplot as plt
import numpy as np

from galshape_cnn import ShapeEstimator, cramer_rao_bound

SCALE, SIGMA, NAMES = 0.23, 400.0, ("flux", "n", "hlr", "g1", "g2")
psf = galsim.Moffat(beta=2, fwhm=0.5)
truth = {"flux": 1e5, "n": 3.0, "hlr": 0.3, "g1": -0.069, "g2": 0.15}
bound = cramer_rao_bound(truth, psf, SIGMA, pixel_scale=SCALE, fit_sky=False)
print(f"S/N {bound.snr:.1f}")
for name in NAMES:
    print(f"{name:>5} = {truth[name]:9.3f} +- {getattr(bound, name):.3f}")

# %%
# Many realisations of the noise
# ------------------------------
#
# GalSim draws the galaxy; it is not drawn by the renderer that the estimators use.

sersic = galsim.Sersic(n=truth["n"], half_light_radius=truth["hlr"], flux=truth["flux"])
galaxy = galsim.Convolve(sersic.shear(g1=truth["g1"], g2=truth["g2"]), psf)
image = galaxy.drawImage(nx=64, ny=64, scale=SCALE).array.astype(float)
rng = np.random.default_rng(1)
cutouts = image + rng.normal(0, SIGMA, (48, 64, 64))

figure, axes = plt.subplots(1, 4, figsize=(9, 2.4), layout="constrained")
for axis, pixels, title in zip(
    axes, [image, *cutouts[:3]], ["no noise", "S/N 30", "S/N 30", "S/N 30"], strict=True
):
    axis.imshow(pixels[16:48, 16:48], origin="lower", vmin=-2 * SIGMA, vmax=8 * SIGMA, cmap="cividis")
    axis.set(title=title, xticks=[], yticks=[])

# %%
# Train a tiny network
# --------------------
#
# The configuration ``seed`` that ships with the package holds the prior of the exercise: flux, n, radius and
# ellipticity from flat ranges, S/N between 10 and 100, a Moffat PSF of any width between 0.5 and 1 arcsec.  A
# useful network has seen a million galaxies; this one has a quarter of the usual weights and sees 5,120.

import tempfile

from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.study.train.training import Training, make_bundle

config = load_config("seed")
config["network"] |= {
    "context": [64],
    "patch_width": 32,
    "middle_width": 48,
    "deep_width": 64,
    "dense": [128],
}
config["training"] |= {"steps": 40, "batch_size": 128, "validation_size": 512, "validation_every": 20}
with tempfile.TemporaryDirectory() as folder:
    training = Training(config, f"{folder}/checkpoint.npz")
    training.run(report=lambda line: print(line.rpartition("  ")[0]))
print(f"{training.model.count_params():,} weights")

# %%
# Compare with the bound
# ----------------------
#
# The same network serves all three methods: alone, as the start of a maximum-likelihood fit, and as the
# proposal of importance sampling.  Bias and scatter are in units of the bound; with 48 realisations each is
# uncertain by 0.1 to 0.15.

estimator = ShapeEstimator(make_bundle(training))
in_pixels = {"psf": psf.dilate(1 / SCALE), "error": SIGMA, "fit_sky": False}
true = np.array([truth[name] for name in NAMES])
least = np.array([getattr(bound, name) for name in NAMES])
results = {}
print(f"{'':>20}" + "".join(f"{name:>8}" for name in NAMES))
for method in ("network", "ml", "posterior"):
    catalog = estimator(cutouts, method=method, **in_pixels)
    estimates = catalog.parameters * [1, 1, SCALE, 1, 1]  # hlr in arcsec
    results[method] = (estimates - true) / least
    bias, scatter = results[method].mean(0), results[method].std(0, ddof=1)
    for what, values in (("bias", bias), ("scatter", scatter)):
        print(f"{method:>10} {what:>9}" + "".join(f"{value:8.2f}" for value in values))

figure, axes = plt.subplots(1, 5, figsize=(9, 3.2), layout="constrained", sharey=True)
colors = {"network": "#D55E00", "ml": "#0072B2", "posterior": "#009E73"}
for k, (axis, name) in enumerate(zip(axes, NAMES, strict=True)):
    axis.axvspan(-1, 1, color="0.9")
    axis.axvline(0, color="0.5", lw=1)
    for row, (method, color) in enumerate(colors.items()):
        values = results[method][:, k]
        jitter = row + 0.25 * rng.uniform(-1, 1, len(values))
        axis.scatter(values, jitter, s=6, color=color, alpha=0.4, lw=0)
        spread = values.std(ddof=1)
        axis.errorbar(values.mean(), row, xerr=spread, color="k", marker="o", ms=4, capsize=3)
    axis.set(title=name, xlim=(-4.9, 4.9), xlabel="error / bound")
axes[0].set_yticks(range(3), list(colors))
axes[0].invert_yaxis()

# %%
# The grey band is the bound.  What to see in it:
#
# - The **network** is hardly trained and returns nearly the same answer for every realisation.  Its scatter
#   is far *below* the bound, which by itself would look like a triumph.  It is none: the answer is the
#   prior's, not the galaxy's, as its bias shows.  :doc:`/science/estimators` says which bound holds for such
#   an estimator.
# - **Maximum likelihood**, started at that very network, is at the bound, with the bias of noisy likelihoods
#   that :doc:`/science/noise_bias` explains.
# - The **posterior** knows the prior, so it scatters less than the bound where the data know little (n), and
#   pays with a bias.  But unlike the network's this is the exact answer: the network only proposed the draws,
#   the likelihood weighed them.
#
# A better network changes the first row and the time the others take.  It does not change what they say.
#
# Trained to its end
# ------------------
#
# The same configuration as it is, half a million galaxies, by one command for each step::
#
#     galshape simulate seed -n 2000 --seed 77 -o mocks.asdf
#     galshape train seed -o seed.asdf
#     galshape validate seed.asdf -o validation --quick
#     python benchmarks/bench_network.py own --n 2000 --mocks mocks.asdf --bundle seed.asdf
#
# The last one measures the galaxies of the first one without any option, and asks how much larger the
# network's errors are than those of the exact posterior:
#
# .. csv-table:: A network of the seed's configuration, its own prior
#    :file: ../efficiency/network_seed_own.csv
#    :header-rows: 1
