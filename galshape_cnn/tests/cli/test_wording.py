# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Messages of the command name options, and no arguments of Python."""

import logging

import pytest

from galshape_cnn.cli.wording import in_options, notes_printed
from galshape_cnn.observe.noise.uncertainty import NO_NOISE


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("say which HDU is meant with sci=.", "say which HDU is meant with --sci."),
        ("with sci= or band=. It", "with --sci or --band. It"),
        ("x: bad_bits='~q' (--bad-bits) is not understood", "x: --bad-bits '~q' is not understood"),
        ("m has 8 bits; bad_bits=512 (--bad-bits) is beyond", "m has 8 bits; --bad-bits 512 is beyond"),
        ("say so with ivar (--ivar WHT), otherwise", "say so with --ivar WHT, otherwise"),
        ("for bad_bits (--bad-bits): name it with mask (--mask)", "for --bad-bits: name it with --mask"),
        ("no source found; give positions (--positions)", "no source found; give --positions"),
        ("noise_scale='estimate' mends that", "--noise-scale estimate mends that"),
        ("gain=3, read_noise=0 and a sky", "--gain 3, --read-noise 0 and a sky"),
        ("Then give its level, sky_level=", "Then give its level, --sky-level"),
        ("psf is missing; give psf= for all, or set it in every NDData", "psf is missing; give --psf"),
        ("give them, or stamp_size for its middle", "give them, or --stamp-size for its middle"),
        ("/tmp/psf=3/sky_level.fits is bad", "/tmp/psf=3/sky_level.fits is bad"),
        ("my_error=1.fits and sky_level.fits", "my_error=1.fits and sky_level.fits"),
        ("--psf moffat:fwhm=x: fwhm='x' is not a number", "--psf moffat:fwhm=x: fwhm='x' is not a number"),
        ("two\nlines", "two lines"),
        ("vary={'foo': ...}; allowed: 'n', 'hlr', 'g'", "--vary foo; allowed: 'n', 'hlr', 'g'"),
        ("vary={'hlr': 2} with 2 wavelengths", "--vary hlr=2 with 2 wavelengths"),
        ("kinds={'foo': 1.0}; allowed: 'sersic'", "--kinds foo; allowed: 'sersic'"),
        ("avoid='x'; allowed: 'brighter'", "--avoid x; allowed: 'brighter'"),
        ("l.csv lacks the column 'noise_scale'", "l.csv lacks the column 'noise_scale'"),
        (
            "noise_scale=None and noise_correlation=None take the noise map at its word",
            "--noise-scale none and --noise-correlation none take the noise map at its word",
        ),
    ],
)
def test_messages(message, text):
    assert in_options(message) == text


def test_noise_that_is_missing():
    text = in_options(NO_NOISE)
    assert "NDData" not in text
    assert "error=" not in text
    for option in ("--error SIGMA", "--err,", "--var,", "--ivar", "--weight"):
        assert option in text


def test_notes_are_printed_once(capsys):
    log = logging.getLogger("galshape_cnn.observe.io.fits_hdus")
    level = logging.getLogger("galshape_cnn").level
    log.info("before %d", 1)
    with notes_printed():
        for number in (1, 1, 2):
            log.info("note %d", number)
        log.debug("detail")
    log.info("after")
    assert capsys.readouterr().err == "galshape: note 1\ngalshape: note 2\n"
    assert logging.getLogger("galshape_cnn").level == level
