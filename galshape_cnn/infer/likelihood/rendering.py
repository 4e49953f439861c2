# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`RenderedBatch`: stamps in units of the noise with their transfer functions; and `model_images`."""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import batches, with_kernel
from galshape_cnn.forward.psf.shape import psf_width
from galshape_cnn.forward.render import BLOCK, render
from galshape_cnn.forward.transfer import grid_for, of_rows, transfer_functions
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.parallel import fixed_batches

__all__ = ["BATCH_SIZE", "RenderedBatch", "model_images"]

#: Batch size the network and the bounds are compiled for: the arrays of one stay in cache.
BATCH_SIZE = 64
#: Transfer functions up to this size, in bytes, are repeated for each stamp, so that a PSF for all and a
#: PSF for each need one program and give the same numbers.
_SMALL = 2**26


@dataclass(frozen=True, eq=False)
class RenderedBatch:
    """Stamps of one size in units of their noise, with all that a comparison with models needs.

    Network, fit, sampler, bounds and flags take this and nothing else, so transfer functions are
    computed once for each stamp, and fluxes change their unit once on entry and once on exit.

    Attributes
    ----------
    stamps : Stamps
        N stamps; pixel values are counted in ``unit``.
    unit : (N,) ndarray
        Unit of the pixel values in that of the user: a power of two near the noise of a pixel, so that
        any unit of flux is in reach of single precision.
    transfer : (N or 1, Ky, Kx) complex64 ndarray
        Transfer functions of the PSFs on ``grid``.
    grid : FourierGrid
        Fourier grid of the stamps' size.
    psf_width : (N,) ndarray
        Width of each PSF in pixels, see `galshape_cnn.forward.psf.shape`.
    gain : (N,) ndarray or None
        Electrons per ``unit``; None where the inverse variance has the galaxy's photon noise.
    """

    stamps: Stamps
    unit: np.ndarray
    transfer: np.ndarray
    grid: FourierGrid
    psf_width: np.ndarray
    gain: np.ndarray | None = None

    @classmethod
    def from_stamps(cls, stamps, gain=None):
        """Count square, even-sized stamps in units of their noise and transform their PSFs.

        ``gain`` is in electrons per unit of the stamps.
        """
        unit = stamps.noise_unit
        grid = grid_for(stamps.data.shape[-1], stamps.psf_oversampling)
        counted = stamps.in_units_of(unit)
        transfer = np.asarray(transfer_functions(counted.psf, grid, stamps.psf_oversampling))
        if len(transfer) == 1 and transfer.nbytes * BATCH_SIZE < _SMALL:
            transfer = np.broadcast_to(transfer, (len(stamps), *transfer.shape[1:]))
        width = np.broadcast_to(psf_width(counted.psf, stamps.psf_oversampling), len(stamps))
        gain = None if gain is None else gain * unit
        return cls(counted, unit, transfer, grid, width, gain)

    def __len__(self):
        return len(self.unit)

    def __getitem__(self, rows):
        """Some of the rows, by an array of int or bool."""
        return RenderedBatch(
            self.stamps[rows],
            self.unit[rows],
            self.transfer[rows] if len(self) == 1 else of_rows(self.transfer, rows),
            self.grid,
            self.psf_width[rows],
            None if self.gain is None else self.gain[rows],
        )

    def with_stamps(self, stamps):
        """The same batch with other pixels, counted in the same unit."""
        return replace(self, stamps=stamps)

    @property
    def transformed(self):
        """The same with transfer functions alone: parts of it are no copies of PSFs."""
        return replace(self, stamps=self.stamps.without_psfs())

    def filled(self, rows=None, size=BATCH_SIZE, by_kernel=False):
        """Yield batches of the one size that functions are compiled for.

        Compiled functions are then reused whatever the number of galaxies, and the numbers of a galaxy are
        the same, bit for bit, whatever it shares its batch with: a matrix product rounds differently in
        another shape, but not in another row.

        Each is the next of the ``rows`` (all by default), the same filled up by repeating the first, and the
        batch of these. With ``by_kernel``, for a function that the kernel does, there is one batch of all
        rows where it serves, so that none is computed for nothing.
        """
        rows = np.arange(len(self)) if rows is None else rows
        for part, padded in (batches if by_kernel else fixed_batches)(rows, size):
            needs_no_copy = len(part) == len(padded) == len(self)
            yield part, padded, self if needs_no_copy else self[padded]

    def images(self, params):
        """Light of galaxies with parameters (N, 8), without sky: (N, size, size), see `model_images`."""
        return model_images(self.stamps, SINGLE.with_sky(params), self.transfer, self.grid)

    def share_of_light(self, rows, params, pixels):
        """Share of the light of galaxies (M, 8), in some rows, on pixels (M, size, size) of each.

        NaN where there is no light, or no model.
        """
        unit = SINGLE.with_sky(params)
        unit[:, SINGLE.flux] = np.where(unit[:, SINGLE.flux] > 0, 1.0, np.nan)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            unit = np.where(np.isfinite(params).all(1)[:, None], unit, np.nan).astype(np.float32)
            whole, part = _light_on(unit, of_rows(self.transfer, rows), self.grid, pixels).T
            return np.where(whole > 0, part / whole, np.nan)


@with_kernel(calls.light_on, "params", "transfer")
def _light_on(params, transfer, grid, pixels):
    """Sums over the images of galaxies (N, 8), and over some pixels of them: (N, 2)."""
    sums = np.full((len(params), 2), np.nan)
    for rows, padded in batches(np.flatnonzero(np.isfinite(params).all(1)), BLOCK):
        image = np.asarray(render(params[padded], of_rows(transfer, padded), grid), float)[: len(rows)]
        sums[rows] = np.column_stack([image.sum((1, 2)), (image * pixels[rows]).sum((1, 2))])
    return sums


def model_images(stamps, params, transfer=None, grid=None):
    """Model images (N, ny, nx) of stamps, of parameters (N, 8) in their pixel frame.

    ``transfer`` and ``grid`` where they are known. Zero for rows of parameters that are not finite or beyond
    single precision.
    """
    params = np.asarray(params, float)
    images = np.zeros(stamps.data.shape)
    ny, nx = images.shape[1:]
    if grid is None:
        grid = grid_for(max(ny, nx) + max(ny, nx) % 2, stamps.psf_oversampling)
    shapes = SINGLE.with_sky(params)
    shapes[:, SINGLE.flux] = 1
    with np.errstate(over="ignore"):  # answers far outside a training
        single = shapes.astype(np.float32)
    good = np.flatnonzero(np.isfinite(params).all(1) & np.isfinite(single).all(1))
    for rows, padded in batches(good, BLOCK):
        if transfer is None:
            psf = stamps.psf if len(stamps.psf) == 1 else stamps.psf[padded]
            own = transfer_functions(np.asarray(psf, np.float32), grid, stamps.psf_oversampling)
        else:
            own = of_rows(transfer, padded)
        unit = np.asarray(render(single[padded], own, grid))[: len(rows), :ny, :nx]
        flux, sky = params[rows, SINGLE.flux], params[rows, SINGLE.sky]
        images[rows] = unit * flux[:, None, None] + sky[:, None, None]
    return images
