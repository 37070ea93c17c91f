'use strict';
// The page: it draws the frames that the stage has made, and judges the checks by the values in them.

const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

/** An element with its attributes and children; of a drawing if the name begins with `svg:`. */
function make(name, attributes = {}, ...children) {
  const drawn = name.startsWith('svg:');
  const element = drawn ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'onclick') element.addEventListener('click', value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

let tour = { steps: [], code: [] };
let state = null; // the newest version of the stage
let shown = 0; // the frame that is drawn
let playing = null; // the timer that shows frame after frame
let code = null; // the id of the code that is shown
const done = new Set(); // steps of which all checks have held

// ---- what the stage has done ----

const BOXES = [
  ['Ask the netpoller', ['turn', 'settle', 'wait', 'pending', 'unpark_ready', 'netpollready', 'poll_again', 'expire', 'netpolldeadlineimpl']],
  ['Open the mail, run a batch', ['mail', 'batch']],
  ['In a machine that runs', ['try', 'park', 'set_deadline', 'wake']],
];
const CODE_OF = { try: 'poll_step' };

/** The value at a JSON pointer, or null. */
function at(frames, pointer) {
  let value = frames;
  for (const key of pointer.split('/').slice(1)) value = value?.[key] ?? null;
  return value;
}

/** Whether a check holds, and the value that it found. */
function judge(check, frames) {
  const value = at(frames, check.at);
  const than = String(check.than).startsWith('/') ? at(frames, check.than) : check.than;
  const rules = {
    is: () => value === than,
    differs: () => value !== than,
    above: () => typeof value === 'number' && value > than,
    below: () => typeof value === 'number' && value < than,
    has: () => Array.isArray(value) && value.includes(than),
    contains: () => [value].flat().some((one) => String(one?.say ?? one).includes(than)),
    distinct: () => Array.isArray(value) && new Set(value.map((one) => JSON.stringify(one))).size === than,
  };
  return { holds: rules[check.is](), value };
}

const frameOf = (check) => Number(check.at.split('/')[1]);

function seconds(time) {
  if (time === null || time === undefined) return 'none';
  if (time === 0) return 'now';
  if (time < 1) return `${Math.round(time * 1000)} ms`;
  return `${Math.round(time * 1000) / 1000} s`;
}

function bytes(count) {
  return count.toLocaleString('en');
}

const nameOf = (machine) => (machine ? `${machine.id} ${machine.name}`.trim() : '');

// ---- the lesson ----

const step = () => tour.steps[state.scene - 1];

function drawSteps() {
  const button = (number, title, free) =>
    make('li', {}, make('button', {
      type: 'button',
      class: free ? 'free' : null,
      'aria-current': state.scene === number ? 'step' : null,
      onclick: () => go(number),
    },
    make('span', { class: 'n' }, free ? '+' : String(number)),
    make('span', { class: 't' }, title),
    done.has(number) ? make('span', { class: 'done', role: 'img', 'aria-label': 'done' }, '✓') : null));
  const steps = tour.steps.map((one, index) => button(index + 1, one.title, false));
  replace('steps', ...steps, button(0, 'The free stage', true));
}

/** Replaces what is in an element. The focus stays on the button in the same place. */
function replace(id, ...children) {
  const element = $(id);
  const focused = [...element.querySelectorAll('button')].indexOf(document.activeElement);
  element.replaceChildren(...children);
  if (focused >= 0) element.querySelectorAll('button')[focused]?.focus();
}

function drawLesson() {
  const one = step();
  const count = tour.steps.length;
  $('number').textContent = one ? `Step ${state.scene} of ${count}` : 'Without a tour';
  $('title').textContent = one ? one.title : 'The free stage';
  $('sentence').textContent = one ? one.sentence
    : 'An echo server with heartbeats, and clients that do what you say.';
  $('why').textContent = one ? one.why
    : 'Take turns, send bytes, stop reading, let time pass, reset a peer, and see which step of the loop happens.';
  document.title = `${$('title').textContent} · How a netpoller works`;
  $('act').textContent = one ? one.action : 'Take a turn';
  $('act').disabled = false;
  $('previous').disabled = state.scene <= 1;
  $('next').textContent = state.scene === count ? 'To the free stage' : 'Next step';
  $('next').disabled = state.scene === 0;
  $('checks-box').hidden = !one;
  $('questions').hidden = Boolean(one);
  if (!one) $('hands').open = true;
}

function drawChecks() {
  const one = step();
  if (!one) return;
  const acted = state.frames.length > 1;
  let held = 0;
  const rows = one.checks.map((check) => {
    const frame = frameOf(check);
    const reached = acted && frame <= shown && frame < state.frames.length;
    const { holds, value } = judge(check, state.frames);
    held += acted && holds ? 1 : 0;
    const kind = !reached ? 'open' : holds ? 'ok' : 'bad';
    const mark = { open: '○', ok: '✓', bad: '✗' }[kind];
    const word = { open: 'not yet: ', ok: 'holds: ', bad: 'does not hold: ' }[kind];
    const button = make('button', {
      type: 'button',
      class: kind,
      'aria-label': `${word}${check.say}. Shows the picture of it.`,
      onclick: () => { stop(); show(Math.min(frame, state.frames.length - 1)); },
    }, make('span', { class: 'mark', 'aria-hidden': 'true' }, mark), make('span', {}, check.say));
    const found = typeof value === 'number' ? value.toLocaleString('en') : String(value);
    if (reached && typeof value !== 'object' && found.length < 12) {
      button.append(make('span', { class: 'got' }, found));
    }
    return make('li', { class: kind }, button);
  });
  replace('checks', ...rows);
  const all = held === one.checks.length;
  if (all && !done.has(state.scene)) {
    done.add(state.scene);
    drawSteps();
  }
  document.body.dataset.checks = acted ? `${held}/${one.checks.length}` : 'before';
}

// ---- the frames ----

function drawFrames() {
  const rows = state.frames.map((frame, index) =>
    make('li', { class: frame.kind }, make('button', {
      type: 'button',
      'aria-current': index === shown ? 'true' : null,
      onclick: () => { stop(); show(index); },
    }, `${index}. ${frame.did}`)));
  replace('frames', ...rows);
}

function say() {
  const frame = state.frames[shown];
  const turn = frame.turn;
  const count = (number, word) => `${number.toLocaleString('en')} ${word}${number === 1 ? '' : 's'}`;
  const what = turn
    ? `${count(turn.events, 'event')}, ${count(turn.machines, 'machine')} ran, ${count(turn.expired, 'timer')} fired.`
    : '';
  const sleep = frame.sleep === null ? 'The next turn may sleep until something comes.'
    : frame.sleep === 0 ? 'The next turn does not sleep.' : `The next turn may sleep for ${seconds(frame.sleep)}.`;
  $('news').textContent = `${frame.did[0].toUpperCase()}${frame.did.slice(1)}. ${what} ${sleep}`;
}

function show(index) {
  shown = index;
  drawFrames();
  drawChecks();
  say();
  drawStage();
}

function stop() {
  clearInterval(playing);
  playing = null;
}

/** Shows the frames one after the other, or the last at once for readers who want no motion. */
function play() {
  stop();
  const last = state.frames.length - 1;
  if (matchMedia('(prefers-reduced-motion: reduce)').matches || last < 2) return show(last);
  show(0);
  playing = setInterval(() => {
    show(Math.min(shown + 1, last));
    if (shown === last) stop();
  }, 900);
}

// ---- the stage ----

function drawStage() {
  const frame = state.frames[shown];
  drawLoop(frame);
  drawQueue(frame);
  drawDescriptors(frame, state.frames[shown - 1]);
  drawBytes(frame);
  drawWheel(frame);
  drawControls(state.frames[state.frames.length - 1]);
}

function drawLoop(frame) {
  const lit = new Set(frame.happened.map((line) => line.box));
  if (frame.turn) lit.add('turn').add('settle');
  const groups = BOXES.map(([title, names]) => {
    const boxes = names.map((name) => {
      const id = CODE_OF[name] ?? name;
      const go = tour.code.find((one) => one.id === id)?.go;
      return make('li', {}, make('button', {
        type: 'button',
        class: lit.has(name) ? 'lit' : null,
        'aria-pressed': code === id ? 'true' : 'false',
        'aria-label': `${name}${go ? `, Go: ${go}` : ''}${lit.has(name) ? ', did something' : ''}. Shows its code.`,
        onclick: () => { showCode(id, true); reveal('code-title'); },
      }, make('b', {}, name), make('small', {}, go || 'not in Go')));
    });
    return make('div', {}, make('h3', {}, title), make('ol', {}, ...boxes));
  });
  replace('loop', ...groups);
  const lines = frame.happened.map((line) =>
    make('li', {}, make('span', { class: 'at' }, line.box), make('span', {}, line.say)));
  $('happened').replaceChildren(...lines);
}

/** Scrolls to what is not in the window. */
function reveal(id) {
  const box = $(id).getBoundingClientRect();
  if (box.top < 0 || box.bottom > innerHeight - 100) $(id).scrollIntoView({ block: 'start' });
}

/** A drawing as wide as its figure, with words for those who do not see it. */
function drawing(id, height, words, ...children) {
  const width = widthOf(id);
  const svg = make('svg:svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': words });
  svg.append(...children.filter(Boolean));
  return svg;
}

