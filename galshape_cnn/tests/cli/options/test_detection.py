# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Options of the search for galaxies: refused where there is no search."""

import numpy as np
import pytest
from astropy.io import fits

from galshape_cnn.cli import main


@pytest.mark.parametrize("options", [["--find"], ["--cutout"], ["--detect-threshold", "3"]])
def test_with_positions_nothing_is_searched_for(options, tmp_path, capsys):
    fits.writeto(tmp_path / "a.fits", np.ones((200, 200)))
    (tmp_path / "xy.csv").write_text("x,y\n100,100\n")
    args = [str(tmp_path / "a.fits"), "--error", "1", "--positions", str(tmp_path / "xy.csv")]
    assert main(["measure", *args, "-o", str(tmp_path / "o.ecsv"), *options]) == 1
    assert f"{options[0]} is given beside --positions" in capsys.readouterr().err
    assert not (tmp_path / "o.ecsv").exists()
