# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables of a Fourier grid and of the Sérsic profile, laid out for the kernel."""

import ctypes
from functools import lru_cache

import numpy as np

from galshape_cnn.forward.grid import FourierGrid, chebyshev_nodes
from galshape_cnn.forward.sersic import sersic_table

__all__ = ["FAR_NODES", "NEAR_NODES", "plan_of"]

#: Nodes of the folded light along an axis: of the nearest ring of copies, and of the rings beyond it.
NEAR_NODES, FAR_NODES = 14, 4

_SINGLE = ctypes.POINTER(ctypes.c_float)
_DOUBLE = ctypes.POINTER(ctypes.c_double)


class _Plan(ctypes.Structure):
    """``Plan`` of ``plan.h``."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("size", "modes", "fft_size", "n_knots", "k_knots")),
        *(
            (name, _SINGLE)
            for name in ("kx", "cos_y", "sin_y", "cos_x", "sin_x", "even", "odd", "between", "near", "far")
        ),
        ("transform", _SINGLE),
        ("outside", _SINGLE),
        ("profile", _DOUBLE),
        *((name, ctypes.c_double) for name in ("ln_n0", "ln_n_step", "ln_k0", "ln_k_step")),
    ]


@lru_cache(maxsize=1)
def _tables():
    """Arrays that do not depend on the grid."""
    table = sersic_table()
    return {
        "transform": np.ascontiguousarray(table.coefficients, np.float32),
        "outside": np.ascontiguousarray(table.outside, np.float32),
        "profile": np.ascontiguousarray(table.profile, np.float64),
    }


def _axes(grid):
    """Waves and nodes along the axes of a grid."""
    cos_y, sin_y, cos_x, sin_x = grid.half_waves
    side = (2 * np.arange(grid.size // 2) + 1) / (grid.size - 1)
    right, left = (grid.node_weights(NEAR_NODES, at) for at in (side, -side))
    return {
        "kx": grid.kx,
        "cos_y": cos_y,
        "sin_y": sin_y,
        "cos_x": cos_x,
        "sin_x": sin_x,
        "even": (right + left) / 2,
        "odd": (right - left) / 2,
        "between": grid.node_weights(FAR_NODES, chebyshev_nodes(NEAR_NODES)),
        "near": grid.nodes(NEAR_NODES),
        "far": grid.nodes(FAR_NODES),
    }


@lru_cache(maxsize=16)
def plan_of(grid: FourierGrid):
    """The kernel's plan for a grid.

    Parameters
    ----------
    grid : FourierGrid
        Stamp size and bandwidth.

    Returns
    -------
    plan : ctypes.Structure
        What the kernel's functions take first; it holds the arrays that it points to.
    """
    arrays = {name: np.ascontiguousarray(one, np.float32) for name, one in _axes(grid).items()} | _tables()
    table, plan = sersic_table(), _Plan()
    plan.size, plan.modes, plan.fft_size = grid.size, len(grid.kx), grid.fft_size
    plan.n_knots, plan.k_knots = arrays["transform"].shape
    for name in ("ln_n0", "ln_n_step", "ln_k0", "ln_k_step"):
        setattr(plan, name, float(getattr(table, name)))
    for name, array in arrays.items():
        kind = _DOUBLE if array.dtype == np.float64 else _SINGLE
        setattr(plan, name, array.ctypes.data_as(kind))
    plan.arrays = arrays  # a pointer keeps nothing: another thread may push the plan out of the cache
    return plan
