# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Make the page of the full validation from what ``galshape validate`` wrote.

Run in this folder, after every change of the network::

    galshape validate -o validation --store ../galshape_cnn/data/universal.asdf
    python make_validation.py validation --machine "2 cores of an AMD EPYC"

It writes ``validation_full.rst`` and ``images/validation/*.png``.  Text whose numbers come from the
tables is filled in here; nothing on that page is typed by hand twice.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure
from PIL import Image

from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.study.validate import atlas_plots
from galshape_cnn.study.validate.atlas_cases import FAMILIES
from galshape_cnn.study.validate.criteria import passed
from galshape_cnn.study.validate.statistics import rmse_ratio
from galshape_cnn.study.validate.trust_region import trusted_share
from galshape_cnn.study.validate.validation import draw_figures

HERE = Path(__file__).parent
IMAGES = HERE / "images" / "validation"
NAMES = {"flux": "ln flux", "n": "n", "hlr": "ln hlr", "g1": "g1", "g2": "g2"}
QUESTIONS = {
    "question_noise": ("noise_wrong", "correlated_noise", "sky_wrong"),
    "question_centre": ("off_centre",),
    "question_psf": ("psf_width_wrong", "psf_shape_wrong", "unseen_psf", "undersampled"),
}


def main(args=None):
    """Read the tables, write figures and page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="written by 'galshape validate'")
    parser.add_argument("--machine", required=True, help="what it ran on")
    parser.add_argument("--command", default="galshape validate -o DIR", help="how it was made")
    options = parser.parse_args(args)
    names = ("seed", "galaxies", "bins", "van_trees", "trust", "atlas", "flags", "verdict")
    tables = {name: Table.read(options.folder / f"{name}.ecsv") for name in names}
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(tables).items():
        save(figure, IMAGES / f"{name}.png")
    template = (HERE / "validation_full.rst.in").read_text(encoding="utf-8")
    fields = numbers(tables) | {"machine": options.machine}
    fields["command"] = "\n".join(f"    {line}" for line in options.command.split("\\n"))
    (HERE / "validation_full.rst").write_text(fill(template, fields), encoding="utf-8")


def fill(template, fields):
    """Template with each ``{{name}}`` replaced."""
    for name, value in fields.items():
        template = template.replace("{{" + name + "}}", str(value))
    missing = template.partition("{{")[2].partition("}}")[0]
    if missing:
        raise SystemExit(f"no value for {missing!r}")
    return template


def figures(tables) -> dict[str, Figure]:
    """Every figure of the page."""
    made = draw_figures(tables)
    del made["scatter"]  # the page shows efficiency in its place
    with np.errstate(all="ignore"):
        for name, families in QUESTIONS.items():
            made[name] = atlas_plots.plot_strengths(tables["atlas"], families)
    return made


def save(figure, path):
    """Small PNG: few colours are enough for lines and maps."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=75)
    image = Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    image.save(path, optimize=True)


def numbers(tables):
    """What the template's fields stand for."""
    atlas, flags, verdict = tables["atlas"], tables["flags"], tables["verdict"]
    total = flags[flags["family"] == "all"][0]
    share = trusted_share(tables["galaxies"], tables["trust"])
    meta = tables["galaxies"].meta
    out = {
        "network": meta["network_sha256"][:12],
        "galaxies": len(tables["galaxies"]),
        "slow": int(np.isfinite(tables["galaxies"]["exact_error_flux"]).sum()),
        "per_point": int(atlas["number"][0]),
        "draws": int(tables["seed"]["number"][tables["seed"]["method"] == "network"].max()),
        "minutes": f"{sum(tables[name].meta['seconds'] for name in ('seed', 'galaxies', 'atlas')) / 60:.0f}",
        "verdict": "passes" if passed(verdict) else "**fails**",
        "checks": len(verdict),
        "failed": int(np.sum(~np.asarray(verdict["passed"], bool))),
        "failures": failures(verdict),
        "flag_table": flag_table(flags),
        "calibration_table": calibration_table(tables["bins"]),
        "ratio_table": ratio_table(tables["bins"], tables["galaxies"]),
        "coverage_table": coverage_table(tables["bins"]),
    }
    for name in ("completeness", "of_visible", "false_alarms"):
        out[name] = percent(total[name], total[f"{name}_se"])
    out |= {"n_wrong": total["n_wrong"], "n_visible": total["n_visible"], "n_good": total["n_good"]}
    out |= {f"share_{method}": f"{100 * value:.0f} %" for method, value in share.items()}
    out |= answers(atlas, flags)
    return out


def percent(value, error):
    return f"{100 * value:.1f} ± {100 * error:.1f} %"


def answers(atlas, flags):
    """Numbers in the paragraphs: the worst bias and mean coverage of single cells of the atlas."""
    out = {}
    for name, (family, value, snr) in {
        "centre15": ("off_centre", 1.5, 60), "centre2": ("off_centre", 2.0, 60),
        "noise30": ("noise_wrong", 30, 60), "noise-30": ("noise_wrong", -30, 60),
        "correlated": ("correlated_noise", 1.0, 60),
        "width2": ("psf_width_wrong", 2, 60), "width10": ("psf_width_wrong", 10, 60),
        "width10bright": ("psf_width_wrong", 10, 200), "shape5": ("psf_shape_wrong", 0.05, 60),
        "seen": ("unseen_psf", 0.0, 60), "aberrated": ("unseen_psf", 0.3, 60), "sky": ("sky_wrong", 0.1, 60),
    }.items():  # fmt: skip
        here = (atlas["family"] == family) & np.isclose(atlas["value"], value) & (atlas["snr"] == snr)
        row = atlas[here][0]
        biases = np.array([row[f"bias_{key}"] for key in SHAPE_PARAMETERS], float)
        worst = int(np.nanargmax(np.abs(biases)))
        out[f"{name}_bias"] = f"{biases[worst]:+.2f} ({NAMES[SHAPE_PARAMETERS[worst]]})"
        within = np.nanmean([row[f"within_{key}"] for key in SHAPE_PARAMETERS])
        out |= {f"{name}_within": f"{100 * within:.0f} %", f"{name}_flagged": f"{100 * row['flagged']:.0f} %"}
    for family in ("psf_width_wrong", "psf_shape_wrong"):
        row = flags[flags["family"] == family][0]
        out |= {f"{family}_wrong": row["n_wrong"], f"{family}_visible": row["n_visible"]}
    return out


def failures(verdict):
    """List of the failed checks."""
    lines = [
        f"- {row['check']}, {row['parameter']}: {row['measured']:.3f} ± {row['error']:.3f}, "
        f"allowed {row['low']:g} to {row['high']:g}"
        for row in verdict
        if not row["passed"]
    ]
    return "\n".join(lines) or "Nothing fails."


def flag_table(flags):
    """Rows of the list-table of completeness."""
    lines = []
    for row in flags:
        title = FAMILIES[row["family"]].title if row["family"] in FAMILIES else "**All together**"
        cells = [title]
        for name, count in (
            ("completeness", "n_wrong"),
            ("of_visible", "n_visible"),
            ("false_alarms", "n_good"),
        ):
            cells.append(f"{100 * row[name]:.1f} % of {row[count]}" if row[count] else "–")
        lines.append("   * - " + "\n     - ".join(cells))
    return "\n".join(lines)


AXES = {
    "snr": "S/N",
    "hlr_over_fwhm": "hlr / FWHM",
    "n": "n",
    "g": "\\|g\\|",
    "psf_width": "PSF width, pixels",
}
PSF_WIDTHS = (0, 2, 4, 7, 10, 13, 18)


def ratio_table(bins, galaxies):
    """Rows of the list-table of RMSE ratios, in bins of every axis."""
    lines = []
    for axis, title in AXES.items():
        if axis == "psf_width":
            edges = zip(PSF_WIDTHS[:-1], PSF_WIDTHS[1:], strict=True)
        else:
            edges = dict.fromkeys((row["low"], row["high"]) for row in bins[bins["axis"] == axis])
        values = np.asarray(galaxies[axis])
        for low, high in edges:
            inside = galaxies[(values >= low) & (values < high)]
            cells = [f"{title} {low:g}–{high:g}", str(len(inside))]
            for name in SHAPE_PARAMETERS:
                errors = (np.asarray(inside[f"{prefix}error_{name}"]) for prefix in ("", "exact_"))
                cells.append("{:.2f} ± {:.2f}".format(*rmse_ratio(*errors)))
            lines.append("   * - " + "\n     - ".join(cells))
    return "\n".join(lines)


def coverage_table(bins):
    """Rows of the list-table of coverage in bins of S/N."""
    lines, here = [], bins[bins["axis"] == "snr"]
    for low, high in dict.fromkeys((row["low"], row["high"]) for row in here):
        rows = here[(here["low"] == low) & (here["high"] == high)]
        cells = [f"{low:g}–{high:g}", str(rows["number"][0])]
        cells += [f"{100 * row['cover68']:.1f}, {100 * row['cover95']:.1f}" for row in rows]
        lines.append("   * - " + "\n     - ".join(cells))
    return "\n".join(lines)


def calibration_table(bins):
    """Rows of the list-table of calibration, over the whole prior."""
    lines = []
    for row in bins[bins["axis"] == "all"]:
        cells = [NAMES[row["parameter"]]]
        for name in ("cover68", "cover95", "pull", "pull_std", "rmse_ratio"):
            cells.append(f"{row[name]:.3f} ± {row[f'{name}_se']:.3f}")
        lines.append("   * - " + "\n     - ".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
