# Licensed under a 3-clause BSD style license - see LICENSE.rst
import pytest

from galshape_cnn.tests.study.inject.scene import injected

FIGURES = ("places", "examples", "completeness", "bias", "predictions", "pulls", "coverage", "flags")


@pytest.mark.parametrize("find", [False, True])
def test_page_holds_verdict_figures_and_tables(tmp_path, find):
    injected(12, output=tmp_path, kinds={"sersic": 1, "clumpy": 1}, find=find)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<b>FAILED</b>" in page  # the stand-in gives every galaxy one size
    assert page.count("data:image/png;base64,") == len(FIGURES)
    assert "https://" not in page
    for name in FIGURES:
        assert (tmp_path / f"{name}.png").stat().st_size > 2000
    for name in ("injected", "bins", "flags", "quality", "verdict"):
        assert (tmp_path / f"{name}.ecsv").exists()
    assert (tmp_path / "injected.fits").exists()
    assert not (tmp_path / ".chunks").exists()
