# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Flag bits of a catalogue row, their levels, and `quality_of`.

One list, `FLAG_DEFINITIONS`, feeds the constants, the decoder, the column
description in the output table and the documentation.  A row starts as
``NOT_MEASURED`` and success clears that bit: no row that was never measured
can look good.

Each flag has a level, `LEVELS`: a *note* says what was done or is unusual, the numbers hold; a
*caution* that they may not; with a *severe* flag they should not be used.  The worst level of a row is
its ``quality``: 0, 1 or 2.  Levels were fixed by injecting known galaxies into real images.
"""

from dataclasses import dataclass

import numpy as np

__all__ = [
    "CAUTION",
    "FLAG_DEFINITIONS",
    "FLAG_MEANINGS",
    "LEVELS",
    "SEVERE",
    "Flag",
    "FlagDefinition",
    "decode_flags",
    "describe_flags",
    "quality_of",
]

#: Levels of the flags; the place in the list is the ``quality`` of a row whose worst flag has this level.
LEVELS = ("note", "caution", "severe")


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
    level : {'note', 'caution', 'severe'}
        What it means for the numbers of the row: they hold; use them with care; don't use them.

    Examples
    --------
    >>> from galshape_cnn.flags import FLAG_DEFINITIONS
    >>> FLAG_DEFINITIONS[8].name, FLAG_DEFINITIONS[8].value
    ('NEIGHBOR', 256)
    """

    bit: int
    name: str
    description: str
    level: str = "caution"

    @property
    def severe(self):
        """True when the row's numbers should not be used at all."""
        return self.level == LEVELS[2]

    @property
    def value(self):
        """Integer value of the flag, ``2**bit``."""
        return 1 << self.bit


FLAG_DEFINITIONS = (
    FlagDefinition(0, "NOT_MEASURED", "no measurement was made", "severe"),
    FlagDefinition(1, "NO_DATA", "no unmasked pixel with noise information", "severe"),
    FlagDefinition(2, "OFF_IMAGE", "position lies outside the image", "severe"),
    FlagDefinition(3, "EDGE", "stamp is cut by the edge of the image", "note"),
    FlagDefinition(4, "MASKED", "more than 30 % of the stamp's central half is masked", "note"),
    FlagDefinition(5, "CENTER_MASKED", "a pixel within 1.5 px of the centre is masked"),
    FlagDefinition(6, "RECENTER_FAILED", "no centroid found; the given position was kept", "note"),
    FlagDefinition(7, "FAR_CENTROID", "centre is implausibly far from where the galaxy was said to be"),
    FlagDefinition(8, "NEIGHBOR", "another source in the stamp: masked, fitted or without effect", "note"),
    FlagDefinition(9, "LOW_SNR", "S/N below the range the estimator was trained for"),
    FlagDefinition(10, "HIGH_SNR", "S/N above the range the estimator was trained for"),
    FlagDefinition(11, "PSF_OUT_OF_DOMAIN", "PSF width or ellipticity outside the training domain"),
    FlagDefinition(12, "SIZE_OUT_OF_DOMAIN", "half-light radius outside the training domain"),
    FlagDefinition(13, "UNLIKE_TRAINING", "stamp unlike anything seen in training"),
    FlagDefinition(14, "POOR_FIT", "residuals inconsistent with one Sersic profile, PSF and noise", "note"),
    FlagDefinition(15, "N_AT_BOUND", "Sersic index at the edge of the allowed range", "note"),
    FlagDefinition(
        16, "PARAMETER_AT_BOUND", "size, shear or n at the edge of the allowed range, and said to be known"
    ),
    FlagDefinition(17, "NOT_CONVERGED", "maximum-likelihood fit did not converge"),
    FlagDefinition(18, "SINGULAR", "Fisher matrix ill-conditioned: bounds are unreliable or NaN"),
    FlagDefinition(19, "LOW_ESS", "few effective posterior samples: widths are unreliable"),
    FlagDefinition(20, "UNRESOLVED", "size consistent with a point source", "note"),
    FlagDefinition(21, "STAMP_SMALL", "galaxy is larger than its stamp allows to measure"),
    FlagDefinition(22, "PSF_ESTIMATED", "PSF was estimated from stars in the image, not given", "note"),
    FlagDefinition(23, "SATURATED", "brightest pixels of the core are equal, as after saturation", "severe"),
    FlagDefinition(24, "SPIKE", "model leaves a peak sharper than the PSF: cosmic ray or bad pixel"),
    FlagDefinition(25, "CORRELATED_NOISE", "noise of adjacent pixels is correlated: errors are too small"),
    FlagDefinition(26, "INCONSISTENT", "estimate is farther from the likelihood's maximum than its error"),
    FlagDefinition(27, "UNTRUSTED", "S/N, size and n where validation found this method wrong", "note"),
    FlagDefinition(28, "NEIGHBOR_LIGHT", "light of another source is left among the galaxy's pixels"),
    FlagDefinition(29, "BLENDED", "another source outshines the galaxy on its own pixels", "severe"),
    FlagDefinition(
        30, "MISFIT", "structure that no Sersic profile has moves flux or size by half or more", "note"
    ),
    FlagDefinition(31, "PSF_CUT", "array of the PSF ends where it still has light"),
    FlagDefinition(32, "PSF_MENDED", "PSF was off-centre or on a pedestal, which was corrected", "note"),
    FlagDefinition(33, "PRIOR_LIMIT", "posterior piles up at a limit of the prior"),
    FlagDefinition(
        34,
        "NOT_SAMPLED",
        "sampling failed, or the network's answer is no galaxy: the row is the maximum-likelihood estimate",
        "note",
    ),
    FlagDefinition(35, "BAND_MISSING", "a band has no data of the galaxy: its columns are NaN"),
    FlagDefinition(
        36, "UNCONSTRAINED", "size or shear at the edge of the allowed range, within its error", "note"
    ),
    FlagDefinition(37, "SHAPE_VARIES", "one shape does not hold in all bands, as with colour gradients"),
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

#: Value, level and description of each flag by its name, as the metadata of a table hold them.
FLAG_MEANINGS = {
    d.name: {"value": d.value, "level": d.level, "description": d.description} for d in FLAG_DEFINITIONS
}
#: Bits that make the numbers of a row unusable, and those that ask for care.
SEVERE, CAUTION = (sum(d.value for d in FLAG_DEFINITIONS if d.level == level) for level in LEVELS[:0:-1])


def quality_of(flags):
    """Quality of rows: the worst level of their flags.

    Parameters
    ----------
    flags : int or array_like of int
        One value, or an array of them.

    Returns
    -------
    quality : int16 ndarray, or int16
        0 use the numbers (no flag, or notes only), 1 use them with care, 2 don't.

    Examples
    --------
    >>> from galshape_cnn.flags import Flag, quality_of
    >>> [int(one) for one in quality_of([Flag.NEIGHBOR, Flag.SPIKE | Flag.NEIGHBOR, Flag.NO_DATA])]
    [0, 1, 2]
    """
    flags = np.asarray(flags, np.int64)
    return np.where(flags & SEVERE, 2, np.where(flags & CAUTION, 1, 0)).astype(np.int16)[()]


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
