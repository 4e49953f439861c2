# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The HTML page of a report: style, markup and script, without any data.

The rows live in two JSON blocks.  Only the rows of the visible page are made
into HTML, so that ten thousand galaxies stay quick to sort and filter.
"""

__all__ = ["PAGE"]

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0072B2; --warn: #D55E00; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.2rem 1.6rem; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; }
p { margin: .3rem 0; max-width: 70rem; }
.bar { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: .8rem 0; }
.bar input[type=search] { width: 24rem; max-width: 90vw; }
input, select, button { font: inherit; padding: .2rem .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { position: sticky; top: 0; background: Canvas; text-align: right; z-index: 1;
  border-bottom: 2px solid var(--line); }
th button { all: unset; cursor: pointer; padding: .35rem .5rem; font-weight: 600; white-space: nowrap; }
th button:focus-visible { outline: 2px solid var(--accent); }
th small, td small { font-weight: 400; opacity: .7; }
td:not(.flags) small { display: block; line-height: 1.2; }
td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:hover td { background: var(--soft); }
td.picture, th.picture, td.flags, th.flags { text-align: left; }
td.flags { white-space: normal; min-width: 14rem; max-width: 26rem; }
td.flags b { color: var(--warn); font-weight: 600; }
td.flags .severe { background: var(--warn); color: #fff; padding: 0 .3rem; border-radius: 3px; }
td img { display: block; image-rendering: pixelated; }
details { margin: .5rem 0; }
details td, details th { text-align: left; white-space: normal; position: static; }
details table { width: auto; }
"""

