"""Writes 20,000 JSON events, 697 bytes on average, one a line: the payload of the compressed data sets.

Usage: payload.py FILE
"""

import json
import random
import sys

CITIES = ["Oslo", "Lima", "Tokyo", "Paris", "Cairo", "Quito", "Delhi", "Perth"]
PAGES = ["shop", "cart", "item", "help", "account"]


def items():
    return [
        {
            "sku": f"SKU-{random.randint(1, 9999):05d}",
            "qty": random.randint(1, 9),
            "price": round(random.random() * 200, 2),
        }
        for _ in range(random.randint(4, 10))
    ]


def event(number):
    return {
        "event_id": f"{random.getrandbits(64):016x}",
        "ts": 1763650000000 + number * 37,
        "user": {
            "id": random.randint(1, 10**7),
            "city": random.choice(CITIES),
            "plan": random.choice(["free", "pro", "team"]),
        },
        "action": random.choice(["view", "click", "buy", "search", "login"]),
        "path": "/" + "/".join(random.choice(PAGES) for _ in range(3)),
        "latency_ms": round(random.expovariate(1 / 80), 3),
        "trace": f"{random.getrandbits(128):032x}",
        "items": items(),
        "note": "the quick brown fox jumps over the lazy dog " * random.randint(1, 4),
    }


random.seed(7)
with open(sys.argv[1], "w") as file:
    for number in range(20000):
        file.write(json.dumps(event(number)) + "\n")
