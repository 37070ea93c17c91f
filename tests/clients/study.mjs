// The page of `study` in Chromium: the tour on a narrow and a wide window, light and dark, by mouse and by
// keyboard alone. Pictures go to the directory that is given.
//
//   node study.mjs PROGRAM CHROMIUM PICTURES

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [program, browserPath, pictures] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)('playwright-core');
mkdirSync(pictures, { recursive: true });

const FORMS = [
  { name: 'wide-light', width: 1600, height: 1000, scheme: 'light' },
  { name: 'wide-dark', width: 1600, height: 1000, scheme: 'dark' },
  { name: 'middle-light', width: 1100, height: 900, scheme: 'light' },
  { name: 'narrow-light', width: 390, height: 844, scheme: 'light' },
  { name: 'narrow-dark', width: 390, height: 844, scheme: 'dark' },
];
const STEPS = 10;

const server = spawn(program, [], { stdio: ['ignore', 'pipe', 'inherit'] });
const address = await new Promise((resolve) => {
  createInterface({ input: server.stdout }).once('line', (line) => resolve(line.split(' ').at(-1)));
});
const url = `http://${address}/`;
const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox'] });

async function open(form, more = {}) {
  const context = await browser.newContext({
    viewport: { width: form.width, height: form.height },
    colorScheme: form.scheme,
    reducedMotion: 'reduce',
    ...more,
  });
  const page = await context.newPage();
  page.faults = [];
  page.on('console', (message) => {
    // A refused command is answered by an error, which Chromium logs.
    const refused = message.text().includes('409');
    if (message.type() === 'error' && !refused) page.faults.push(message.text());
  });
  page.on('pageerror', (error) => page.faults.push(String(error)));
  page.on('request', (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith('data:')) page.faults.push(request.url());
  });
  await page.goto(url);
  await page.waitForSelector('body[data-version]');
  return page;
}

/** Waits until all checks of the step have been judged, and all hold. */
async function allHold(page, step) {
  await page.waitForFunction(() => document.body.dataset.checks !== 'before', null, { timeout: 30_000 });
  await page.waitForFunction(() => !document.querySelector('#checks .open'), null, { timeout: 30_000 });
  const bad = await page.locator('#checks .bad button').allInnerTexts();
  const [held, all] = (await page.evaluate(() => document.body.dataset.checks)).split('/');
  assert.deepEqual(bad, [], `step ${step}`);
  assert.ok(held === all && Number(all) > 3, `step ${step}: ${held} of ${all}`);
}

/** Nothing scrolls sideways, no text is cut off or covers another, and no button is too small or too long. */
async function looksRight(page, what) {
  const faults = await page.evaluate(() => {
    const faults = [];
    const room = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > room) faults.push(`scrolls sideways: ${document.documentElement.scrollWidth} > ${room}`);
    for (const svg of document.querySelectorAll('svg')) {
      const frame = svg.getBoundingClientRect();
      const texts = [...svg.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]);
      for (const [words, box] of texts) {
        if (box.right > frame.right + 1 || box.left < frame.left - 1 || box.bottom > frame.bottom + 1) faults.push(`cut off: ${words}`);
      }
      for (let i = 0; i < texts.length; i += 1) {
        for (let j = i + 1; j < texts.length; j += 1) {
          const [a, b] = [texts[i][1], texts[j][1]];
          const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
          const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
          if (x > 1 && y > 4) faults.push(`overlap: ${texts[i][0]} / ${texts[j][0]}`);
        }
      }
    }
    for (const button of document.querySelectorAll('button')) {
      const box = button.getBoundingClientRect();
      if (box.width > 0 && (box.height < 24 || box.width < 24)) faults.push(`too small: ${button.innerText}`);
      if (button.scrollWidth > button.clientWidth + 1) faults.push(`too long: ${button.innerText}`);
    }
    return faults;
  });
  assert.deepEqual(faults, [], what);
}

