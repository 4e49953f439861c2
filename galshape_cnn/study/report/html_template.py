# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The HTML page of a report: style, markup and script, without any data.

The rows live in two JSON blocks.  Only the rows of the visible page are made
into HTML, so that ten thousand galaxies stay quick to sort and filter.  On a
narrow screen each row becomes a card.
"""

__all__ = ["PAGE"]

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0072B2; --warn: #D55E00; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.2rem 1.6rem; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
p { margin: .3rem 0; max-width: 70rem; }
.bar { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: .8rem 0; }
.bar input[type=search] { width: 24rem; max-width: 90vw; }
#problem { color: var(--warn); font-weight: 600; flex-basis: 100%; }
#problem:empty { display: none; }
[aria-invalid=true] { outline: 2px solid var(--warn); }
input, select, button { font: inherit; padding: .2rem .5rem; max-width: 100%; box-sizing: border-box; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { position: sticky; top: 0; background: Canvas; text-align: right; z-index: 1;
  border-bottom: 2px solid var(--line); }
th button { all: unset; cursor: pointer; padding: .35rem .5rem; font-weight: 600; white-space: nowrap; }
th button:focus-visible { outline: 2px solid var(--accent); }
th small, td small { font-weight: 400; opacity: .7; }
td:not(.flags) small { display: block; line-height: 1.2; }
td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:hover td { background: var(--soft); }
td.picture, th.picture, td.flags, th.flags, td.text, th.text { text-align: left; }
td.flags { white-space: normal; min-width: 14rem; max-width: 26rem; }
td.flags b { font-weight: 600; }
td.flags b.caution { color: var(--warn); }
td.flags .severe { background: var(--warn); color: #fff; padding: 0 .3rem; border-radius: 3px; }
td img { display: block; image-rendering: pixelated; }
td .images { display: flex; gap: .4rem; }
details { margin: .5rem 0; }
details td, details th { text-align: left; white-space: normal; position: static; }
details table { width: auto; }
#columns label { display: inline-block; margin-right: .8rem; overflow-wrap: anywhere; }
@media (max-width: 700px) {
  body { margin: .6rem; overflow-wrap: anywhere; }
  .bar label, .bar input[type=search] { width: 100%; }
  .bar select { max-width: 70%; }
  td img { max-width: 100%; }
  #shapes, #shapes tbody, #shapes thead { display: block; }
  #shapes thead tr { display: flex; flex-wrap: wrap; }
  #shapes th { position: static; border: 1px solid var(--line); border-radius: 3px; margin: 1px; }
  #shapes th.picture { display: none; }
  #shapes tbody tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.2rem, 1fr));
    border: 1px solid var(--line); border-radius: 4px; margin: .5rem 0; padding: .3rem; }
  #shapes td { border: 0; padding: .1rem .25rem; text-align: left; white-space: normal; }
  #shapes td[data-label]::before { content: attr(data-label); display: block; opacity: .65; font-size: .8em; }
  #shapes td.picture, #shapes td.flags { grid-column: 1 / -1; min-width: 0; max-width: none; }
}
"""

