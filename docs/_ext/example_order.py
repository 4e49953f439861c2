# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Order of the gallery: from what everybody needs to what few do."""

from sphinx_gallery.sorting import ExplicitOrder

__all__ = ["InReadingOrder"]

ORDER = [
    "plot_image.py",
    "plot_posterior.py",
    "plot_bounds.py",
    "plot_seed_exercise.py",
    "plot_shrinkage.py",
    "plot_noise_bias.py",
    "*",
]


class InReadingOrder(ExplicitOrder):
    """File names of the examples in the order of `ORDER`."""

    def __init__(self, src_dir):
        super().__init__(ORDER)
