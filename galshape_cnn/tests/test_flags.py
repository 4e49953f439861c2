# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galshape_cnn.flags import (
    CAUTION,
    FLAG_DEFINITIONS,
    LEVELS,
    SEVERE,
    Flag,
    decode_flags,
    describe_flags,
    quality_of,
)

ALL = sum(d.value for d in FLAG_DEFINITIONS)


def test_bits_are_unique_and_without_gaps():
    assert [d.bit for d in FLAG_DEFINITIONS] == list(range(len(FLAG_DEFINITIONS)))


def test_bits_fit_the_column():
    # FITS has no unsigned 64-bit integers, and readers that make floats of them hold 53 bits
    assert ALL < 2**53


def test_names_are_unique_and_descriptions_plain():
    names = [d.name for d in FLAG_DEFINITIONS]
    assert len(set(names)) == len(names)
    for d in FLAG_DEFINITIONS:
        assert d.name == d.name.upper()
        assert d.description
        assert not d.description.endswith(".")


@pytest.mark.parametrize("definition", FLAG_DEFINITIONS, ids=lambda d: d.name)
def test_constant_decodes_to_its_own_name(definition):
    value = getattr(Flag, definition.name)
    assert value == definition.value == 2**definition.bit
    assert decode_flags(value) == [definition.name]
    assert describe_flags(value) == definition.description


def test_severe_bits():
    assert decode_flags(SEVERE)[:3] == ["NOT_MEASURED", "NO_DATA", "OFF_IMAGE"]
    assert [d.name for d in FLAG_DEFINITIONS if d.severe] == decode_flags(SEVERE)


def test_quality_is_the_worst_level_of_the_flags():
    for d in FLAG_DEFINITIONS:
        assert quality_of(d.value) == LEVELS.index(d.level)
    notes = ALL & ~SEVERE & ~CAUTION
    flags = np.array([0, notes, notes | Flag.FAR_CENTROID, ALL])
    np.testing.assert_array_equal(quality_of(flags), [0, 0, 1, 2])
    assert quality_of(flags).dtype == np.int16


def test_definitions_cannot_be_changed():
    with pytest.raises(AttributeError, match="cannot assign"):
        FLAG_DEFINITIONS[0].bit = 5


@given(st.integers(0, ALL))
def test_decoding_loses_nothing(value):
    assert sum(getattr(Flag, name) for name in decode_flags(value)) == value


def test_zero_is_clean():
    assert decode_flags(0) == []
    assert describe_flags(0) == ""


def test_array_gives_one_list_each():
    flags = np.array([0, Flag.EDGE | Flag.NO_DATA])
    assert decode_flags(flags) == [[], ["NO_DATA", "EDGE"]]


def test_descriptions_are_joined_in_the_order_of_bits():
    assert describe_flags(Flag.MASKED | Flag.NO_DATA) == (
        "no unmasked pixel with noise information; more than 30 % of the stamp's central half is masked"
    )


@pytest.mark.parametrize("value", [-1, ALL + 1, 1 << 40])
def test_undefined_bits_raise(value):
    with pytest.raises(ValueError, match=rf"flags={value} has bits without a definition; known bits: {ALL}"):
        decode_flags(value)
