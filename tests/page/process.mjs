// A running `northbridge`, and what it says of itself outside the page.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const children = [];
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

// Starts a subcommand with settings; both listeners bind to free loopback ports.
export async function start(command, settings) {
  const set = { 'http.listen': '127.0.0.1:0', 'admin.listen': '127.0.0.1:0', 'log.format': 'json', 'log.level': 'info', ...settings };
  const flags = Object.entries(set).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  const child = spawn(process.env.NORTHBRIDGE, [command, ...flags], { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  const addresses = {};
  for await (const line of createInterface({ input: child.stderr })) {
    const { message, address } = JSON.parse(line);
    addresses[message] = address;
    if (message === 'admin server listening') break;
  }
  child.stderr.resume();
  let broker;
  if (command === 'dev') {
    for await (const line of createInterface({ input: child.stdout })) {
      broker = line.match(/^ {2}broker +(\S+)$/)?.[1];
      if (broker) break;
    }
  }
  child.stdout.resume();
  return {
    pushes: `http://${addresses.listening}/notifications`,
    admin: `http://${addresses['admin server listening']}/`,
    // The address of the embedded Kafka of `dev`.
    broker,
    stop() {
      child.kill('SIGKILL');
      return new Promise((stopped) => child.on('exit', stopped));
    },
  };
}

// Plays the platform, to its end.
export function simulate(flags) {
  const child = spawn(process.env.NORTHBRIDGE, ['simulate', ...flags], { stdio: 'ignore' });
  children.push(child);
  return new Promise((ended) => child.on('exit', ended));
}

// What `/metrics` says at one time.
export class Scrape {
  static async of(admin) {
    return new Scrape(await (await fetch(`${admin}metrics`)).text());
  }

  constructor(text) {
    const lines = text.split('\n').filter((line) => line && !line.startsWith('#'));
    this.series = lines.map((line) => {
      const [, name, labels, value] = line.match(/^(\w+)(?:\{(.*)\})? (\S+)$/);
      return { name, labels: pairs(labels), value: Number(value) };
    });
  }

  // The sum of all series that have the name and the labels of `wanted`.
  sum(wanted) {
    const [, name, labels] = wanted.match(/^(\w+)(?:\{(.*)\})?$/);
    const has = (series) => Object.entries(pairs(labels)).every(([key, value]) => series.labels[key] === value);
    const found = this.series.filter((series) => series.name === name && has(series));
    if (found.length === 0) throw new Error(`/metrics has no ${wanted}`);
    return found.reduce((sum, { value }) => sum + value, 0);
  }

  // The quantile of the pushes with one of these outcomes, as Prometheus computes it.
  latency(quantile, outcomes) {
    const buckets = new Map();
    for (const { name, labels, value } of this.series) {
      if (name !== 'northbridge_push_duration_seconds_bucket' || !outcomes.includes(labels.outcome)) continue;
      const bound = labels.le === '+Inf' ? Infinity : Number(labels.le);
      buckets.set(bound, (buckets.get(bound) ?? 0) + value);
    }
    const rank = quantile * buckets.get(Infinity);
    let below = [0, 0];
    for (const [bound, count] of [...buckets].sort(([one], [other]) => one - other)) {
      if (count >= rank) return below[0] + ((bound - below[0]) * (rank - below[1])) / (count - below[1]);
      below = [bound, count];
    }
    return NaN;
  }
}

function pairs(labels = '') {
  return Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, value]) => [key, value]));
}
