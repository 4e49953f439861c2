# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`CatalogPlots`: pictures of a catalogue; matplotlib is imported when drawing.

Colours are from the palette of Okabe & Ito, which the colour-blind can tell apart.
"""

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS

__all__ = ["CatalogPlots", "checked_axes", "draw_stamp", "plain_ticks"]

_BLUE, _ORANGE, _PINK = "#0072B2", "#D55E00", "#CC79A7"
_SYMBOLS = {"flux": "flux", "n": "n", "hlr": "hlr", "g1": "$g_1$", "g2": "$g_2$"}
_FEWEST = 20  # samples that make a histogram
_WIDE = 20.0  # ratio of the ends of a logarithmic axis, above which labels at 1, 2, 5 touch


class CatalogPlots:
    """Methods of `~galshape_cnn.ShapeCatalog` that draw."""

    def plot(self, i, axes=None):
        """Draw data, model and residual of one galaxy side by side.

        Data and model share an asinh scale; the residual is in units of the noise, from -5 to 5.
        Bad pixels are pink.

        Parameters
        ----------
        i : int
            Row number.
        axes : sequence of three `matplotlib.axes.Axes`, optional
            Where to draw; by default a new figure.

        Returns
        -------
        axes : tuple of `matplotlib.axes.Axes`
            Data, model, residual.

        Raises
        ------
        InputError
            If the data were dropped by ``without_stamps``, or ``axes`` are not three.
        IndexError
            If there is no such row.

        Examples
        --------
        >>> import numpy as np
        >>> from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator
        >>> y, x = np.mgrid[-15:16, -15:16]
        >>> psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
        >>> model = PSFConvolvedSersic2D(3000, 1.5, 3.0, 0.2, 0.0, 31.5, 31.5, psf=psf)
        >>> yy, xx = np.mgrid[:64, :64]
        >>> image = model(xx, yy) + np.random.default_rng(1).normal(size=(64, 64))
        >>> catalog = ShapeEstimator()(image, psf=psf, error=1.0)
        >>> [axis.get_title() for axis in catalog.plot(0)]
        ['data', 'model', 'residual / sigma']
        """
        axes = checked_axes(axes, (3,), {"figsize": (9, 3.2), "layout": "constrained"})
        draw_stamp(axes, self.stamp(i), self.model(i))
        axes[0].set_ylabel("y (pixels)")
        return tuple(axes)

    def plot_corner(self, i, axes=None):
        """Draw the posterior samples of one galaxy: every pair of parameters, and each alone.

        Contours hold 68 and 95 per cent of the samples.  Dashed ellipses and curves are the
        Cramér-Rao bound around the posterior mean: what the posterior would be if the
        likelihood were Gaussian and the prior flat.

        Parameters
        ----------
        i : int
            Row number.
        axes : (5, 5) array of `matplotlib.axes.Axes`, optional
            Where to draw; by default a new figure.

        Returns
        -------
        axes : (5, 5) ndarray of `matplotlib.axes.Axes`
            Those above the diagonal are empty.

        Raises
        ------
        InputError
            If the catalogue was not made with ``method='posterior'``, the galaxy has fewer than 20
            samples, or ``axes`` are not 5 by 5.
        IndexError
            If there is no such row.

        Examples
        --------
        >>> import numpy as np
        >>> from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator
        >>> y, x = np.mgrid[-15:16, -15:16]
        >>> psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
        >>> model = PSFConvolvedSersic2D(3000, 1.5, 3.0, 0.2, 0.0, 31.5, 31.5, psf=psf)
        >>> yy, xx = np.mgrid[:64, :64]
        >>> image = model(xx, yy) + np.random.default_rng(1).normal(size=(64, 64))
        >>> catalog = ShapeEstimator()(image, psf=psf, error=1.0, method="posterior")
        >>> catalog.plot_corner(0).shape
        (5, 5)
        """
        samples = self.samples(i)
        if len(samples) < _FEWEST:
            raise InputError(f"row {i} has {len(samples)} samples; a corner plot needs {_FEWEST} or more")
        axes = checked_axes(axes, (5, 5), {"figsize": (9.5, 9.5), "layout": "constrained"})
        bound = self.crb_covariance[i]
        for row, column in np.ndindex(5, 5):
            axis = axes[row, column]
            if column > row:
                axis.set_axis_off()
            elif column == row:
                _draw_one(axis, samples[:, row], bound[row, row])
            else:
                pair = [column, row]
                _draw_pair(axis, samples[:, pair], bound[np.ix_(pair, pair)])
        _label_corner(axes, [_with_unit(self, name) for name in SHAPE_PARAMETERS])
        return axes

    def plot_bound_ratio(self, axes=None):
        """Draw the stated posterior width over the Cramér-Rao bound against S/N.

        Near one the data decide; below one the prior does, and the estimate is then biased
        towards it; above one the likelihood is not Gaussian, or the network adds a scatter of its
        own.

        Parameters
        ----------
        axes : sequence of five `matplotlib.axes.Axes`, optional
            Where to draw; by default a new figure.

        Returns
        -------
        axes : tuple of `matplotlib.axes.Axes`
            Of flux, n, hlr, g1 and g2.

        Raises
        ------
        InputError
            If the catalogue was made with ``method='ml'``, which has no posterior, or ``axes`` are not five.

        Examples
        --------
        >>> import numpy as np
        >>> from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator
        >>> y, x = np.mgrid[-15:16, -15:16]
        >>> psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
        >>> model = PSFConvolvedSersic2D(3000, 1.5, 3.0, 0.2, 0.0, 31.5, 31.5, psf=psf)
        >>> yy, xx = np.mgrid[:64, :64]
        >>> image = model(xx, yy) + np.random.default_rng(1).normal(size=(9, 64, 64))
        >>> catalog = ShapeEstimator()(image, psf=psf, error=1.0)
        >>> len(catalog.plot_bound_ratio())
        5
        """
        if self.method == "ml":
            raise InputError(
                "method='ml' states no posterior width; allowed: catalogues of 'network', 'posterior'"
            )
        axes = checked_axes(axes, (5,), {"figsize": (15, 3.4), "layout": "constrained", "sharey": True})
        clean = self.quality == 0
        diagonals = [np.diagonal(one, axis1=1, axis2=2) for one in (self.covariance, self.crb_covariance)]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.sqrt(diagonals[0] / diagonals[1])
        for k, (axis, name) in enumerate(zip(axes, SHAPE_PARAMETERS, strict=True)):
            _draw_ratio(axis, self.snr, ratio[:, k], clean)
            axis.set_title(_SYMBOLS[name])
        axes[0].set_ylabel("posterior width / Cramér–Rao bound")
        axes[0].legend(loc="best", fontsize=8)
        return tuple(axes)


def checked_axes(axes, shape, options):
    """The axes given, if they have a shape, or those of a new figure."""
    if axes is None:
        import matplotlib.pyplot as plt

        rows, columns = shape if len(shape) == 2 else (1, *shape)
        _, axes = plt.subplots(rows, columns, **options)
    axes = np.asarray(axes, object)
    if axes.shape != shape:
        raise InputError(f"axes has shape {axes.shape}; allowed: {shape}")
    return axes


def draw_stamp(axes, stamp, model):
    """Draw data, model and residual of a stamp on three axes; the model is in its parent's pixels."""
    data, ivar = stamp.data[0].astype(float), stamp.ivar[0].astype(float)
    left, bottom = stamp.origin[0]
    y, x = np.indices(data.shape)
    model = model(x + left, y + bottom)
    good = ivar > 0
    sigma = 1 / np.sqrt(np.median(ivar[good])) if good.any() else 1.0
    images = (np.where(good, data, np.nan), model, np.where(good, (data - model) * np.sqrt(ivar), np.nan))
    extent = (left - 0.5, left + data.shape[1] - 0.5, bottom - 0.5, bottom + data.shape[0] - 0.5)
    _draw_images(axes, images, sigma, extent)


