// SPDX-License-Identifier: Apache-2.0
// The admin page: a live request drawn level by level, the flight recorder, the models. Text from the server goes into
// the document as text only.
'use strict';

const LEVEL_MS = 700;      // how long each level is looked at while playing
const REFRESH_MS = 2000;   // of requests and models
const PATIENCE_MS = 5000;  // with a server that takes a connection and says nothing
const MOST_SHOWN = 24;     // beams of one level, those that lead to a video excepted

const $ = id => document.getElementById(id);

// make('p', {class: 'note'}, 'text', child)
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'share')
      element.style.setProperty('--share', value);
    else if (value !== undefined && value !== false)
      element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter(child => child !== undefined && child !== ''));
  return element;
}

function percent(logProb) {
  const p = Math.exp(logProb);
  if (p >= 0.1) return (100 * p).toFixed(1) + ' %';
  if (p >= 0.0001) return (100 * p).toPrecision(2) + ' %';
  return p.toExponential(1).replace('e-', '·10⁻').replace(/⁻(\d+)/, (_, digits) => '⁻' + [
    ...digits
  ].map(digit => '⁰¹²³⁴⁵⁶⁷⁸⁹'[digit]).join(''));
}

function time(us) {
  if (us < 1000) return us.toFixed(us < 10 ? 1 : 0) + ' µs';
  return us < 1e6 ? (us / 1000).toFixed(us < 1e4 ? 2 : 1) + ' ms' : (us / 1e6).toFixed(2) + ' s';
}

// A time of this day, or one of another day with its date: what failed and what serves may be weeks old.
function moment(ms) {
  const at = new Date(ms), today = at.toDateString() === new Date().toDateString();
  return today ? at.toLocaleTimeString() : at.toLocaleString();
}

const plural = (count, word) => `${count} ${word}${count === 1 ? '' : 's'}`;

const kStages = ['prepare', 'queue', 'encode', 'decode', 'resolve'];

// Where a request's time went, as a bar of its stages.
function timesBar(times, labels) {
  const bar = make('div', {class: 'times'});
  for (const stage of kStages) {
    const us = times[stage] || 0;
    if (us <= 0 && !labels) continue;
    bar.append(
        make('span', {class: stage, share: us, title: `${stage} ${time(us)}`}, labels ? `${stage} ${time(us)}` : ''));
  }
  return bar;
}

// ---- One live request: a model of what is drawn, and the drawing.

// Adds to every beam: `path` (codes from the root), `kept` (has a child), `answer` (leads to a video).
function understand(answer) {
  answer.levels.forEach((level, depth) => {
    const before = depth > 0 ? answer.levels[depth - 1].beams : null;
    level.beams.forEach((beam, row) => {
      const parent = before && before[beam.parent];
      beam.depth = depth;
      beam.row = row;
      beam.up = parent || null;
      beam.path = level.end ? parent.path : [...(parent ? parent.path : []), beam.code];
      if (parent) parent.kept = true;
    });
  });
  const last = answer.levels.length ? answer.levels[answer.levels.length - 1].beams : [];
  for (const beam of last) beam.kept = true;
  const bySid = new Map(last.map(beam => [beam.path.join(','), beam]));
  answer.items.forEach(item => {
    item.up = bySid.get(item.sid.join(',')) || null;
    for (let beam = item.up; beam; beam = beam.up) beam.answer = true;
  });
}

function eventBox(event) {
  const played = event.play_time_ms ? time(event.play_time_ms * 1000) + ' watched' : '';
  return make(
      'li', {class: event.sid ? 'event' : 'event unknown'}, make('strong', {}, event.title || `item ${event.item}`),
      make(
          'span', {class: 'meta'},
          event.sid ? make('span', {class: 'sid'}, `<${event.sid.join(',')}>`) :
                      make('span', {}, 'not in the catalogue'),
          event.title ? make('span', {class: 'id'}, event.item) : '', make('span', {}, played),
          make('span', {}, event.labels.join(', '))));
}

function beamBox(beam, level, best) {
  const kind = beam.answer ? 'answer' : beam.kept ? 'kept' : 'dropped';
  const box = make(
      'button', {
        type: 'button',
        tabindex: '-1',
        class: `beam ${kind}`,
        title: `log-probability ${beam.log_prob.toFixed(4)} of this code, ${beam.score.toFixed(4)} of the prefix`,
        'aria-label': `${level.end ? 'end of' : 'code ' + beam.code + ', prefix'} ${beam.path.join(' ')}: ` +
            `${percent(beam.score)}; ${percent(beam.log_prob)} given the codes before` +
            (kind === 'answer'      ? '; leads to a video' :
                 kind === 'dropped' ? '; no child was kept' :
                                      ''),
      },
      make(
          'span', {class: 'code'},
          make('span', {class: 'before'}, level.end ? '' : beam.path.slice(0, -1).map(code => code + ',').join('')),
          level.end ? 'end' : String(beam.code)),
      make('span', {class: 'prob'}, percent(beam.score)), make('span', {class: 'given'}, 'given prefix'),
      make('span', {class: 'given'}, percent(beam.log_prob)),
      make('span', {class: 'bar-of'}, make('i', {share: `${Math.max(1, 100 * Math.exp(beam.score - best))}%`})));
  box.beam = beam;
  beam.box = box;
  return make('li', {}, box);
}

