#!/usr/bin/env python3
"""Reads topics as an outsider would, and prints them.

    reader.py dump   --dir DIR TOPIC...     JSON lines: topic, partition, offset, key, headers, value
    reader.py hash   --dir DIR TOPIC...     one line a topic: records, and a hash of the set of (key, value)
    reader.py count  --dir DIR TOPIC...     records by topic, for waiting
    reader.py check  --dir DIR [--expected FILE] [--prefix PREFIX] [--dead-letters N]
                                            the books: balanced, complete, each entry once (checks.py)

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

import checks
from topics import Reader, plain

OF_DEALS = ["deal.canonical", "contract.state", "recognition.schedule", "billing.schedule", "journal.entries"]
INTERNAL = ["crm.changes", "contract.facts"]
DEAD_LETTERS = "accrue.dead-letters"
SHOWN_PROBLEMS = 20


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


def check(reader, given):
    """Problems by name of the check, and how many records each topic has."""
    prefix = given.prefix
    owned = [prefix + topic for topic in [*OF_DEALS, *INTERNAL, DEAD_LETTERS]]
    by_topic = {topic: [] for topic in owned}
    for record in reader.read([prefix + topic for topic in [*OF_DEALS, DEAD_LETTERS]]):
        by_topic[record.topic].append(record)
    canonical, state, schedule, billing, journal = (by_topic[prefix + topic] for topic in OF_DEALS)
    of_deals = canonical + state + schedule + billing + journal
    dead = len(by_topic[prefix + DEAD_LETTERS])
    found = {
        "keys name the deal, one partition each": checks.keys(of_deals),
        "a deal is in the same partition of every topic": checks.together(of_deals),
        "events are unique": checks.unique(canonical, "event_id"),
        "entries are unique": checks.unique(journal, "entry_id"),
        "entries balance": checks.balanced(journal),
        "schedules add up": checks.schedules(schedule, state),
        "posted rows are the revenue": checks.posted(schedule, journal),
        "balances are the journal's": checks.balances(journal, state),
        "no transaction is open": checks.nothing_open(reader.ends(owned, True), reader.ends(owned, False)),
        "dead letters": [] if dead == given.dead_letters else [f"{dead}, expected {given.dead_letters}"],
    }
    if given.expected:
        expected = [json.loads(line) for line in Path(given.expected).read_text().splitlines()]
        found["the CRM's deals are the contracts"] = checks.against_crm(state, expected)
    return {name: list(problems) for name, problems in found.items()}, {topic: len(rows) for topic, rows in by_topic.items() if rows}


def report(found, counts):
    """Prints each check and its problems; exit code 1 where there is one, or nothing was there to check."""
    print("records: " + ", ".join(f"{topic} {count}" for topic, count in counts.items()))
    for name, problems in found.items():
        print(f"{'FAILED' if problems else 'ok':6}  {name}")
        for problem in problems[:SHOWN_PROBLEMS]:
            print(f"        {problem}")
        if len(problems) > SHOWN_PROBLEMS:
            print(f"        and {len(problems) - SHOWN_PROBLEMS} more")
    if not counts:
        print("FAILED  there is nothing to check")
    failed = sum(map(bool, found.values())) + (not counts)
    print(f"{len(found) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in ("dump", "hash", "count", "check"):
        command = commands.add_parser(name)
        add_place(command)
        if name == "check":
            command.add_argument("--expected", help="what `crm.py load` printed")
            command.add_argument("--prefix", default="", help="what all of accrue's topics start with")
            command.add_argument("--dead-letters", type=int, default=0, help="how many there must be (default 0)")
        else:
            command.add_argument("topics", nargs="+", metavar="TOPIC")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `dump | head` ends quietly
    given = parser.parse_args()
    try:
        reader = reader_of(given)
        if given.command == "check":
            return report(*check(reader, given))
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
