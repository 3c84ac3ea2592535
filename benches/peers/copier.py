"""A throwaway peer to measure beside, not a mirror: it copies record batches as they are, and only sets their base
offsets to zero. No positions, no retries, no idempotence, no new partitions: it ends at the first high watermark it
reaches.

Each thread owns the partitions p with p % THREADS == its number, fetches up to 4 MiB of each in turn, and produces them in
requests with one batch of each partition, one request at a time.

Usage: copier.py SOURCE TARGET SOURCE_TOPIC TARGET_TOPIC PARTITIONS THREADS
"""

import socket
import struct
import sys
import threading

SOURCE, TARGET, SOURCE_TOPIC, TARGET_TOPIC = sys.argv[1:5]
PARTITIONS, THREADS = int(sys.argv[5]), int(sys.argv[6])


def connect(address):
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection, size):
    buffer = bytearray(size)
    view = memoryview(buffer)
    filled = 0
    while filled < size:
        count = connection.recv_into(view[filled:])
        if count == 0:
            raise EOFError("the broker closed the connection")
        filled += count
    return view


def call(connection, buffers):
    """Sends a frame and returns the answer's, from its correlation id on."""
    connection.sendall(struct.pack(">i", sum(len(b) for b in buffers)))
    for buffer in buffers:
        connection.sendall(buffer)
    return receive(connection, struct.unpack(">i", receive(connection, 4))[0])


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def fetch(connection, topic, partition, offset):
    """Fetch v10 of one partition: its high watermark and its record set."""
    request = struct.pack(">hhi", 1, 10, 1) + string("raw")
    request += struct.pack(">iiiib", -1, 100, 1, 8 << 20, 0)  # replica, wait, min and max bytes, isolation
    request += struct.pack(">ii", 0, -1)  # no session
    request += struct.pack(">i", 1) + string(topic) + struct.pack(">i", 1)
    request += struct.pack(">iiqqi", partition, -1, offset, -1, 4 << 20)
    request += struct.pack(">i", 0)  # nothing forgotten
    answer = call(connection, [request])
    at = 4 + 4 + 2 + 4 + 4
    at += 2 + struct.unpack_from(">h", answer, at)[0] + 4
    _, error, high_watermark, _ = struct.unpack_from(">ihqq", answer, at)
    at += 22 + 8
    at += 4 + max(0, struct.unpack_from(">i", answer, at)[0]) * 16  # aborted transactions
    size = struct.unpack_from(">i", answer, at)[0]
    at += 4
    if error:
        raise RuntimeError(f"fetch of partition {partition} at offset {offset}: error {error}")
    return high_watermark, answer[at : at + max(size, 0)]


def produce(connection, topic, batches):
    """Produce v7 with acks=all of one batch for each partition."""
    head = struct.pack(">hhi", 0, 7, 2) + string("raw")
    head += struct.pack(">hhii", -1, -1, 30000, 1) + string(topic) + struct.pack(">i", len(batches))
    buffers = [head]
    for partition, batch in batches:
        buffers += [struct.pack(">ii", partition, len(batch)), batch]
    answer = call(connection, buffers)
    at = 4 + 4
    at += 2 + struct.unpack_from(">h", answer, at)[0] + 4
    for _ in batches:
        partition, error = struct.unpack_from(">ih", answer, at)
        at += 4 + 2 + 8 + 8 + 8
        if error:
            raise RuntimeError(f"produce to partition {partition}: error {error}")


def split(records, offset):
    """The whole batches of a record set, base offsets set to zero, and the next offset."""
    at, batches = 0, []
    while at + 61 <= len(records):
        base, size = struct.unpack_from(">qi", records, at)
        end = at + 12 + size
        if end > len(records):
            break
        offset = base + struct.unpack_from(">i", records, at + 23)[0] + 1
        struct.pack_into(">q", records, at, 0)
        batches.append(records[at:end])
        at = end
    return batches, offset


def copy(thread):
    source, target = connect(SOURCE), connect(TARGET)
    offsets = {p: 0 for p in range(PARTITIONS) if p % THREADS == thread}
    done = set()
    while len(done) < len(offsets):
        queues = {}
        for partition in offsets:
            if partition in done:
                continue
            high_watermark, records = fetch(source, SOURCE_TOPIC, partition, offsets[partition])
            if offsets[partition] >= high_watermark:
                done.add(partition)
                continue
            queues[partition], offsets[partition] = split(records, offsets[partition])
        while any(queues.values()):
            produce(target, TARGET_TOPIC, [(p, q.pop(0)) for p, q in queues.items() if q])


threads = [threading.Thread(target=copy, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
