# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The compiled kernel, which the package can do without; everything else is in ``setup.cfg``."""

from setuptools import Extension, setup

KERNEL = "galshape_cnn/forward/kernel"
HEADERS = (
    "kernel vector plan product work modes folding image likelihood examine transfer entry correlated "
    "companions sources peaks scenes medians structure psf features network"
).split()

setup(
    ext_modules=[
        Extension(
            "galshape_cnn.forward.kernel._kernel",
            sources=[f"{KERNEL}/kernel_{one}.c" for one in ("base", "avx2", "avx512")],
            depends=[f"{KERNEL}/{name}.h" for name in HEADERS],
            extra_compile_args=["-O3", "-fno-math-errno", "-Wno-psabi"],
            optional=True,  # without a compiler JAX does it all
        )
    ]
)
