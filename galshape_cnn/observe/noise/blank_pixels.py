# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Blank pixels of stamps: sums of their products at each lag, and from these the noise's autocorrelation.

Sources, found at two scales, are left out with a margin.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from galshape_cnn.forward.psf.arrays import PSFArrays
from galshape_cnn.observe.detect.centroids import alike_chunks, psf_sigma
from galshape_cnn.observe.detect.scale_space import build_levels, robust_background

__all__ = [
    "BUMP_SCALE",
    "LEAST_PIXELS",
    "BlankPixelSums",
    "blank_pixel_sums",
    "combined",
    "estimate_from_sums",
    "sums_of_each",
]

#: Blank pixels without which there is no estimate.
LEAST_PIXELS = 2000
#: Pixels: width of the sources that bumps of the sky are made of, as errors of each galaxy suppose it
#: (`galshape_cnn.infer.residuals.smoothers.SKY_SCALE`).
BUMP_SCALE = 4.0
_REACH = 8  # pixels: longest lag that is estimated
_MOST_STAMPS = 256
_SOURCE_HEIGHT = 4.0  # in units of the smoothed noise, above which a pixel is not blank
_LEVELS = 3  # fitted to each stamp: a plane
_CLIP = 4.0  # standard deviations
_SIGNIFICANT = 3.0  # standard errors, below which a ring of lags is taken as zero
_BUMP_REACH = 16  # pixels: their correlation is below 0.02 there
_MOST_BUMPS = 0.5  # of the variance
_NEAR = 3  # pixels: lags that kernels of resampling correlate


@dataclass(frozen=True, eq=False)
class BlankPixelSums:
    """Sums over blank pixels from which the noise is estimated.

    Attributes
    ----------
    products, pairs : (k, k) ndarray
        At each lag, sum of products of pixels in units of the noise map, and number of pairs.
    levels : int
        Stamps whose level was subtracted.
    used : float
        Blank pixels.
    """

    products: np.ndarray
    pairs: np.ndarray
    levels: int
    used: float

    @property
    def enough(self):
        """Whether there are enough blank pixels for an estimate."""
        return self.used >= LEAST_PIXELS

    @property
    def variance(self):
        """Variance of the blank pixels in units of that of the noise map."""
        return self.products[_REACH, _REACH] / self.used

    @property
    def bumpiness(self):
        """Mean correlation at lags of two to five pixels, its standard error over the area, and the area.

        Bumps of the sky, such as wings and sources too faint to be found, raise the first; a level or a plane
        that was subtracted hardly lowers it.  Neighbouring lags share their noise: the variance of a mean
        over many is the squared sum of the correlations, the area, over the pairs (Bartlett 1946, J. R. Stat.
        Soc. Suppl. 8, 27), twice as opposite lags are the same.
        """
        if self.variance <= 0:
            return np.inf, np.inf, 1.0
        ring, raw = _rings(), self.raw
        near = (ring >= 2) & (ring <= 5)
        error = np.sqrt(2 / (near.sum() * max(self.pairs[near].mean(), 1.0)))
        return raw[near].mean(), error, max(raw[ring <= 2].sum(), 1.0)

    @property
    def raw(self):
        """(k, k) ndarray: autocorrelation with its noise."""
        return np.where(self.pairs > 0, self.products / np.maximum(self.pairs, 1), 0) / self.variance


def estimate_from_sums(sums, bumps=False):
    """Autocorrelation (k, k) and excess of the noise.

    As `galshape_cnn.observe.noise.correlation.estimate_correlation` returns them.

    With ``bumps`` the sky is known to have some; what they add is found from far lags and put in its place as
    the smooth function that it is, see `_bumps`.  Noise that is correlated over more than three pixels cannot
    be told from them, nor what is half of the variance, and the correlation stays as it is.
    """
    levels, excess = sums.levels / sums.used, float(np.sqrt(sums.variance))
    if bumps:
        variance, seen = _bumps(sums)
        noise = _denoised(sums.raw - variance * seen, sums.pairs, levels)
        if len(noise) <= 2 * _NEAR + 1 and variance < _MOST_BUMPS:
            return _with_bumps(noise, variance), excess
    return _denoised(sums.raw, sums.pairs, levels), excess


