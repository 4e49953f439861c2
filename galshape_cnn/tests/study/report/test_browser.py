# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The report as a browser shows it: rows sort and filter, thumbnails load, ten thousand rows stay quick."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import QTable

from galshape_cnn.flags import Flag
from galshape_cnn.study.report import html_report as report
from galshape_cnn.study.report.html_report import write_report
from galshape_cnn.study.report.thumbnails import thumbnails
from galshape_cnn.study.simulate.field import simulate_field
from galshape_cnn.tests.standin import StandInEstimator

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
OPTIONS = ["--headless", "--disable-gpu", "--no-sandbox", "--disable-dev-shm-usage"]
OPTIONS += ["--disable-background-networking", "--no-first-run", "--mute-audio"]

# Runs in the page once it and its pictures are loaded, without waiting for anything else, and leaves
# its findings in an element that --dump-dom prints.
PROBE = """
<script>
addEventListener('load', () => {
  const out = {}, el = id => document.getElementById(id);
  const shown = () => [...document.querySelectorAll('#shapes tbody tr')];
  const text = (k) => shown().map(tr => tr.children[k].textContent);
  const type = (id, value, event) => { el(id).value = value; el(id).dispatchEvent(new Event(event)); };
  try {
    const pictures = () => [...document.querySelectorAll('#shapes tbody img')];
    out.rows = shown().length;
    out.pictures = pictures().map(img => [img.naturalWidth, img.naturalHeight]);
    out.flags = shown().map(tr => tr.lastElementChild.textContent);
    const snr = [...document.querySelectorAll('#shapes th')].findIndex(th => th.dataset.key === 'snr');
    document.querySelector('#shapes th[data-key=snr] button').click();
    out.ascending = text(snr).map(Number);
    document.querySelector('#shapes th[data-key=snr] button').click();
    out.descending = text(snr).map(Number);
    type('filter', FILTER, 'input');
    out.filtered = text(snr).map(Number);
    out.count = el('count').textContent;
    out.problem = el('problem').textContent;
    type('filter', 'snr>30 colour>1', 'input');
    out.unknown = [el('problem').textContent, shown().length];
    type('filter', 'snr>big', 'input');
    out.no_number = el('problem').textContent;
    type('filter', 'galaxy7', 'input');
    out.no_name = el('problem').textContent;
    type('filter', 'band=G', 'input');
    out.band = text(0);
    type('filter', '', 'input');
    const flux = [...document.querySelectorAll('#shapes th')].findIndex(th => th.dataset.key === 'flux');
    out.errors = [...el('error').options].map(one => one.value);
    out.first = text(flux)[0];
    type('error', 'err', 'change');
    out.bound = text(flux)[0];
    out.width = [innerWidth, document.documentElement.scrollWidth];
    type('flag', 'none', 'change');
    out.clean = shown().length;
    type('flag', 'EDGE', 'change');
    out.edge = text(0);
    type('flag', '', 'change');
    const start = performance.now();
    document.querySelector('#shapes th[data-key=n] button').click();
    type('filter', 'snr>1', 'input');
    out.milliseconds = performance.now() - start;
    out.last = el('page').textContent;
    out.drawn = shown().length;
  } catch (error) { out.error = String(error); }
  const found = document.createElement('pre');
  found.id = 'found';
  found.textContent = JSON.stringify(out);
  document.body.append(found);
});
</script>
"""