/** The contrast of each text with what is behind it: WCAG's AA asks for 4.5. */
async function contrast(page, what) {
  const faults = await page.evaluate(() => {
    const parse = (color) => color.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
      const part = (value) => { const c = value / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
      return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    const ratio = (one, other) => {
      const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    };
    const opaque = (color) => color !== 'none' && (parse(color)[3] ?? 1) > 0.99;
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const color = getComputedStyle(at).backgroundColor;
        if (opaque(color)) return parse(color);
      }
      return [255, 255, 255];
    };
    const faults = [];
    for (const element of document.querySelectorAll('body *')) {
      const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
      const box = element.getBoundingClientRect();
      if (!own || box.width < 2 || element.closest('button:disabled') || element.closest('svg')) continue;
      const found = ratio(parse(getComputedStyle(element).color), behind(element));
      if (found < 4.5) faults.push(`${found.toFixed(2)}: ${element.textContent.slice(0, 40)}`);
    }
    for (const text of document.querySelectorAll('svg text')) {
      const box = text.getBoundingClientRect();
      const middle = [box.left + Math.min(4, box.width / 2), box.top + box.height / 2];
      let back = behind(text.closest('figure'));
      for (const rect of text.closest('svg').querySelectorAll('rect')) {
        const r = rect.getBoundingClientRect();
        const fill = getComputedStyle(rect).fill;
        if (opaque(fill) && r.left <= middle[0] && r.right >= middle[0] && r.top <= middle[1] && r.bottom >= middle[1]) back = parse(fill);
      }
      const found = ratio(parse(getComputedStyle(text).fill), back);
      if (found < 4.5) faults.push(`${found.toFixed(2)}: ${text.textContent}`);
    }
    return [...new Set(faults)];
  });
  assert.deepEqual(faults, [], `${what}: contrast`);
}

const picture = (page, name) => page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });

