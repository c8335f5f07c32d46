// The status page against what it is about; `run` says how to start this.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DESKTOP, Page, PHONE, launch } from './browser.mjs';
import { Scrape, simulate, start } from './process.mjs';

const TOKEN = 'never-to-be-shown';
const WAITED = ['stored', 'spooled', 'dead_lettered', 'unconfirmed'];
const confirmation = (id, status) => JSON.stringify({
  notifyType: 'messageConfirm',
  header: { requestId: id, from: '/devices/d', to: 'a', status, timestamp: '20260101T000000Z' },
  body: {},
});
const upgrade = (device, result) => JSON.stringify({
  notifyType: 'swUpgradeResultNotify', deviceId: device, swUpgradeResult: result, operationId: 'op', curVersion: '1',
});

const push = async (url, body, token = TOKEN) => (await fetch(`${url}?token=${token}`, { method: 'POST', body })).status;

// One push of each kind, and the answer it gets.
async function pushAll({ pushes }) {
  const rows = [
    ...Array.from({ length: 40 }, (_, id) => [confirmation(`r-${id}`, id % 2 ? 'sent' : 'delivered'), 200]),
    ...Array.from({ length: 3 }, (_, id) => [upgrade(`d-${id}`, id ? 'SUCCESS' : 'FAIL'), 200]),
    [upgrade('d-9', 'perhaps'), 200],
    ['no JSON', 200],
    ['{"notifyType":"messageConfirm","header":{}}', 200],
    ['', 400],
    ['x', 401, 'wrong'],
    ['x'.repeat(2 * 1024 * 1024), 413],
  ];
  for (const [body, status, token] of rows) assert.equal(await push(pushes, body, token), status);
  assert.equal((await fetch(`${pushes}/elsewhere`)).status, 404);
}

async function until(what, condition) {
  for (let tries = 0; tries < 300; tries += 1) {
    if (await condition().catch(() => false)) return;
    await sleep(100);
  }
  throw new Error(`timed out: ${what}`);
}

const isReady = async ({ admin }) => (await fetch(`${admin}readyz`)).ok;

// Everything that was pushed is in the metrics of the streams, whose gauges follow late.
async function settle({ admin }, records) {
  const applied = 'northbridge_stream_records_total{stream="command-status",result="applied"}';
  await until('the streams have processed everything', async () => {
    const scrape = await Scrape.of(admin);
    return scrape.sum(applied) === records && scrape.sum('northbridge_stream_lag_records') === 0
      && scrape.sum('northbridge_commands_open') > 0 && scrape.sum('northbridge_pushes_in_flight') === 0;
  });
  await sleep(6_000);
}

// A number with its unit, as the page writes it.
function parse(text) {
  const factors = { '': 1, ms: 0.001, s: 1, min: 60, B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };
  const [, digits, unit] = text.match(/^([\d,.]+) ?(\w*)$/);
  return Number(digits.replaceAll(',', '')) * factors[unit];
}

const near = (found, expected, share, what) =>
  assert(Math.abs(found - expected) <= Math.abs(expected) * share, `${what}: ${found}, not ${expected}`);

// The process is younger than a quarter of an hour, so both kinds of numbers are those
// of `/metrics`.
async function compare(page, { admin }, families) {
  await page.next();
  const scrape = await Scrape.of(admin);
  const numbers = await page.numbers();
  const ages = (series) => series.includes('_age_seconds');
  for (const [kind, series, unit, text] of numbers) {
    const [shown, expected] = [parse(text), scrape.sum(series)];
    if (unit || ages(series)) near(shown, expected, 0.01, series);
    else assert.equal(shown, expected, `${kind} ${series}`);
  }
  const shown = new Set(numbers.map(([, series]) => series.split('{')[0]));
  assert.deepEqual([...shown].sort(), families.sort());
  return scrape;
}

async function checkPushes(page, scrape) {
  for (const [id, quantile] of [['#p50', 0.5], ['#p99', 0.99]]) {
    near(parse(await page.text(id)), scrape.latency(quantile, WAITED), 0.01, id);
  }
  const received = scrape.sum('northbridge_pushes_received_total');
  const answered = ['stored', 'dead_lettered'].map((outcome) => scrape.sum(`northbridge_pushes_total{outcome="${outcome}"}`));
  const share = Math.floor((1_000 * (answered[0] + answered[1])) / received) / 10;
  assert.equal(await page.text('#share'), `${share} %`);

  const codes = (await page.rows('#codes')).map(([code]) => code);
  assert.deepEqual(codes, ['200', '400', '401', '404', '413']);
  const total = (code) => scrape.sum(`northbridge_http_responses_total{code="${code}"}`);
  for (const code of codes) {
    // A point of the chart is the rate since the sample before, five seconds ago or less.
    const points = await page.line('#answers', code);
    const seconds = (at) => (at ? points[at - 1][0] - points[at][0] : 5);
    const area = points.reduce((sum, [, rate], at) => sum + rate * seconds(at), 0);
    near(area, total(code), 0.05, `the area under ${code}`);
  }
  const minutes = await page.rows('#minutes');
  const sums = ['Pushes', ...codes].map((_, column) => minutes.reduce((sum, row) => sum + parse(row[column + 1]), 0));
  assert.deepEqual(sums, [received, ...codes.map(total)], 'the sums of all minutes');
}

