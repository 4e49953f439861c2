"""
Noise bias, predicted and measured
==================================

The maximum of the likelihood is unbiased only in the limit of high S/N.  What is left at finite S/N follows
from the second derivatives of the model, and can be computed before anything is measured:
:doc:`/science/noise_bias` derives the formula used here.
"""

import galsim
import matplotlib.pyplot as plt
import numpy as np

from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator, cramer_rao_bound

NAMES = ("flux", "n", "hlr", "g1", "g2")
psf = galsim.Moffat(beta=3, fwhm=3.0)
galaxy = galsim.Sersic(n=3.0, half_light_radius=2.0, flux=1.0).shear(g1=0.3, g2=0.0)
image = galsim.Convolve(galaxy, psf).drawImage(nx=64, ny=64, scale=1).array.astype(float)

# %%
# Predicted
# ---------
#
# First and second derivatives by finite differences of the public model, in steps of the bound, at S/N 60.
# The bias in units of the bound is proportional to 1/S/N.

SNR = 60
flux = SNR / np.sqrt(np.sum(image**2))  # for a noise of one
theta = np.array([flux, 3.0, 2.0, 0.3, 0.0, 31.5, 31.5])
effective_psf = galsim.Convolve(psf, galsim.Pixel(1))
pixel_psf = effective_psf.drawImage(nx=51, ny=51, scale=1, method="no_pixel").array
y, x = np.mgrid[:64, :64]


def model(parameters):
    """Pixel values."""
    return PSFConvolvedSersic2D(*parameters, psf=pixel_psf)(x, y).ravel()


bound = cramer_rao_bound(theta, psf, 1.0, fit_sky=False)
step = np.array([*(getattr(bound, name) for name in NAMES), 0.2, 0.2]) / 2
unit = np.diag(step)
centre = model(theta)
plus, minus = (np.array([model(theta + sign * row) for row in unit]) for sign in (1, -1))
first = (plus - minus) / 2
second = np.empty((7, 7, centre.size))
for a in range(7):
    second[a, a] = plus[a] + minus[a] - 2 * centre
    for b in range(a):
        both = model(theta + unit[a] + unit[b]) + model(theta - unit[a] - unit[b])
        second[a, b] = second[b, a] = (both - plus[a] - minus[a] - plus[b] - minus[b] + 2 * centre) / 2
inverse = np.linalg.inv(first @ first.T)
predicted = -0.5 * inverse @ (first @ np.einsum("cd,cdp->p", inverse, second))
predicted = predicted[:5] / np.sqrt(np.diag(inverse)[:5])

# %%
# Measured
# --------
#
# 400 noise realisations at S/N 60 and 200 at S/N 120; the standard error of the bias is 0.05 and 0.07 of the
# bound.

estimator, rng = ShapeEstimator(), np.random.default_rng(1)
measured = {}
for snr, number in ((60, 400), (120, 200)):
    cutouts = image * flux * snr / SNR + rng.normal(size=(number, 64, 64))
    catalog = estimator(cutouts, psf=psf, error=1.0, method="ml", fit_sky=False)
    true = np.array([flux * snr / SNR, *theta[1:5]])
    errors = catalog.parameters - true
    least = np.array(
        [getattr(cramer_rao_bound([*true, 31.5, 31.5], psf, 1.0, fit_sky=False), n) for n in NAMES]
    )
    measured[snr] = errors.mean(0) / least, 1 / np.sqrt(number)
    scatter = errors.std(0, ddof=1) / least
    print(f"S/N {snr}: scatter / bound " + " ".join(f"{value:.2f}" for value in scatter))

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
for offset, (snr, color) in zip((-0.15, 0.15), ((60, "#D55E00"), (120, "#0072B2")), strict=True):
    place = np.arange(5) + offset
    axis.errorbar(place, *measured[snr], fmt="o", color=color, label=f"measured, S/N {snr}")
    axis.plot(place, predicted * SNR / snr, "_", ms=22, color=color, label=f"predicted, S/N {snr}")
axis.axhline(0, color="0.6", lw=1)
axis.set_xticks(range(5), NAMES)
axis.set(ylabel="bias / bound")
axis.legend(frameon=False, fontsize=8)

# %%
# In units of the bound the bias falls as one over S/N, so relative to the parameter it falls as one over S/N
# squared.  At the lower S/N flux and radius are biased more than predicted: the expansion's next order begins
# to matter.  For one galaxy all this is a fraction of its error bar; for the mean of a million galaxies it is
# everything.  For the shear the prediction is

multiplicative = predicted[3] * bound.g1 / 0.3
print(f"m = {multiplicative:.2%} at S/N {SNR}, {multiplicative * (SNR / 20) ** 2:.1%} at S/N 20")
