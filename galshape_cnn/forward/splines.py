# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Cubic B-spline interpolation in the tables of `galshape_cnn.forward.sersic`, in JAX."""

import jax
import jax.numpy as jnp

__all__ = ["interpolate", "rows_at"]


def _spline_weights(position, count):
    """Uniform cubic B-spline: first index, four weights, their derivative."""
    index = jnp.clip(jnp.floor(position), 1, count - 3)
    t = position - index
    u = 1 - t
    weights = (u**3, 3 * t**3 - 6 * t**2 + 4, 3 * u**3 - 6 * u**2 + 4, t**3)
    slopes = (-3 * u**2, 9 * t**2 - 12 * t, -(9 * u**2 - 12 * u), 3 * t**2)
    return index.astype(jnp.int32) - 1, jnp.stack(weights) / 6, jnp.stack(slopes) / 6


def rows_at(n, table, knots):
    """M functions of n, and their derivatives by it, from their spline coefficients (n_knots, M)."""
    position = (jnp.log(n) - table.ln_n0) / table.ln_n_step
    index, weights, slopes = _spline_weights(position, knots.shape[0])
    rows = jax.lax.dynamic_slice_in_dim(jnp.asarray(knots, weights.dtype), index, 4)
    return weights @ rows, (slopes @ rows) / (table.ln_n_step * n)


def interpolate(n, ln_x, table, coefficients):
    """A tabulated function of n and ln x, and its derivatives by both, in the shape of ``ln_x``.

    From its coefficients (n_knots, k_knots) on the table's grids; the ends of the table hold beyond it.
    """
    values, by_n = rows_at(n, table, coefficients)
    last = values.shape[0] - 2.0
    position = jnp.clip((ln_x - table.ln_k0) / table.ln_k_step, 1.0, last)
    index = jnp.minimum(position, last - 1.0).astype(jnp.int32)
    t = position - index
    u = 1 - t
    # written out, lest an array of weights be stored; the index is inside by construction
    row = lambda rows, j: rows.at[index + (j - 1)].get(mode="promise_in_bounds")  # noqa: E731
    a, b, c, d = (row(values, j) for j in range(4))
    weights = u**3 / 6, (t**3 / 2 - t**2 + 2 / 3), (u**3 / 2 - u**2 + 2 / 3), t**3 / 6
    value = weights[0] * a + weights[1] * b + weights[2] * c + weights[3] * d
    slope = 0.5 * (t**2 * d - u**2 * a) + (1.5 * t**2 - 2 * t) * b - (1.5 * u**2 - 2 * u) * c
    a, b, c, d = (row(by_n, j) for j in range(4))
    value_n = weights[0] * a + weights[1] * b + weights[2] * c + weights[3] * d
    return value, value_n, slope / table.ln_k_step