SCRIPT = """
const D = JSON.parse(document.getElementById('rows').textContent);
const P = JSON.parse(document.getElementById('pictures').textContent);
const el = id => document.getElementById(id);
const body = document.querySelector('#shapes tbody');
let order = D.id.map((_, i) => i), sort = {key: null, up: true}, page = 0;
const ENTITIES = {'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'};
const esc = s => String(s).replace(/[&<>"]/g, c => ENTITIES[c]);
const names = D.flags.map(f => FLAGS.filter(d => Math.floor(f / d.value) % 2 === 1));
function show(v, digits) {
  if (v === null) return '–';
  const a = Math.abs(v);
  return a !== 0 && (a >= 1e6 || a < 1e-4) ? v.toExponential(2) : v.toFixed(digits);
}
function digitsFor(e, v) {
  const s = e || Math.abs(v) / 100 || 1;
  return Math.max(0, Math.min(6, 1 - Math.floor(Math.log10(s))));
}
function number(name, i) {
  const v = D[name][i], err = D[name + '_err'] ? D[name + '_err'][i] : undefined;
  if (err === undefined) return show(v, DIGITS[name] ?? 2);
  if (v === null) return '–';
  const k = digitsFor(err, v), e = err === null ? '?' : show(err, k);
  return `${show(v, k)} <small>± ${e}</small>`;
}
function flags(i) {
  if (!names[i].length) return '<small>none</small>';
  const kind = d => d.severe ? 'severe' : '';
  const one = d => `<b class="${kind(d)}">${d.name}</b> <small>${esc(d.description)}</small>`;
  return names[i].map(one).join('<br>');
}
function row(i) {
  const cells = COLUMNS.map(c => `<td>${c === 'id' ? esc(D.id[i]) : number(c, i)}</td>`);
  const picture = P[i] ? `<img width="${3 * SIDE}" height="${SIDE}" src="data:image/webp;base64,${P[i]}" ` +
    `alt="data, model and residual of ${esc(D.id[i])}">` : '<small>no image</small>';
  cells.splice(1, 0, `<td class="picture">${picture}</td>`);
  return `<tr>${cells.join('')}<td class="flags">${flags(i)}</td></tr>`;
}
function draw() {
  const size = +el('size').value, pages = Math.max(1, Math.ceil(order.length / size));
  page = Math.min(Math.max(page, 0), pages - 1);
  body.innerHTML = order.slice(page * size, (page + 1) * size).map(row).join('');
  el('count').textContent = `${order.length} of ${D.id.length} galaxies`;
  el('page').textContent = `page ${page + 1} of ${pages}`;
  el('previous').disabled = page === 0;
  el('next').disabled = page === pages - 1;
}
const OPERATORS = {'<': (a, b) => a < b, '>': (a, b) => a > b, '<=': (a, b) => a <= b,
                   '>=': (a, b) => a >= b, '=': (a, b) => a === b};
function condition(word) {
  const m = word.match(/^([a-z_0-9]+)(<=|>=|<|>|=)(-?[0-9.]+(?:e[-+]?[0-9]+)?)$/i);
  const key = m && m[1].toLowerCase();
  if (m && D[key]) {
    const test = OPERATORS[m[2]], bound = +m[3];
    return i => D[key][i] !== null && test(+D[key][i], bound);
  }
  const negated = word.startsWith('!'), text = word.replace(/^!/, '').toLowerCase();
  return i => negated !== (String(D.id[i]).toLowerCase() === text ||
                           names[i].some(d => d.name.toLowerCase().includes(text)));
}
function select() {
  const words = el('filter').value.replace(/\\s*(<=|>=|<|>|=)\\s*/g, '$1').split(/[\\s&]+/).filter(w => w);
  const tests = words.map(condition), choice = el('flag').value;
  if (choice === 'none') tests.push(i => D.flags[i] === 0);
  else if (choice === 'any') tests.push(i => D.flags[i] !== 0);
  else if (choice) tests.push(i => names[i].some(d => d.name === choice));
  order = D.id.map((_, i) => i).filter(i => tests.every(t => t(i)));
  if (sort.key) {
    const column = D[sort.key], sign = sort.up ? 1 : -1;
    order.sort((a, b) => {
      const x = column[a], y = column[b];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
    });
  }
  page = 0;
  draw();
}
function sortBy(key) {
  sort = {key, up: sort.key === key ? !sort.up : true};
  document.querySelectorAll('#shapes th').forEach(th => {
    const own = th.dataset.key === key;
    th.setAttribute('aria-sort', own ? (sort.up ? 'ascending' : 'descending') : 'none');
    const mark = th.querySelector('.mark');
    if (mark) mark.textContent = own ? (sort.up ? ' ▲' : ' ▼') : '';
  });
  select();
}
document.querySelectorAll('#shapes th[data-key]').forEach(th =>
  th.querySelector('button').addEventListener('click', () => sortBy(th.dataset.key)));
el('filter').addEventListener('input', select);
el('flag').addEventListener('change', select);
el('size').addEventListener('change', draw);
el('previous').addEventListener('click', () => { page -= 1; draw(); });
el('next').addEventListener('click', () => { page += 1; draw(); });
const query = new URLSearchParams(location.hash.slice(1));
if (query.get('filter')) el('filter').value = query.get('filter');
if (query.get('flag')) el('flag').value = query.get('flag');
if (query.get('sort') && D[query.get('sort')]) sortBy(query.get('sort')); else select();
"""

#: Page with the fields ``title``, ``intro``, ``options``, ``head``, ``legend``, ``constants``,
#: ``rows`` and ``pictures``, each written ``{{name}}``.
PAGE = (
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{title}}</title>
<style>"""
    + STYLE
    + """</style>
</head>
<body>
<h1>{{title}}</h1>
{{intro}}
<p>Pictures: data, model (same asinh scale), residual in units of the noise (blue −5 to red +5); pink
pixels are bad. ± is the Cramér–Rao bound.</p>
<details><summary>What the flags mean, and how often each occurs</summary>{{legend}}</details>
<div class="bar">
<label>Filter <input id="filter" type="search" placeholder="snr>20 q<0.5 !EDGE (columns, flags, id)"></label>
<label>Flags <select id="flag">{{options}}</select></label>
<label>Rows <select id="size"><option>25</option><option selected>50</option><option>100</option>
<option>500</option></select></label>
<button id="previous">‹ previous</button><span id="page"></span><button id="next">next ›</button>
<span id="count" role="status"></span>
</div>
<table id="shapes"><thead><tr>{{head}}</tr></thead><tbody></tbody></table>
<script type="application/json" id="rows">{{rows}}</script>
<script type="application/json" id="pictures">{{pictures}}</script>
<script>
{{constants}}
"""
    + SCRIPT
    + """
</script>
</body>
</html>
"""
)