const widthOf = (id) => Math.max(280, Math.floor($(id).clientWidth || 600));
const rect = (x, y, width, height, kind, r = 6) =>
  make('svg:rect', { x, y, width: Math.max(0, width), height, rx: r, class: kind });
const text = (x, y, words, kind, anchor) => make('svg:text', { x, y, class: kind, 'text-anchor': anchor }, words);

/** As many letters as fit. The drawings use 13 px. */
const fit = (words, width) => {
  const letters = Math.floor(width / 7);
  return words.length <= letters ? words : `${words.slice(0, Math.max(1, letters - 1))}…`;
};

function drawQueue(frame) {
  const width = widthOf('queue');
  const parts = [];
  let [x, y] = [0, 0];
  const chip = (label, kind) => {
    const wide = label.length * 7.4 + 22;
    if (x + wide > width && x > 0) [x, y] = [0, y + 40];
    parts.push(rect(x, y + 1, wide, 32, kind), text(x + 11, y + 22, label));
    x += wide + 10;
  };
  for (const machine of frame.queue) chip(nameOf(machine), 'run');
  const more = frame.runnable - frame.queue.length;
  if (more > 0) chip(`and ${more.toLocaleString('en')} more`, 'card');
  if (frame.runnable === 0) chip('empty', 'slot');
  const sleep = frame.sleep === null ? 'Nothing is due: the loop may sleep until something comes.'
    : frame.sleep === 0 ? 'The next turn does not sleep.' : `The loop may sleep for ${seconds(frame.sleep)}.`;
  const words = `${frame.runnable} machines are runnable: ${frame.queue.map(nameOf).join(', ') || 'none'}.`;
  const parked = frame.parked === 1 ? 'One machine is parked.' : `${frame.parked.toLocaleString('en')} machines are parked.`;
  const caption = `${parked} ${sleep}`;
  $('queue').replaceChildren(drawing('queue', y + 36, words, ...parts), make('figcaption', {}, caption));
}

