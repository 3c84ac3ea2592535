"""What a mirror adds to a record's way: one producer at a steady rate, one consumer of the source and one of the target,
in one process with one clock.

A stage begins when all of the one before has arrived; the first only warms up the nodes. Prints a line for each of the others, in
milliseconds, p50 and p99 of: produced to consumed at the source, produced to consumed at the target, and the difference
between the two of each record.

Usage: latency.py SOURCE TARGET SOURCE_TOPIC TARGET_TOPIC RATE:SECONDS...
"""

import struct
import sys
import threading
import time

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

PATIENCE = 10.0


class Reader(threading.Thread):
    """Notes when each record arrives, by the number in front of its value."""

    def __init__(self, bootstrap, topic, total):
        super().__init__(daemon=True)
        self.consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "latency", "enable.auto.commit": False}
        )
        self.topic = topic
        self.arrived = [0] * total
        self.seen = 0
        self.first = threading.Event()

    def run(self):
        self.consumer.assign([TopicPartition(self.topic, 0, OFFSET_END)])
        while self.seen < len(self.arrived):
            record = self.consumer.poll(1.0)
            now = time.monotonic_ns()
            if record is None:
                continue
            if record.error():
                sys.exit(f"{self.topic}: {record.error()}")
            (number,) = struct.unpack_from(">i", record.value())
            if number < 0:
                self.first.set()
            else:
                self.arrived[number] = now
                self.seen += 1


def percentiles(found):
    found = sorted(found)
    return found[len(found) // 2] / 1e6, found[int(len(found) * 0.99)] / 1e6


def main():
    source_servers, target_servers, topic, remote, *stages = sys.argv[1:]
    stages = [tuple(map(int, stage.split(":"))) for stage in stages]
    total = sum(rate * seconds for rate, seconds in stages)
    source = Reader(source_servers, topic, total)
    target = Reader(target_servers, remote, total)
    source.start()
    target.start()
    producer = Producer({"bootstrap.servers": source_servers, "linger.ms": 0, "acks": 1})
    # The readers are at the end of their logs as soon as they see one of these.
    patience = time.monotonic() + PATIENCE
    while not (source.first.is_set() and target.first.is_set()):
        if time.monotonic() > patience:
            sys.exit("no record arrives")
        producer.produce(topic, struct.pack(">i", -1), partition=0)
        producer.poll(0.1)
    sent = []
    for rate, seconds in stages:
        begun = time.monotonic()
        for k in range(rate * seconds):
            time.sleep(max(0.0, begun + k / rate - time.monotonic()))
            value = struct.pack(">i", len(sent)) + bytes(204)
            sent.append(time.monotonic_ns())
            producer.produce(topic, value, partition=0)
            producer.poll(0)
        producer.flush()
        patience = time.monotonic() + PATIENCE
        for reader in (source, target):
            while reader.seen < len(sent):
                if time.monotonic() > patience:
                    sys.exit(f"only {reader.seen} of {len(sent)} records arrived at {reader.topic}")
                time.sleep(0.1)
    first = 0
    for number, (rate, seconds) in enumerate(stages):
        stage = range(first, first + rate * seconds)
        first = stage.stop
        if number == 0:
            continue
        to_source = [source.arrived[i] - sent[i] for i in stage]
        to_target = [target.arrived[i] - sent[i] for i in stage]
        added = [target.arrived[i] - source.arrived[i] for i in stage]
        print(*(x for what in (to_source, to_target, added) for x in percentiles(what)))


if __name__ == "__main__":
    main()
