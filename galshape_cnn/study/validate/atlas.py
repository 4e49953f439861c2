# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Failure atlas: effect of each failure on every parameter, and detection by the flags.

The estimator is called as users call it, with recentring and all flags.
"""

import numpy as np
from astropy.table import Table

from galshape_cnn.flags import quality_of
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.likelihood.rendering import model_images
from galshape_cnn.infer.network.conditions import conditions_of
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.study.simulate.galsim_stamps import PSF_OVERSAMPLING
from galshape_cnn.study.validate.atlas_cases import FAMILIES, draw_base, smooth_noise
from galshape_cnn.study.validate.atlas_domain import domain_of
from galshape_cnn.study.validate.estimates import true_bounds
from galshape_cnn.study.validate.statistics import errors_of, to_errors

__all__ = ["WRONG", "run_atlas", "score_flags"]

#: Stated standard deviations beyond which a row is wrong, and within which it is good.
WRONG, GOOD = 5.0, 3.0
#: Chi-square between noise-free data and the fitted model above which the pixels contradict a row: 8
#: are expected of the errors of eight parameters, and 25 more are five standard deviations of one pattern.
VISIBLE = 33.0
#: Failures that show in the noise, or by definition, and not in the noise-free image.
_SHOWN_OTHERWISE = ("noise_wrong", "correlated_noise", "star")


def run_atlas(network, *, count, seed, families=None, report=None):
    """Measure every failure at every strength and S/N.

    Parameters
    ----------
    network : ValidatedNetwork
        The network.
    count : int
        Galaxies for each strength and S/N.
    seed : int
        Of galaxies and noise.
    families : sequence of str, optional
        Keys of `FAMILIES`; by default all that make sense for the network.
    report : callable, optional
        Called as ``report(what, done, total)``.

    Returns
    -------
    table : `~astropy.table.Table`
        One row for each family, strength, S/N: ``bias_*`` and ``bias_se_*``, the mean error over
        the bound; ``within_*``, the fraction within one stated standard deviation; ``flagged``, that of
        quality 1 or 2; counts of rows that are wrong, good, and flagged among them; and of the wrong ones
        that the pixels contradict (``visible``), whatever detects it; ``nominal`` where nothing is wrong,
        and the network was trained for such.
    """
    domain = domain_of(network.bundle)
    base = draw_base(count, seed, domain=domain)
    rows = []
    if families is None:
        families = [name for name in FAMILIES if name not in domain.without]
    for done, name in enumerate(families):
        if report is not None:
            report(FAMILIES[name].title, done, len(families))
        rows += _measure_family(network, base, name, seed)
    return Table(rows=rows)


def _measure_family(network, base, name, seed):
    """Rows of one family; strengths that the estimator is told the same about go in one call."""
    cases = {}
    for k, value in enumerate(FAMILIES[name].values):
        change = FAMILIES[name].change(base, value, np.random.default_rng([seed, 6]))
        nominal = value in FAMILIES[name].nominal and name not in base.domain.unknown
        for snr in base.domain.levels:
            rng = np.random.default_rng([seed, 7, snr, k, list(FAMILIES).index(name)])
            made = _observe(base, change, snr, rng)
            clean = _observe(base, change, snr)[0]
            head = {
                "family": name,
                "value": float(value),
                "snr": snr,
                "number": len(base.params),
                "nominal": nominal,
            }
            cases.setdefault((change.fit_sky, change.crop), []).append((head, change.known, clean, *made))
    rows = []
    for (fit_sky, _), parts in cases.items():
        heads, known, *arrays = zip(*parts, strict=True)
        numbers = _measure(network, fit_sky, *(np.concatenate(one) for one in arrays))
        pieces = zip(*(np.split(one, len(heads)) for one in numbers), strict=True)
        for head, mine, (errors, *rest) in zip(heads, known, pieces, strict=True):
            rows.append(head | _row(np.where(mine, errors, np.nan), *rest, name))
    return rows


def _measure(network, fit_sky, clean, data, error, mask, params, psf):
    """Errors, bounds, stated sigmas (N, 5), which rows have quality 1 or 2, and are visibly wrong (N,)."""
    told = {"psf": psf, "psf_oversampling": PSF_OVERSAMPLING, "normalize_psf": False}
    if conditions_of(network.bundle).fit_sky is None:  # else its default, which is all that it knows
        told["fit_sky"] = fit_sky
    catalog = network.estimator(data, error=error, mask=mask, **told)
    stamps = Stamps(data, np.where(mask, 0, error**-2.0), psf, psf_oversampling=PSF_OVERSAMPLING)
    bound = to_errors(true_bounds(stamps, params, fit_sky)[0], params)
    found = catalog.measurement
    stated = to_errors(found.covariance, found.params)
    errors = errors_of(found.params[:, SINGLE.reported], params[:, SINGLE.reported])
    return errors, bound, stated, quality_of(found.flags) > 0, _contradiction(catalog, clean) > VISIBLE


def _contradiction(catalog, clean):
    """Chi-square between noise-free images and the fitted models, on the pixels that were used."""
    used, params = catalog.stamps[0], catalog.measurement.params
    images = np.zeros(used.data.shape)
    for image, one, (x, y) in zip(images, clean, catalog.placement.origin.astype(int), strict=True):
        inside = _overlap(one.shape[0], image.shape[0], y), _overlap(one.shape[1], image.shape[1], x)
        image[inside[0][1], inside[1][1]] = one[inside[0][0], inside[1][0]]
    return ((images - model_images(used, params)) ** 2 * used.ivar).sum((1, 2))


def _overlap(size, window, start):
    """Slices of an array of some size, and of a window that starts somewhere in it, that coincide."""
    low, high = max(start, 0), min(start + window, size)
    return slice(low, high), slice(low - start, high - start)


def _observe(base, change, snr, rng=None):
    """Data, stated error, mask, truth and told PSF at one S/N; free of noise without a generator."""
    unit = base.images if change.images is None else change.images
    reference = base.images if change.params is None else unit
    flux = snr / np.sqrt((reference**2).sum((1, 2)))
    clean = flux[:, None, None] * unit
    noise = np.zeros(unit.shape) if rng is None else rng.standard_normal(unit.shape)
    if change.smooth:
        noise = smooth_noise(noise, change.smooth)
    data = clean + change.sky + noise
    if change.spoil is not None:
        data = change.spoil(data, clean)
    mask = np.zeros(unit.shape, bool) if change.mask is None else change.mask
    params = (base.params if change.params is None else change.params).copy()
    params[:, SINGLE.flux], params[:, SINGLE.sky] = flux, change.sky
    cut = (unit.shape[-1] - change.crop) // 2
    window = np.s_[:, cut : cut + change.crop, cut : cut + change.crop]
    params[:, SINGLE.centre] -= cut
    psf = base.psf if change.psf is None else change.psf
    noise = base.domain.unit
    params[:, SINGLE.amplitudes] *= noise
    error = np.full(unit.shape, noise * change.stated)
    return data[window] * noise, error[window], mask[window], params, psf


def _row(error, bound, stated, flagged, visible, family):
    """Numbers of one row of the atlas."""
    out = {}
    for k, name in enumerate(SHAPE_PARAMETERS):
        pull = (error / bound)[:, k]
        pull = pull[np.isfinite(pull)]
        some = len(pull) > 1
        out[f"bias_{name}"] = pull.mean() if some else np.nan
        out[f"bias_se_{name}"] = pull.std(ddof=1) / np.sqrt(len(pull)) if some else np.nan
        inside = (np.abs(error) < stated)[:, k][np.isfinite(error[:, k])]
        out[f"within_{name}"] = inside.mean() if some else np.nan
    with np.errstate(invalid="ignore"):
        pulls = np.abs(error / stated)
    worst = np.where(np.isfinite(error) & ~np.isnan(pulls), pulls, 0).max(1)
    # Galaxy parameters of a star are wrong whatever their errors say; a row of NaN does no harm.
    wrong = np.ones(len(error), bool) if family == "star" else worst > WRONG
    visible = wrong & (visible | (family in _SHOWN_OTHERWISE))
    good = ~wrong & (worst < GOOD)
    counts = {"flagged": flagged.mean(), "n_wrong": wrong.sum(), "n_wrong_flagged": (wrong & flagged).sum()}
    counts |= {"n_visible": visible.sum(), "n_visible_flagged": (visible & flagged).sum()}
    return out | counts | {"n_good": good.sum(), "n_good_flagged": (good & flagged).sum()}


def score_flags(atlas):
    """Completeness and false alarms of the flags for each family.

    Parameters
    ----------
    atlas : `~astropy.table.Table`
        From `run_atlas`.

    Returns
    -------
    table : `~astropy.table.Table`
        ``completeness`` is the fraction of quality 1 or 2 of rows wrong by more than five stated standard
        deviations; ``of_visible`` of those among them that the pixels contradict; ``false_alarms``
        that of rows within three at nominal strengths; NaN where there are no such rows.  The last
        row, ``all``, is the sum.
    """
    families = list(dict.fromkeys(atlas["family"]))
    nominal = np.asarray(atlas["nominal"], bool)
    rows = []
    for family in [*families, "all"]:
        inside = np.ones(len(atlas), bool) if family == "all" else np.asarray(atlas["family"] == family)
        row = {"family": family}
        for name, count, rows_of in (
            ("completeness", "n_wrong", inside),
            ("of_visible", "n_visible", inside),
            ("false_alarms", "n_good", inside & nominal),
        ):
            whole, part = int(atlas[count][rows_of].sum()), int(atlas[f"{count}_flagged"][rows_of].sum())
            fraction, error = _fraction(part, whole)
            row |= {count: whole, name: fraction, f"{name}_se": error}
        rows.append(row)
    return Table(rows=rows)


def _fraction(part, whole):
    """Fraction with a standard error that is not zero at the ends (Agresti & Coull 1998)."""
    if not whole:
        return np.nan, np.nan
    near = (part + 2) / (whole + 4)
    return part / whole, np.sqrt(near * (1 - near) / (whole + 4))
