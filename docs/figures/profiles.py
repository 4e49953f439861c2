"""Sérsic profiles of equal flux and half-light radius, as they are and as a PSF shows them."""

import galsim
import matplotlib.pyplot as plt
import numpy as np

HLR, FWHM = 0.3, 0.7  # arcsec
psf = galsim.Moffat(beta=3, fwhm=FWHM)
radius = np.linspace(0.01, 1.8, 90)
scale = 0.02
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True, sharex=True)
for n, color in ((0.5, "#009E73"), (1, "#0072B2"), (2.5, "#E69F00"), (4, "#D55E00")):
    galaxy = galsim.Sersic(n=n, half_light_radius=HLR)
    left.semilogy(radius / HLR, [galaxy.xValue(r, 0) for r in radius], color=color, label=f"n = {n:g}")
    seen = (
        galsim.Convolve(galaxy, psf).drawImage(nx=361, ny=361, scale=scale, method="no_pixel").array
        / scale**2
    )
    right.semilogy(scale * np.arange(1, 91) / HLR, seen[180, 181:271], color=color)
left.set(
    title="galaxy",
    xlabel="radius / hlr",
    ylabel="surface brightness (1 / arcsec²)",
    xlim=(0, 6),
    ylim=(1e-3, 300),
)
right.set(title=f"seen with a PSF of FWHM {FWHM / HLR:.1f} hlr", xlabel="radius / hlr")
left.legend(frameon=False)
