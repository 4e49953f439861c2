# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Training stream: mock galaxies rendered on the fly.

A configuration (see ``study/configs``) holds the prior, the PSFs, the noise and the
nuisances; `MockStream.batch` turns it and a batch number into network inputs and targets,
always the same ones for the same seed and number.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.render import BLOCK, render
from galshape_cnn.infer.network.architecture import TARGET_CENTER, TARGET_SCALE
from galshape_cnn.infer.network.features import PSF_KX, PSF_KY, SIDE, network_inputs
from galshape_cnn.infer.posterior.prior import Distribution, Prior
from galshape_cnn.study.simulate.psf_families import (
    PSF_ARRAYS,
    draw_psfs,
    transfer_on_modes,
    turned_psfs,
    without_wings,
)

__all__ = ["MockStream", "inputs_of", "network_view", "observe", "training_rows", "transfers"]

#: Cut at the Nyquist frequency, PSFs sharper than this FWHM, in pixels, would ring: that part of a batch, in
#: sixteenths, is rendered with twice the bandwidth, at four times the cost.
_SHARP = 2.55
_PARTS = 16
_SHARP_GRID, _GRID = FourierGrid(SIDE, 2), FourierGrid(SIDE, 1)
_CENTER = (SIDE - 1) / 2


@partial(jax.jit, static_argnames="grid")
def transfers(psfs, grid):
    """Transfer functions (N, 2 K, K) of analytic PSFs on a grid.

    Of what `PSF_ARRAYS` names, N rows each, in single precision.
    """
    return jax.lax.map(lambda psf: transfer_on_modes(*psf, grid.ky, grid.kx), psfs, batch_size=BLOCK)


@jax.jit
def network_view(psfs):
    """Transfer functions (N, 15, 8) at the wave numbers of the network's context.

    Of what `PSF_ARRAYS` names, N rows each, in single precision.
    """
    return jax.vmap(lambda *psf: transfer_on_modes(*psf, PSF_KY, PSF_KX))(*psfs)


def _noise_level(key, strength):
    """Relative noise of each pixel: a gradient and a radial term."""
    x = (np.arange(SIDE) - _CENTER) / SIDE
    a, b, c = strength * jax.random.normal(key, (3,))
    return jnp.exp(a * x[None, :] + b * x[:, None] + 2 * c * (x[None, :] ** 2 + x[:, None] ** 2))


def _mask(key, kinds):
    """Good pixels (1) after columns, discs, an edge and single bad pixels."""
    x = np.arange(SIDE) - _CENTER
    xx, yy = jnp.asarray(x)[None, :], jnp.asarray(x)[:, None]
    keys = jax.random.split(key, 5)
    where, width = jax.random.uniform(keys[0], (2,))
    column = jnp.abs(xx - SIDE * (where - 0.5)) < 0.5 + 1.5 * width
    radius = 3 + 8 * jax.random.uniform(keys[1], (2,))
    angle, far = jax.random.uniform(keys[2], (2, 2))
    dx = xx[..., None] - (6 + radius + 22 * far) * jnp.cos(2 * np.pi * angle)
    dy = yy[..., None] - (6 + radius + 22 * far) * jnp.sin(2 * np.pi * angle)
    discs = (dx**2 + dy**2 < radius**2).any(-1)
    side, cut = jax.random.uniform(keys[3], (2,))
    edge = xx * jnp.cos(2 * np.pi * side) + yy * jnp.sin(2 * np.pi * side) > 12 + 22 * cut
    single = jax.random.uniform(keys[4], (SIDE, SIDE)) < 0.04
    bad = (column & kinds[0]) | (discs & kinds[1]) | (edge & kinds[2]) | (single & kinds[3])
    return ~bad


