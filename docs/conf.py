# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Configuration of the documentation build.

Builds without a network.  With ``GALSHAPE_DOCS_ONLINE=1``, and on Read the
Docs, names of other projects become links and every one of them must resolve.
"""

import os
import sys
from pathlib import Path

from sphinx_astropy.conf.v2 import *  # noqa: F403
from sphinx_astropy.conf.v2 import exclude_patterns, extensions, intersphinx_mapping, rst_epilog

import galshape_cnn

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from reference_pages import write_pages  # noqa: E402

write_pages(galshape_cnn, Path(__file__).parent / "reference")

project = "galshape_cnn"
author = "galshape_cnn developers"
copyright = f"2026, {author}"
version = release = galshape_cnn.__version__
root_doc = "index"

extensions.remove("sphinx.ext.inheritance_diagram")  # needs graphviz, and there is next to no inheritance
extensions += ["definition_tables", "mathml", "sphinx_gallery.gen_gallery"]
html_math_renderer = "mathml"  # formulas are there without a network
exclude_patterns += ["api/*.inc", "_ext", "examples", "figures"]

# Figures and examples are drawn while building, so they show what the code does now.
plot_formats = ["svg"]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_rcparams = {"font.size": 10, "svg.fonttype": "path"}
plot_apply_rcparams = True
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("galshape_cnn",),
    "within_subsection_order": "example_order.InReadingOrder",
    "abort_on_example_error": True,
    "capture_repr": ("_repr_html_",),  # tables, but not what a call that draws returns
    "download_all_examples": False,
    "min_reported_time": 1e9,  # a build should not differ from the next by its timings
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "galshape_cnn"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
html_static_path = ["_static"]
html_css_files = ["width.css", "math.css"]
# no sub-pages: leave the width to the text and its tables
html_sidebars = {page: [] for page in ("comparison", "performance", "validation", "validation_full")}

nitpicky = True
nitpick_ignore_regex = [(r"py:obj", r"galshape_cnn\..*\.[A-Z_]+")]  # constants have no page of their own
online = bool(os.environ.get("GALSHAPE_DOCS_ONLINE") or os.environ.get("READTHEDOCS"))
if online:
    intersphinx_mapping.pop("pythonloc", None)
    intersphinx_mapping |= {
        "photutils": ("https://photutils.readthedocs.io/en/stable/", None),
        "galsim": ("https://galsim-developers.github.io/GalSim/_build/html/", None),
        "jax": ("https://docs.jax.dev/en/latest/", None),
        "asdf": ("https://www.asdf-format.org/projects/asdf/en/stable/", None),
    }
else:
    intersphinx_mapping.clear()
    # Names of other projects cannot be checked without their inventories; our own still are.
    nitpick_ignore_regex += [(r"py:.*", r"(?!galshape_cnn\b)[A-Za-z_]+(\..*)?")]

# docstrings may write |g| for the modulus without a backslash, which reST takes for a substitution
rst_epilog += "".join(f"\n.. |{name}| replace:: \\|{name}\\|\n" for name in ("g", "eta"))

linkcheck_timeout = 60