async function checkReadiness(page, { admin }) {
  const { ready, conditions } = await (await fetch(`${admin}readyz`)).json();
  const rows = await page.rows('#conditions');
  assert.deepEqual(rows.map(([name, met, , why]) => [name, met, why]),
    conditions.map(({ name, met, why }) => [name, met ? '✓ yes' : '✗ no', why]));
  const title = await page.text('#ready');
  assert.equal(title.startsWith('✓ Ready'), ready, title);
}

async function checkKeyboard(page) {
  const focused = () => page.tab.evaluate(() => document.activeElement?.tagName);
  for (let presses = 0; (await focused()) !== 'SUMMARY'; presses += 1) {
    assert(presses < 20, 'Tab does not reach the table of minutes');
    await page.tab.keyboard.press('Tab');
  }
  await page.tab.keyboard.press('Enter');
  await page.next();
  assert(await page.tab.$eval('details', (details) => details.open), 'the table stays open');
  assert.equal(await focused(), 'SUMMARY', 'the focus stays');
}

// Numbers of the page's families, all of which `dev` with a spool has.
const OF_INGRESS = [
  'northbridge_connections', 'northbridge_consecutive_failed_pushes', 'northbridge_dead_letters_total',
  'northbridge_http_responses_total', 'northbridge_pushes_in_flight', 'northbridge_pushes_received_total',
  'northbridge_pushes_total', 'northbridge_kafka_outage_seconds', 'northbridge_produce_failures_total',
  'northbridge_topic_findings',
];
const OF_SPOOL = ['records', 'bytes', 'max_bytes', 'oldest_age_seconds', 'written_total', 'delivered_total', 'damaged_total']
  .map((name) => `northbridge_spool_${name}`);
const OF_STREAMS = [
  ...['lag_records', 'event_age_seconds', 'records_total', 'transactions_total', 'state_entries'].map((name) => `northbridge_stream_${name}`),
  'northbridge_commands_open', 'northbridge_commands_overdue', 'northbridge_upgrades_total',
];
const OF_CLIENTS = ['northbridge_kafka_brokers_connected', 'northbridge_kafka_errors_total'];

async function testDev(browser, spool) {
  const dev = await start('dev', { 'spool.directory': spool, 'auth.token': TOKEN });
  await until('dev is ready', () => isReady(dev));
  await pushAll(dev);
  await settle(dev, 40);

  // What happened before the page was opened is there at first sight.
  const page = await Page.open(browser, dev.admin);
  assert((await page.line('#answers', '200')).length > 1);
  const families = [...OF_INGRESS, ...OF_SPOOL, ...OF_STREAMS, ...OF_CLIENTS];
  await checkPushes(page, await compare(page, dev, families));
  await checkReadiness(page, dev);
  await checkKeyboard(page);
  await page.checkAccess('light');

  const reasons = (await page.rows('#reasons')).map(([reason]) => reason);
  assert.deepEqual(reasons, ['id-missing', 'not-json']);
  const clients = (await page.rows('#clients')).map(([client]) => client);
  assert.deepEqual(clients, ['command-status', 'ingress', 'upgrade-operation', 'upgrade-result']);
  assert.equal(await page.text('#errors'), 'none since the start');
  const settings = Object.fromEntries(await page.rows('#setting-rows'));
  assert.equal(settings['auth.token'], '***');
  assert.equal(settings['spool.directory'], spool);
  assert(!(await page.tab.content()).includes(TOKEN));

  // It is live: further pushes appear without reloading.
  for (let id = 0; id < 5; id += 1) await push(dev.pushes, confirmation(`r-${id}`, 'executed'));
  await settle(dev, 45);
  await checkPushes(page, await compare(page, dev, families));
  page.checkSilence();

  const phone = await Page.open(browser, dev.admin, PHONE, 'dark');
  await compare(phone, dev, families);
  await phone.checkWidth();
  await phone.checkAccess('dark');
  phone.checkSilence();
  const ground = ({ tab }) => tab.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.notEqual(await ground(page), await ground(phone));

  await dev.stop();
  await phone.tab.waitForSelector('#lost:not([hidden])');
  assert.match(await phone.text('#lost'), /does not answer.*as of \d/);
}

