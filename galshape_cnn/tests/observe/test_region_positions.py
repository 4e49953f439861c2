# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Regions of DS9 as positions."""

import numpy as np
import pytest

from galshape_cnn.errors import FileError, PositionError
from galshape_cnn.observe.io.tables.position_files import read_positions
from galshape_cnn.observe.positions import read_positions_argument
from galshape_cnn.tests.observe.test_positions import celestial

PIXELS = """# Region file format: DS9 version 4.1
global color=green
image
circle(101,51.5,10) # text={galaxy 7}
-circle(3,4,5)
point(11,21)
# text(5,5) text={a remark}
"""


def write(path, text):
    path.write_text(text)
    return path


def test_pixels_of_ds9_count_from_one(tmp_path):
    pytest.importorskip("regions")
    found = read_positions_argument(read_positions(write(tmp_path / "a.reg", PIXELS)))
    np.testing.assert_allclose(found.xy, [[100, 50.5], [10, 20]])
    assert list(found.table["text"].filled("")) == ["galaxy 7", ""]
    assert found.understood == "centres of 2 regions of DS9, 2 left out (excluded, or text)"


def test_regions_on_the_sky(tmp_path):
    pytest.importorskip("regions")
    path = write(tmp_path / "a.reg", 'icrs\nellipse(12:34:56.7,-01:02:02.4,1",2",30)\n')
    np.testing.assert_allclose(
        read_positions_argument(read_positions(path), celestial()).xy, [[49, 49]], atol=1e-3
    )


def test_objects_of_the_package_regions():
    regions = pytest.importorskip("regions")
    circle = regions.CirclePixelRegion(regions.PixCoord(3, 4), 2)
    for positions in ([circle], regions.Regions([circle])):
        np.testing.assert_array_equal(read_positions_argument(positions).xy, [[3, 4]])
    sky = circle.to_sky(celestial())
    with pytest.raises(PositionError, match="regions in pixels and regions on the sky"):
        read_positions_argument([circle, sky], celestial())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("physical\ncircle(1,2,3)\n", "physical.*not supported"),
        ("image\npolygon(1,2,3,4,5,6)\n", "PolygonPixelRegion, which has no centre"),
        ("image\n-circle(1,2,3)\n", "1 regions, and none that marks a galaxy"),
        ("", "is empty"),
    ],
)
def test_regions_that_are_refused(tmp_path, text, match):
    pytest.importorskip("regions")
    with pytest.raises(FileError, match=match):
        read_positions(write(tmp_path / "a.reg", text))


def test_without_the_package(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "regions", None)
    with pytest.raises(FileError, match="install the package regions"):
        read_positions(write(tmp_path / "a.reg", PIXELS))
