# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Reader of ASDF bundles that executes nothing and trusts no size it is told.

It reads what `galshape_cnn.infer.network.bundle.Bundle.write` writes, and nothing else: plain YAML without
anchors, dates or tags of other libraries, and arrays in blocks of the same file, whose sizes are known and
bounded before memory is taken.  References to other files are no part of it, so none is ever opened.
"""

import hashlib
import math
import os
import struct
import zlib
from functools import cached_property

import numpy as np

from galshape_cnn.errors import BundleError

__all__ = ["ArrayPlace", "BundleFile"]

_LARGEST_FILE, _LARGEST_TEXT, _LARGEST_ARRAYS = 2**28, 2**23, 2**28  # bytes
_MOST_NODES, _DEEPEST, _LONGEST_TEXT = 500_000, 32, 2**16
_MAGIC = b"\xd3BLK"
_HEADER = struct.Struct(">I4sQQQ16s")
_TYPES = {"float16": "f2", "float32": "f4", "float64": "f8"}
_ARRAY = "tag:stsci.edu:asdf/core/ndarray-"
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str")}
_FOREIGN = "asdf_library", "history"  # what ASDF says of itself


class ArrayPlace:
    """Where an array lies, and its form.

    Parameters
    ----------
    node : dict
        What the file says of it.

    Attributes
    ----------
    source : int
        Number of the block.
    shape : tuple of int
    dtype : numpy.dtype

    Raises
    ------
    BundleError
        If it is in another file, or has a form that bundles do not have.
    """

    def __init__(self, node):
        if not isinstance(node, dict) or set(node) != {"source", "datatype", "byteorder", "shape"}:
            raise BundleError("an array is not a whole block of this file")
        self.source, shape = node["source"], node["shape"]
        if not _is_count(self.source):
            raise BundleError(f"an array lies in {str(self.source)[:60]!r}; allowed: in this file")
        if not isinstance(shape, list) or len(shape) > 4 or not all(map(_is_count, shape)):
            raise BundleError(f"an array has the shape {str(shape)[:60]}")
        kind, order = node["datatype"], node["byteorder"]
        if not isinstance(kind, str) or kind not in _TYPES or order not in ("little", "big"):
            kind = f"{kind}, {order}"[:60]
            raise BundleError(f"an array is of type {kind}; allowed: {', '.join(_TYPES)}")
        self.shape, self.dtype = tuple(shape), np.dtype(("<" if order == "little" else ">") + _TYPES[kind])

    @property
    def nbytes(self):
        """Size in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class BundleFile:
    """The tree and the arrays of a file.

    Parameters
    ----------
    path : str
        Of an existing file.

    Attributes
    ----------
    tree : dict
        Plain values; `ArrayPlace` where there is an array.

    Raises
    ------
    OSError
        If the file cannot be read.
    BundleError
        If it is not what a bundle looks like.
    """

    def __init__(self, path):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LARGEST_FILE:
                raise BundleError(f"it has {size} bytes; allowed: {_LARGEST_FILE}")
            self._content = file.read(size)
        if not self._content.startswith(b"#ASDF"):
            raise BundleError("it does not begin with #ASDF")
        end = self._content.find(b"\n...", 0, _LARGEST_TEXT)
        stop = self._content.find(b"\n", end + 1)
        if end < 0 or stop < 0 or self._content[end + 4 : stop].strip():
            raise BundleError("its text has no end")
        start = self._content.find(b"%YAML", 0, end)
        if start < 0:
            raise BundleError("it holds no text")
        self.tree = _tree(self._content[start:end])
        self._end = stop + 1

    @cached_property
    def _blocks(self):
        """Compression, place, size in the file and in memory, and checksum of each block."""
        blocks, content, place = [], self._content, self._end
        while content[place : place + 4] == _MAGIC:
            head = content[place + 4 : place + 6 + _HEADER.size]
            if len(head) < 2 + _HEADER.size:
                raise BundleError("it is cut short")
            size = int.from_bytes(head[:2], "big")
            flags, how, allocated, used, whole, checksum = _HEADER.unpack(head[2:])
            first = place + 6 + size
            if flags or size < _HEADER.size or used > allocated or first + allocated > len(content):
                raise BundleError("a block is cut short or of another kind")
            blocks.append((how, first, used, whole, checksum))
            place = first + allocated
        return blocks

    def arrays(self, places):
        """Arrays of this file, in the byte order of the machine, from their places in its `tree`.

        ``BundleError`` if the blocks are missing, damaged, or of another size than the arrays.
        """
        if (total := sum(place.nbytes for place in places)) > _LARGEST_ARRAYS:
            raise BundleError(f"its arrays need {total} bytes; allowed: {_LARGEST_ARRAYS}")
        if len({place.source for place in places}) < len(places):
            raise BundleError("two arrays lie in one block")
        return tuple(self._array(place) for place in places)

    def _array(self, place):
        if place.source >= len(self._blocks):
            raise BundleError(f"block {place.source} is missing: it is cut short")
        how, first, used, whole, checksum = self._blocks[place.source]
        if whole != place.nbytes:
            raise BundleError(f"block {place.source} has {whole} bytes for an array of {place.nbytes}")
        raw = memoryview(self._content)[first : first + used]
        if any(checksum) and hashlib.md5(raw, usedforsecurity=False).digest() != checksum:
            raise BundleError(f"block {place.source} does not match its checksum")
        if how == b"zlib":
            raw = _inflated(raw, whole)
        elif any(how):
            raise BundleError(f"compression {how!r}; allowed: zlib, or none")
        if len(raw) != whole:
            raise BundleError(f"block {place.source} does not hold what it says")
        array = np.frombuffer(raw, place.dtype).reshape(place.shape)
        return array.astype(place.dtype.newbyteorder("="))


