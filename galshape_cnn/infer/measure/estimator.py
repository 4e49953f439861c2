# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`ShapeEstimator`: from the user's galaxies to a catalogue."""

import threading
from dataclasses import replace
from functools import lru_cache

import numpy as np

from galshape_cnn.errors import InputError, KeywordError, LostRowsWarning, warn
from galshape_cnn.infer.catalog.catalog import ShapeCatalog
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.parallel import one_blas_thread, progress_bar, usable_cores
from galshape_cnn.quantities import flux_unit, truth_value, whole_number

__all__ = ["ShapeEstimator"]


class ShapeEstimator:
    """Measures flux, Sérsic index, half-light radius and shear of galaxies.

    An estimator holds a trained network and no results: it cannot be changed by use, can be
    pickled, and can be called from several threads.

    Parameters
    ----------
    bundle : Bundle, optional
        A trained network; by default the one that comes with the package.

    Attributes
    ----------
    bundle : Bundle
        The trained network with its training domain and prior.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator
    >>> y, x = np.mgrid[-15:16, -15:16]
    >>> psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
    >>> model = PSFConvolvedSersic2D(3000, 1.5, 3.0, 0.2, 0.0, 31.5, 31.5, psf=psf)
    >>> yy, xx = np.mgrid[:64, :64]
    >>> image = model(xx, yy) + np.random.default_rng(1).normal(size=(64, 64))
    >>> catalog = ShapeEstimator()(image, psf=psf, error=1.0)
    >>> bool(abs(catalog.flux[0] - 3000) < 5 * catalog.flux_err[0])
    True
    """

    def __init__(self, bundle=None):
        if bundle is not None and not isinstance(bundle, Bundle):
            raise InputError(
                f"bundle is a {type(bundle).__name__}; allowed: a Bundle, or use ShapeEstimator.load(path)"
            )
        bundle = Bundle.shipped() if bundle is None else bundle
        self.__dict__.update(_bundle=bundle, _network=None, _lock=threading.Lock())

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} cannot be set: a ShapeEstimator does not change; make another one")

    @classmethod
    def load(cls, path):
        """Estimator from a bundle file.

        Parameters
        ----------
        path : path-like
            Written by ``galshape train``.

        Returns
        -------
        estimator : ShapeEstimator

        Raises
        ------
        FileError
            If the file does not exist.
        BundleError
            If it is damaged or of a newer format.
        """
        return cls(Bundle.read(path))

    @property
    def bundle(self):
        """The trained network with its training domain and prior."""
        return self._bundle

    def __getstate__(self):
        return {"bundle": self._bundle}

    def __setstate__(self, state):
        self.__init__(state["bundle"])

    def __repr__(self):
        return f"<ShapeEstimator: network {self._bundle.sha256[:12]}>"

    def live_network(self):
        """The network itself, built on first use.

        Returns
        -------
        network : galshape_cnn.infer.network.amortized.AmortizedPosterior
            The same object at each call.
        """
        with self._lock:
            if self._network is None:
                from galshape_cnn.infer.network.amortized import AmortizedPosterior

                self.__dict__["_network"] = AmortizedPosterior(self._bundle)
            return self._network

    @one_blas_thread()  # from the first step: recentring and noise have many small products too
    def __call__(
        self,
        data,
        *,
        psf=None,
        error=None,
        mask=None,
        wcs=None,
        positions=None,
        method="network",
        fit_sky=None,
        progress=False,
        neighbours="mask",
        noise_correlation="auto",
        noise_scale="auto",
        gain=None,
        read_noise=None,
        sky_level=None,
        prior=None,
        seed=0,
        shear_response=False,
        psf_error=None,
        vary=None,
        threads=None,
        stamp_size=None,
        recenter=True,
        psf_oversampling=1,
        psf_includes_pixel=True,
        normalize_psf=True,
        unit=None,
        listed=None,
        strict=True,
        **unknown,
    ):
        """Measure galaxies.

        Parameters
        ----------
        data : NDData, array_like, sequence of them, Stamps, or sequence of Exposure
            An image (with ``positions``), N cutouts of any sizes with one galaxy near each
            centre, an ``(N, ny, nx)`` array, or `Stamps`.  A list of `~galshape_cnn.Exposure`: several
            images of the same galaxies, measured together, see :doc:`/user_guide/exposures`.
        psf : optional
            Effective PSF (pixel included) as odd-sized ``(py, px)`` or ``(N, py, px)`` array; a
            `galsim.GSObject` (pixel not included); a photutils PSF model; or a callable
            ``psf(x, y)`` returning any of these.  See `galshape_cnn.forward.psf.convert.psf_arrays`.
        error : float, array_like or Quantity, optional
            1 sigma per pixel, unless ``data`` has an uncertainty.
        mask : array_like of bool, optional
            True for bad pixels.
        wcs : celestial WCS, optional
            Puts sizes in arcsec and shears in the sky frame.
        positions : Table, SkyCoord or (N, 2) array_like, optional
            Columns x, y (0-based pixels) or ra, dec.
        method : {'network', 'ml', 'posterior'}, optional
            Posterior mean by the network; maximum likelihood started there; or exact
            posterior mean by importance sampling.
        fit_sky : bool, optional
            Marginalise over a constant sky level; False when it is known to be zero.  By default True,
            or False where the network was trained with known skies only.
        progress : bool, optional
            Show a progress bar.
        neighbours : {'ignore', 'mask', 'fit'}, optional
            Other sources in the stamp: measured as if they were not there; masked; or fitted
            together with the galaxy.  See :doc:`/user_guide/blends`.
        noise_correlation : array_like, galsim.CorrelatedNoise, 'auto', 'estimate' or None, optional
            Autocorrelation of the noise, an odd-sized array with 1 at its centre, where pixels
            are not independent, as in drizzled images; or to be estimated from blank pixels of
            the stamps.  By default it is measured on the image, if there is one, and used if it is
            significant; None takes pixels as independent.  See :doc:`/user_guide/noise`.
        noise_scale : float, 'auto', 'estimate' or None, optional
            Factor by which the noise map is too small, > 0; likewise.
        gain : float or Quantity, optional
            Electrons per unit of flux, > 0.  Give it when the noise map does not contain the
            galaxy's own photon noise.
        read_noise, sky_level : float or Quantity, optional
            With ``gain``, these replace ``error`` where there is no noise map: read noise in
            electrons, and the level of the sky where that was subtracted (otherwise it is
            measured).  See `galshape_cnn.observe.noise.ccd.detector_error`.
        prior : Prior or mapping, optional
            For ``'posterior'`` and ``'network'``: replaces the prior of the training; lengths in
            pixels.  The network's answer is then reweighted by the ratio of the priors.
        seed : int, optional
            Of the draws of ``'posterior'``, and of the noise that ``shear_response`` adds.
        shear_response : bool, optional
            With ``method='network'``, or ``'ml'`` of one image: ``g1`` and ``g2`` are a measurement whose
            response to shear is known, ``catalog.response``, for `~galshape_cnn.mean_shear`.  See
            :doc:`/user_guide/mean_shear`.
        psf_error : mapping or (K, py, px) array_like, optional
            How well the PSF is known: ``{"size": 0.01, "ellipticity": 0.005}``, standard deviations of its
            size over its size and of each component of its shear; or K PSFs that it may be instead, arrays
            like ``psf``.  Errors count it, bounds (``_crb``) don't.  See :doc:`/user_guide/noise`.  Numbers
            hold for each of several exposures, independently; those of an exposure itself replace them.
        vary : mapping of str to int, optional
            Of several exposures: polynomial orders in ln(wavelength) of ``n``, ``hlr``, ``g``,
            whose columns then end with a band.  See :doc:`/user_guide/exposures`.
        threads : int, optional
            Batches measured at the same time; by default one for each core this process may
            use.  The numbers do not depend on it.
        stamp_size, recenter, psf_oversampling, psf_includes_pixel, normalize_psf, unit, listed, strict
            See `galshape_cnn.observe.observation.prepare`.
        **unknown
            Any other keyword is refused, with the nearest right one.

        Returns
        -------
        catalog : ShapeCatalog
            One row for each galaxy, in the order of the input.  Of several exposures a
            `~galshape_cnn.infer.catalog.exposures_catalog.ExposuresCatalog`.

        Raises
        ------
        InputError
            If an argument cannot be used; its subclasses `NoiseError`, `PSFError`,
            `PositionError` say which kind.
        """
        from galshape_cnn.infer.measure.options import Options
        from galshape_cnn.infer.measure.pipeline import measure_observation
        from galshape_cnn.infer.measure.psf_error import PSFUncertainty, psf_errors_of
        from galshape_cnn.infer.measure.record import recorded_options
        from galshape_cnn.infer.network.conditions import settled_sky
        from galshape_cnn.observe.exposure import are_exposures
        from galshape_cnn.observe.noise.model import NoiseModel
        from galshape_cnn.observe.observation import prepare
        from galshape_cnn.observe.stamps import Stamps

        _check_unknown(unknown)
        progress, strict = truth_value(progress, "progress"), truth_value(strict, "strict")
        fit_sky = settled_sky(self._bundle, fit_sky, method, gain)
        sampling = {"oversampling": psf_oversampling, "includes_pixel": psf_includes_pixel}
        psf_error = PSFUncertainty.checked(psf_error, normalize=normalize_psf, **sampling)
        options = Options.checked(
            method=method, fit_sky=fit_sky, neighbours=neighbours, prior=prior, seed=seed,
            shear_response=shear_response, psf_error=psf_error, vary=vary,
        )  # fmt: skip
        threads = usable_cores() if threads is None else whole_number(threads, "threads", 1)
        unit = flux_unit(unit)
        cutting = {
            "stamp_size": stamp_size, "recenter": recenter, "psf_oversampling": psf_oversampling,
            "psf_includes_pixel": psf_includes_pixel, "normalize_psf": normalize_psf,
        }  # fmt: skip
        if are_exposures(data):
            of_one = {
                "psf": psf, "error": error, "mask": mask, "wcs": wcs, "gain": gain, "read_noise": read_noise,
                "sky_level": sky_level, "unit": unit, "listed": listed,
            }  # fmt: skip
            _check_of_exposures(of_one)
            known = psf_errors_of(data, psf_error, normalize=normalize_psf, **sampling)
            options = replace(options, psf_error=known)
            cutting |= {"noise_correlation": noise_correlation, "noise_scale": noise_scale}
            return self._measure_exposures(data, positions, options, cutting, threads, progress, strict)
        if options.vary:
            raise InputError("vary= is given, but data is no list of Exposures; one image has one wavelength")
        cutting |= {"psf": psf, "unit": unit}
        given = NoiseModel(gain, read_noise, sky_level, noise_correlation, noise_scale)
        noise = given.in_units_of(data, unit)
        observation = prepare(
            data, error=noise.error_of(data, error, mask, unit), mask=mask, wcs=wcs, positions=positions,
            listed=listed, strict=strict, **cutting,
        )  # fmt: skip
        asked = recorded_options(options, given, observation, {"error": error} | cutting)
        observation, correlation, record = noise.applied(observation)
        options = options.with_noise(noise.gain, correlation)
        searched = isinstance(data, Stamps) and options.neighbours != "ignore"
        bar = progress_bar(observation.n, progress)
        how = {"threads": threads, "bar": bar, "to_examine": searched}
        observation, measurements = measure_observation(observation, self.live_network(), options, **how)
        meta = self._meta() | {"neighbours": options.neighbours, "options": asked} | record
        catalog = ShapeCatalog.from_measurements(observation, measurements, method=method, meta=meta)
        _warn_of_lost_rows(catalog)
        return catalog

    def _measure_exposures(self, data, positions, options, cutting, threads, progress, strict):
        """Catalogue of galaxies in several images."""
        from galshape_cnn.infer.catalog.exposures_catalog import ExposuresCatalog
        from galshape_cnn.infer.measure.exposures.pipeline import measure_exposures
        from galshape_cnn.infer.measure.record import recorded_exposures, recorded_options, recorded_prior
        from galshape_cnn.observe.exposures import prepare_exposures
        from galshape_cnn.observe.noise.model import NoiseModel

        if options.shear_response and options.method != "network":
            raise InputError(
                f"shear_response=True with several exposures and method={options.method!r}; allowed: "
                "method='network'"
            )
        model = {"fit_sky": options.fit_sky, "vary": options.vary}
        exposures = prepare_exposures(data, positions, strict=strict, **model, **cutting)
        bar = progress_bar(len(exposures), progress)
        found = measure_exposures(exposures, self.live_network(), options, threads, bar)
        noise = NoiseModel(noise_correlation=cutting["noise_correlation"], noise_scale=cutting["noise_scale"])
        asked = recorded_options(replace(options, psf_error=None), noise, exposures.observations[0], cutting)
        asked["exposures"] = recorded_exposures(data, exposures.names, options.psf_error)
        meta = self._meta() | {"neighbours": options.neighbours, "exposures": list(exposures.names)}
        meta["options"] = asked
        meta |= {"noise": exposures.records} if exposures.records else {}
        meta |= recorded_prior(options)
        if options.shear_response:
            from galshape_cnn.infer.shear.joint import exposures_response

            found = exposures_response(exposures, *found, self.live_network(), options, threads)
        catalog = ExposuresCatalog.from_exposures(exposures, *found, method=options.method, meta=meta)
        _warn_of_lost_rows(catalog)
        return catalog

    def _meta(self):
        packages = ("galshape_cnn", "jax", "keras", "numpy", "astropy", "photutils")
        return {
            "versions": {name: _version(name) for name in packages},
            "network_sha256": self._bundle.sha256,
            "training_domain": self._bundle.domain,
        }


@lru_cache
def _version(name):
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _check_of_exposures(given):
    """Refuse keywords of one image beside a list of exposures, which hold their own."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise InputError(
            f"{names[0]}= is given beside a list of Exposures, which hold their own; give it to these"
        )


def _check_unknown(unknown):
    """Refuse keywords that do not exist, and name the nearest that does."""
    if not unknown:
        return
    import inspect
    from difflib import get_close_matches

    name = next(iter(unknown))
    known = [key for key in inspect.signature(ShapeEstimator.__call__).parameters if key != "unknown"][2:]
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(known)}"
    raise KeywordError(f"{name} is no keyword of a ShapeEstimator's call; {hint}")


def _warn_of_lost_rows(catalog):
    lost = int(np.count_nonzero(~catalog.is_measured))
    if lost:
        warn(
            f"{lost} of {len(catalog)} galaxies could not be measured; see the column flags", LostRowsWarning
        )
