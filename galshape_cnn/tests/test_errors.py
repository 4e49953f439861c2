# Licensed under a 3-clause BSD style license - see LICENSE.rst
import copy
import pickle

import pytest

from galshape_cnn import errors

EXCEPTIONS = [getattr(errors, name) for name in errors.__all__]


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
