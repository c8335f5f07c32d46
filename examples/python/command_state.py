"""Prints the state of one command, and again each time it changes."""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator
from itertools import islice

from command_state_types import CommandState
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("request_id", help="the command, as in header.requestId of its pushes")
    parser.add_argument("--bootstrap", default="localhost:9092", help="default: %(default)s")
    parser.add_argument("--topic", default="iot.command-state", help="default: %(default)s")
    parser.add_argument("--count", type=int, help="ends after COUNT states instead of following")
    arguments = parser.parse_args()

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        states = read(arguments.bootstrap, arguments.topic, arguments.request_id, stopped)
        for state in islice(states, arguments.count):
            print(describe(state) if state else f"{arguments.request_id}: expired", flush=True)
    except KafkaException as error:
        sys.exit(f"cannot read {arguments.topic} at {arguments.bootstrap}: {error}")


def read(
    bootstrap: str, topic: str, request_id: str, stopped: threading.Event
) -> Iterator[CommandState | None]:
    """Yields the states of a command from the beginning of the topic; None once it has expired."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            # Records of aborted transactions look like states. This is librdkafka's default.
            "isolation.level": "read_committed",
            # The client requires a group, but reading needs none: nothing joins or commits.
            "group.id": "northbridge-example-command-state",
            "enable.auto.commit": False,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        while not stopped.is_set():
            message = consumer.poll(0.5)
            if message and key_of(message) == request_id:
                value = message.value()
                yield json.loads(value) if value else None
    finally:
        consumer.close()


def key_of(message: Message) -> str | None:
    if error := message.error():
        raise KafkaException(error)
    key = message.key()
    return key.decode() if isinstance(key, bytes) else key


def describe(state: CommandState) -> str:
    return (
        f"{state['requestId']}: {state['status']}"
        f" (sent {state.get('sentAt', '?')}, delivered {state.get('deliveredAt', '?')},"
        f" executed {state.get('executedAt', '?')})"
    )


if __name__ == "__main__":
    main()