function videoBox(item, rank) {
  const box = make(
      'button', {type: 'button', tabindex: '-1', class: 'video'},
      make('strong', {}, `${rank}. ${item.title || 'item ' + item.item}`),
      make(
          'span', {class: 'meta'}, make('span', {}, percent(item.score)),
          item.value === undefined ? '' : make('span', {}, `value ${item.value.toPrecision(4)}`),
          make('span', {class: 'sid'}, `<${item.sid.join(',')}>`),
          item.title ? make('span', {class: 'id'}, item.item) : ''));
  box.beam = item;
  item.box = box;
  return make('li', {}, box);
}

function column(kind, heading, text, boxes, more) {
  const list = make('ol', {}, ...boxes);
  return make(
      'div', {class: `column ${kind} ahead`}, make('h3', {}, heading), make('p', {}, text), list,
      more > 0 ? make('p', {class: 'more'}, `and ${more} more`) : '');
}

function levelColumn(level, depth) {
  const best = level.beams.length ? level.beams[0].score : 0;
  const shown = level.beams.filter((beam, row) => row < MOST_SHOWN || beam.answer);
  const heading = level.end ? 'End' : `Level ${depth + 1}`;
  const of = level.width > level.beams.length ? ` of ${level.width}` : '';
  const text = `${level.beams.length}${of} ${level.beams.length === 1 ? 'beam' : 'beams'}` +
      (level.step_us === undefined ? '' : ` in ${time(level.step_us)}`);
  return column(
      'level', heading, text, shown.map(beam => beamBox(beam, level, best)), level.beams.length - shown.length);
}

const view = {
  answer: null,
  columns: [],
  shown: 0,
  timer: 0
};

function draw(answer) {
  understand(answer);
  view.answer = answer;
  const history = column(
      'history', 'History',
      answer.history.length === 0 ? 'none: a cold user' :
                                    `${plural(answer.history.length, 'event')}, newest first` +
              (answer.unknown_items ? `; ${answer.unknown_items} not in the catalogue` : '') +
              (answer.dropped_events ? `; ${answer.dropped_events} that the model does not look at` : ''),
      answer.history.slice().reverse().slice(0, MOST_SHOWN).map(eventBox), answer.history.length - MOST_SHOWN);
  const videos = column(
      'videos', 'Videos', plural(answer.items.length, 'video'),
      answer.items.map((item, index) => videoBox(item, index + 1)));
  view.columns = [history, ...answer.levels.map(levelColumn), videos];
  $('columns').replaceChildren(...view.columns);
  for (const element of view.columns) {
    const first = element.querySelector('button');
    if (first) first.tabIndex = 0;
  }
  $('times').replaceChildren(...timesBar(answer.times_us, true).children);
  $('times').setAttribute('aria-label', 'Time: ' + [...$('times').children].map(part => part.title).join(', '));
  $('summary').replaceChildren(
      `${time(answer.times_us.total)}, model `, make('span', {class: 'id'}, answer.model_version),
      answer.context_cached ? ', history from the cache' : '');
  $('path').textContent = '';
  $('result').hidden = false;
}

// Lines from a beam to its parent, for the levels shown; thicker where more probability flows.
function drawLinks() {
  const paths = [];  // drawn at once: a measurement behind every line would lay out the page for each
  $('links').replaceChildren();
  if (!view.answer) return;
  const origin = $('canvas').getBoundingClientRect();
  const link = (from, to, child) => {
    const x1 = from.right - origin.left, y1 = (from.top + from.bottom) / 2 - origin.top;
    const x2 = to.left - origin.left, y2 = (to.top + to.bottom) / 2 - origin.top;
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('d', `M${x1} ${y1}C${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2} ${x2} ${y2}`);
    path.setAttribute('stroke-width', (1 + 5 * Math.sqrt(Math.exp(Math.min(0, child.score)))).toFixed(2));
    if (child.answer || child.item) path.classList.add('answer');
    child.line = path;
    paths.push(path);
  };
  const rootList = view.columns[0].querySelector('ol').getBoundingClientRect();
  const headed = view.columns[0].getBoundingClientRect();
  const root = rootList.height > 0 ? rootList : headed;
  const drawn = [...view.answer.levels.map(level => level.beams), view.answer.items].slice(0, view.shown);
  for (const beams of drawn) {
    for (const beam of beams) {
      if (!beam.box) continue;
      const from = beam.up ? beam.up.box && beam.up.box.getBoundingClientRect() : beam.item ? null : root;
      if (from) link(from, beam.box.getBoundingClientRect(), beam);
    }
  }
  $('links').append(...paths);
}

