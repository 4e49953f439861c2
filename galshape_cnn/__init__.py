# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measure Sérsic parameters and shear of galaxies, each with its Cramér–Rao bound.

The public names are loaded on first use, so that importing the package is
quick and loads neither Keras, JAX, GalSim nor Dask.
"""

from importlib import import_module as _import_module

try:
    from galshape_cnn._version import version as __version__
except ImportError:  # a source tree that was never built or installed
    __version__ = "0+unknown"

_HOMES = {
    "Exposure": "observe.exposure",
    "CNNFitter": "infer.measure.fitter",
    "PSFConvolvedSersic2D": "forward.model",
    "ShapeCatalog": "infer.catalog.catalog",
    "ShapeEstimator": "infer.measure.estimator",
    "Stamps": "observe.stamps",
    "add_magnitudes": "infer.catalog.magnitudes",
    "cramer_rao_bound": "infer.likelihood.cramer_rao",
    "inject": "study.inject.injection",
    "mean_shear": "infer.shear.mean_shear",
    "read_blocks": "scale.dataset",
    "read_image": "observe.io.fits",
    "snr": "infer.likelihood.fisher",
    "write_table": "infer.catalog.tables",
}

__all__ = [
    "CNNFitter",
    "Exposure",
    "PSFConvolvedSersic2D",
    "ShapeCatalog",
    "ShapeEstimator",
    "Stamps",
    "__version__",
    "add_magnitudes",
    "cramer_rao_bound",
    "inject",
    "mean_shear",
    "read_blocks",
    "read_image",
    "snr",
    "write_table",
]


def __getattr__(name):
    """Load a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    """Names already loaded and those still to load."""
    return sorted(set(globals()) | set(__all__))
