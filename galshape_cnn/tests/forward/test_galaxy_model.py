# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Where each parameter stands, for one image and for several."""

import numpy as np
import pytest

from galshape_cnn.forward.galaxy_model import SINGLE, SINGLE_WITHOUT_SKY, GalaxyModel

GRR = GalaxyModel(("g", "r"), (0, 1, 1))


@pytest.mark.parametrize("model", [SINGLE, SINGLE_WITHOUT_SKY, GRR, GalaxyModel(("i",), (0, 0))])
def test_parts_cover_all_parameters_once(model):
    indices = [*range(model.size)]
    parts = [model.fluxes, model.shape, model.centre, model.skies]
    assert sum((indices[part] for part in parts), []) == indices
    assert model.names[model.n] == "n"
    assert model.names[model.hlr] == "hlr"
    assert model.names[model.shear] == ("g1", "g2")
    assert model.names[model.centre] == ("x", "y")
    assert model.reported_names == model.names[: model.centre.start]


def test_linear_and_free_parameters():
    known = GalaxyModel(GRR.bands, GRR.exposures, fit_sky=False)
    assert [GRR.names[k] for k in GRR.linear] == ["flux_g", "flux_r", "sky_0", "sky_1", "sky_2"]
    assert known.linear == [0, 1]
    assert known.free == [*range(8)]
    assert known.amplitudes == GRR.amplitudes


def test_a_model_is_a_key():
    assert hash(GalaxyModel()) == hash(SINGLE)
    assert GalaxyModel() == SINGLE != GRR


def test_the_index_of_one_flux_needs_one_band():
    assert (SINGLE.flux, SINGLE.sky) == (0, 7)
    with pytest.raises(ValueError, match="index of one flux"):
        _ = GRR.flux


def test_rows_without_numbers_are_filled():
    params, known = SINGLE.filled(np.array([[1.0] * 8, [1.0] * 7 + [np.nan]]))
    assert known.tolist() == [True, False]
    assert np.isfinite(params).all()
    np.testing.assert_array_equal(params[0], 1)