// Shows the history and `count` further columns.
function show(count) {
  const last = view.columns.length - 1;
  view.shown = Math.max(0, Math.min(last, count));
  view.columns.forEach((element, index) => element.classList.toggle('ahead', index > view.shown));
  const level = view.answer.levels[view.shown - 1];
  $('stage').textContent = view.shown === 0 ? 'the history' :
      view.shown === last                   ? 'the videos' :
      level.end                             ? 'the end token' :
                                              `level ${view.shown} of ${view.answer.levels.filter(l => !l.end).length}`;
  $('first').disabled = $('back').disabled = view.shown === 0;
  $('forward').disabled = view.shown === last;
  const newest = view.columns[view.shown], scroll = $('scroll');
  const right = newest.offsetLeft + newest.offsetWidth - scroll.clientWidth;
  if (right > scroll.scrollLeft || newest.offsetLeft < scroll.scrollLeft) scroll.scrollLeft = Math.max(0, right);
  drawLinks();
}

function pause() {
  clearInterval(view.timer);
  view.timer = 0;
  $('play').textContent = 'Play';
}

function play() {
  pause();
  if (view.shown === view.columns.length - 1) show(0);
  $('play').textContent = 'Pause';
  view.timer = setInterval(() => {
    show(view.shown + 1);
    if (view.shown === view.columns.length - 1) pause();
  }, LEVEL_MS);
}

// The way from the root to a beam or video is marked and read out.
function mark(beam) {
  for (const element of document.querySelectorAll('.on')) element.classList.remove('on');
  if (!beam) return;
  const steps = [];
  for (let at = beam; at; at = at.up) {
    at.box && at.box.classList.add('on');
    at.line && at.line.classList.add('on');
    if (!at.item && at.log_prob !== undefined) steps.unshift(percent(at.log_prob));
  }
  const path = beam.item ? beam.sid : beam.path;
  $('path').textContent =
      `<${path.join(',')}>: ${steps.join(' × ')}${steps.length > 1 ? ' = ' + percent(beam.score) : ''}`;
}

function moveFocus(event) {
  const box = event.target.closest('.beam, .video');
  if (!box) return;
  const boxes = [...box.closest('ol').querySelectorAll('button')];
  const at = boxes.indexOf(box);
  const children = () => [...document.querySelectorAll('.beam, .video')].find(other => other.beam.up === box.beam);
  const next = {
    ArrowDown: () => boxes[at + 1],
    ArrowUp: () => boxes[at - 1],
    ArrowLeft: () => box.beam.up && box.beam.up.box,
    ArrowRight: children,
    Home: () => boxes[0],
    End: () => boxes[boxes.length - 1]
  }[event.key];
  if (!next) return;
  event.preventDefault();
  const target = next();
  if (target && !target.closest('.ahead')) target.focus();
}

function requestOf() {
  const history = $('history').value.split(/[\s,;]+/).filter(Boolean);
  const wrong = history.find(id => !/^\d{1,20}$/.test(id));
  if (wrong !== undefined) throw new Error(`history: "${wrong}" is not an item id; give numbers`);
  if (history.length === 0 && $('user').value === '') throw new Error('give a history, a user id or both');
  return {
    userId: $('user').value,
    history: history.map(id => ({itemId: id})),
    topK: Number($('top').value),
    beamWidths: [Number($('beams').value)],
    excludeHistory: $('exclude').checked,
  };
}

