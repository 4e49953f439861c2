# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Numbers of the noise that make no sense: refused with the command line, before a file is opened."""

import pytest

from galshape_cnn.cli import main


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--gain", "-1", "-1 is no number above 0, and no header keyword"),
        ("--gain", "nan", "nan is no number above 0"),
        ("--read-noise", "-2", "-2 is no number of at least 0"),
        ("--sky-level", "inf", "inf is no number that is finite"),
        ("--noise-scale", "0", "'0'; allowed: a number above 0, auto, estimate or none"),
        ("--noise-scale", "guess", "'guess'; allowed: a number above 0"),
    ],
)
def test_numbers_out_of_range(option, text, said, capsys):
    assert main(["measure", "no.fits", "-o", "no.ecsv", option, text]) == 2
    assert f"argument {option}: {said}" in capsys.readouterr().err


def test_words_are_keywords_of_the_header(capsys):
    assert main(["measure", "no.fits", "-o", "no.ecsv", "--gain", "GAINKEY"]) == 1
    assert "no.fits does not exist" in capsys.readouterr().err