const whose = (descriptor) => (descriptor.client ? `client ${descriptor.client}` : 'listener');

function drawDescriptors(frame, before) {
  const width = widthOf('descriptors');
  const wide = width >= 620;
  const parts = [];
  const words = [];
  let y = 0;
  for (const one of frame.descriptors) {
    const old = before?.descriptors.find((other) => other.token === one.token);
    const height = wide ? 84 : 150;
    parts.push(rect(0.5, y + 0.5, width - 1, height, 'card', 8));
    parts.push(text(14, y + 26, one.token, 'mono strong'));
    parts.push(text(14 + one.token.length * 9 + 8, y + 26, fit(whose(one), wide ? 130 : width - 80), 'soft'));
    const lines = [];
    if (one.connection) lines.push(`state ${one.connection.state}`);
    if (one.timer_seconds !== undefined) lines.push(`wheel entry ${inTime(one.timer_seconds)}`);
    lines.slice(0, 2).forEach((line, index) => {
      const kind = line.startsWith('wheel') ? 't-timer' : '';
      if (wide) parts.push(text(14, y + 47 + index * 18, line, kind));
      else parts.push(text(14 + index * (width / 2 - 10), y + 47, line, kind));
    });
    const told = [];
    ['read', 'write'].forEach((side, index) => {
      const slotWidth = wide ? (width - 230) / 2 - 14 : width - 28;
      const x = wide ? 220 + index * (slotWidth + 14) : 14;
      const top = wide ? y + 12 : y + 58 + index * 44;
      const tall = wide ? 60 : 38;
      const value = one[side];
      const by = nameOf(one[`${side}_by`]);
      const kind = { Nil: 'slot', Ready: 'ready', Parked: side }[value];
      const changed = old && (old[side] !== value || nameOf(old[`${side}_by`]) !== by);
      const left = one[`${side}_left_seconds`];
      parts.push(rect(x, top, slotWidth, tall, changed ? `${kind} changed` : kind));
      const label = value === 'Parked' ? by || 'Parked' : value;
      const color = { Nil: 'soft', Ready: 't-ready strong', Parked: `t-${side} strong` }[value];
      if (wide) {
        parts.push(text(x + 12, top + 21, `${side} slot`, 'soft'));
        parts.push(text(x + slotWidth - 12, top + 21, value, 'soft', 'end'));
        parts.push(text(x + 12, top + 45, fit(label, slotWidth - (left === undefined ? 24 : 124)), color));
        if (left !== undefined) parts.push(text(x + slotWidth - 12, top + 45, `deadline ${inTime(left)}`, 't-timer', 'end'));
      } else {
        parts.push(text(x + 10, top + 24, `${side}:`, 'soft'));
        parts.push(text(x + 54, top + 24, fit(label, slotWidth - (left === undefined ? 70 : 200)), color));
        const right = left === undefined ? (value === 'Parked' ? 'Parked' : '') : `deadline ${inTime(left)}`;
        parts.push(text(x + slotWidth - 10, top + 24, right, left === undefined ? 'soft' : 't-timer', 'end'));
      }
      told.push(`${side} slot ${value}${by && value === 'Parked' ? ` by ${by}` : ''}${left === undefined ? '' : `, deadline ${inTime(left)}`}`);
    });
    words.push(`${one.token}, ${whose(one)}: ${told.join('; ')}.`);
    y += height + 12;
  }
  if (frame.descriptors.length === 0) parts.push(text(0, 20, 'None is open.', 'soft'));
  const list = drawing('descriptors', Math.max(y, 30), words.join(' ') || 'None is open.', ...parts);
  const caption = `Token: key.generation. Registrations so far: ${frame.registrations}.`;
  const held = frame.held > 0 ? ` The selector keeps ${frame.held} event back.` : '';
  $('descriptors').replaceChildren(list, make('figcaption', {}, caption + held));
}

