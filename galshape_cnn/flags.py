# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Flag bits of a catalogue row.

One list, `FLAG_DEFINITIONS`, feeds the constants, the decoder, the column
description in the output table and the documentation.  A row starts as
``NOT_MEASURED`` and success clears that bit: no row that was never measured
can look good.
"""

from dataclasses import dataclass

import numpy as np

__all__ = [
    "FLAG_DEFINITIONS",
    "SEVERE",
    "Flag",
    "FlagDefinition",
    "decode_flags",
    "describe_flags",
]


@dataclass(frozen=True)
class FlagDefinition:
    """One flag bit.

    Parameters
    ----------
    bit : int
        Position of the bit; the flag's value is ``2**bit``.
    name : str
        Name, also the attribute of `Flag`.
    description : str
        What the bit means for the user of the row.
    severe : bool
        True when the row's numbers should not be used at all.

    Examples
    --------
    >>> from galshape_cnn.flags import FLAG_DEFINITIONS
    >>> FLAG_DEFINITIONS[8].name, FLAG_DEFINITIONS[8].value
    ('NEIGHBOR', 256)
    """

    bit: int
    name: str
    description: str
    severe: bool = False

    @property
    def value(self):
        """Integer value of the flag, ``2**bit``."""
        return 1 << self.bit


FLAG_DEFINITIONS = (
    FlagDefinition(0, "NOT_MEASURED", "no measurement was made", severe=True),
    FlagDefinition(1, "NO_DATA", "no unmasked pixel with noise information", severe=True),
    FlagDefinition(2, "OFF_IMAGE", "position lies outside the image", severe=True),
    FlagDefinition(3, "EDGE", "stamp is cut by the edge of the image"),
    FlagDefinition(4, "MASKED", "more than 30 % of the stamp's central half is masked"),
    FlagDefinition(5, "CENTER_MASKED", "a pixel within 1.5 px of the centre is masked"),
    FlagDefinition(6, "RECENTER_FAILED", "no centroid found; the given position was kept"),
    FlagDefinition(7, "FAR_CENTROID", "centroid is implausibly far from the given position"),
    FlagDefinition(8, "NEIGHBOR", "another source shares the stamp"),
    FlagDefinition(9, "LOW_SNR", "S/N below the range the estimator was trained for"),
    FlagDefinition(10, "HIGH_SNR", "S/N above the range the estimator was trained for"),
    FlagDefinition(11, "PSF_OUT_OF_DOMAIN", "PSF width or ellipticity outside the training domain"),
    FlagDefinition(12, "SIZE_OUT_OF_DOMAIN", "half-light radius outside the training domain"),
    FlagDefinition(13, "UNLIKE_TRAINING", "stamp unlike anything seen in training"),
    FlagDefinition(14, "POOR_FIT", "residuals inconsistent with one Sersic profile, PSF and noise"),
    FlagDefinition(15, "N_AT_BOUND", "Sersic index at the edge of the allowed range"),
    FlagDefinition(16, "PARAMETER_AT_BOUND", "size or shear at the edge of the allowed range"),
    FlagDefinition(17, "NOT_CONVERGED", "maximum-likelihood fit did not converge"),
    FlagDefinition(18, "SINGULAR", "Fisher matrix ill-conditioned: bounds are unreliable or NaN"),
    FlagDefinition(19, "LOW_ESS", "few effective posterior samples: widths are unreliable"),
    FlagDefinition(20, "UNRESOLVED", "size consistent with a point source"),
    FlagDefinition(21, "STAMP_SMALL", "galaxy is larger than its stamp allows to measure"),
    FlagDefinition(22, "PSF_ESTIMATED", "PSF was estimated from stars in the image, not given"),
    FlagDefinition(23, "SATURATED", "brightest pixels of the core are equal, as after saturation"),
    FlagDefinition(24, "SPIKE", "model leaves a peak sharper than the PSF: cosmic ray or bad pixel"),
    FlagDefinition(25, "CORRELATED_NOISE", "noise of adjacent pixels is correlated: errors are too small"),
    FlagDefinition(26, "INCONSISTENT", "estimate is farther from the likelihood's maximum than its error"),
    FlagDefinition(27, "UNTRUSTED", "S/N, size and n where validation found this method wrong"),
    FlagDefinition(33, "BAND_MISSING", "a band has no data of the galaxy: its columns are NaN"),
)


class Flag:
    """Integer constants of the flag bits, e.g. ``Flag.NEIGHBOR``.

    Examples
    --------
    >>> from galshape_cnn.flags import Flag
    >>> bool(264 & Flag.NEIGHBOR), bool(264 & Flag.MASKED)
    (True, False)
    """


for _definition in FLAG_DEFINITIONS:
    setattr(Flag, _definition.name, _definition.value)
del _definition

#: Bits that make the numbers of a row unusable.
SEVERE = sum(d.value for d in FLAG_DEFINITIONS if d.severe)


def decode_flags(flags):
    """Names of the flags set in an integer.

    Parameters
    ----------
    flags : int or array_like of int
        One value, or an array of them.

    Returns
    -------
    names : list of str, or list of list of str for an array
        Names in the order of their bits.

    Raises
    ------
    ValueError
        If a bit is set that has no definition.

    Examples
    --------
    >>> from galshape_cnn.flags import decode_flags
    >>> decode_flags(10)
    ['NO_DATA', 'EDGE']
    """
    if np.ndim(flags):
        return [decode_flags(value) for value in np.asarray(flags)]
    value = int(flags)
    known = sum(d.value for d in FLAG_DEFINITIONS)
    if value < 0 or value & ~known:
        raise ValueError(f"flags={value} has bits without a definition; known bits: {known}")
    return [d.name for d in FLAG_DEFINITIONS if value & d.value]


def describe_flags(flags):
    """Plain-English description of the flags set in one integer.

    Parameters
    ----------
    flags : int
        Flag value of one row.

    Returns
    -------
    text : str
        Descriptions joined with ``'; '``; empty for 0.

    Examples
    --------
    >>> from galshape_cnn.flags import describe_flags
    >>> describe_flags(10)
    'no unmasked pixel with noise information; stamp is cut by the edge of the image'
    """
    names = set(decode_flags(flags))
    return "; ".join(d.description for d in FLAG_DEFINITIONS if d.name in names)