def _observe(unit_image, amplitude, nuisance, key, normal=None, masks=True):
    """Noisy data and the inverse variance the observer would state; the noise is drawn unless it is given."""
    keys = jax.random.split(key, 3)
    normal = jax.random.normal(keys[2], unit_image.shape) if normal is None else normal
    level = _noise_level(keys[0], nuisance["gradient"])
    good = _mask(keys[1], nuisance["mask"]) if masks else jnp.ones(unit_image.shape, bool)
    ivar = jnp.where(good, 1 / level**2, 0)
    snr_of_unit = jnp.sqrt((unit_image**2 * ivar).sum())
    flux = jnp.where(nuisance["by_snr"], amplitude / snr_of_unit, amplitude)
    model = flux * unit_image
    variance = level**2 + jnp.maximum(model, 0) * (nuisance["poisson"] + nuisance["poisson_in_map"])
    noise = jnp.sqrt(variance) * normal
    stated = jnp.where(good, 1 / (level**2 + jnp.maximum(model, 0) * nuisance["poisson_in_map"]), 0)
    data = jnp.where(good, model + nuisance["sky"] + noise, 0)
    return data, stated, flux, flux * snr_of_unit


@partial(jax.jit, static_argnames=("paired", "masks"))
def _observed(unit, amplitude, nuisance, seed, normal, *, paired, masks):
    """Data, inverse variance, flux and S/N of rendered galaxies."""
    if paired:
        unit = jnp.concatenate([unit, jnp.rot90(unit, -1, (1, 2))])
    keys = jax.random.split(jax.random.key(seed), len(amplitude))
    return jax.vmap(partial(_observe, masks=masks))(unit, amplitude, nuisance, keys, normal)


def _simulate(params, psfs, nuisance, seed, *, sharp, paired, masks):
    """Data, inverse variance, flux, S/N and the network's view of the PSF.

    Galaxies are rendered outside of what JAX compiles, so that the kernel does it where there is one, and
    NumPy draws the noise: each in a fifth of the time that JAX takes on a processor.
    """
    psfs = tuple(psfs[key] for key in PSF_ARRAYS)
    amplitude, params = params[:, SINGLE.flux].copy(), params.copy()
    params[:, SINGLE.flux] = 1.0
    drawn = len(params) // 2 if paired else len(params)
    unit = np.empty((drawn, SIDE, SIDE), np.float32)
    for part, grid in ((slice(0, sharp), _SHARP_GRID), (slice(sharp, drawn), _GRID)):
        if part.stop > part.start:
            transfer = transfers(tuple(p[part] for p in psfs), grid)
            unit[part] = render(params[part], transfer, grid)
    rng = np.random.Generator(np.random.SFC64(seed))
    normal = rng.standard_normal((len(params), SIDE, SIDE), np.float32)
    observed = _observed(unit, amplitude, nuisance, seed, normal, paired=paired, masks=masks)
    return *observed, network_view(psfs)


@jax.jit
def observe(unit_images, amplitude, nuisance, seed):
    """Add noise, masks and sky to noise-free stamps (N, 64, 64) of unit flux that were drawn elsewhere.

    ``amplitude`` is S/N or flux, see ``nuisance["by_snr"]``; ``nuisance`` is from `MockStream.draw`. Pixels
    and inverse variances, the noise of one about 1, true flux and S/N.
    """
    keys = jax.random.split(jax.random.key(seed), len(unit_images))
    return jax.vmap(_observe)(unit_images, amplitude, nuisance, keys)


def _sorted(psfs):
    """The sharpest PSFs first, see `MockStream.is_sharp`."""
    order = np.argsort(psfs["fwhm"], kind="stable")
    return jax.tree.map(lambda values: values[order], psfs)


def _turned(draws, position):
    """Parameters and centres of galaxies turned by a quarter of a circle, from +x to +y."""
    draws = draws.copy()
    draws[:, SINGLE.shear] *= -1
    dx, dy = (position - _CENTER).T
    return draws, _CENTER + np.stack([-dy, dx], 1)