def _draw_images(axes, images, sigma, extent):
    """Show three images with their scales."""
    import matplotlib as mpl
    from matplotlib.colors import AsinhNorm, Normalize

    top = max(float(np.nanmax(images[1], initial=0)), 5 * sigma)
    flux = AsinhNorm(2 * sigma, vmin=-2 * sigma, vmax=top)
    scales = ((flux, "cividis"), (flux, "cividis"), (Normalize(-5, 5), "RdBu_r"))
    titles = ("data", "model", "residual / sigma")
    for axis, image, (norm, name), title in zip(axes, images, scales, titles, strict=True):
        cmap = mpl.colormaps[name].with_extremes(bad=_PINK)
        shown = axis.imshow(
            image, origin="lower", norm=norm, cmap=cmap, extent=extent, interpolation="nearest"
        )
        axis.set_title(title)
        axis.set_xlabel("x (pixels)")
        ticks = None if name == "RdBu_r" else _asinh_ticks(norm, 2 * sigma)
        axis.figure.colorbar(shown, ax=axis, shrink=0.8, ticks=ticks, format="{x:g}")


def _asinh_ticks(norm, width):
    """Round numbers evenly spread over an asinh scale."""
    low, high = np.arcsinh(norm.vmin / width), np.arcsinh(norm.vmax / width)
    values = width * np.sinh(np.linspace(0, high, 5))[1:]
    step = 10 ** np.floor(np.log10(values))
    ticks = np.unique(np.concatenate([[0], np.floor(values / step) * step]))
    return ticks[np.arcsinh(ticks / width) >= low]