def blank_pixel_sums(groups):
    """Sums over the blank pixels of groups of stamps, a sequence of (index, Stamps)."""
    total = sum(len(stamps) for _, stamps in groups)
    step = max(total // _MOST_STAMPS, 1)
    return combined([one for _, stamps in groups for one in sums_of_each(stamps[::step])])


def sums_of_each(stamps):
    """Sums over the blank pixels of each stamp that has some, a list of `BlankPixelSums`."""
    widths, out = psf_sigma(PSFArrays(stamps.psf, stamps.psf_oversampling)), []
    for chunk, width in alike_chunks(stamps.ivar, widths):
        for values, blank in _blank_pixels(stamps[chunk], width):
            out.append(
                BlankPixelSums(_at_lags(values, values), _at_lags(blank, blank), _LEVELS, float(blank.sum()))
            )
    return out


def combined(parts):
    """Sums over the blank pixels of several stamps, from those of each."""
    side = 2 * _REACH + 1
    products = sum((one.products for one in parts), np.zeros((side, side)))
    pairs = sum((one.pairs for one in parts), np.zeros((side, side)))
    return BlankPixelSums(products, pairs, sum(one.levels for one in parts), sum(one.used for one in parts))


def _blank_pixels(stamps, sigma):
    """Of each stamp, pixels in units of the noise (zero unless blank) and which are blank."""
    from astropy.stats import mad_std

    stamps = stamps.in_units_of(stamps.noise_unit)
    levels = build_levels(stamps.data, stamps.ivar, sigma)[:3:2]
    level = robust_background(stamps.data, stamps.ivar > 0)[:, None, None]
    values = (stamps.data - level) * np.sqrt(stamps.ivar)
    for row in range(len(stamps)):
        source = np.zeros(values.shape[1:], bool)
        for one in levels:
            bright = np.abs(one.amplitude[row]) > _SOURCE_HEIGHT * one.noise[row]
            source |= np.kron(bright, np.ones((one.step, one.step), bool))
        blank = (stamps.ivar[row] > 0) & ~binary_dilation(source, iterations=int(np.ceil(2 * sigma[row])))
        if not blank.any():
            continue
        spread = mad_std(values[row][blank])
        blank &= np.abs(values[row] - np.median(values[row][blank])) < _CLIP * spread
        if not blank.any():
            continue
        yield np.where(blank, _flattened(values[row], blank), 0).astype(float), blank.astype(float)


def _flattened(values, blank):
    """Values less the plane that fits those of the blank pixels best."""
    y, x = (np.linspace(-1, 1, side, dtype=values.dtype) for side in values.shape)
    y, x = np.broadcast_arrays(y[:, None], x)
    columns = np.stack([np.ones_like(x), x, y])
    good = columns[:, blank].astype(float)
    level = np.linalg.lstsq(good @ good.T, good @ values[blank], rcond=None)[0]
    return values - np.tensordot(level, columns, 1)


def _at_lags(first, second):
    """Sum of products of two images at lags up to the reach."""
    shape = [side + _REACH for side in first.shape]
    product = np.fft.rfft2(first, shape) * np.conj(np.fft.rfft2(second, shape))
    lags = np.fft.fftshift(np.fft.irfft2(product, shape))
    y, x = (side // 2 for side in shape)
    return lags[y - _REACH : y + _REACH + 1, x - _REACH : x + _REACH + 1]


def _rings():
    """At each lag, the larger of its two coordinates."""
    lags = np.abs(np.arange(-_REACH, _REACH + 1))
    return np.maximum(lags[:, None], lags)


def _bumps(sums):
    r"""Share of the variance that is of bumps of the sky, sources too faint to be found and wings of others.

    And the correlation (k, k) that is seen of them.

    Kernels of resampling correlate a few pixels; what is beyond is fitted, by least squares, with

    .. math:: a\,\left(e^{-r^2 / 4 w^2} - 4 \pi w^2 m / n\right) - s\, m / n,

    the correlation of sources of width w of which, with the noise, m levels of n pixels were subtracted; s is
    the sum of the correlations of the noise, which follow from the nearer lags.
    """
    ring, lag = _rings(), np.arange(-_REACH, _REACH + 1)
    loss = sums.levels / sums.used
    bump = np.exp(-np.add.outer(lag**2, lag**2) / (4 * BUMP_SCALE**2)) - loss * 4 * np.pi * BUMP_SCALE**2
    near, weight = ring <= _NEAR, np.where(ring > _NEAR, sums.pairs, 0) * bump
    share = loss * weight.sum() / max(1 - near.sum() * loss, 0.5)
    level = (weight * sums.raw).sum() + share * sums.raw[near].sum()
    return max(level / ((weight * bump).sum() + share * bump[near].sum()), 0.0), bump


def _with_bumps(noise, variance):
    """Autocorrelation of noise and of bumps that have a part of the variance."""
    if variance == 0:
        return noise
    lag = np.arange(-_BUMP_REACH, _BUMP_REACH + 1)
    out = variance * np.exp(-np.add.outer(lag**2, lag**2) / (4 * BUMP_SCALE**2))
    near = slice(_BUMP_REACH - len(noise) // 2, _BUMP_REACH + len(noise) // 2 + 1)
    out[near, near] += (1 - variance) * noise
    return out


def _denoised(raw, pairs, levels_per_pixel):
    """Autocorrelation with the loss to the subtracted levels restored and noise-only lags cut."""
    raw = 0.5 * (raw + raw[::-1, ::-1])
    ring, correlation = _rings(), raw
    for _ in range(5):
        error = np.sqrt((correlation**2).sum() / pairs.max())
        reach = 0
        for radius in range(1, _REACH + 1):
            values = raw[ring == radius]
            error_of_mean = error * np.sqrt(2 / len(values))
            if abs(values.mean()) < _SIGNIFICANT * error_of_mean and np.abs(values).max() < 5 * error:
                break
            reach = radius
        # a level taken from m pixels removes the mean correlation, sum / m, from every lag
        inside = ring <= reach
        area = raw[inside].sum() / (1 - min(inside.sum() * levels_per_pixel, 0.5))
        correlation = np.where(inside, raw + area * levels_per_pixel, 0)
        correlation = correlation / correlation[_REACH, _REACH]
    cut = slice(_REACH - reach, _REACH + reach + 1)
    return np.clip(correlation[cut, cut], -1, 1)
