#!/usr/bin/env python3
"""Reads topics as an outsider would, and prints them.

    reader.py dump   --dir DIR TOPIC...     JSON lines: topic, partition, offset, key, headers, value
    reader.py hash   --dir DIR TOPIC...     one line a topic: records, and a hash of the set of (key, value)
    reader.py count  --dir DIR TOPIC...     records by topic, for waiting

DIR is the folder of `platform up`; or give --bootstrap and --registry. Only committed records
are read. `hash` ignores order, partitions and offsets, so two runs with other commit points,
crashes or partition counts compare equal when their records are the same, each once.
"""

import argparse
import hashlib
import json
import signal
import sys
from pathlib import Path

from topics import Reader, plain


def add_place(command):
    command.add_argument("--dir", help="folder of `platform up`")
    command.add_argument("--bootstrap", help="Kafka's address, instead of --dir")
    command.add_argument("--registry", help="the registry's URL, instead of --dir")


def reader_of(given):
    env = {}
    if given.dir:
        lines = (Path(given.dir) / "env").read_text().splitlines()
        env = dict(line.split("=", 1) for line in lines)
    bootstrap = given.bootstrap or env.get("KAFKA_BOOTSTRAP")
    if not bootstrap:
        raise RuntimeError("give --dir of a running platform, or --bootstrap")
    return Reader(bootstrap, given.registry or env.get("REGISTRY_URL"))


def set_hash(records):
    """Same for the same records in any order; a record twice counts twice."""
    digests = sorted(hashlib.sha256(frame(record.key) + frame(record.raw)).digest() for record in records)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def frame(data):
    return b"-" if data is None else str(len(data)).encode() + b":" + data


def as_line(record):
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": None if record.key is None else record.key.decode("utf-8", errors="backslashreplace"),
        "headers": [[name, (value or b"").decode("utf-8", errors="backslashreplace")] for name, value in record.headers],
        "value": plain(record.value),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in ("dump", "hash", "count"):
        command = commands.add_parser(name)
        add_place(command)
        command.add_argument("topics", nargs="+", metavar="TOPIC")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `dump | head` ends quietly
    given = parser.parse_args()
    try:
        reader = reader_of(given)
        records = reader.read(given.topics, decode=given.command == "dump")
    except (RuntimeError, OSError) as error:
        print(f"reader: {error}", file=sys.stderr)
        return 1
    if given.command == "dump":
        for record in records:
            print(json.dumps(as_line(record), ensure_ascii=False))
        return 0
    for topic in given.topics:
        of_topic = [record for record in records if record.topic == topic]
        print(f"{topic}\t{len(of_topic)}" + (f"\t{set_hash(of_topic)}" if given.command == "hash" else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
