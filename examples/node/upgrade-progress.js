// Prints the progress of every software upgrade, and again each time it changes.

import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';

import { Kafka, logLevel } from 'kafkajs';

/** @typedef {import('./upgrade-operation.js').UpgradeOperation} UpgradeOperation */

const { values: options } = parseArgs({
  options: {
    bootstrap: { type: 'string', default: 'localhost:9092' },
    topic: { type: 'string', default: 'iot.upgrade-operation' },
    count: { type: 'string', default: 'Infinity' }, // ends after as many records
  },
});

/** @param {UpgradeOperation} operation */
function describe({ operationId, targetVersions, devices, succeeded, failed, errors }) {
  const versions = Object.keys(targetVersions).join(', ');
  const causes = Object.entries(errors).map(([code, count]) => `${count} with ${code}`);
  const failures = [`${failed} failed`, ...causes].join(', ');
  return `${operationId} to ${versions}: ${succeeded} of ${devices} succeeded, ${failures}`;
}

const kafka = new Kafka({
  clientId: 'northbridge-example',
  brokers: options.bootstrap.split(','),
  logLevel: logLevel.WARN,
});
// Each run reads all states, so it has a group of its own, which commits nothing.
const consumer = kafka.consumer({
  groupId: `northbridge-example-upgrade-progress-${randomUUID()}`,
  readUncommitted: false, // records of aborted transactions look like states
});

process.once('SIGINT', () => consumer.disconnect());
process.once('SIGTERM', () => consumer.disconnect());

let remaining = Number(options.count);
await consumer.connect();
await consumer.subscribe({ topic: options.topic, fromBeginning: true });
await consumer.run({
  autoCommit: false,
  eachMessage: async ({ message: { value } }) => {
    if (remaining <= 0) return;
    remaining -= 1;
    if (value) console.log(describe(JSON.parse(value.toString())));
    // Not awaited: it waits for this function.
    if (remaining === 0) consumer.disconnect();
  },
});
