# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Columns of several bands: names, values and definitions."""

from dataclasses import replace

import astropy.units as u
import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.forward.varying import band_shape, shape_index
from galshape_cnn.geometry import frame_derivative
from galshape_cnn.infer.catalog.columns import COLUMN_DEFINITIONS, ColumnDefinition
from galshape_cnn.linalg import quadratic_form

__all__ = ["band_columns", "band_definitions", "band_of", "by_band", "color_of"]

#: What each band may have.
_OF_BANDS = ("flux", "n", "hlr", "g1", "g2", "q", "pa", "r_eff")
# Magnitudes per unit of ln(flux).
_POGSON = 2.5 / np.log(10)


def _ending(bands, number):
    """What the names of a band's columns end with: nothing where there is only one."""
    return f"_{bands[number]}" if len(bands) > 1 else ""


def band_of(name, bands):
    """Number of the band that a column such as ``flux_g_err`` belongs to; the first without a band."""
    fitting = [k for k, band in enumerate(bands) if f"{name}_".startswith(f"flux_{band}_")]
    return max(fitting, key=lambda k: len(bands[k])) if fitting else 0


def by_band(params, model, placement):
    """Fluxes and the shape in each band, in the reported frame, of a model whose shape varies: (N, K).

    With the names of `shape_index`; NaN in bands without data. Coefficients that were not fitted are NaN in
    ``params`` (N, P), and count as zero. Also the derivative (N, K, R) by the reported parameters of the
    model, zero where these are unknown.
    """
    names, index = shape_index(model)
    bands, n = len(model.bands), len(params)
    known = np.array(params)
    known[:, model.varying] = np.nan_to_num(known[:, model.varying])
    values, derivative = np.full((n, len(names)), np.nan), np.zeros((n, len(names), model.reported.stop))
    values[:, :bands] = params[:, model.fluxes]
    derivative[:, range(bands), range(bands)] = 1
    for band in range(bands):
        with np.errstate(invalid="ignore"):
            shape, own = band_shape(known, model, band, held=False)  # an error of zero would say it is known
            framed = placement.shapes(np.column_stack([np.ones(n), shape]))[:, 1:]
            if placement.has_sky:
                own = frame_derivative(*shape[:, 2:].T, placement.jacobian)[:, 1:, 1:] @ own
        for which, at in enumerate(index[band]):
            seen = np.isfinite(params[:, band]) | ((index[:, which] == at).sum() > 1)
            values[seen, at] = framed[seen, which]
            derivative[seen, at, model.n :] = np.nan_to_num(own[seen, which])
    return values, derivative


def band_columns(bands, number, zeropoint, snr, columns):
    """S/N and magnitude of one band, by the names of their columns.

    ``snr`` (N, E) is that in the exposures of the band, zero where there are no data; ``columns`` hold fluxes
    and their errors, ``zeropoint`` is the magnitude of a flux of one, or None.
    """
    end, out = _ending(bands, number), {}
    if end:
        total = np.sqrt((snr**2).sum(1))
        out[f"snr{end}"] = np.where(total > 0, total, np.nan)
    if zeropoint is not None:
        flux = columns[f"flux{end}"]
        with np.errstate(invalid="ignore"):
            flux = np.where(flux > 0, flux, np.nan)
        out[f"mag{end}"] = zeropoint - 2.5 * np.log10(flux)
        out[f"mag{end}_err"] = _POGSON * columns[f"flux{end}_err"] / flux
    return out


def color_of(names, bands, zeropoints, parameters, covariance):
    """Colour between two bands and its error, (N,) each, in mag; NaN where a flux is not positive.

    From the names of the two, the catalogue's bands and zero points, and parameters (N, R) with their
    covariance (N, R, R), fluxes first. ``InputError`` if there is no such band, or only one of the two has a
    zero point.
    """
    for band in names:
        if band not in bands:
            raise InputError(f"band {band!r} is not in this catalogue; allowed: {', '.join(bands)}")
    index = [bands.index(band) for band in names]
    zero = [zeropoints[k] for k in index]
    if (zero[0] is None) != (zero[1] is None):
        raise InputError(
            f"band {names[zero.index(None)]!r} has no zero point; give zeropoint= to its exposures"
        )
    with np.errstate(invalid="ignore"):
        flux = np.where(parameters[:, index] > 0, parameters[:, index], np.nan)
        slope = _POGSON * np.array([-1, 1]) / flux
        variance = quadratic_form(covariance[:, index][:, :, index], slope)
        color = -2.5 * np.log10(flux[:, 0] / flux[:, 1]) + (0.0 if zero[0] is None else zero[0] - zero[1])
        return color * u.mag, np.sqrt(np.where(variance >= 0, variance, np.nan)) * u.mag


def band_definitions(bands, zeropoints, columns):
    """Definitions of the columns of several exposures that there are, in order.

    A zero point is the magnitude of a flux of one in a band, or None.
    """
    out = []
    for one in COLUMN_DEFINITIONS:
        stem, suffix = _stem_of(one.name)
        if f"{stem}_{bands[0]}" in columns and stem in _OF_BANDS:
            out += [_for_band(one, stem, band, suffix) for band in bands]
        elif one.name in columns:
            out.append(one)
        if one.name == "snr":
            ends = [_ending(bands, number) for number in range(len(bands))]
            out += [_of_snr(end) for end in ends if end]
            for end, zeropoint in zip(ends, zeropoints, strict=True):
                out += _of_magnitude(end, zeropoint)
            text = "number of exposures that show the galaxy"
            out.append(ColumnDefinition("n_exposures", "number", text, "meta.number"))
            out += _of_gradient(bands)
    return tuple(one for one in out if one.name in columns)


def _stem_of(name):
    """What a column is of, and ``err``, ``std`` or ``crb``."""
    stem, _, suffix = name.rpartition("_")
    return (stem, suffix) if suffix in ("err", "std", "crb") else (name, "")


def _for_band(definition, stem, band, suffix):
    """A column of something that each band has, for one band."""
    name = "_".join(filter(None, (stem, band, suffix)))
    return replace(definition, name=name, description=f"{definition.description}, band {band}")


def _of_gradient(bands):
    """Difference of the size between the first and the last band, and its error."""
    if len(bands) < 2:
        return []
    text = f"ln(hlr) in band {bands[-1]} minus that in band {bands[0]}, if each band had a shape of its own"
    return [
        ColumnDefinition("hlr_gradient", "number", text, "phys.angSize;arith.diff"),
        ColumnDefinition("hlr_gradient_err", "number", "standard deviation of hlr_gradient", "stat.error"),
    ]


def _of_snr(end):
    """S/N of a band."""
    return ColumnDefinition(f"snr{end}", "number", f"signal-to-noise ratio in band {end[1:]}", "stat.snr")


def _of_magnitude(end, zeropoint):
    """Magnitude of a band and its error, if there is a zero point."""
    if zeropoint is None:
        return []
    of = f" in band {end[1:]}" if end else ""
    text = f"magnitude{of}, zero point {zeropoint:.6g}"
    error = f"standard error of mag{end}"
    return [
        ColumnDefinition(f"mag{end}", "magnitude", text, "phot.mag"),
        ColumnDefinition(f"mag{end}_err", "magnitude", error, "stat.error;phot.mag"),
    ]