async function tourByMouse(form) {
  const page = await open(form);
  await page.click('#steps li:first-child button');
  for (let step = 1; step <= STEPS; step += 1) {
    await page.waitForFunction((n) => document.querySelector('#number').textContent.startsWith(`Step ${n} `), step);
    await looksRight(page, `${form.name}, step ${step}, before`);
    if (step === 1) await picture(page, `${form.name}-01-before`);
    await page.click('#act');
    await allHold(page, step);
    await looksRight(page, `${form.name}, step ${step}`);
    await contrast(page, `${form.name}, step ${step}`);
    await picture(page, `${form.name}-${String(step).padStart(2, '0')}`);
    // Every frame, not only the last.
    const frames = await page.locator('#frames button').count();
    for (let frame = 0; frame < frames; frame += 1) {
      await page.locator('#frames button').nth(frame).click();
      await looksRight(page, `${form.name}, step ${step}, picture ${frame}`);
    }
    if (step < STEPS) await page.click('#next');
  }
  assert.equal(await page.locator('#steps li button', { hasText: '✓' }).count(), STEPS);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

/** Presses Tab until the focus is where it should be. It is visible there. */
async function tabTo(page, selector) {
  for (let count = 0; count < 200; count += 1) {
    if (await page.evaluate((at) => document.activeElement?.matches(at) ?? false, selector)) {
      const outline = await page.evaluate(() => {
        const style = getComputedStyle(document.activeElement);
        return style.outlineStyle !== 'none' && Number.parseFloat(style.outlineWidth) >= 2;
      });
      assert.ok(outline, `the focus on ${selector} is not visible`);
      return;
    }
    await page.keyboard.press('Tab');
  }
  assert.fail(`Tab does not reach ${selector}`);
}

async function tourByKeyboard() {
  const page = await open(FORMS[0]);
  await tabTo(page, '#steps li:first-child button');
  await page.keyboard.press('Enter');
  for (let step = 1; step <= STEPS; step += 1) {
    await page.waitForFunction((n) => document.querySelector('#number').textContent.startsWith(`Step ${n} `), step);
    await tabTo(page, '#act');
    await page.keyboard.press('Enter');
    await allHold(page, step);
    if (step === 2) {
      await tabTo(page, '#frames li:nth-child(3) button');
      await page.keyboard.press('Enter');
      await page.waitForFunction(() => document.querySelector('#frames li:nth-child(3) button').ariaCurrent === 'true');
      assert.ok(await page.evaluate(() => document.activeElement.matches('#frames li:nth-child(3) button')), 'the focus stays');
      await picture(page, 'keyboard-focus');
      await tabTo(page, '#loop button');
      await page.keyboard.press('Enter');
      assert.match(await page.innerText('#code-where'), /^src\/runtime\/scheduler\.rs, line \d+$/);
      await page.evaluate(() => document.querySelector('#title').focus());
    }
    if (step < STEPS) {
      await tabTo(page, '#next');
      await page.keyboard.press('Enter');
    }
  }
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

/** With motion, the pictures come one after the other, and the checks are marked as they come. */
async function theFramesAreShownInTurn() {
  const page = await open(FORMS[0], { reducedMotion: 'no-preference' });
  await page.click('#steps li:nth-child(2) button');
  await page.waitForFunction(() => document.querySelector('#number').textContent.startsWith('Step 2 '));
  await page.click('#act');
  await page.waitForFunction(() => document.querySelector('#checks .ok') && document.querySelector('#checks .open'));
  await allHold(page, 2);
  await page.context().close();
}

/** The free stage: each command of the controls is carried out. */
async function theFreeStage() {
  const page = await open(FORMS[3]);
  await page.click('#steps .free');
  await page.waitForFunction(() => document.querySelector('#title').textContent === 'The free stage');
  const order = async (label) => {
    const before = await page.evaluate(() => document.body.dataset.version);
    await page.getByRole('button', { name: label, exact: true }).click();
    await page.waitForFunction((old) => document.body.dataset.version !== old, before);
  };
  for (const label of [
    'Client A: Send 5 bytes', 'One turn', 'Client A: Stop reading', 'Client A: Send 200,000 bytes',
    'Turns until it is quiet', 'Client A: Read', '10 s', 'To the next timer', 'Turns until it is quiet',
    'Connect one more', 'Turns until it is quiet', 'Client B: End its direction', 'Client A: Reset',
    'Turns until it is quiet',
  ]) await order(label);
  assert.match(await page.innerText('#happened'), /closed|end/);
  await looksRight(page, 'the free stage');
  await picture(page, 'free-narrow-light');
  await order('Drain');
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

/** Two readers see one stage. If both step at once, one steps, and the other sees that and is told so. */
async function twoReaders() {
  const [one, other] = [await open(FORMS[0]), await open(FORMS[0])];
  await one.click('#steps li:nth-child(1) button');
  await other.waitForFunction(() => document.querySelector('#number').textContent.startsWith('Step 1 '));
  const version = async (page) => Number(await page.evaluate(() => document.body.dataset.version));
  assert.equal(await version(one), await version(other));
  const before = await version(one);
  // Both name the version that they have seen.
  const press = (page) => page.evaluate(() => document.querySelector('#act').click());
  await Promise.all([press(one), press(other)]);
  for (const page of [one, other]) {
    await page.waitForFunction((old) => Number(document.body.dataset.version) > old, before);
    await allHold(page, 1);
  }
  await one.waitForTimeout(200); // Time for a second command, which must not come.
  assert.equal(await version(one), before + 1, 'one of the two commands was carried out');
  assert.equal(await version(other), before + 1);
  const notices = await Promise.all([one, other].map((page) => page.innerText('#notice')));
  assert.equal(notices.filter((notice) => notice.startsWith('Another reader')).length, 1, notices.join('|'));
  for (const page of [one, other]) await page.context().close();
}

try {
  for (const form of FORMS) {
    await tourByMouse(form);
    console.log(`the tour, ${form.name}: ok`);
  }
  for (const [name, test] of Object.entries({ tourByKeyboard, theFramesAreShownInTurn, theFreeStage, twoReaders })) {
    await test();
    console.log(`${name}: ok`);
  }
} finally {
  await browser.close();
  server.kill('SIGTERM');
}
