# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Extension headers completed by the primary header."""

import re

from astropy.io import fits

__all__ = ["full_header"]

#: Keywords that describe their own HDU only: its structure and name, its pixels, its mask planes, its WCS.
_OWN = re.compile(
    r"|SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|CHECKSUM|DATASUM|ZHECKSUM|ZDATASUM|END"
    r"|EXTNAME|EXTVER|EXTLEVEL|EXTTYPE|HDUNAME|HDUVER|IMAGETYP|INHERIT|UTYPE|COMMENT|HISTORY|CONTINUE"
    r"|BSCALE|BZERO|BLANK|BOFFSET|BSOFTEN|DATAMIN|DATAMAX|MP_.*|MASKP.*"
    r"|ZIMAGE|ZTENSION|ZCMPTYPE|ZNAXIS\d*|ZTILE\d+|ZBITPIX|ZQUANTIZ|ZDITHER0|Z(NAME|VAL)\d+|ZBLANK|ZSCALE|ZZERO"
    r"|WCSAXES[A-Z]?|WCSNAME[A-Z]?|WCSDIM|(CTYPE|CUNIT|CRVAL|CDELT|CRPIX|CROTA|CNAME|CRDER|CSYER)\d+[A-Z]?"
    r"|(CD|PC|PV|PS)\d+_\d+[A-Z]?|(LONPOLE|LATPOLE|RADESYS|EQUINOX)[A-Z]?|RADECSYS|EPOCH|[AB]P?_.*|LT[MV]\d.*"
    r"|(CPDIS|CQDIS|CPERR|CQERR|D2IMDIS|D2IMARR|D2IMERR|AXISCORR|DVERR)\d*.*|(DP|DQ|D2IM)\d.*|WAT\d_\d+|WTMAP"
)


def full_header(hdus, index):
    """A copy of the header of an HDU, completed by what only the primary header says.

    Gain, exposure time, filter and zero point of files with several extensions are often there. As the
    convention INHERIT has it, ``INHERIT = F`` prevents that; and where the primary HDU holds an image of its
    own, ``INHERIT = T`` is needed. Structure and WCS are those of the HDU.
    """
    header = hdus[index].header.copy()
    inherit = header.get("INHERIT")
    if index == 0 or inherit is False or (hdus[0].header.get("NAXIS", 0) > 0 and inherit is not True):
        return header
    for card in hdus[0].header.cards:
        if _OWN.fullmatch(str(card.keyword).upper()) or card.keyword in header:
            continue
        try:
            card.verify("exception")
            header.append(fits.Card.fromstring(card.image), end=True)
        except Exception:  # noqa: S112, a card that cannot be read says nothing
            continue
    return header
