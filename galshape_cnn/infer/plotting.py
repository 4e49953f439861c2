# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Picture of one galaxy of a catalogue; matplotlib is imported when drawing."""

import numpy as np

__all__ = ["plot_galaxy"]


def plot_galaxy(catalog, i, axes=None):
    """Draw data, model and residual of one galaxy side by side.

    Data and model share an asinh scale; the residual is in units of the noise,
    from -5 to 5.  Bad pixels are pink.

    Parameters
    ----------
    catalog : ShapeCatalog
        With its stamps.
    i : int
        Row number.
    axes : sequence of three `matplotlib.axes.Axes`, optional
        Where to draw; by default a new figure.

    Returns
    -------
    axes : tuple of `matplotlib.axes.Axes`
        Data, model, residual.
    """
    if axes is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    stamp = catalog.stamp(i)
    data, ivar = stamp.data[0].astype(float), stamp.ivar[0].astype(float)
    left, bottom = catalog.placement.origin[i]
    y, x = np.indices(data.shape)
    model = catalog.model(i)(x + left, y + bottom)
    good = ivar > 0
    sigma = 1 / np.sqrt(np.median(ivar[good])) if good.any() else 1.0
    images = (np.where(good, data, np.nan), model, np.where(good, (data - model) * np.sqrt(ivar), np.nan))
    extent = (left - 0.5, left + data.shape[1] - 0.5, bottom - 0.5, bottom + data.shape[0] - 0.5)
    _draw(axes, images, sigma, extent)
    axes[0].set_ylabel("y (pixels)")
    return tuple(axes)


def _draw(axes, images, sigma, extent):
    """Show three images with their scales."""
    import matplotlib as mpl
    from matplotlib.colors import AsinhNorm, Normalize

    top = max(float(np.nanmax(images[1], initial=0)), 5 * sigma)
    flux = AsinhNorm(2 * sigma, vmin=-2 * sigma, vmax=top)
    scales = ((flux, "cividis"), (flux, "cividis"), (Normalize(-5, 5), "RdBu_r"))
    titles = ("data", "model", "residual / sigma")
    for axis, image, (norm, name), title in zip(axes, images, scales, titles, strict=True):
        cmap = mpl.colormaps[name].with_extremes(bad="#CC79A7")
        shown = axis.imshow(
            image, origin="lower", norm=norm, cmap=cmap, extent=extent, interpolation="nearest"
        )
        axis.set_title(title)
        axis.set_xlabel("x (pixels)")
        axis.figure.colorbar(shown, ax=axis, shrink=0.8)
