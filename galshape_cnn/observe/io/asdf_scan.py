# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Check of the array sizes that an ASDF file states, before it is read.

A tree of a few hundred bytes can stand for billions of nodes, blocks can declare any size, and arrays can be
said to be in any other file or on the network.
"""

import re

from galshape_cnn.errors import FileError

__all__ = ["check_asdf"]

_LONGEST_TREE = 1 << 26  # bytes
_MOST_NODES = 2_000_000  # once what is referred to is counted each time
_BLOCK_MAGIC = b"\xd3BLK"
#: Largest ratio of an unpacked block to a packed one (of zlib), and bytes that any may have.
_MOST_COMPRESSION, _ALWAYS_ALLOWED = 1100, 1 << 28
#: Sources of arrays: number of a block, or a file beside this one.
_SOURCE = re.compile(r"-?\d+|[\w-][\w.-]*")


def check_asdf(path):
    """Refuse an ASDF file that would hang, take memory that it has no pixels for, or lead elsewhere.

    ``FileError`` if its tree is too large once references are resolved, an array is elsewhere than in this
    file or one beside it, or a block is larger than the file.
    """
    with open(path, "rb") as stream:
        head = stream.read(_LONGEST_TREE)
    end = re.search(rb"\n\.\.\.[ \t]*\r?\n?", head)
    if end is None and len(head) == _LONGEST_TREE:
        raise FileError(f"{path} has a tree of more than {_LONGEST_TREE} bytes")
    _check_tree(head[: len(head) if end is None else end.start() + 1], path)
    if end is not None:
        first = head.find(_BLOCK_MAGIC, end.start())
        if first >= 0:
            _check_blocks(path, first)


def _check_tree(text, path):
    """Count nodes, and look at where arrays are."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    sizes, open_nodes = {}, [_Node(None, None)]
    try:
        for event in yaml.parse(text, Loader=loader):
            node = open_nodes[-1]
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                node.take(None)
                open_nodes.append(_Node(event.anchor, event.tag))
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                done = open_nodes.pop()
                sizes[done.anchor] = done.size
                open_nodes[-1].size += done.size
                if done.source is not None and not _SOURCE.fullmatch(done.source):
                    raise FileError(f"{path} has an array in {done.source}; only files beside it are allowed")
            elif isinstance(event, yaml.ScalarEvent):
                node.take(event.value)
                node.size += 1
            elif isinstance(event, yaml.AliasEvent):
                node.take(None)
                node.size += sizes.get(event.anchor, 1)
            if open_nodes[-1].size > _MOST_NODES:
                raise FileError(f"{path} has a tree of more than {_MOST_NODES} nodes")
    except (yaml.YAMLError, UnicodeError):
        return  # asdf will say it


class _Node:
    """A node whose end has not been seen: its size so far, and where it says that its array is."""

    def __init__(self, anchor, tag):
        self.anchor, self.size, self.source = anchor, 1, None
        self._is_array, self._key = "core/ndarray" in (tag or ""), None

    def take(self, value):
        """One more child: a key, or the value that belongs to it."""
        if self._key is None:
            self._key = (value,)
            return
        if self._is_array and self._key[0] == "source":
            self.source = value
        self._key = None


def _check_blocks(path, position):
    """Refuse blocks that are longer than the file, or would be once they are unpacked."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        stream.seek(position)
        while stream.read(4) == _BLOCK_MAGIC:
            header = stream.read(int.from_bytes(stream.read(2), "big"))
            if len(header) < 48 or int.from_bytes(header[:4], "big") & 1:
                return  # damaged, or the last one, which goes to the end of the file
            allocated, used, data = (int.from_bytes(header[k : k + 8], "big") for k in (8, 16, 24))
            packed = header[4:8].strip(b"\0 ")
            largest = max(_MOST_COMPRESSION * used, _ALWAYS_ALLOWED) if packed else max(used, allocated)
            if stream.tell() + used > size or data > largest:
                raise FileError(
                    f"{path} cannot be read as an ASDF image: a block of {data} bytes is declared in {size}"
                )
            stream.seek(allocated, 1)
