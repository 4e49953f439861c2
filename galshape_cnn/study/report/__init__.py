# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Reports: figures, thumbnails and the HTML page of a catalogue."""
