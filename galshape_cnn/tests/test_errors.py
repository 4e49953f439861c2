# Licensed under a 3-clause BSD style license - see LICENSE.rst
import copy
import pickle

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator, errors
from galshape_cnn.forward.psf.checks import mended_psf
from galshape_cnn.forward.psf.convert import psf_arrays

EXCEPTIONS = [getattr(errors, name) for name in errors.__all__ if name != "warn"]


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_survives_pickling_and_copying(kind):
    error = kind("psf: came (4, 4), allowed are odd sizes")
    for twin in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert twin.args == error.args


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_is_documented(kind):
    assert kind.__doc__
    if not issubclass(kind, Warning) and kind is not errors.GalshapeError:
        assert f"``{kind.__name__}``" in errors.__doc__


@pytest.mark.parametrize("kind", [k for k in EXCEPTIONS if not issubclass(k, Warning)])
def test_one_except_clause_catches_all(kind):
    assert issubclass(kind, errors.GalshapeError)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.NoiseError, ValueError),
        (errors.PSFError, ValueError),
        (errors.PositionError, ValueError),
        (errors.BundleError, ValueError),
        (errors.FileError, OSError),
        (errors.ForkedError, RuntimeError),
        (errors.GalshapeWarning, UserWarning),
    ],
)
def test_can_be_caught_as_the_builtin(kind, builtin):
    assert issubclass(kind, builtin)


def test_file_error_keeps_a_plain_message():
    assert str(errors.FileError("cannot read a.fits: truncated")) == "cannot read a.fits: truncated"


def test_warnings_point_at_the_line_of_the_user():
    """Not into the package or its decorators, where Python would show the second of two only once."""
    psf = np.exp(-np.sum(np.mgrid[-7:8, -7:8] ** 2, axis=0) / 5)
    calls = (
        lambda: ShapeEstimator()(np.zeros((1, 16, 16)), psf=psf, error=1.0, mask=True),
        lambda: mended_psf(psf_arrays(np.roll(psf, 2, 0))),
        lambda: errors.warn("by itself"),
    )
    for call in calls:
        with pytest.warns(errors.GalshapeWarning) as caught:
            call()
        assert [(one.filename, one.lineno) for one in caught] == [(__file__, call.__code__.co_firstlineno)]