def _with_unit(catalog, name):
    """Label of an axis."""
    unit = getattr(getattr(catalog, name), "unit", None)
    text = "" if unit is None else unit.to_string()
    return f"{_SYMBOLS[name]} ({text})" if text else _SYMBOLS[name]


def _limits(values):
    """Range of most samples, with a margin."""
    low, high = np.percentile(values, [0.5, 99.5])
    margin = 0.08 * max(high - low, 1e-12)
    return low - margin, high + margin


def _draw_one(axis, values, variance):
    """Histogram of one parameter, and the normal distribution of the bound."""
    low, high = _limits(values)
    edges = np.linspace(low, high, 31)
    axis.hist(values, edges, color=_BLUE, alpha=0.75)
    x = np.linspace(low, high, 200)
    if np.isfinite(variance) and variance > 0:
        density = np.exp(-0.5 * (x - values.mean()) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
        axis.plot(x, len(values) * (edges[1] - edges[0]) * density, color=_ORANGE, ls="--", lw=1.3)
    axis.set(xlim=(low, high), yticks=[])


def _draw_pair(axis, pair, covariance):
    """Samples of two parameters with their contours, and the ellipses of the bound."""
    (left, right), (low, high) = limits = [_limits(values) for values in pair.T]
    axis.plot(*pair.T, ".", color=_BLUE, alpha=0.25, ms=2, rasterized=True)
    counts, x, y = np.histogram2d(*pair.T, bins=24, range=limits)
    density = _smooth(counts)
    ordered = np.sort(density.ravel())[::-1]
    share = np.cumsum(ordered) / ordered.sum()
    levels = np.unique([ordered[np.searchsorted(share, level)] for level in (0.95, 0.68)])
    middle = [0.5 * (edges[1:] + edges[:-1]) for edges in (x, y)]
    axis.contour(*middle, density.T, levels=levels, colors="black", linewidths=1)
    if np.isfinite(covariance).all():
        values, vectors = np.linalg.eigh(covariance)
        angle = np.linspace(0, 2 * np.pi, 120)
        circle = np.stack([np.cos(angle), np.sin(angle)])
        for radius in (1.515, 2.448):  # 68 and 95 per cent in two dimensions
            ellipse = pair.mean(0)[:, None] + radius * vectors @ (
                np.sqrt(np.maximum(values, 0))[:, None] * circle
            )
            axis.plot(*ellipse, color=_ORANGE, ls="--", lw=1.1)
    axis.set(xlim=(left, right), ylim=(low, high))


def _smooth(counts):
    """Histogram smoothed over about a bin."""
    kernel = np.array([0.25, 0.5, 0.25])
    for axis in (0, 1, 0, 1):
        counts = np.apply_along_axis(np.convolve, axis, counts, kernel, "same")
    return counts


def _label_corner(axes, labels):
    """Labels and ticks at the outside only."""
    for row, column in np.ndindex(5, 5):
        axis = axes[row, column]
        axis.locator_params(nbins=4)
        if row == 4:
            axis.set_xlabel(labels[column])
            axis.tick_params(axis="x", labelrotation=45)
        else:
            axis.set_xticklabels([])
        if column == 0 and row > 0:
            axis.set_ylabel(labels[row])
        elif column != row:
            axis.set_yticklabels([])


def _draw_ratio(axis, snr, ratio, clean):
    """Points of one parameter."""
    kinds = (~clean, _ORANGE, "none", "quality 1, 2"), (clean, _BLUE, _BLUE, "quality 0")
    for rows, color, face, label in kinds:
        axis.plot(snr[rows], ratio[rows], "o", ms=4, color=color, mfc=face, alpha=0.7, label=label)
    axis.axhline(1, color="black", lw=0.8)
    axis.set(xscale="log", yscale="log", xlabel="S/N")
    known = snr[np.isfinite(snr) & (snr > 0)]
    if len(known):
        axis.set_xlim(known.min() / 1.5, known.max() * 1.5)
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.45), max(high, 2.2))
    plain_ticks(axis.xaxis, axis.yaxis)


def plain_ticks(*axes):
    """Ticks of logarithmic axes at 1, 2, 5 in plain numbers; at 1, 3 where these would touch."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis in axes:
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 3) if high > _WIDE * low else (1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