const inTime = (time) => (time === 0 ? 'now' : `in ${seconds(time)}`);

function drawBytes(frame) {
  const width = widthOf('bytes');
  const parts = [];
  const words = [];
  let y = 0;
  // A full bar is a hundred thousand bytes; small amounts stay visible.
  const share = (count) => (count === 0 ? 0 : Math.min(1, Math.max(0.03, count / 100_000)));
  const lane = (title, right, bars) => {
    parts.push(text(0, y + 15, title, 'strong'), text(width, y + 15, right, 'soft', 'end'));
    y += 24;
    const gap = 26;
    const each = (width - gap * (bars.length - 1)) / bars.length;
    bars.forEach(([name, count, kind], index) => {
      const x = index * (each + gap);
      parts.push(rect(x + 0.5, y + 0.5, each - 1, 22, 'trough', 4));
      if (count) parts.push(rect(x + 0.5, y + 0.5, (each - 1) * share(count), 22, kind, 4));
      // Beside a short bar, inside a long one.
      const beside = count && share(count) < 0.3 ? (each - 1) * share(count) : 0;
      parts.push(text(x + 8 + beside, y + 16, count === null ? 'closed' : bytes(count), count ? 'mono' : 'mono soft'));
      parts.push(text(x, y + 39, fit(name, each + 14), 'soft'));
      if (index + 1 < bars.length) parts.push(text(x + each + gap / 2, y + 16, '→', 'soft', 'middle'));
    });
    y += 54;
    words.push(`${title}: ${bars.map(([name, count]) => `${name} ${count === null ? 'closed' : count}`).join(', ')}; ${right}.`);
  };
  for (const client of frame.clients) {
    const server = frame.descriptors.find((one) => one.client === client.name);
    const connection = server?.connection;
    const narrow = width < 520;
    const does = client.state === 'open' ? (client.reads ? 'open, reads what comes' : 'open, does not read') : client.state;
    const amounts = [client.out, client.in, server?.in, server?.out, connection?.queued_bytes];
    if (frame.clients.length > 2 && amounts.every((count) => !count)) {
      parts.push(text(0, y + 15, `Client ${client.name}`, 'strong'));
      parts.push(text(70, y + 15, fit(`${does}; sent ${bytes(client.sent)}, got ${bytes(client.got)}`, width - 70), 'soft'));
      words.push(`Client ${client.name}: ${does}; nothing is on its way.`);
      y += 30;
      continue;
    }
    const there = [[narrow ? 'its kernel' : "client's kernel", client.out, 'write'], [narrow ? 'our kernel' : "server's kernel", server?.in ?? null, 'write']];
    const back = [[narrow ? 'our kernel' : "server's kernel", server?.out ?? null, 'read'], [narrow ? 'its kernel' : "client's kernel", client.in, 'read']];
    if (connection) back.unshift([narrow ? 'our queue' : 'our queue in the connection', connection.queued_bytes, 'ready']);
    lane(`Client ${client.name} to server`, narrow ? `sent ${bytes(client.sent)}` : `client sent ${bytes(client.sent)} in all`, there);
    lane(`Server to client ${client.name}`, narrow ? `got ${bytes(client.got)}` : `client got ${bytes(client.got)} in all`, back);
    parts.push(text(0, y + 8, `Client ${client.name}: ${does}`, 'soft'));
    words.push(`Client ${client.name}: ${does}.`);
    y += 40;
  }
  if (frame.clients.length === 0) parts.push(text(0, 20, 'No client is connected.', 'soft'));
  $('bytes').replaceChildren(drawing('bytes', Math.max(30, y - 8), words.join(' ') || 'No client is connected.', ...parts));
}

