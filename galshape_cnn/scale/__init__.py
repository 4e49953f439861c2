# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Large catalogues: streaming, restart, processes and Dask clusters."""

from galshape_cnn.scale.dask import measure_dask
from galshape_cnn.scale.dataset import read_blocks
from galshape_cnn.scale.run import measure_stream
from galshape_cnn.scale.sources import open_source

__all__ = ["measure_dask", "measure_stream", "open_source", "read_blocks"]
