"""Writes records to the topics of the examples in a transaction that is aborted: none of
them may show it.

    aborted.py BOOTSTRAP
"""

import json
import sys

from confluent_kafka import Producer

ROLLED_BACK = "rolled-back"
COMMAND = {"requestId": "r-1", "deviceId": ROLLED_BACK, "status": "sent", "sentAt": "2026-01-01T00:00:00Z"}
DEVICE = {"deviceId": "d-1", "curVersion": ROLLED_BACK, "result": "FAIL", "receivedAt": "2026-01-01T00:00:00Z"}
OPERATION = {"operationId": ROLLED_BACK, "targetVersions": {}, "succeeded": 0, "failed": 0, "devices": 0, "errors": {}}
RECORDS = {
    "iot.command-status": ("r-1", {"notifyType": "messageConfirm", "header": {"requestId": ROLLED_BACK}}),
    "iot.command-state": ("r-1", COMMAND),
    "iot.upgrade-result": ("d-1", {"notifyType": "swUpgradeResultNotify", "deviceId": ROLLED_BACK}),
    "iot.upgrade-operation": ("op-1", OPERATION),
    "iot.notifications": ("d-1", {"notifyType": ROLLED_BACK}),
    "iot.device-software": ("d-1", DEVICE | {"attempts": [DEVICE]}),
}

SETTINGS = {
    "bootstrap.servers": sys.argv[1],
    "transactional.id": ROLLED_BACK,
    # As the ingress and the streams, so that a key has its records in one partition.
    "partitioner": "murmur2_random",
    # It retries while the broker loads its coordinator, which is not worth a warning.
    "log_level": 3,
}
producer = Producer(SETTINGS)
producer.init_transactions()
producer.begin_transaction()
for topic, (key, value) in RECORDS.items():
    producer.produce(topic, key=key, value=json.dumps(value))
producer.flush()
producer.abort_transaction()
