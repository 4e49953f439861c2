"""
Measure the galaxies of an image
================================

An image with noise, mask, WCS and a PSF that changes over the field; a list of positions; one call.
"""

# %%
# The image
# ---------
#
# `~galshape_cnn.study.simulate.field.simulate_field` stands for your survey.  GalSim draws galaxies on a WCS
# that is turned by 12 degrees, with cosmic rays, bad columns and a saturated star.

import matplotlib.pyplot as plt
import numpy as np

from galshape_cnn import ShapeEstimator
from galshape_cnn.study.report.compare import match_truth, pulls
from galshape_cnn.study.simulate.field import simulate_field

field = simulate_field(seed=4, n_galaxies=24)
image = field.to_nddata()

projection = {"projection": image.wcs}
figure, axis = plt.subplots(figsize=(5, 5), layout="constrained", subplot_kw=projection)
sigma = np.median(field.error)
axis.imshow(
    np.where(field.mask, np.nan, field.image),
    origin="lower",
    vmin=-3 * sigma,
    vmax=15 * sigma,
    cmap="cividis",
)
axis.scatter(
    field.positions["ra"], field.positions["dec"], transform=axis.get_transform("world"),
    s=90, facecolors="none", edgecolors="w", lw=0.6,
)  # fmt: skip
axis.set(xlabel="right ascension", ylabel="declination")

# %%
# Measure
# -------
#
# Noise, mask, WCS and unit travel with the `~astropy.nddata.NDData`; positions come in right ascension and
# declination. ``"ml"`` fits each galaxy by maximum likelihood, starting at the network's answer.

estimator = ShapeEstimator()
catalog = estimator(image, positions=field.positions, psf=field.psf, method="ml")
table = catalog.to_table()
shown = table["id", "flux", "n", "hlr", "hlr_err", "g1", "g2", "snr", "flags"]
for name in shown.colnames[1:-1]:
    shown[name].info.format = ".3g"
shown[:8]

# %%
# Sizes are in arcsec, shears in the frame of the sky, and every estimate stands beside its Cramér–Rao bound.

# %%
# Look
# ----
#
# Data, model and residual of the brightest galaxy of quality 0.  The residual is in units of the noise:
# with a good model it looks like noise.

clean = table["quality"] == 0
brightest = int(np.argmax(np.where(clean, table["snr"], 0)))
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
_ = catalog.plot(brightest, axes=axes)

# %%
# Count the flags
# ---------------

for name, count in catalog.flag_counts().items():
    print(f"{count:3d}  {name}")

# %%
# Compare with the truth
# ----------------------
#
# Which only a simulation has.  The pull is (measured − true) over the bound.

truth = match_truth(table, field.truth)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for axis, name in zip(axes, ("hlr", "g1", "g2"), strict=True):
    for rows, color, label in ((~clean, "#D55E00", "quality 1, 2"), (clean, "#0072B2", "quality 0")):
        measured, true = (np.asarray(t[name][rows], float) for t in (table, truth))
        error = np.asarray(table[f"{name}_err"][rows], float)
        axis.errorbar(true, measured, np.minimum(error, 2), fmt="o", ms=4, lw=0.8, color=color, label=label)
    low, high = np.min(truth[name][clean].value), np.max(truth[name][clean].value)
    room = 0.3 * (high - low)
    axis.set(
        xlabel=f"true {name}",
        ylabel="measured",
        xlim=(low - room, high + room),
        ylim=(low - room, high + room),
    )
    axis.axline((low, low), slope=1, color="k", lw=0.8)
axes[0].legend(frameon=False)
pull = np.concatenate([values for values in pulls(table[clean], truth[clean]).values()])
print(
    f"pulls of {clean.sum()} galaxies of quality 0: mean {pull.mean():+.2f}, "
    f"standard deviation {pull.std():.2f}"
)
