# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Quasi-random points with which moments of the networks' posteriors are computed.

They are the first points of a scrambled Sobol sequence (Owen 1998, J. Complexity 14, 466; Joe & Kuo 2008,
SIAM J. Sci. Comput. 30, 2635), `scipy.stats.qmc.Sobol` with the seed 20261122.  Point k is the exclusive or
of the direction numbers of the bits of the Gray code of k.  They are written down here, so that the numbers
of a galaxy do not depend on the version of SciPy, and its statistics need not be imported: half a second.
"""

import numpy as np

__all__ = ["MOST_POINTS", "sobol_points"]

_BITS = 30
_SHIFT = np.array(
    [0x16DCFCF8, 0x1282843D, 0x3F6838A9, 0x343F0794, 0x3F4285EE, 0x2EDBB8FE, 0x062EAAEC, 0x09176396]
)
#: Direction numbers of each bit (rows) and dimension.
_DIRECTIONS = np.array(
    [
        [0x2280364D, 0x3368B7EF, 0x3A6F165C, 0x2FC8022F, 0x3C17E831, 0x39770BBE, 0x231DCF70, 0x38FE2B43],
        [0x10249F52, 0x26FDF9C1, 0x28CA9035, 0x38D73219, 0x11092E26, 0x1A76C548, 0x388A5FBA, 0x10570474],
        [0x091E64DB, 0x3D4310E1, 0x1C279003, 0x0AFB64D4, 0x0DBA9595, 0x10202521, 0x2B7DD9C2, 0x32C209B3],
        [0x05C14F7B, 0x2FBEE172, 0x3CC6359D, 0x1173F026, 0x35277401, 0x0F28DFB4, 0x3C3C32F9, 0x16942B30],
        [0x02F8F98C, 0x307FBE9B, 0x241E2792, 0x369FCF44, 0x274018BA, 0x20106009, 0x1CA5FB2D, 0x3BEEFC39],
        [0x0176FB66, 0x24094BEE, 0x171D60F0, 0x1AF1C9B6, 0x2B20ECDB, 0x0B225F42, 0x2648687E, 0x0BE6298C],
        [0x00F58A98, 0x3E8E5335, 0x39BB8737, 0x2588DA4C, 0x1BBF2B06, 0x1E82EE37, 0x0E48020B, 0x0625B716],
        [0x00672AA7, 0x2DEC7C65, 0x29D00978, 0x29420381, 0x3A4CCC6C, 0x2F8805E8, 0x305488D7, 0x08BF0B41],
        [0x003AB1C0, 0x3347ADB9, 0x1E58258C, 0x3C41267A, 0x1625B864, 0x296E6BA4, 0x2D7CF46B, 0x1DB118B4],
        [0x001B1C74, 0x26CE7000, 0x3FE91261, 0x0BC80836, 0x0FB7946E, 0x154C4017, 0x08E7CDB2, 0x3C034FF7],
    ]
)
#: Points there are.
MOST_POINTS = 2 ** len(_DIRECTIONS)


def sobol_points(count):
    """Points (count, 8) in the unit cube; ``count`` is a power of two, up to `MOST_POINTS`.

    Examples
    --------
    >>> from galshape_cnn.infer.network.sobol_points import sobol_points
    >>> sobol_points(256).mean(0).round(2)
    array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    """
    if count > MOST_POINTS:
        raise ValueError(f"count={count}; allowed: up to {MOST_POINTS}")
    number = np.arange(count)
    gray = number ^ (number >> 1)
    points = np.tile(_SHIFT, (count, 1))
    for bit, direction in enumerate(_DIRECTIONS):
        points ^= (gray >> bit & 1)[:, None] * direction
    return points / 2**_BITS