// An ingress whose Kafka, that of a `dev`, dies.
async function outage() {
  const kafka = await start('dev', {});
  const ingress = await start('ingress', {
    'kafka.bootstrap_servers': kafka.broker,
    'topics.replication_factor': 1, 'topics.min_insync_replicas': 1,
    'http.answer_deadline_ms': 1_000, 'http.body_timeout_ms': 500, 'limits.admission_timeout_ms': 100,
  });
  await until('the ingress is ready', () => isReady(ingress));
  return { kafka, ingress };
}

async function testOutage(browser) {
  const { kafka, ingress } = await outage();
  for (let id = 0; id < 20; id += 1) assert.equal(await push(ingress.pushes, confirmation(`r-${id}`, 'sent')), 200);
  // Until a sample is taken between the two.
  await sleep(6_000);
  await kafka.stop();
  await until('pushes are refused at once', async () => {
    assert.equal(await push(ingress.pushes, confirmation('r', 'sent')), 503);
    return (await Scrape.of(ingress.admin)).sum('northbridge_pushes_total{outcome="unavailable"}') > 2;
  });

  const page = await Page.open(browser, ingress.admin, PHONE);
  await page.next();
  await checkReadiness(page, ingress);
  assert.match(await page.text('#ready'), /Not ready: kafka/);
  const [[client, brokers, errors]] = await page.rows('#clients');
  assert.deepEqual([client, brokers], ['ingress', '0']);
  assert(parse(errors) > 0);
  const address = kafka.broker.replaceAll('.', '\\.');
  assert.match(await page.text('#errors'), new RegExp(`^ingress: .*${address}.*still failing\\)$`));
  const scrape = await Scrape.of(ingress.admin);
  const refused = scrape.sum('northbridge_pushes_total') - 20;
  assert.deepEqual((await page.rows('#codes')).map((row) => row.slice(0, 2)), [['200', '20'], ['503', `${refused}`]]);
  const last = async (code) => (await page.line('#answers', code)).findLast(([, rate]) => rate > 0)[0];
  assert(await last('200') > await last('503'), 'the failures are after the successes');
  for (const section of ['#streams', '#spool']) {
    assert.equal(await page.tab.$eval(section, (heading) => heading.checkVisibility()), false, section);
  }
  await page.checkWidth();
  await page.checkAccess('light, not ready');
  page.checkSilence();
  await ingress.stop();
}

async function testStream(browser) {
  // Nothing listens to this port.
  const stream = await start('upgrade-result', { 'kafka.bootstrap_servers': '127.0.0.1:1' });
  const page = await Page.open(browser, stream.admin);
  await page.next();
  const shown = new Set((await page.numbers()).map(([, series]) => series.split('{')[0]));
  const commands = ['northbridge_commands_open', 'northbridge_commands_overdue'];
  assert.deepEqual([...shown].sort(), [...OF_STREAMS.filter((name) => !commands.includes(name)), ...OF_CLIENTS].sort());
  assert.equal(await page.text('h1'), 'northbridge upgrade-result');
  for (const section of ['#pushes', '#dead-letters', '#spool']) {
    assert.equal(await page.tab.$eval(section, (heading) => heading.checkVisibility()), false, section);
  }
  page.checkSilence();
  await stream.stop();
}

// An ingress under load whose Kafka died two minutes ago.
async function takePicture(browser, path) {
  const { kafka, ingress } = await outage();
  const mix = ['--rate', '60', '--others', '15', '--upgrades', '20', '--oddities', '2', '--devices', '2000'];
  const load = simulate([ingress.pushes, '--duration', '15m', ...mix]);
  await sleep(12 * 60_000);
  await kafka.stop();
  await sleep(2.5 * 60_000);
  const page = await Page.open(browser, ingress.admin, { ...DESKTOP, height: 830 });
  await page.picture(path);
  await load;
  await ingress.stop();
}

const browser = await launch();
const spool = mkdtempSync(join(tmpdir(), 'northbridge-page-'));
const [, , flag, picture] = process.argv;
try {
  for (const [name, test] of [
    ['dev: what it shows is what /metrics shows', () => testDev(browser, spool)],
    ['ingress in an outage: since when, and why', () => testOutage(browser)],
    ['upgrade-result: only what this process has', () => testStream(browser)],
  ]) {
    await test();
    console.log(`ok: ${name}`);
  }
  if (flag === '--picture') await takePicture(browser, picture);
} finally {
  await browser.close();
  rmSync(spool, { recursive: true });
}
console.log('3 passed, 0 failed');
process.exit();
