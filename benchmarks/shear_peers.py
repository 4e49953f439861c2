# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Other programs on the images of ``bench_shear.py``: terms of their mean shear, as `shear_sums` has them."""

import galsim
import numpy as np
from shear_galaxies import OVER, SIZE

__all__ = ["PEERS", "anacal_terms", "hsm_terms"]

FARTHEST = 4.0  # of the distortions of HSM, noise included
SCALE, ZERO_POINT = 0.2, 31.4  # that AnaCal counts in: arcsec per pixel, magnitudes
KERNEL, WEIGHT = (
    0.52,
    17.0,
)  # sigma in arcsec; flux in units of a pixel's noise that keeps ellipticities finite
ACROSS = 32  # stamps in a row of the mosaic


def hsm_terms(galaxies):
    """Terms of the mean shear by re-Gaussianization (Hirata & Seljak 2003), as GalSim has it, (N, 19).

    Its distortions respond by 2 - |e|^2, which is all the calibration that it has.
    """
    stamps = galaxies.stamps
    psf = galsim.Image(stamps.psf[0].astype(float), scale=1 / OVER)
    point = galsim.InterpolatedImage(psf).drawImage(nx=63, ny=63, scale=1, method="no_pixel")
    terms = np.zeros((len(stamps), 19))
    for row, data in zip(terms, stamps.data, strict=True):
        found = galsim.hsm.EstimateShear(galsim.Image(data.astype(float), scale=1), point, strict=False)
        e1, e2 = found.corrected_e1, found.corrected_e2
        if found.error_message or not np.hypot(e1, e2) < FARTHEST:
            continue
        one = np.array([1, e1, e2])
        row[:] = np.concatenate([one, (2 - e1**2 - e2**2) * np.eye(2).ravel(), *[one] * 4])
    return terms


def anacal_terms(galaxies):
    """Terms of the mean shear by AnaCal's FPFS shapes (Li & Mandelbaum 2023; Li et al. 2024), (N, 19).

    It is given the true centres, which it needs: about the middle of the stamps its m is some per cents.
    """
    import anacal

    count = len(galaxies.stamps)
    row, column = np.divmod(np.arange(count), ACROSS)
    detection = np.zeros(count, [("y", float), ("x", float)])
    detection["x"], detection["y"] = galaxies.centers.T + SIZE * np.stack([column, row])
    psf = np.zeros((SIZE, SIZE))
    psf[1:, 1:] = galaxies.stamps.psf[0][1::2, 1::2] * OVER**2  # its middle in pixel 32
    found = anacal.fpfs.process_image(
        fpfs_config=anacal.fpfs.FpfsConfig(npix=SIZE, sigma_shapelets1=KERNEL, c0=WEIGHT),
        pixel_scale=SCALE,
        noise_variance=1.0,
        mag_zero=ZERO_POINT,
        psf_array=psf,
        detection=detection,
        gal_array=_mosaic(galaxies.stamps.data, row, column),
        noise_array=_mosaic(galaxies.added, row, column),
    )
    one = np.stack([np.ones(count), found["fpfs1_e1"], found["fpfs1_e2"]], 1)
    response = [found[f"fpfs1_de{i}_dg{j}"][:, None] for i in (1, 2) for j in (1, 2)]
    return np.concatenate([one, *response, *[one] * 4], 1)


def _mosaic(images, row, column):
    whole = np.zeros((row[-1] + 1, ACROSS, SIZE, SIZE))
    whole[row, column] = images
    return np.ascontiguousarray(whole.swapaxes(1, 2).reshape(-1, ACROSS * SIZE))


#: Functions of the galaxies of a chunk.
PEERS = {"hsm": hsm_terms, "anacal": anacal_terms}
