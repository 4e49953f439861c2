# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Magnitudes of the command's tables: where there is no header, there are none."""

import pytest
from astropy.table import QTable

from galshape_cnn.cli import main


@pytest.mark.parametrize("suffix", [".asdf", ".fits"])
def test_mocks_have_no_zero_point(suffix, tmp_path, capsys):
    mocks, table = str(tmp_path / f"mocks{suffix}"), tmp_path / "shapes.ecsv"
    assert main(["simulate", "-n", "3", "--engine", "fast", "-o", mocks]) == 0
    assert main(["measure", mocks, "-o", str(table)]) == 0
    measured = QTable.read(table)
    assert len(measured) == 3
    assert "mag" not in measured.colnames
    assert main(["measure", mocks, "-o", str(table), "--overwrite", "--zeropoint", "25"]) == 0
    assert "mag" in QTable.read(table).colnames
    assert main(["measure", mocks, "-o", str(table), "--overwrite", "--zeropoint", "header"]) == 1
    assert "--zeropoint header: the header states no zero point" in capsys.readouterr().err


def test_zero_points_are_finite(capsys):
    for text in ("nan", "inf", "AB"):
        assert main(["measure", "a.fits", "-o", "b.ecsv", "--zeropoint", text]) == 2
        assert "argument --zeropoint" in capsys.readouterr().err
