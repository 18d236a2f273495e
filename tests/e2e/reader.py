#!/usr/bin/env python3
"""Reads topics as an outsider would, and prints them.

    reader.py dump   --dir DIR TOPIC...     JSON lines: topic, partition, offset, key, headers, value
    reader.py hash   --dir DIR TOPIC...     one line a topic: records, and a hash of the set of (key, value)
    reader.py count  --dir DIR TOPIC...     records by topic, for waiting
    reader.py ends   --dir DIR TOPIC...     waits until each partition ends where a reader of committed records ends; fails
                                            when one does not: a transaction is open
    reader.py follow --dir DIR TOPIC...     reads what is committed while it is written; when its input ends, `hash` of it

DIR is the folder of `platform up`; or give --bootstrap and --registry. Only committed records
are read. `hash` ignores order, partitions and offsets, so two runs with other commit points,
crashes or partition counts compare equal when their records are the same, each once.
"""

import argparse
import hashlib
import json
import select
import signal
import sys
import time
from pathlib import Path

from topics import Reader, plain


ENDS_SECONDS = 20


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


def await_ends(reader, topics):
    for _ in range(ENDS_SECONDS):
        committed, all_of_it = (reader.ends(topics, committed) for committed in (True, False))
        hanging = {place: end for place, end in all_of_it.items() if committed[place] != end}
        if not hanging:
            return 0
        time.sleep(1)
    for (topic, partition), end in sorted(hanging.items()):
        print(f"{topic}-{partition}\tends at {end}, for readers of committed records at {committed[topic, partition]}")
    return 1


def set_hash(digests):
    """Same for the same records in any order; a record twice counts twice."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def digest(record):
    return hashlib.sha256(frame(record.key) + frame(record.raw)).digest()


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
    for name in ("dump", "hash", "count", "ends", "follow"):
        command = commands.add_parser(name)
        add_place(command)
        command.add_argument("topics", nargs="+", metavar="TOPIC")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `dump | head` ends quietly
    given = parser.parse_args()
    try:
        reader = reader_of(given)
        if given.command == "ends":
            return await_ends(reader, given.topics)
        if given.command == "follow":
            records = reader.follow(given.topics, over=lambda: select.select([sys.stdin], [], [], 0)[0])
        else:
            records = reader.read(given.topics, decode=given.command == "dump")
        if given.command == "dump":
            for record in records:
                print(json.dumps(as_line(record), ensure_ascii=False))
            return 0
        digests = {topic: [] for topic in given.topics}
        for record in records:
            digests[record.topic].append(digest(record))
    except (RuntimeError, OSError) as error:
        print(f"reader: {error}", file=sys.stderr)
        return 1
    for topic, of_topic in digests.items():
        print(f"{topic}\t{len(of_topic)}" + ("" if given.command == "count" else f"\t{set_hash(of_topic)}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
