-- Tables of pushes and of states in Flink SQL, and two queries on them.
--
-- This file is text: no test runs it. It needs flink-sql-connector-kafka and flink-json.

-- Pushes. Fields that the platform sends in another type than it documents are NULL.
CREATE TABLE upgrade_results (
  deviceId STRING,
  operationId STRING,
  swUpgradeResult STRING,
  errorCode STRING,
  headers MAP<STRING, BYTES> METADATA VIRTUAL,
  processed_at AS PROCTIME()
) WITH (
  'connector' = 'kafka',
  'topic' = 'iot.upgrade-result',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'northbridge-example-flink',
  'properties.isolation.level' = 'read_committed',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'json',
  'json.ignore-parse-errors' = 'true'
);

-- States: the last record of a key is its state, one without a value deletes it.
CREATE TABLE command_state (
  requestId STRING,
  deviceId STRING,
  status STRING,
  sentAt TIMESTAMP_LTZ(3),
  executedAt TIMESTAMP_LTZ(3),
  PRIMARY KEY (requestId) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'iot.command-state',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.isolation.level' = 'read_committed',
  'key.format' = 'raw',
  'value.format' = 'json',
  'value.json.timestamp-format.standard' = 'ISO-8601'
);

CREATE TABLE device_software (
  deviceId STRING,
  curVersion STRING,
  PRIMARY KEY (deviceId) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'iot.device-software',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.isolation.level' = 'read_committed',
  'key.format' = 'raw',
  'value.format' = 'json'
);

-- Failures by their cause, each push counted once: deduplication keeps the first row of a
-- `ce_id`. It remembers every id, unless table.exec.state.ttl bounds that; but this also
-- expires the counts below, and in a query of states it forgets those that do not change.
CREATE TEMPORARY VIEW distinct_upgrade_results AS
SELECT * FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY DECODE(headers['ce_id'], 'UTF-8') ORDER BY processed_at) AS repetition
  FROM upgrade_results
) WHERE repetition = 1;

SELECT errorCode, COUNT(*) AS failures
FROM distinct_upgrade_results
WHERE UPPER(swUpgradeResult) LIKE 'FAIL%'
GROUP BY errorCode;

-- Executed commands, with the software that their device has.
SELECT command.requestId, command.deviceId, device.curVersion, command.sentAt, command.executedAt
FROM command_state AS command
LEFT JOIN device_software AS device ON command.deviceId = device.deviceId
WHERE command.status = 'executed';
