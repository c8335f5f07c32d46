// The status page in a headless Chromium. Whatever it logs or asks elsewhere is a
// failure, and so is what axe finds missing for keyboards and screen readers.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import puppeteer from 'puppeteer-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
export const DESKTOP = { width: 1100, height: 900 };
export const PHONE = { width: 390, height: 844, isMobile: true, hasTouch: true };

export async function launch() {
  const browser = await puppeteer.launch({
    executablePath: process.env.CHROMIUM,
    // Root has no sandbox, and a container little shared memory.
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
  });
  process.on('exit', () => browser.process()?.kill('SIGKILL'));
  return browser;
}

export class Page {
  // Opens the page of a process, and waits until it shows something.
  static async open(browser, admin, viewport = DESKTOP, scheme = 'light') {
    const page = new Page(await browser.newPage(), admin);
    await page.tab.setViewport(viewport);
    await page.tab.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
    await page.tab.goto(admin);
    await page.tab.waitForSelector('#shown:not([hidden])');
    return page;
  }

  constructor(tab, admin) {
    this.tab = tab;
    this.complaints = [];
    tab.on('console', (message) => this.complaints.push(`${message.type()}: ${message.text()}`));
    tab.on('pageerror', (error) => this.complaints.push(String(error)));
    tab.on('request', (request) => {
      if (request.url() !== admin && !request.url().startsWith('data:')) {
        this.complaints.push(`a request to ${request.url()}`);
      }
    });
  }

  text(selector) {
    return this.tab.$eval(selector, (element) => element.innerText);
  }

  // The rows of a table's body, as texts.
  rows(selector) {
    return this.tab.$$eval(`${selector} tr`, (rows) =>
      rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
  }

  // Every visible number that says which series it shows: [kind, series, unit, text].
  numbers() {
    return this.tab.$$eval('[data-now], [data-quarter]', (all) =>
      all.filter((element) => element.checkVisibility()).map(({ dataset, textContent }) => [
        dataset.now ? 'now' : 'quarter', dataset.now ?? dataset.quarter, dataset.unit, textContent,
      ]));
  }

  // The points of a line of a chart, in its own scale: [seconds ago, value].
  line(chart, name) {
    return this.tab.$eval(chart, (svg, name) => {
      const legend = [...svg.parentElement.querySelectorAll('.legend li')];
      const at = legend.findIndex((entry) => entry.textContent.startsWith(`${name}: `));
      const [early, , , now] = [...svg.querySelectorAll('text[text-anchor=middle]')].map((text) => Number(text.getAttribute('x')));
      const ticks = [...svg.querySelectorAll('text[text-anchor=end]')];
      const [bottom, top] = [ticks[0], ticks.at(-1)].map((tick) => Number(tick.getAttribute('y')) - 4);
      const greatest = Number(ticks.at(-1).textContent.replaceAll(',', ''));
      const path = svg.querySelectorAll('.line')[at].getAttribute('d');
      return [...path.matchAll(/([\d.]+) ([\d.]+)/g)].map(([, x, y]) => [
        ((now - x) / (now - early)) * 900, ((bottom - y) / (bottom - top)) * greatest,
      ]);
    }, name);
  }

  // The time of the data that is shown.
  asOf() {
    return this.tab.$eval('#about', (about) => about.textContent.match(/as of (.*)$/)[1]);
  }

  // Waits for data that were asked for after this call.
  async next() {
    for (const _ of [1, 2]) {
      const before = await this.asOf();
      await this.tab.waitForFunction((before) => !document.querySelector('#about').textContent.endsWith(before), {}, before);
    }
  }

  async checkAccess(scheme) {
    await this.tab.evaluate(axe);
    const { violations } = await this.tab.evaluate(() => globalThis.axe.run());
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`);
    assert.deepEqual(found, [], `axe, ${scheme}`);
  }

  async checkWidth() {
    const [content, window] = await this.tab.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert(content <= window, `${content} px of content in ${window} px`);
  }

  checkSilence() {
    assert.deepEqual(this.complaints, []);
  }

  // What is in the window.
  picture(path) {
    return this.tab.screenshot({ path });
  }
}