class MockStream:
    """Endless, reproducible stream of training batches.

    Parameters
    ----------
    config : mapping
        Sections ``prior``, ``psf`` (fwhm, ellipticity and optionally moffat_beta, lobes), ``noise``
        (sigma, gradient, poisson_fraction, poisson and optionally gain), ``nuisance``
        (offset, sky, sky_fraction, mask_fraction) and optionally ``snr_range``.
    seed : int
        Streams of different seeds are independent.
    offset : float, optional
        Largest distance of a centre from the stamp's along each axis, pixels; by default that of the
        configuration.  See `galshape_cnn.study.train.centring.training_stream`.
    paired : bool, optional
        Whether each galaxy of a batch is used twice, which costs one rendering: the second time turned by
        90 degrees, with a flux and noise of its own.
    cut_wings : bool, optional
        Whether PSFs of a single family lack the wings that arrays do not hold, see
        `galshape_cnn.study.simulate.psf_families.without_wings`.
    """

    def __init__(self, config, seed, offset=None, paired=False, cut_wings=False):
        self.config, self.seed, self._paired = config, int(seed), bool(paired)
        self._cut_wings = bool(cut_wings) and config["psf"].get("moffat_beta") is not None
        self.prior = Prior(config["prior"])
        self._offset = config["nuisance"]["offset"] if offset is None else offset
        self._fwhm = Distribution(config["psf"]["fwhm"], "psf.fwhm")
        self._sigma = Distribution(config["noise"]["sigma"], "noise.sigma")
        self._sharp = np.mean(self._fwhm.sample(np.random.default_rng(0), 4096) < _SHARP)

    def _nuisance(self, rng, size, sigma):
        noise, nuisance = self.config["noise"], self.config["nuisance"]
        kind = rng.uniform(size=size)
        strength = np.exp(rng.uniform(np.log(1e-3), np.log(noise["poisson"]), size))
        part = noise["poisson_fraction"]
        if "gain" in noise:  # electrons per unit of flux: fixes the photon noise
            strength, part = 1 / (noise["gain"] * sigma), part or 1.0
        known = kind < 0.5 * part
        in_map = (kind >= 0.5 * part) & (kind < part)
        fit_sky = rng.uniform(size=size) < nuisance["sky_fraction"]
        sky = np.exp(rng.uniform(np.log(1e-3), np.log(nuisance["sky"]), size)) * rng.standard_normal(size)
        masked = rng.uniform(size=size) < nuisance["mask_fraction"]
        kinds = rng.uniform(size=(size, 4)) < np.array([0.4, 0.6, 0.3, 0.3])
        return {
            "gradient": noise["gradient"] * rng.uniform(size=size) * (rng.uniform(size=size) < 0.5),
            "mask": kinds & masked[:, None],
            "poisson": np.where(known, strength, 0),
            "poisson_in_map": np.where(in_map, strength, 0),
            "sky": np.where(fit_sky, sky, 0),
            "fit_sky": fit_sky.astype(float),
            "by_snr": np.full(size, self.prior.by_snr),
        }

    def draw(self, number, size):
        """Draw the parameters of one batch, as of `simulate`, without rendering it.

        By name: ``params`` (size, 8), with S/N in place of the flux if the prior says so; ``sigma`` (size,),
        the unit of fluxes; ``psfs``; ``nuisance``; ``seed``, of the noise.
        """
        rng = np.random.default_rng([self.seed, number])
        count = size // 2 if self._paired else size
        draws, sigma = self.prior.sample(rng, count), np.ones(size)
        if not self.prior.by_snr:  # noise is brought to sigma = 1
            sigma = self._sigma.sample(rng, size)
        position = _CENTER + rng.uniform(-self._offset, self._offset, (count, 2))
        if self._paired:
            turned = _turned(draws, position)
            turned[0][:, 0] = self.prior["snr" if self.prior.by_snr else "flux"].sample(rng, count)
            draws, position = np.concatenate([draws, turned[0]]), np.concatenate([position, turned[1]])
        draws[:, SINGLE.flux] /= sigma
        nuisance = self._nuisance(rng, size, sigma)
        psf = self.config["psf"]
        psfs = draw_psfs(
            rng, count, self._fwhm, psf["ellipticity"], psf.get("moffat_beta"), psf.get("lobes", 0.0)
        )
        psfs = _sorted(psfs)
        if self._cut_wings:
            psfs = without_wings(np.random.default_rng([self.seed, number, 1]), psfs, psf["moffat_beta"])
        if self._paired:
            psfs = {key: np.concatenate([psfs[key], part]) for key, part in turned_psfs(psfs).items()}
        params = SINGLE.with_sky(np.concatenate([draws, position], 1))
        seed = rng.integers(2**31)
        return {"params": params, "sigma": sigma, "psfs": psfs, "nuisance": nuisance, "seed": seed}

    def is_sharp(self, size):
        """Which galaxies of a batch of a size are rendered with twice the bandwidth."""
        count = size // 2 if self._paired else size
        part = np.ceil(_PARTS * self._sharp) / _PARTS
        return np.tile(np.arange(count) < round(part * count), 2 if self._paired else 1)

    def simulate(self, number, size):
        """The batch of a number; its size is even, if galaxies are paired.

        By name: data, ivar (size, 64, 64); transfer (size, 15, 8); params (size, 7) flux, n, hlr, g1, g2, x,
        y; snr, fit_sky, poisson, sharp (size,); psfs.
        """
        drawn = self.draw(number, size)
        params, nuisance, psfs = drawn["params"], drawn["nuisance"], drawn["psfs"]
        single = partial(jax.tree.map, lambda a: np.asarray(a, bool if a.dtype == bool else np.float32))
        rendered = single({key: psfs[key] for key in PSF_ARRAYS})
        sharp = self.is_sharp(size)
        count = int(sharp.sum()) // (2 if self._paired else 1)
        kind = {"sharp": count, "paired": self._paired, "masks": self.config["nuisance"]["mask_fraction"] > 0}
        data, ivar, flux, snr, transfer = _simulate(
            np.asarray(params, np.float32), rendered, single(nuisance), drawn["seed"], **kind
        )
        truth = np.concatenate([np.asarray(flux)[:, None], params[:, SINGLE.searched]], 1)
        return {
            "data": data, "ivar": ivar, "transfer": transfer, "params": truth, "snr": np.asarray(snr),
            "fit_sky": nuisance["fit_sky"], "poisson": nuisance["poisson"], "psfs": psfs,
            "sharp": sharp,
        }  # fmt: skip

    def batch(self, number, size):
        """Inputs, targets and weights of one training batch, as of `simulate`.

        The inputs are pixels (size, 16, 16, 48) and context (size, CONTEXT_SIZE), the targets (size, 7)
        standardised coordinates, the weights (size,) 0 where S/N is outside the configuration's
        ``snr_range``, else 1.
        """
        return training_rows(self.simulate(number, size), self.config.get("snr_range", (0.0, np.inf)))


def inputs_of(mock):
    """Pixels, context and amplitude, as of ``network_inputs``, of mocks from `MockStream.simulate`."""
    return network_inputs(
        mock["data"], mock["ivar"], mock["transfer"],
        np.asarray(mock["fit_sky"], np.float32), np.asarray(mock["poisson"], np.float32),
    )  # fmt: skip


def training_rows(mock, snr_range):
    """Inputs, targets and weights, as `MockStream.batch` returns them, of mocks from ``simulate``.

    Galaxies outside ``snr_range`` have no weight.
    """
    pixels, context, amplitude = inputs_of(mock)
    u = POSTERIOR.of(mock["params"])
    u[:, SINGLE.flux] -= np.log(np.asarray(amplitude, float))
    u[:, SINGLE.centre] -= _CENTER
    low, high = snr_range
    weights = ((mock["snr"] >= low) & (mock["snr"] <= high)).astype(np.float32)
    targets = ((u - TARGET_CENTER) / TARGET_SCALE).astype(np.float32)
    return [np.asarray(pixels), np.asarray(context)], targets, weights
