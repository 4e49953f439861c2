# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sources of an image: detection, centroids, segmentation, stars."""