def _inflated(raw, size):
    """Uncompressed bytes, of which no more than one too many are made."""
    engine = zlib.decompressobj()
    try:
        out = engine.decompress(raw, size + 1)
    except zlib.error as error:
        raise BundleError(f"a block is damaged: {error}") from error
    if len(out) != size or not engine.eof:
        raise BundleError("a block inflates to another size than it says")
    return out


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


class _Open:
    """A mapping or sequence that is being read."""

    def __init__(self, event, is_map, start):
        self.tag, self.is_map, self.key = event.tag, is_map, None
        self.anchor, self.start = event.anchor, start  # its name, if it has one, and the events before it
        self.value = {} if is_map else []

    def take(self, child):
        if not self.is_map:
            self.value.append(child)
        elif self.key is None:
            if not isinstance(child, str):
                raise BundleError(f"a key is {str(child)[:40]}; allowed: text")
            if child in self.value:
                raise BundleError(f"the key {child[:40]!r} is there twice")
            self.key = (child,)
        else:
            self.value[self.key[0]], self.key = child, None


def _tree(text):
    """Plain values of a YAML document, read one event at a time: nothing is followed or nested deep."""
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    open_nodes, root, count, anchors = [], None, 0, {}
    try:
        loader = base(text.decode("utf-8"))
        while loader.check_event():
            event, count = loader.get_event(), count + 1
            if isinstance(event, yaml.AliasEvent):  # of something that stands twice; it counts each time
                if event.anchor not in anchors:
                    raise BundleError("its text refers to itself")
                count += anchors[event.anchor][1]
            if count > _MOST_NODES:
                raise BundleError("its text has too many entries")
            if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                if len(open_nodes) >= _DEEPEST:
                    raise BundleError("its text is nested too deep")
                open_nodes.append(_Open(event, isinstance(event, yaml.MappingStartEvent), count))
                continue
            anchor, start = getattr(event, "anchor", None), count
            if isinstance(event, yaml.AliasEvent):
                done, anchor = anchors[event.anchor][0], None
            elif isinstance(event, yaml.ScalarEvent):
                done = _scalar(loader, event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                anchor, start = open_nodes[-1].anchor, open_nodes[-1].start
                done = _closed(open_nodes)
            else:
                continue
            if anchor is not None:
                anchors[anchor] = done, count - start + 1
            if open_nodes:
                open_nodes[-1].take(done)
            elif root is None:
                root = done
            else:
                raise BundleError("its text holds several documents")
    except (yaml.YAMLError, ValueError, LookupError, OverflowError) as error:  # no UTF-8, absurd numbers
        reason = (str(error).splitlines() or ["no YAML"])[0]
        raise BundleError(f"its text is damaged: {reason}") from error
    if not isinstance(root, dict):
        raise BundleError("its text holds no mapping")
    return {key: value for key, value in root.items() if key not in _FOREIGN}


def _closed(open_nodes):
    """The value of the innermost node, which ends."""
    node = open_nodes.pop()
    inside = len(open_nodes) > 0 and not _of_asdf_itself(open_nodes)
    if node.tag is None or not inside:
        return node.value
    if node.is_map and node.tag.startswith(_ARRAY):
        return ArrayPlace(node.value)
    raise BundleError(f"a value has the tag {node.tag[:60]!r}")


def _of_asdf_itself(open_nodes):
    first = open_nodes[0]
    return first.is_map and first.key is not None and first.key[0] in _FOREIGN


def _scalar(loader, event):
    """A number, text, truth value or nothing."""
    import yaml

    if len(event.value) > _LONGEST_TEXT:
        raise BundleError("its text has an entry that is too long")
    tag = event.tag or loader.resolve(yaml.ScalarNode, event.value, event.implicit)
    if tag not in _SCALARS:
        raise BundleError(f"its text holds {event.value[:40]!r} of type {tag.rpartition(':')[2]}")
    return loader.construct_object(yaml.ScalarNode(tag, event.value))
