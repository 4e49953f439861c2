# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`Bundle`: a trained network with its configuration, in one ASDF file.

Arrays and configuration only, never code or pickles: the architecture is rebuilt
from its configuration, on whichever Keras backend the reader uses.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from importlib import resources

import numpy as np

from galshape_cnn.errors import BundleError, FileError, InputError
from galshape_cnn.files import as_path, written_whole
from galshape_cnn.infer.network.bundle_checks import check_bundle, check_weights, places_of
from galshape_cnn.infer.network.safe_asdf import BundleFile

__all__ = ["FORMAT_VERSION", "Bundle"]

#: Version of the file format this package writes, and the newest it reads.  Version 2 may hold a second
#: network, whose weights follow those of the first.
FORMAT_VERSION = 2
_FORMAT = "galshape_cnn bundle"
_KEYS = ("network", "weights", "domain", "prior", "provenance")


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
        `galshape_cnn.forward.psf.width.psf_width`), ``n``, ``g``; in bundles of newer versions of the
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

    @property
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

    @property
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
        """Read a bundle.

        Parameters
        ----------
        path : path-like
            An ASDF file written by `write`.

        Returns
        -------
        bundle : Bundle

        Raises
        ------
        FileError
            If the file does not exist or cannot be opened.
        BundleError
            If it is damaged, not a bundle, or of a newer format; whatever the file holds, nothing else is
            raised, no other file is opened, and no more memory is taken than a network needs.
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
            shapes = check_bundle(**parts)
            places = places_of(tree["weights"], shapes)
            weights = file.arrays(places)
            check_weights(weights)
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
