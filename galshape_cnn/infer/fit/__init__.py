# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Maximum likelihood: batched Levenberg-Marquardt (Fisher scoring)."""
