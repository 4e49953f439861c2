# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Read-only metadata of a catalogue."""

__all__ = ["frozen_meta", "plain_meta"]


def frozen_meta(value):
    """A copy of nested dicts and lists that cannot be changed; `plain_meta` makes it one that can."""
    if isinstance(value, dict):
        return _ReadOnlyDict({name: frozen_meta(one) for name, one in value.items()})
    if isinstance(value, list):
        return _ReadOnlyList(map(frozen_meta, value))
    return value


def plain_meta(value):
    """A copy of nested dicts and lists that can be changed."""
    if isinstance(value, dict):
        return {name: plain_meta(one) for name, one in value.items()}
    return [plain_meta(one) for one in value] if isinstance(value, list) else value


def _refuse(self, *args, **kwargs):
    raise TypeError("the metadata of a catalogue cannot be changed; that of its table, to_table().meta, can")


class _ReadOnlyDict(dict):
    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):  # a dict is unpickled item by item
        return frozen_meta, (plain_meta(self),)


class _ReadOnlyList(list):
    __setitem__ = __delitem__ = __iadd__ = __imul__ = append = clear = extend = insert = _refuse
    pop = remove = reverse = sort = _refuse

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return frozen_meta, (plain_meta(self),)
