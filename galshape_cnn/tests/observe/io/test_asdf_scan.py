# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""ASDF files that lie, or lead elsewhere, are refused before anything is taken or opened."""

import struct
import zlib

import asdf
import astropy.units as u
import numpy as np
import pytest

from galshape_cnn.errors import FileError
from galshape_cnn.observe.io.asdf_scan import check_asdf
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.observe.noise.uncertainty import noise_from_uncertainty
from galshape_cnn.tests.observe.io.test_damaged_files import time_limit

HEAD = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.5.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n--- !core/asdf-1.1.0\n"
PAYLOAD = np.arange(1600.0).tobytes()


def array(source="0", shape="[40, 40]"):
    """YAML of an array."""
    return (
        f"data: !core/ndarray-1.0.0\n  source: {source}\n  datatype: float64\n  byteorder: little\n"
        f"  shape: {shape}"
    ).encode()


def block(used, size, packing=b"", payload=PAYLOAD):
    """Bytes of a block whose header says ``used`` and ``size``."""
    header = struct.pack(">I4sQQQ16s", 0, packing, used, used, size, b"")
    return b"\xd3BLK" + struct.pack(">H", len(header)) + header + payload


def bomb():
    """Nine lists of ten, each of the one before: a billion nodes."""
    lines = [b"a: &a [1,1,1,1,1,1,1,1,1,1]"]
    for one in range(ord("b"), ord("k")):
        lines.append(b"%c: &%c [" % (one, one) + b",".join([b"*%c" % (one - 1)] * 10) + b"]")
    return b"\n".join([*lines, b"data: *j"])


def written(path, tree, *blocks):
    path.write_bytes(HEAD + tree + b"\n...\n" + b"".join(blocks))
    return path


GOOD = block(len(PAYLOAD), len(PAYLOAD))


@pytest.mark.parametrize(
    ("tree", "blocks", "match"),
    [
        (bomb(), (), "has a tree of more than 2000000 nodes"),
        (array("file:///etc/hostname"), (), "has an array in file:///etc/hostname; only files beside it"),
        (array("http://127.0.0.1:9/x.asdf"), (), "has an array in http:"),
        (array("../secret.asdf"), (), "has an array in ../secret.asdf"),
        (array("/tmp/secret.asdf"), (), "has an array in /tmp/secret.asdf"),
        (b"a: {data: !core/ndarray-1.0.0 {shape: [9, 9], source: 'ftp://x/y'}}", (), "has an array in ftp:"),
        (array(), (block(1 << 40, 1 << 40),), "a block of 1099511627776 bytes is declared"),
        (array(), (block(12800, 1 << 42, b"zlib"),), "a block of 4398046511104 bytes is declared"),
        (array(shape="[400000, 400000]"), (GOOD,), "cannot be read as an ASDF image"),
        (array(shape="[-40, 40]"), (GOOD,), "cannot be read as an ASDF image"),
        (b"a: &x\n  b: *x\n", (), "has no image"),
        (b"data: " + b"[" * 3000 + b"]" * 3000, (), "cannot be read as an ASDF image"),
    ],
)
def test_lies(tmp_path, tree, blocks, match):
    path = written(tmp_path / "a.asdf", tree, *blocks)
    with time_limit(10), pytest.raises(FileError, match=match):
        np.asarray(read_image(path).data)


def test_truth(tmp_path):
    pixels = np.frombuffer(PAYLOAD).reshape(40, 40)
    packed = zlib.compress(PAYLOAD)
    path = written(tmp_path / "a.asdf", array(), block(len(packed), len(PAYLOAD), b"zlib", packed))
    np.testing.assert_array_equal(read_image(path).data, pixels)
    shared = {"x": 1, "list": [1.0, 2.0]}
    tree = {"data": pixels, "meta": {"one": shared, "two": shared, "source": "http://archive", "gain": 2.5}}
    ways = ({}, {"all_array_compression": "zlib"}, {"all_array_storage": "external"})
    for number, options in enumerate(ways):
        name = tmp_path / f"b{number}.asdf"
        asdf.AsdfFile(tree).write_to(name, **options)
        check_asdf(name)
        image = read_image(name)
        np.testing.assert_array_equal(image.data, pixels)
        assert image.meta["GAIN"] == 2.5


@pytest.mark.parametrize(
    ("key", "noise"), [("err", 2e3 * u.nJy), ("var", 4e6 * u.nJy**2), ("ivar", 0.25e-6 / u.nJy**2)]
)
def test_noise_has_its_own_unit(tmp_path, key, noise):
    ones = np.ones((9, 9))
    asdf.AsdfFile({"data": ones * u.uJy, key: noise * ones}).write_to(tmp_path / "a.asdf")
    image = read_image(tmp_path / "a.asdf")
    np.testing.assert_allclose(noise_from_uncertainty(image.uncertainty, image.unit).inverse_variance(), 0.25)
    asdf.AsdfFile({"data": np.ones((9, 9)) * u.s, key: noise * np.ones((9, 9))}).write_to(tmp_path / "b.asdf")
    with pytest.raises(FileError, match="which does not fit an image in s"):
        read_image(tmp_path / "b.asdf")
    asdf.AsdfFile({"data": np.ones((9, 9)), "unit": "mag"}).write_to(tmp_path / "c.asdf")
    with pytest.raises(FileError, match="which are logarithms"):
        read_image(tmp_path / "c.asdf")