/** The level and the slot where the wheel would place this tick now. */
function place(now, tick) {
  let level = 0;
  while (level < 10 && Math.floor(now / 64 ** (level + 1)) !== Math.floor(tick / 64 ** (level + 1))) level += 1;
  return [level, Math.floor(tick / 64 ** level) % 64];
}

function drawWheel(frame) {
  const width = widthOf('wheel');
  const now = Math.round(frame.now * 1000);
  const entries = [];
  for (const one of frame.descriptors) {
    if (one.timer_seconds !== undefined) entries.push([Math.round(one.timer_seconds * 1000), `${one.token}`, 1]);
  }
  for (const one of frame.timers) entries.push([one.left_ms, one.on === 'sleep' ? 'sleep' : 'connection', one.count]);
  const units = ['1 ms', '64 ms', '4 s', '4 min', '5 h', '12 d'];
  const placed = entries.map(([left, name, count]) => [...place(now, now + left), left, name, count]);
  const levels = Math.max(4, ...placed.map(([level]) => level + 1));
  const margin = 62;
  const cell = (width - margin) / 64;
  const parts = [];
  for (let level = 0; level < levels; level += 1) {
    const y = level * 30;
    parts.push(text(0, y + 16, units[level] ?? `level ${level}`, 'soft'));
    const hand = Math.floor(now / 64 ** level) % 64;
    for (let slot = 0; slot < 64; slot += 1) {
      const here = placed.filter(([l, s]) => l === level && s === slot);
      const kind = here.length > 0 ? 'entry' : 'cell';
      parts.push(rect(margin + slot * cell, y + 3, Math.max(1.5, cell - 1.2), 17, kind, 1.5));
      if (slot === hand) parts.push(rect(margin + slot * cell, y + 22, Math.max(1.5, cell - 1.2), 3, 'hand', 1));
    }
  }
  const name = (count, who) => (count > 1 ? `${count.toLocaleString('en')} ${who}s` : who);
  const list = placed.map(([level, , left, who, count]) =>
    `${name(count, who)} ${inTime(left / 1000)} (level ${level}, ${units[level] ?? ''} a slot)`);
  const words = list.length ? `Entries: ${list.join('; ')}.` : 'No entry.';
  const clock = `The clock of the stage: ${frame.now === 0 ? '0 s' : seconds(frame.now)}.`;
  const caption = `${clock} ${words} The dark marks are the wheel's hands; an entry is drawn where it would be placed now. Entries held, stale ones too: ${frame.entries.toLocaleString('en')}.`;
  $('wheel').replaceChildren(drawing('wheel', levels * 30, words, ...parts), make('figcaption', {}, caption));
}