async function run(event) {
  event.preventDefault();
  pause();
  $('error').hidden = true;
  $('run').disabled = true;
  try {
    const answer = await fetch('debug/recommend', {
      method: 'POST',
      headers: {'Content-Type': 'application/json'},
      body: JSON.stringify(requestOf()),
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error);
    draw(body);
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
    show(still ? view.columns.length - 1 : 0);
    if (still)
      pause();
    else
      play();
  } catch (error) {
    $('error').textContent = error.message;
    $('error').hidden = false;
  }
  $('run').disabled = false;
}

// ---- The flight recorder and the models.

let tab = 'recent';
let refreshing = false;

for (const stage of kStages) $('stages').append(make('span', {}, make('span', {class: 'key ' + stage}), stage));

const ask = path => fetch(path, {signal: AbortSignal.timeout(PATIENCE_MS)});

function requestRow(record) {
  const bad = record.code !== 'OK';
  const times = Object.fromEntries(kStages.map(stage => [stage, record[stage + '_us']]));
  return make(
      'tr', {}, make('td', {}, moment(record.ended_ms)), make('td', {class: 'id'}, record.request_id),
      make('td', {class: 'id'}, record.trace_id.slice(0, 8)),
      make('td', {class: bad ? 'bad' : ''}, bad ? `${record.code} ${record.reason || ''}` : 'OK'),
      make('td', {class: 'number'}, time(record.total_us)), make('td', {}, timesBar(times, false)),
      make('td', {class: 'number'}, String(record.history_events)),
      make('td', {class: 'number'}, String(record.beam_width || '')),
      make('td', {class: 'number'}, String(record.batch_requests || '')),
      make('td', {class: 'id'}, record.model_version || ''));
}

function table(heads, rows) {
  const head =
      heads.map(name => make('th', {scope: 'col', class: name.startsWith('#') ? 'number' : ''}, name.replace('#', '')));
  return make('table', {}, make('thead', {}, make('tr', {}, ...head)), make('tbody', {}, ...rows));
}

async function refreshRequests() {
  const answer = await ask('debug/requests/newest');
  if (!answer.ok) return;
  const records = (await answer.json())[tab];
  $('requests')
      .replaceChildren(
          records.length === 0 ?
              make('p', {class: 'note'}, 'None.') :
              table(
                  ['Ended', 'Request', 'Trace', 'Status', '#Total', 'Stages', '#History', '#Beams', '#Batch', 'Model'],
                  records.map(requestRow)));
}

async function refreshStatus() {
  const status = await (await ask('debug/status')).json();
  $('ready').textContent = status.not_ready || 'ready';
  $('ready').className = 'pill ' + (status.not_ready ? 'bad' : 'good');
  $('form').hidden = !status.live_requests;
  $('live-off').hidden = status.live_requests;
  const facts = {
    model: status.model_version,
    catalogue: status.catalogue_version,
    videos: status.items,
    'in flight': status.in_flight,
    answered: status.completed,
    version: `${status.server_version} (${status.server_commit})`
  };
  $('facts').replaceChildren(
      ...Object.entries(facts)
          .filter(([, value]) => value !== undefined)
          .map(([name,
                 value]) => make('div', {}, make('dt', {}, name), make('dd', {class: 'id'}, value.toLocaleString()))));
  $('models').replaceChildren(table(
      ['#', 'State', 'Since', 'Model', 'Catalogue', 'Bundle', 'Error'],
      (status.versions || [])
          .map(
              version => make(
                  'tr', {}, make('td', {}, String(version.id)),
                  make('td', {class: version.state === 'refused' ? 'bad' : ''}, version.state),
                  make('td', {}, moment(version.since_ms)), make('td', {class: 'id'}, version.model_version),
                  make('td', {class: 'id'}, version.catalogue_version), make('td', {class: 'id'}, version.bundle),
                  make('td', {class: 'bad'}, version.error)))));
}

async function refresh() {
  if (document.hidden) return;
  refreshing = true;
  try {
    await Promise.all([refreshStatus(), refreshRequests()]);
  } catch (error) {
    $('ready').textContent = 'no answer';
    $('ready').className = 'pill bad';
  }
  refreshing = false;
}

function chooseTab(button) {
  tab = button.id.replace('tab-', '');
  for (const other of document.querySelectorAll('[role=tab]')) {
    other.setAttribute('aria-selected', other === button);
    other.tabIndex = other === button ? 0 : -1;
  }
  $('requests').setAttribute('aria-labelledby', button.id);
  refresh();
}

$('form').addEventListener('submit', run);
$('first').addEventListener('click', () => {
  pause();
  show(0);
});
$('back').addEventListener('click', () => {
  pause();
  show(view.shown - 1);
});
$('forward').addEventListener('click', () => {
  pause();
  show(view.shown + 1);
});
$('play').addEventListener('click', () => view.timer ? pause() : play());
for (const kind of ['mouseover', 'focusin']) {
  $('columns').addEventListener(kind, event => {
    const box = event.target.closest('.beam, .video');
    mark(box && box.beam);
  });
}
$('columns').addEventListener('keydown', moveFocus);
$('columns').addEventListener('transitionend', drawLinks);
new ResizeObserver(drawLinks).observe($('canvas'));
for (const button of document.querySelectorAll('[role=tab]')) {
  button.addEventListener('click', () => chooseTab(button));
  button.addEventListener('keydown', event => {
    const tabs = [...document.querySelectorAll('[role=tab]')];
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const next = tabs[(tabs.indexOf(button) + step + tabs.length) % tabs.length];
    next.focus();
    chooseTab(next);
  });
}
refresh();
setInterval(() => refreshing || refresh(), REFRESH_MS);
