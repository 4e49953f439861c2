# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The layers of the package, bottom to top: the one list that test, figure and documentation read."""

__all__ = ["FOUNDATION", "LAYERS"]

#: Modules of the top folder, bottom to top.
FOUNDATION = ["errors", "environment", "files", "own_files", "flags", "geometry", "linalg", "masked"]
FOUNDATION += ["quantities", "fingerprint", "wcs", "parallel", "processes", "compilation"]

#: Folders above them, bottom to top: each imports only from itself and from what stands before it.
LAYERS = {
    "forward": "parameters → pixels, and the derivatives",
    "observe": "the user's images, cutouts and files → stamps",
    "infer": "stamps → parameters: network, fit, posterior, bound",
    "study": "make a network; prove what it does; reports",
    "scale": "catalogues of any size: streams, processes, Dask",
    "cli": "the command line",
}