function drawControls(frame) {
  const button = (label, command, who) =>
    make('button', { type: 'button', 'aria-label': who ? `${who}: ${label}` : null, onclick: () => order(command) }, label);
  const row = (who, ...buttons) => make('div', { role: 'group', 'aria-label': who }, make('span', { class: 'who' }, who), ...buttons);
  const rows = [
    row('The loop', button('One turn', 'turn'), button('Turns until it is quiet', 'turns'), button('Drain', 'drain')),
    row('The clock', button('To the next timer', 'next'), button('1 s', 'pass/1'), button('10 s', 'pass/10')),
    row('Clients', button('Connect one more', 'connect')),
  ];
  frame.clients.forEach((client, index) => {
    const who = `Client ${client.name}`;
    rows.push(row(who,
      button('Send 5 bytes', `send/${index}/5`, who),
      button('Send 200,000 bytes', `send/${index}/200000`, who),
      client.reads ? button('Stop reading', `stop/${index}`, who) : button('Read', `read/${index}`, who),
      button('End its direction', `end/${index}`, who),
      button('Reset', `reset/${index}`, who)));
  });
  replace('controls', ...rows);
}

// ---- the code ----

function showCode(id, chosen) {
  const one = tour.code.find((other) => other.id === id);
  if (!one) return;
  code = id;
  const ids = [...new Set([...(step()?.code ?? ['turn', 'wait', 'batch']), ...(chosen ? [id] : [])])];
  const chips = ids.map((other) =>
    make('button', { type: 'button', 'aria-pressed': other === id ? 'true' : 'false', onclick: () => showCode(other, true) },
      other.startsWith('scene') ? 'the server' : other));
  replace('code-list', ...chips);
  $('code-say').textContent = one.go ? `${one.say} In Go: ${one.go}.` : one.say;
  $('code-where').textContent = `${one.file}, line ${one.line}`;
  const words = /\b(fn|let|mut|match|if|else|for|in|while|loop|return|self|Self|pub|async|await|impl|move|const|struct|break|continue)\b/g;
  const lines = one.text.split('\n').flatMap((line) => {
    const start = line.indexOf('//');
    const [plain, comment] = start < 0 ? [line, ''] : [line.slice(0, start), line.slice(start)];
    const parts = [];
    let last = 0;
    for (const found of plain.matchAll(words)) {
      parts.push(plain.slice(last, found.index), make('span', { class: 'word' }, found[0]));
      last = found.index + found[0].length;
    }
    parts.push(plain.slice(last));
    if (comment) parts.push(make('span', { class: 'comment' }, comment));
    return [...parts, '\n'];
  });
  $('code-text').replaceChildren(...lines);
  if (state) drawLoop(state.frames[shown]);
}

