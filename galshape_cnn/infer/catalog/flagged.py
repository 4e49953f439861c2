# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Selection by quality and counts of flags."""

import numpy as np

from galshape_cnn.flags import FLAG_DEFINITIONS, LEVELS, Flag

__all__ = ["FlaggedRows"]


class FlaggedRows:
    """Part of a catalogue that has ``flags`` and ``quality``."""

    @property
    def is_usable(self):
        """(N,) ndarray of bool: False where a flag says not to use the numbers at all."""
        return self.quality < len(LEVELS) - 1

    @property
    def is_measured(self):
        """(N,) ndarray of bool: False where no measurement could be made."""
        return self.measurement.flags & (Flag.NOT_MEASURED | Flag.NO_DATA | Flag.OFF_IMAGE) == 0

    def quality_counts(self):
        """How many rows have each quality.

        Returns
        -------
        counts : dict of int to int
            For 0 (use), 1 (use with care) and 2 (do not use).
        """
        return {level: int(np.count_nonzero(self.quality == level)) for level in range(len(LEVELS))}

    def flag_counts(self):
        """How many rows carry each flag.

        Returns
        -------
        counts : dict of str to int
            Only flags that occur, in the order of their bits.
        """
        counts = {d.name: int(np.count_nonzero(self.flags & d.value)) for d in FLAG_DEFINITIONS}
        return {name: count for name, count in counts.items() if count}
