# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`Bundle`: a trained network with its configuration, in one ASDF file.

Arrays and configuration only, never code or pickles: the architecture is rebuilt
from its configuration, on whichever Keras backend the reader uses.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources

import numpy as np

from galshape_cnn.errors import BundleError, FileError, InputError
from galshape_cnn.files import as_path, written_whole
from galshape_cnn.infer.network.layout import features_of_update, network_shapes, update_shapes
from galshape_cnn.infer.network.safe_asdf import ArrayPlace, BundleFile
from galshape_cnn.infer.network.trust import AXES, check_region
from galshape_cnn.infer.posterior.prior import Prior

__all__ = ["FORMAT_VERSION", "Bundle"]

#: Version of the file format this package writes, and the newest it reads.  Version 2 may hold a second
#: network, whose weights follow those of the first.
FORMAT_VERSION = 2
_FORMAT = "galshape_cnn bundle"
_KEYS = ("network", "weights", "domain", "prior", "provenance")
_RANGES = ("snr", "hlr", "n", "g", "psf_width", "psf_fwhm")
_LIMITS = ("context", "offset", "noise_spread")
_MOST_PARTS, _MOST_CELLS = 64, 10**6


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained network with what it was trained for.

    Attributes
    ----------
    network : dict
        Architecture, see `galshape_cnn.infer.network.architecture.build_network`; ``update``, if there is a
        second network, see `galshape_cnn.infer.network.architecture.build_update`.
    weights : tuple of ndarray
        In the order of ``keras.Model.weights``, of one network after the other.
    domain : dict
        Ranges of training: ``snr``, ``hlr`` (pixels), ``psf_width`` (pixels, see
        `galshape_cnn.forward.psf.shape.psf_width`), ``n``, ``g``; in bundles of newer versions of the
        package ``offset`` (pixels), ``psf_shape``, ``noise_spread`` and ``prior_limits``: True where the
        network's posterior is to be kept within the limits of its prior.
    prior : dict
        Configuration of the prior, see `galshape_cnn.infer.posterior.prior.Prior`.
    provenance : dict
        Configuration, versions, training history, validation figures.
    trust : dict, optional
        Region in which validation found the network trustworthy, see
        `galshape_cnn.infer.network.trust.check_region`; empty where it was never validated.
    """

    network: dict
    weights: tuple = field(repr=False)
    domain: dict
    prior: dict
    provenance: dict = field(repr=False)
    trust: dict = field(repr=False, default_factory=dict)

    @cached_property
    def sha256(self):
        """Hash of weights, architecture, domain and prior, hexadecimal.

        It names the network, and so leaves out what validation adds to it.
        """
        configuration = {"network": self.network, "domain": self.domain, "prior": self.prior}
        digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode())
        for array in self.weights:
            digest.update(str((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @cached_property
    def trust_sha256(self):
        """Hash of the region of trust and of the network it belongs to, hexadecimal."""
        text = json.dumps([self.sha256, self.trust], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def shipped(cls):
        """The bundle that comes with the package, read from ``galshape_cnn/data``."""
        return cls.read(resources.files("galshape_cnn") / "data" / "universal.asdf")

    @classmethod
    def read(cls, path):
        """Read a bundle, an ASDF file written by `write`.

        ``FileError`` if the file does not exist or cannot be opened, ``BundleError`` if it is damaged, not a
        bundle, or of a newer format; whatever the file holds, nothing else is raised, no other file is
        opened, and no more memory is taken than a network needs.
        """
        name = os.fspath(as_path(path))
        if not os.path.isfile(name):
            raise FileError(f"bundle {name!r} does not exist")
        try:
            file = BundleFile(name)
        except OSError as error:
            raise FileError(f"cannot read the bundle {name!r}: {error.strerror or error}") from error
        except BundleError as error:
            raise BundleError(f"bundle {name!r} is damaged or not ASDF: {error}") from error
        return cls._from_file(file, name)

    @classmethod
    def _from_file(cls, file, name):
        tree = file.tree
        if tree.get("format") != _FORMAT:
            raise BundleError(f"{name!r} is not a bundle of galshape_cnn")
        version = tree.get("format_version")
        if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
            raise BundleError(
                f"bundle {name!r} has format version {version}; this package reads 1 to {FORMAT_VERSION}: "
                "a newer galshape_cnn may read it"
            )
        missing = [key for key in _KEYS if key not in tree]
        if missing:
            raise BundleError(f"bundle {name!r} lacks {missing}")
        parts = {key: tree[key] for key in _KEYS if key != "weights"} | {"trust": tree.get("trust", {})}
        try:
            shapes = _check_bundle(**parts)
            places = _places_of(tree["weights"], shapes)
            weights = file.arrays(places)
            _check_weights(weights)
            bundle = cls(weights=weights, **parts)
            bundle._check_hashes(tree)
        except (InputError, BundleError) as error:
            raise BundleError(f"bundle {name!r}: {error}") from error
        return bundle

    def _check_hashes(self, tree):
        """Compare with the hashes that the file holds."""
        if self.sha256 != tree.get("sha256"):
            raise BundleError("it is damaged: its content does not match its hash")
        if self.trust and self.trust_sha256 != tree.get("trust_sha256"):
            raise BundleError("it is damaged: its region of trust does not match its hash")

    def write(self, path):
        """Write the bundle beside the target, then rename; ``FileError`` if that fails.

        The path should end in ``.asdf``.
        """
        import asdf

        path = os.fspath(path)
        tree = {"format": _FORMAT, "format_version": FORMAT_VERSION, "sha256": self.sha256}
        tree |= {key: getattr(self, key) for key in _KEYS}
        tree["weights"] = [np.array(w) for w in self.weights]
        if self.trust:
            tree |= {"trust": self.trust, "trust_sha256": self.trust_sha256}
        with written_whole(path) as beside:
            asdf.AsdfFile(tree).write_to(beside, all_array_compression="zlib")


def _check_bundle(network, domain, prior, provenance, trust):
    """Shapes of the weights that a bundle's network needs; parts that cannot be used are refused.

    The parts are dicts as a file holds them; ``InputError`` or ``BundleError`` says what is wrong.
    """
    parts = {"network": network, "domain": domain, "prior": prior, "provenance": provenance, "trust": trust}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise BundleError(f"its {name} is a {type(part).__name__}; allowed: a mapping")
        _check_plain(part, name)
    shapes = network_shapes(network)
    if "update" in network:
        shapes = shapes + update_shapes(network["update"], features_of_update(network["components"]))
    _check_domain(domain)
    _check_prior(prior)
    for method, cells in trust.items():
        if not isinstance(cells, dict) or math.prod(len(_listed(cells, axis)) for axis in AXES) > _MOST_CELLS:
            raise BundleError(f"its region of trust of {method[:40]!r} is malformed")
    check_region(trust)
    return shapes


def _places_of(nodes, shapes):
    """Places of the weights in a file, from what its tree says of them and the shapes of `_check_bundle`.

    ``BundleError`` if there are more, fewer or others.
    """
    if not isinstance(nodes, list) or not all(isinstance(node, ArrayPlace) for node in nodes):
        raise BundleError("its weights are no list of arrays")
    if len(nodes) != len(shapes):
        raise BundleError(f"it has {len(nodes)} arrays of weights; its network needs {len(shapes)}")
    for number, (node, shape) in enumerate(zip(nodes, shapes, strict=True)):
        flat = (math.prod(shape[:-1]), shape[-1]) if len(shape) == 4 else shape  # of older versions
        if node.shape not in (shape, flat):
            raise BundleError(f"weights {number} have the shape {node.shape}; its network needs {shape}")
    return nodes


def _check_weights(weights):
    """Refuse weights that are no numbers, or a negative variance, with a ``BundleError``."""
    with np.errstate(over="ignore"):
        for number, array in enumerate(weights):
            if not np.isfinite(array.astype(np.float32)).all():
                raise BundleError(f"weights {number} are not finite")
    if (weights[1] < 0).any():
        raise BundleError("a variance of its context is negative")


def _check_plain(node, name):
    """Refuse arrays where numbers and text are meant."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, ArrayPlace):
        raise BundleError(f"its {name} holds an array")
    for child in children:  # files are not nested deep
        _check_plain(child, name)