def browse(path, home, condition="snr>30", width=1400):
    """What the probe finds on a page."""
    page = path.read_text(encoding="utf-8")
    probe = PROBE.replace("FILTER", json.dumps(condition))
    path.write_text(page.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    command = [BROWSER, *OPTIONS, f"--user-data-dir={home}", "--virtual-time-budget=20000", "--dump-dom"]
    command += [f"--window-size={width},900"]
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, env=environment
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the page did not finish: {done.stderr[-2000:]}"
    out = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert "error" not in out, out["error"]
    return out


@pytest.fixture(scope="module")
def catalog():
    field = simulate_field(seed=3, n_galaxies=6, size=320)
    made = StandInEstimator()(field.to_nddata(), psf=field.psf, positions=field.positions, method="ml")
    measurement = made.measurement
    flags = np.array([0, Flag.EDGE, 0, Flag.NEIGHBOR | Flag.POOR_FIT, Flag.NO_DATA, 0])
    snr = np.array([12.0, 35.0, 8.0, 90.0, 41.0, 20.0])
    covariance = 4 * measurement.crb
    inputs = QTable({"band": list("grgrgr"), "mag": np.arange(20.0, 26), "mag_err": np.full(6, 0.1)})
    inputs["a_long_name_of_a_column"] = ["a text that does not end, and has no place on a narrow screen"] * 6
    measurement = replace(measurement, flags=flags, snr=snr, covariance=covariance)
    return replace(made, measurement=measurement, inputs=inputs)


def test_rows_sort_and_filter_and_thumbnails_load(catalog, tmp_path):
    path = tmp_path / "report.html"
    write_report(catalog, path)
    found = browse(path, tmp_path / "home")
    assert found["rows"] == 6
    assert len(found["pictures"]) == 6
    assert all(width == 3 * height > 0 for width, height in found["pictures"])
    assert found["ascending"] == [8, 12, 20, 35, 41, 90]
    assert found["descending"] == found["ascending"][::-1]
    assert found["filtered"] == [90, 41, 35]
    assert found["count"] == "3 of 6 galaxies"
    assert found["problem"] == ""
    assert found["clean"] == 3
    assert found["edge"] == [str(catalog.id[1])]
    assert "stamp is cut by the edge of the image" in found["flags"][1]


def test_conditions_that_are_not_understood_are_said_and_left_out(catalog, tmp_path):
    path = tmp_path / "report.html"
    write_report(catalog, path)
    found = browse(path, tmp_path / "home")
    message, rows = found["unknown"]
    assert "no column colour; there are id, x_centroid" in message
    assert rows == 3  # those of the condition that was understood
    assert "snr>big: a number is needed" in found["no_number"]
    assert "no id or flag galaxy7" in found["no_name"]
    assert sorted(found["band"]) == [str(catalog.id[k]) for k in (0, 2, 4)]


def test_errors_are_posterior_widths_and_the_bound_on_demand(catalog, tmp_path):
    path = tmp_path / "report.html"
    write_report(catalog, path)
    found = browse(path, tmp_path / "home")
    assert found["errors"] == ["std", "err"]
    width, bound = (float(found[name].split("±")[1]) for name in ("first", "bound"))
    assert width == pytest.approx(2 * bound, rel=0.1)  # two digits are shown
    assert width == pytest.approx(catalog.flux_std[0].value, rel=0.05)


def test_a_narrow_screen_shows_cards_without_scrolling_sideways(catalog, tmp_path):
    path = tmp_path / "report.html"
    write_report(catalog, path, title="a_title_without_any_blank_that_is_longer_than_the_screen_is_wide.fits")
    for width in (400, 500):
        found = browse(path, tmp_path / "home", width=width)
        inner, content = found["width"]
        assert inner <= 500
        assert content <= inner


def test_ten_thousand_rows_stay_usable(catalog, tmp_path, monkeypatch):
    many = catalog[np.resize(np.arange(6), 10_000)]
    many = replace(many, ids=np.arange(10_000))
    # one picture is as heavy as another; drawing them all is another matter
    few = list(thumbnails(catalog))
    pictures = [report._encoded([report._strip(images, (31.5, 31.5), 3.0, 48)], 50) for _, images in few]
    monkeypatch.setattr(report, "_pictures", lambda catalog: [pictures[i % 6] for i in range(len(catalog))])
    path = tmp_path / "report.html"
    write_report(many, path)
    assert path.stat().st_size < 40e6
    found = browse(path, tmp_path / "home")
    assert found["rows"] == found["drawn"] == 50  # only a page of rows is made into HTML
    assert found["last"] == "page 1 of 200"
    assert found["milliseconds"] < 1500