// ---- talking to the stage ----

/** Takes in a state, unless it is no newer than the newest: each comes twice, as an answer and as an event. */
function take(next, mine) {
  if (state && next.version <= state.version) return false;
  const moved = !state || state.scene !== next.scene;
  state = next;
  shown = 0;
  document.body.dataset.version = state.version;
  if (moved) {
    drawSteps();
    drawLesson();
  }
  if (moved || code === null) showCode(step()?.code[0] ?? 'turn', false);
  if (mine) play();
  else {
    stop();
    show(state.frames.length - 1);
  }
  return true;
}

let ordering = false; // whether an answer is on its way: it may come after its event
let held = null; // the newest event that came meanwhile

async function order(what) {
  if (ordering) return false;
  ordering = true;
  $('notice').textContent = '';
  const done = await send(what);
  ordering = false;
  const other = held;
  held = null;
  if (other) hear(other);
  return done;
}

async function send(what) {
  try {
    const answer = await fetch(`do/${state.version}/${what}`, { method: 'POST' });
    if (answer.ok) {
      take(await answer.json(), true);
      return true;
    }
    const why = (await answer.text()).trim();
    $('notice').textContent = answer.status === 409 ? `Another reader was faster. This is what the stage looks like now.` : `Refused: ${why}.`;
    if (answer.status === 409) take(await (await fetch('state')).json(), false);
  } catch {
    $('notice').textContent = 'The server does not answer.';
  }
  return false;
}

async function go(scene) {
  if (await order(`scene/${scene}`)) {
    $('title').focus();
    window.scrollTo(0, 0);
  }
}

$('act').addEventListener('click', () => order(state.scene === 0 ? 'turn' : 'act'));
$('previous').addEventListener('click', () => go(state.scene - 1));
$('next').addEventListener('click', () => go(state.scene === tour.steps.length ? 0 : state.scene + 1));

for (const link of document.querySelectorAll('[data-code]')) {
  link.addEventListener('click', () => { showCode(link.dataset.code, true); reveal('code-title'); });
}

// The drawings are as wide as the window lets them be.
let width = 0;
new ResizeObserver(() => {
  const now = $('descriptors').clientWidth;
  if (state && now !== width) drawStage();
  width = now;
}).observe($('descriptors'));

/** Takes in the state of an event. Unless it is the first, another reader has moved the stage. */
function hear(next) {
  const first = state === null;
  if (take(next, false) && !first) $('notice').textContent = 'Another reader has moved the stage.';
}

async function begin() {
  tour = await (await fetch('tour')).json();
  const events = new EventSource('events');
  events.addEventListener('message', (event) => {
    if (ordering) held = JSON.parse(event.data);
    else hear(JSON.parse(event.data));
  });
  events.addEventListener('error', () => { $('notice').textContent = 'The connection to the server is lost. The page tries again.'; });
  events.addEventListener('open', () => { $('notice').textContent = ''; });
}
begin();
