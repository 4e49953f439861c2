# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`inject`: known galaxies drawn into the user's own image and measured there."""

from dataclasses import replace

from galshape_cnn.errors import InputError
from galshape_cnn.infer.measure.record import recorded_call
from galshape_cnn.study.inject.running import run_all
from galshape_cnn.study.inject.setup import make_job

__all__ = ["inject"]

#: Arguments that are data; the network is known by its hash.
_NOT_RECORDED = ("mask", "wcs", "estimator")


def inject(
    image,
    *,
    n,
    psf=None,
    prior=None,
    catalogue=None,
    kinds="sersic",
    method="network",
    find=False,
    gain=None,
    seed=0,
    output=None,
    workers=None,
    executor=None,
    progress=False,
    estimator=None,
    record=None,
    **options,
):
    """Draw known galaxies into an image, measure them there, and return truth and measurement.

    The galaxies go to free places of copies of the image, several into one copy, but never two into one
    stamp.  They are measured as `~galshape_cnn.ShapeEstimator` measures an image with ``positions``.
    The result is a function of the image, the options and the seed, and of no number of processes.

    Parameters
    ----------
    image : NDData or (ny, nx) array_like
        The user's image; it is not changed.  Its ``uncertainty``, ``mask``, ``wcs``, ``psf`` and ``unit``
        are used.
    n : int
        Number of galaxies, at least 1.
    psf : optional
        PSF of the image, as the estimator takes it: one for all of it, a callable ``psf(x, y)``, or
        ``"stars"``.
    prior : Prior, mapping or Table, optional
        What is injected: a prior, see `galshape_cnn.infer.posterior.prior`, with lengths in pixels; or a
        catalogue.  A mapping may name only some of ``snr`` (or ``flux``), ``n``, ``hlr``, ``g``.  By
        default S/N 10 to 300 and half-light radii of 0.3 to 1.5 FWHM of the PSF, see
        `galshape_cnn.study.inject.galaxies.default_prior`.
    catalogue : Table, optional
        Galaxies that are injected in turn: columns ``flux`` (unit of the image) or ``snr``; ``n``; ``hlr`` or
        ``r_eff``; ``g1`` and ``g2``, or ``q`` and ``pa``, in the frame and the units of the results.
    kinds : str or mapping of str to float, optional
        ``'sersic'``, ``'bulge_disc'``, ``'clumpy'``, ``'spiral'``, ``'real'``, or weights of several; see
        `galshape_cnn.study.inject.galaxies`.
    method : {'network', 'ml', 'posterior'}, optional
        Estimator.
    find : bool, optional
        Find the galaxies by segmentation, as ``galshape measure`` does without positions; otherwise
        their positions are given, with the error of a centroid.
    gain : float, optional
        Electrons per unit of flux, > 0: galaxies get photon noise.  The measurement is told of it, unless
        ``gain_in_map`` says that the noise map holds the photon noise of sources; then that of the
        galaxies is added to the map.  Without a gain they have none.
    seed : int, optional
        Non-negative; the same seed gives the same galaxies at the same places.
    output : path-like, optional
        Folder for tables, figures and the page with the verdict; an interrupted run goes on there.
    workers : int, optional
        Processes; by default the threads of this one.
    executor : `concurrent.futures.Executor`, optional
        Who works instead, such as that of a Dask client (``client.get_executor()``).
    progress : bool, optional
        Show a progress bar.
    estimator : ShapeEstimator, optional
        By default that of the network that comes with the package.
    record : dict, optional
        What the metadata are to hold beside the arguments.
    **options
        ``error``, ``mask``, ``wcs``, ``real_galaxies``, ``pixel_scale``, ``detection``, ``clearance``,
        ``avoid``, ``true_psf``, ``gain_in_map``, ``shear``: see `galshape_cnn.study.inject.setup.make_job`;
        ``stamp_size``,
        ``psf_oversampling``, ``psf_includes_pixel``, ``normalize_psf``, ``neighbours``, ``fit_sky``,
        ``noise_correlation``, ``noise_scale``, ``shear_response``: as for the estimator.

    Returns
    -------
    table : `~astropy.table.QTable`
        A row for each injected galaxy: ``id``; ``kind``; ``truth`` (what its true parameters are);
        ``true_flux`` ... ``true_g2``, ``true_snr``, ``true_x``, ``true_y``, ``true_r_eff``;
        ``structure``, the share of the light outside the smooth component; ``psf_fwhm``;
        ``n_near``, the number of sources of the image within half a stamp; ``nearest``, pixels to the
        nearest; ``contamination``, what a matched filter of the galaxy measures of the image before it
        is there, in units of its flux; ``realisation``; ``found``; ``best_flux`` ... ``best_r_eff`` for
        galaxies that are no Sérsic profiles; and the columns of the catalogue.

    Raises
    ------
    InputError
        If an argument cannot be used, nothing can be drawn, or no place is free.
    FileError
        If ``output`` cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn import inject
    >>> psf = np.exp(-np.sum(np.mgrid[-9:10, -9:10] ** 2, axis=0) / 5)
    >>> empty = np.random.default_rng(1).normal(size=(200, 200))
    >>> table = inject(empty, n=4, psf=psf, error=1.0)
    >>> len(table), bool((abs(table["x_centroid"] - table["true_x"]).value < 2).all())
    (4, True)
    """
    if executor is not None and workers is not None:
        raise InputError("workers and executor both say who works; give one of them")
    known = {"n": n, "psf": psf, "prior": prior, "catalogue": catalogue, "kinds": kinds, "method": method}
    known |= {"find": find, "gain": gain, "seed": seed, "estimator": estimator}
    asked = {name: value for name, value in {**known, **options}.items() if name not in _NOT_RECORDED}
    job = replace(make_job(image, **known, **options), asked=recorded_call(asked) | (record or {}))
    table = run_all(job, output=output, workers=workers, executor=executor, progress=progress)
    if output is not None:
        from galshape_cnn.study.inject.results import write_results

        write_results(output, table, job)
    return table
