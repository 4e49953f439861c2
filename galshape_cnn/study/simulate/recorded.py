# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Training batches from a simulated set on disk."""

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.psf.arrays import PSFArrays
from galshape_cnn.infer.network.features import SIDE, network_view
from galshape_cnn.observe.detect.centroids import find_centers, psf_sigma
from galshape_cnn.study.simulate.mock_files import read_mocks
from galshape_cnn.study.simulate.stream import training_rows

__all__ = ["RecordedMocks", "centring_error"]

_TRUTH = ("flux", "n", "hlr", "g1", "g2", "x", "y")
_COVERED = 0.99  # part of the centroids whose error training covers
_EXAMINED = 512  # galaxies whose centroids are looked at
_NO_ERROR = 0.05  # pixels
_SMALLEST_HALF = 24  # samples of a PSF on either side of its middle, two a pixel
_VALIDATION = 0.05  # part of a set that is kept for the validation loss


def _moved(images, shift):
    """Stamps moved by whole pixels along x and y; what leaves at one side comes back at the other.

    There a centred galaxy is as bright, and so is the noise.
    """
    return np.roll(images, (shift[1], shift[0]), (1, 2))


def _turn(images, quarter, flip):
    """Stamps turned by quarters of a circle from +x to +y, after an optional flip of y."""
    images = images[:, ::-1] if flip else images
    return np.rot90(images, -quarter, axes=(1, 2))


def _windowed(psf, rng):
    """The arrays, in half of all batches without their outer part."""
    half = psf.shape[-1] // 2
    if rng.uniform() < 0.5 or half <= _SMALLEST_HALF:
        return psf
    cut = half - int(rng.choice(np.geomspace(_SMALLEST_HALF, half, 5)[:-1]))  # each size is compiled
    return np.ascontiguousarray(psf[:, cut : psf.shape[1] - cut, cut : psf.shape[2] - cut])


def _turn_truth(truth, quarter, flip):
    """The parameters after `_turn`."""
    flux, n, hlr, g1, g2, x, y = truth.T
    x, y = x - (SIDE - 1) / 2, y - (SIDE - 1) / 2
    if flip:
        g2, y = -g2, -y
    for _ in range(quarter):
        g1, g2, x, y = -g1, -g2, -y, x
    return np.stack([flux, n, hlr, g1, g2, x + (SIDE - 1) / 2, y + (SIDE - 1) / 2], 1)


def centring_error(stamps, xy):
    """Error of the package's own centroids, pixels along one axis, that one in a hundred exceeds.

    ``xy`` are the true centres, near the middle of the stamps.
    """
    guess = np.full((len(stamps), 2), (SIDE - 1) / 2)
    sigma = psf_sigma(PSFArrays(stamps.psf, stamps.psf_oversampling))
    found = find_centers(stamps.data, stamps.ivar, guess, sigma)
    moved = (found.flags & (Flag.RECENTER_FAILED | Flag.FAR_CENTROID)) == 0  # others are where the user says
    if not moved.any():
        return 0.0
    return float(np.quantile(np.abs(found.center - xy)[moved].max(1), _COVERED))


class RecordedMocks:
    """A set that ``galshape simulate`` wrote, as a stream of batches.

    Each batch is drawn at random from the set and turned and mirrored as a whole (PSFs too), so that
    a network sees each galaxy in eight orientations, and moved by as many whole pixels as the package's own
    centroids of these galaxies are off, see `galshape_cnn.study.train.centring`.  In half of the batches the
    arrays of the PSFs are cut smaller, so that it learns what that does; all are brought to unit sum.

    Parameters
    ----------
    path : path-like
        ``.asdf`` or ``.fits``.
    seed : int
        Of the order.
    validation : bool, optional
        Serve the twentieth that is otherwise kept aside.

    Raises
    ------
    FileError
        If the file holds no such set.
    InputError
        If the set has fewer than 200 galaxies.
    """

    def __init__(self, path, seed, validation=False):
        stamps, truth = read_mocks(path)
        if len(stamps) < 200:
            raise InputError(f"{path!r} holds {len(stamps)} mocks; at least 200 are needed to train")
        kept = int(_VALIDATION * len(stamps))
        rows = slice(0, kept) if validation else slice(kept, None)
        self._stamps, self._truth, self.seed = stamps[rows], truth[rows], int(seed)
        some = slice(0, _EXAMINED)
        error = centring_error(stamps[some], np.stack([truth["x"], truth["y"]], 1)[some])
        self._shift = int(np.ceil(error - _NO_ERROR))

    def __len__(self):
        return len(self._stamps)

    def simulate(self, number, size):
        """The batch of a number, in the form of `galshape_cnn.study.simulate.stream.MockStream.simulate`.

        Pixels are counted in units of their noise; fluxes are those with PSFs of unit sum.
        """
        rng = np.random.default_rng([self.seed, number])
        rows = rng.integers(len(self._stamps), size=size)
        quarter, flip = int(rng.integers(4)), bool(rng.integers(2))
        shift = rng.integers(-self._shift, self._shift + 1, 2)
        stamps, truth = self._stamps[rows], self._truth[rows]
        unit = np.asarray(truth["sigma"], float)
        params = np.stack([np.asarray(truth[name], float) for name in _TRUTH], 1)
        params[:, SINGLE.flux] /= unit
        data, ivar, psf = (
            np.ascontiguousarray(_turn(a, quarter, flip), np.float32)
            for a in (
                _moved(stamps.data / unit[:, None, None], shift),
                _moved(stamps.ivar * unit[:, None, None] ** 2, shift),
                stamps.psf,
            )
        )
        params[:, SINGLE.centre] += shift
        # as the networks see them at work: arrays of unit sum, in whatever window they are given
        psf = _windowed(psf, rng)
        total = psf.sum((1, 2), keepdims=True)
        psf /= total
        params[:, SINGLE.flux] *= total[:, 0, 0]
        return {
            "data": data, "ivar": ivar, "psf": psf, "transfer": network_view(psf, 2),
            "params": _turn_truth(params, quarter, flip), "snr": np.asarray(truth["snr"], float),
            "fit_sky": np.asarray(truth["fit_sky"], float), "poisson": np.zeros(size),
        }  # fmt: skip

    def batch(self, number, size):
        """Inputs, targets and weights, as `~galshape_cnn.study.simulate.stream.MockStream.batch` gives."""
        return training_rows(self.simulate(number, size), (0.0, np.inf))
