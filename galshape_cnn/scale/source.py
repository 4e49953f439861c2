# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Base class of the sources of stamps."""

from abc import ABC, abstractmethod

__all__ = ["Source"]


class Source(ABC):
    """A number of galaxies, any range of which can be read.

    A source is small to pickle (paths, not pixels) unless it wraps arrays, and every worker
    opens the files for itself.

    Attributes
    ----------
    is_image : bool
        Whether all galaxies are in one image.
    """

    is_image = False

    @abstractmethod
    def __len__(self):
        """Number of galaxies."""

    @property
    @abstractmethod
    def identity(self):
        """Text that changes with the input."""

    @abstractmethod
    def read(self, start, stop):
        """Data and keywords of a range of galaxies, as the estimator takes them."""

    def inputs(self, start, stop):
        """Columns of a range that pass through to the table, or None."""
        return None

    def example(self):
        """An image of the source, for what its header says, or None."""
        return None
