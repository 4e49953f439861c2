"""Derivative images of a galaxy, and how alike they are: the correlation matrix of the bound."""

import matplotlib.pyplot as plt
import numpy as np

from galshape_cnn import PSFConvolvedSersic2D, cramer_rao_bound

SIZE, NAMES = 64, ("flux", "n", "hlr", "g1", "g2", "x")
y, x = np.mgrid[:SIZE, :SIZE]
offset = np.arange(-20, 21)
psf = (1 + (offset[:, None] ** 2 + offset**2) / 2.5**2) ** -3.0
truth = np.array([1000.0, 1.5, 4.0, 0.15, 0.1, 31.5, 31.5])
step = np.array([10.0, 0.02, 0.05, 0.01, 0.01, 0.1])

figure = plt.figure(figsize=(9, 4.1), layout="constrained")
images, matrix = figure.subfigures(1, 2, width_ratios=(1.55, 1))
for axis, name, k in zip(images.subplots(2, 3).flat, NAMES, range(6), strict=True):
    change = np.eye(7)[k] * step[k]
    slope = sum(s * PSFConvolvedSersic2D(*(truth + s * change), psf=psf)(x, y) for s in (1, -1))
    top = np.abs(slope).max()
    axis.imshow(slope[12:52, 12:52], origin="lower", cmap="RdBu_r", vmin=-top, vmax=top)
    axis.set(title=rf"$\partial p\,/\,\partial\,\mathrm{{{name}}}$", xticks=[], yticks=[])

covariance = cramer_rao_bound(truth, psf, 1.0, shape=(SIZE, SIZE)).covariance
sigma = np.sqrt(np.diag(covariance))
correlation = covariance / sigma / sigma[:, None]
axis = matrix.subplots()
shown = axis.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
for i in range(5):
    for j in range(5):
        axis.text(j, i, f"{correlation[i, j]:.2f}", ha="center", va="center", fontsize=8,
                  color="w" if abs(correlation[i, j]) > 0.6 else "k")  # fmt: skip
axis.set_xticks(range(5), NAMES[:5])
axis.set_yticks(range(5), NAMES[:5])
axis.set_title("correlation of the errors at the bound", fontsize=10)
