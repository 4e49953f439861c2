# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Check of the sizes that FITS headers state against the file, before it is read.

astropy believes headers: a negative axis sends it round in circles, and a huge one takes memory before it is
seen that the file is small.
"""

import bz2
import gzip
import lzma
import math
import os
import re
import zipfile
import zlib
from contextlib import contextmanager

from galshape_cnn.errors import FileError

__all__ = ["check_declared_sizes"]

_BLOCK, _CARD = 2880, 80
#: Headers are not longer than this, in blocks.
_MOST_BLOCKS = 20_000
_READ = 1 << 20  # bytes at a time of what is skipped in a compressed file
#: Largest ratio of pixels to bytes of a tile-compressed image (empty masks, PLIO), and bytes always allowed.
_MOST_COMPRESSION, _ALWAYS_ALLOWED = 20_000, 1 << 28
#: Largest dimension of a WCS, and order of its polynomials: wcslib and astropy take memory by their squares.
_MOST_WCS_AXES, _HIGHEST_ORDER = 99, 99
_DAMAGE = (EOFError, OSError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_SIZES = re.compile(r"Z?BITPIX|Z?NAXIS\d*|ZTILE\d+|PCOUNT|GCOUNT|TFIELDS|WCSAXES[A-Z]?|[AB]P?_ORDER")
_WORDS = ("SIMPLE", "GROUPS", "ZIMAGE")


def check_declared_sizes(path):
    """Refuse a FITS file whose headers say what cannot be, or that ends before its last HDU does.

    ``FileError`` if a size is negative, no whole number, absurd, or beyond the end of the file, which may be
    compressed. Padding may be missing.
    """
    try:
        with _opened(path) as (stream, size):
            if stream is not None:
                _Scan(path, stream, size).run()
    except _DAMAGE as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} is truncated or damaged: {error}") from error


@contextmanager
def _opened(path):
    """Bytes of a file, unpacked, and their number if it is known; None if they cannot be unpacked here."""
    with open(path, "rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        if magic.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(raw) as archive:
                names = archive.namelist()
                if len(names) != 1:
                    yield None, None  # no packed FITS file
                    return
                with archive.open(names[0]) as stream:
                    yield stream, None
        elif magic.startswith(b"\x1f\x8b\x08"):
            yield gzip.GzipFile(fileobj=raw), None
        elif magic.startswith(b"BZ"):
            yield bz2.BZ2File(raw), None
        elif magic.startswith(b"\xfd7zXZ\x00"):
            yield lzma.LZMAFile(raw), None
        elif magic.startswith(b"\x1f\x9d"):
            yield None, None
        else:
            yield raw, os.fstat(raw.fileno()).st_size


class _Scan:
    """One pass over the headers of a file: its bytes, and how many, or None if it takes unpacking to know."""

    def __init__(self, path, stream, size):
        self.path, self.stream, self.size, self.position, self.index = path, stream, size, 0, 0

    def run(self):
        """Walk from HDU to HDU."""
        while True:
            header = self._header()
            if header is None:
                break
            self._skip(self._data_size(header))
            self.index += 1
        if self.size is None:  # what is packed shows its damage only when it is read
            while self.stream.read(_READ):
                pass

    def _header(self):
        """Sizes that the next header declares, each with all of its values; None after the last HDU."""
        found, first = {}, True
        for _ in range(_MOST_BLOCKS):
            block = self.stream.read(_BLOCK)
            self.position += len(block)
            if first and not block.startswith((b"SIMPLE  ", b"XTENSION")):
                return None  # rubbish behind the last HDU, or no FITS: astropy will say it
            first = False
            for start in range(0, len(block) - _CARD + 1, _CARD):
                card = block[start : start + _CARD]
                key = card[:8].rstrip().decode("latin-1")
                if key == "END":
                    return found
                if card[8:10] == b"= " and (_SIZES.fullmatch(key) or key in _WORDS):
                    found.setdefault(key, []).append(card[10:].split(b"/")[0].strip())
            if len(block) < _BLOCK:
                raise FileError(f"{self.path} is truncated in the header of HDU {self.index}")
        raise FileError(f"{self.path}: the header of HDU {self.index} has no end")

    def _data_size(self, header):
        """Bytes of the data, without padding."""
        if header.get("SIMPLE", [b"T"])[0] == b"F":
            return 0  # no standard FITS, of which nothing is known
        numbers = {key: self._number(key, texts) for key, texts in header.items() if key not in _WORDS}
        for key in numbers:
            self._check_wcs(key, numbers[key])
        axes = self._axes(numbers, "NAXIS")
        if not axes:
            return 0
        self._check_bits("BITPIX", numbers.get("BITPIX"))
        groups = header.get("GROUPS", [b"F"])[0] == b"T" and axes[0] == 0
        pixels = math.prod(axes[1:] if groups else axes) + self._count(numbers, "PCOUNT", 0)
        size = abs(numbers["BITPIX"]) // 8 * self._count(numbers, "GCOUNT", 1) * pixels
        if header.get("ZIMAGE", [b"F"])[0] == b"T":
            self._check_tiles(numbers, size)
        return size

    def _refuse(self, what):
        raise FileError(f"{self.path}: the header of HDU {self.index} says {what}")

    def _number(self, key, texts):
        """Whole number of a card, the same wherever it stands."""
        try:
            values = {int(text) for text in texts}
        except ValueError:
            if key.startswith(("WCSAXES", "A", "B")) and key != "BITPIX":
                return 0  # of the WCS, which is looked at later
            self._refuse(f"{key} = {texts[0].decode(errors='replace')}; a whole number is needed")
        if len(values) > 1:
            self._refuse(f"{key} = {' and '.join(map(str, sorted(values)))}")
        return values.pop()

    def _axes(self, numbers, name):
        """Lengths of the axes."""
        count = numbers.get(name)
        if count is None or not 0 <= count <= 999:
            self._refuse(f"{name} = {count}; 0 to 999 is allowed")
        axes = [numbers.get(f"{name}{axis}") for axis in range(1, count + 1)]
        for axis, length in enumerate(axes, 1):
            if length is None or length < 0:
                self._refuse(f"{name}{axis} = {length}; a length >= 0 is needed")
        return axes

    def _count(self, numbers, key, default):
        value = numbers.get(key, default)
        if value < 0:
            self._refuse(f"{key} = {value}; a number >= 0 is needed")
        return value

    def _check_bits(self, key, bits):
        if bits not in (8, 16, 32, 64, -32, -64):
            self._refuse(f"{key} = {bits}; 8, 16, 32, 64, -32 or -64 is needed")

    def _check_tiles(self, numbers, size):
        """Refuse a compressed image that would be larger than such a table can make one."""
        axes = self._axes(numbers, "ZNAXIS")
        self._check_bits("ZBITPIX", numbers.get("ZBITPIX"))
        rows = [axes[0], *([1] * (len(axes) - 1))] if axes else []  # as the standard has it
        tiles = [numbers.get(f"ZTILE{axis}", length) for axis, length in enumerate(rows, 1)]
        if any(side <= 0 for side in tiles):
            self._refuse(f"ZTILE = {tiles}; lengths above 0 are needed")
        largest = max(_MOST_COMPRESSION * size, _ALWAYS_ALLOWED)
        for lengths in (axes, tiles):
            if math.prod(lengths) * abs(numbers["ZBITPIX"]) // 8 > largest:
                self._refuse(f"{'x'.join(map(str, lengths))} pixels, but holds {size} bytes")

    def _check_wcs(self, key, value):
        if key.startswith("WCSAXES") and value > _MOST_WCS_AXES:
            self._refuse(f"{key} = {value}; up to {_MOST_WCS_AXES} is allowed")
        if key.endswith("_ORDER") and value > _HIGHEST_ORDER:
            self._refuse(f"{key} = {value}; up to {_HIGHEST_ORDER} is allowed")

    def _skip(self, size):
        """Go to the next header."""
        end = self.position + size
        span = -(-size // _BLOCK) * _BLOCK
        if self.size is not None:
            if end > self.size:
                self._truncated(end, self.size)
            self.stream.seek(self.position + span)
            self.position += span
            return
        left = span
        while left > 0 and (part := self.stream.read(min(left, _READ))):
            left -= len(part)
        if span - left < size:
            self._truncated(end, self.position + span - left)
        self.position += span - left

    def _truncated(self, end, size):
        raise FileError(f"{self.path} is truncated: HDU {self.index} ends at byte {end}, the file at {size}")
