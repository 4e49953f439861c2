# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`NoiseModel`: gain, read noise, correlation and scale, beside the noise map."""

from dataclasses import dataclass, fields, replace

from galshape_cnn.errors import InputError, warn
from galshape_cnn.observe.noise.blank_sky import AUTO, measured_noise
from galshape_cnn.observe.noise.ccd import checked_detector, checked_gain, detector_error
from galshape_cnn.observe.noise.correlation import EstimatedCorrelation, noise_correlation
from galshape_cnn.observe.noise.rescale import checked_scale, scaled_noise
from galshape_cnn.quantities import unit_of

__all__ = ["NoiseModel"]


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """Detector, scale and correlation of the noise, as one object for estimator, streams and workers.

    Attributes
    ----------
    gain : float, Quantity or None
        Electrons per unit of flux, > 0, where the noise map lacks the galaxies' own photon noise.
    read_noise, sky_level : float, Quantity or None
        With ``gain``, in place of a noise map: see `galshape_cnn.observe.noise.ccd.detector_error`.
    noise_correlation : array_like, galsim.CorrelatedNoise, EstimatedCorrelation, 'auto', 'estimate' or None
        Autocorrelation of the noise.
    noise_scale : float, 'auto', 'estimate' or None
        Factor by which the noise map is too small.
    """

    gain: float | None = None
    read_noise: float | None = None
    sky_level: float | None = None
    noise_correlation: object = AUTO
    noise_scale: float | str | None = AUTO

    def __post_init__(self):
        if getattr(self.gain, "unit", None) is None:  # otherwise that of the pixels must be known
            object.__setattr__(self, "gain", checked_gain(self.gain, None))
        if self.noise_scale is not None and not _is_auto(self.noise_scale):
            object.__setattr__(self, "noise_scale", checked_scale(self.noise_scale))

    @classmethod
    def from_keywords(cls, keywords):
        """The noise of a mapping of an estimator's keywords, others ignored."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in keywords.items() if name in names})

    @property
    def is_estimated(self):
        """Whether something of it is still to be estimated from pixels."""
        return isinstance(self.noise_correlation, str) or isinstance(self.noise_scale, str)

    @property
    def is_automatic(self):
        """Whether something of it is to be measured, but only on an image."""
        words = {value for value in (self.noise_correlation, self.noise_scale) if isinstance(value, str)}
        return words == {AUTO}

    def measured(self, observation):
        """The same noise with what is ``'auto'`` measured on the image, if there is one.

        Parameters
        ----------
        observation : Observation
            Cutouts, whose noise may differ from one to the next, and arrays of stamps are taken as they come.

        Returns
        -------
        noise : NoiseModel
        """
        names = [name for name in ("noise_scale", "noise_correlation") if _is_auto(getattr(self, name))]
        if not names:
            return self
        found = dict.fromkeys(names)
        if observation.image is not None:
            scale, correlation = measured_noise(observation.image)
            both = {"noise_scale": scale, "noise_correlation": correlation}
            found = {name: both[name] for name in names}
            _say(**found)
        return replace(self, **found)

    def in_units_of(self, data, unit=None):
        """The same noise in plain numbers: electrons, and units of the fluxes.

        Parameters
        ----------
        data : NDData, array_like, sequence of them, or Stamps
            The user's data, whose unit that of the pixels is.
        unit : astropy unit or None, optional
            Of the fluxes; that of the pixels without it.

        Returns
        -------
        noise : NoiseModel

        Raises
        ------
        InputError
            If a number has a unit that does not fit.
        """
        own = unit_of(data)
        read_noise, sky_level = checked_detector(self.read_noise, self.sky_level, own)
        gain = checked_gain(self.gain, own if unit is None else unit)
        return replace(self, gain=gain, read_noise=read_noise, sky_level=sky_level)

    def error_of(self, data, error, mask, unit=None):
        """Error of the pixels: as given, or from the detector.

        Parameters
        ----------
        data : NDData, array_like, or sequence of them
            The user's data.
        error : object
            What the user gave as ``error``.
        mask : array_like of bool or None
            True for bad pixels.
        unit : astropy unit or None, optional
            Of the fluxes, by which ``gain`` counts; that of the pixels without it.

        Returns
        -------
        error : object
            ``error`` itself, or what `galshape_cnn.observe.noise.ccd.detector_error` returns.

        Raises
        ------
        InputError
            If noise is described twice, or only half.
        """
        if self.read_noise is None and self.sky_level is None:
            return error
        if error is not None or hasattr(data, "ivar"):
            given = "sky_level" if self.read_noise is None else "read_noise"
            raise InputError(f"{given} and error both describe the noise; give one of them")
        if self.read_noise is None:
            raise InputError("sky_level is given without read_noise, which may be 0")
        own = unit_of(data)
        ratio = 1.0 if unit is None or own is None or self.gain is None else own.to(unit)
        gain = None if self.gain is None else self.gain * ratio
        return detector_error(data, gain, self.read_noise, self.sky_level, mask)

    def applied(self, observation):
        """The observation with its noise scaled, the autocorrelation (None if independent), and a record.

        The record is for the metadata. ``InputError`` or ``NoiseError`` if something cannot be used, or not
        be estimated.
        """
        record, known = {}, self.measured(observation)
        if known.noise_scale is not None:
            observation, record["noise_scale"] = scaled_noise(known.noise_scale, observation)
        correlation, how = noise_correlation(known.noise_correlation, observation)
        return observation, correlation, record | ({"noise_correlation": how} if how else {})

    def settled(self, observation):
        """The same noise with nothing left to estimate, which is done from these stamps."""
        known, changed = self.measured(observation), {}
        _, correlation, record = known.applied(observation)
        if isinstance(known.noise_scale, str):
            changed["noise_scale"] = record["noise_scale"]
        if isinstance(known.noise_correlation, str):
            excess = record["noise_correlation"]["excess"]
            changed["noise_correlation"] = EstimatedCorrelation(correlation, excess)
        return replace(known, **changed)

    def keywords(self):
        """The keywords of an estimator that say the same, as a dict."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _is_auto(value):
    return isinstance(value, str) and value == AUTO


def _say(noise_scale=None, noise_correlation=None):
    """One warning of what was measured and is used."""
    parts = []
    if noise_scale is not None:
        parts.append(f"scatter {noise_scale:.2f} times what the noise map says")
    if noise_correlation is not None:
        parts.append(f"are correlated (over an area of {noise_correlation.array.sum():.1f} pixels)")
    if parts:
        warn(
            f"blank pixels of the image {' and '.join(parts)}: errors and flags take that into account; "
            "noise_scale=None and noise_correlation=None take the noise map at its word"
        )