def _is_number(value):
    """Whether it is a real number in reach of double precision, or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 or abs(value) == np.inf


def _is_range(value):
    return (
        isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]
    )


def _check_domain(domain):
    """Refuse a domain that the flags could not use."""
    good = all(_is_range(domain[key]) for key in _RANGES if key in domain)
    good = good and all(_is_number(domain[key]) for key in _LIMITS if key in domain)
    shape = domain.get("psf_shape", [[0, 1]] * 3)
    good = good and isinstance(shape, list) and len(shape) == 3 and all(map(_is_range, shape))
    if not good or not isinstance(domain.get("prior_limits", True), bool):
        raise BundleError("its domain is malformed: a range is no pair of increasing numbers")


def _check_prior(prior):
    """Refuse a prior that cannot be evaluated."""
    for name, spec in prior.items():
        parts = spec.get("parts", []) if isinstance(spec, dict) else []
        if not isinstance(parts, list) or len(parts) > _MOST_PARTS:
            raise BundleError(f"its prior of {name[:40]!r} has too many parts")
    _check_finite(prior)
    try:
        with np.errstate(all="raise"):
            Prior(prior)
    except (InputError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise BundleError(f"its prior cannot be used: {error}") from error


def _check_finite(node):
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            _check_finite(child)
    elif isinstance(node, int | float) and not abs(node) < 1e30:
        raise BundleError("its prior holds a number that is not finite")


def _listed(cells, axis):
    edges = cells.get(axis)
    if not isinstance(edges, list):
        raise BundleError("its region of trust is malformed")
    return edges