SCRIPT = """
const D = JSON.parse(document.getElementById('rows').textContent);
const P = JSON.parse(document.getElementById('pictures').textContent);
const el = id => document.getElementById(id);
const body = document.querySelector('#shapes tbody');
let order = D.id.map((_, i) => i), sort = {key: null, up: true}, page = 0;
const ENTITIES = {'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'};
const esc = s => String(s).replace(/[&<>"]/g, c => ENTITIES[c]);
const KEYS = new Map(Object.keys(D).map(key => [key.toLowerCase(), key]));
const label = c => c.key.replace(/_centroid$/, '');
const names = D.flags.map(f => FLAGS.filter(d => Math.floor(f / d.value) % 2 === 1));
function show(v, digits) {
  if (v === null) return '–';
  const a = Math.abs(v);
  if (digits === null) return String(+v.toPrecision(6));
  return a !== 0 && (a >= 1e6 || a < 1e-4) ? v.toExponential(2) : v.toFixed(digits);
}
function digitsFor(e, v) {
  const s = e || Math.abs(v) / 100 || 1;
  return Math.max(0, Math.min(6, 1 - Math.floor(Math.log10(s))));
}
function number(c, i) {
  const errors = D[`${c.key}_${el('error').value}`], v = D[c.key][i];
  if (errors === undefined) return show(v, c.digits);
  if (v === null) return '–';
  const err = errors[i], k = digitsFor(err, v), e = err === null ? '?' : show(err, k);
  return `${show(v, k)} <small>± ${e}</small>`;
}
function cell(c, i) {
  const v = D[c.key][i], text = c.text ? (v === null ? '–' : esc(v)) : number(c, i);
  return `<td data-label="${esc(label(c))}"${c.text ? ' class="text"' : ''}>${text}</td>`;
}
function flags(i) {
  if (!names[i].length) return '<small>no flags</small>';
  const one = d => `<b class="${d.level}">${d.name}</b> <small>${esc(d.description)}</small>`;
  return names[i].map(one).join('<br>');
}
function row(i) {
  const cells = COLUMNS.filter(c => c.shown).map(c => cell(c, i));
  const exposures = SHOWN[i] || [''], height = SIDE * exposures.length;
  const alt = `data, model and residual of ${D.id[i]} ${exposures.join(', ')}`.trim();
  const picture = P[i] ? `<img width="${3 * SIDE}" height="${height}" src="data:image/webp;base64,${P[i]}" ` +
    `alt="${esc(alt)}">` : '<small>no image</small>';
  const beside = exposures.map(one => one && `<small style="height:${SIDE}px">${esc(one)}</small>`).join('');
  cells.splice(COLUMNS[0].shown ? 1 : 0, 0,
    `<td class="picture"><div class="images">${picture}<div>${beside}</div></div></td>`);
  return `<tr>${cells.join('')}<td class="flags">${flags(i)}</td></tr>`;
}
function head() {
  const one = c => {
    const unit = c.unit ? ` <small>${esc(c.unit)}</small>` : '';
    const button = `<button type="button" title="${esc(c.key)}">${esc(label(c))}${unit}` +
      '<span class="mark"></span></button>';
    const kind = c.key === 'flags' ? 'flags' : c.text ? 'text' : '';
    return `<th data-key="${esc(c.key)}" class="${kind}">${button}</th>`;
  };
  const cells = COLUMNS.filter(c => c.shown).map(one);
  cells.splice(COLUMNS[0].shown ? 1 : 0, 0, '<th class="picture">data, model, residual</th>');
  document.querySelector('#shapes thead tr').innerHTML = cells.join('') + one({key: 'flags'});
  document.querySelectorAll('#shapes th[data-key]').forEach(th =>
    th.querySelector('button').addEventListener('click', () => sortBy(th.dataset.key)));
  mark();
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
                   '>=': (a, b) => a >= b, '=': (a, b) => a === b, '!=': (a, b) => a !== b};
function comparison(name, sign, value) {
  const key = KEYS.get(name.toLowerCase());
  if (key === undefined) return `no column ${name}; there are ${[...KEYS.values()].join(', ')}`;
  const column = COLUMNS.find(c => c.key === key);
  if (column && column.text && (sign === '=' || sign === '!=')) {
    const same = i => String(D[key][i] ?? '').toLowerCase() === value.toLowerCase();
    return i => same(i) === (sign === '=');
  }
  if (value === '' || !Number.isFinite(+value)) return `${name}${sign}${value}: a number is needed`;
  return i => D[key][i] !== null && OPERATORS[sign](+D[key][i], +value);
}
function condition(word) {
  const m = word.match(/^([^<>=!]+)(<=|>=|!=|<|>|=)(.*)$/);
  if (m) return comparison(m[1], m[2], m[3]);
  const negated = word.startsWith('!'), text = word.replace(/^!/, '').toLowerCase();
  const known = FLAGS.some(d => d.name.toLowerCase().includes(text)) ||
    D.id.some(id => String(id).toLowerCase() === text);
  if (!known) return `no id or flag ${word.replace(/^!/, '')}; conditions on columns are like snr>20`;
  return i => negated !== (String(D.id[i]).toLowerCase() === text ||
                           names[i].some(d => d.name.toLowerCase().includes(text)));
}
function choose(choice) {
  if (choice === 'none') return i => D.flags[i] === 0;
  if (choice === 'any') return i => D.flags[i] !== 0;
  if (choice.startsWith('quality')) return i => D.quality[i] <= +choice.slice(7);
  return i => names[i].some(d => d.name === choice);
}
function select() {
  const text = el('filter').value.replace(/\\s*(<=|>=|!=|<|>|=)\\s*/g, '$1');
  const found = text.split(/[\\s&]+/).filter(w => w).map(condition);
  const problems = found.filter(one => typeof one === 'string');
  el('problem').textContent = problems.length ? `Not understood, and left out: ${problems.join('; ')}` : '';
  el('filter').setAttribute('aria-invalid', problems.length > 0);
  const tests = found.filter(one => typeof one !== 'string');
  if (el('flag').value) tests.push(choose(el('flag').value));
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
function mark() {
  document.querySelectorAll('#shapes th').forEach(th => {
    const own = th.dataset.key === sort.key;
    th.setAttribute('aria-sort', own ? (sort.up ? 'ascending' : 'descending') : 'none');
    const sign = th.querySelector('.mark');
    if (sign) sign.textContent = own ? (sort.up ? ' ▲' : ' ▼') : '';
  });
}
function sortBy(key) {
  sort = {key, up: sort.key === key ? !sort.up : true};
  mark();
  select();
}
for (const c of COLUMNS) {
  const box = document.createElement('input'), line = document.createElement('label');
  box.type = 'checkbox';
  box.checked = c.shown;
  box.addEventListener('change', () => { c.shown = box.checked; head(); draw(); });
  line.append(box, ' ' + c.key);
  el('columns').append(line);
}
el('filter').addEventListener('input', select);
el('flag').addEventListener('change', select);
el('error').addEventListener('change', draw);
el('size').addEventListener('change', draw);
el('previous').addEventListener('click', () => { page -= 1; draw(); });
el('next').addEventListener('click', () => { page += 1; draw(); });
const query = new URLSearchParams(location.hash.slice(1));
if (query.get('filter')) el('filter').value = query.get('filter');
if (query.get('flag')) el('flag').value = query.get('flag');
head();
if (query.get('sort') && D[query.get('sort')]) sortBy(query.get('sort')); else select();
"""

#: Page with the fields ``title``, ``intro``, ``errors``, ``options``, ``legend``, ``constants``,
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
pixels are bad. ± is the posterior's standard deviation where the number is a mean of it; the standard error,
the Cramér–Rao bound and what structure adds to it, which knows no prior, can be had instead.</p>
<details><summary>What the flags mean, and how often each occurs</summary>{{legend}}</details>
<details><summary>Columns</summary><div id="columns"></div></details>
<div class="bar">
<label>Filter <input id="filter" type="search" placeholder="snr>20 q<0.5 !EDGE (columns, flags, id)"></label>
<label>Rows of <select id="flag">{{options}}</select></label>
<label>± <select id="error">{{errors}}</select></label>
<label>Rows a page <select id="size"><option>25</option><option selected>50</option><option>100</option>
<option>500</option></select></label>
<button id="previous">‹ previous</button><span id="page"></span><button id="next">next ›</button>
<span id="count" role="status"></span><span id="problem" role="alert"></span>
</div>
<table id="shapes"><thead><tr></tr></thead><tbody></tbody></table>
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
