#!/usr/bin/env python3
"""Writes canonical facts (JSON lines on standard input) to a topic, as another team's service would.

    produce.py --dir DIR TOPIC < facts.jsonl

The key is tenant/deal, or the tenant where a fact is of no deal. Ends once the broker has confirmed all.
"""

import argparse
import json
import sys

import topics
from reader import add_place, reader_of


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_place(parser)
    parser.add_argument("topic", metavar="TOPIC")
    given = parser.parse_args()
    producer = topics.confluent_kafka.Producer(
        {"bootstrap.servers": reader_of(given).bootstrap, "enable.idempotence": True, "allow.auto.create.topics": False}
    )
    failed = []
    for number, line in enumerate(sys.stdin, 1):
        try:
            fact = json.loads(line)
            key = "/".join(filter(None, [fact["tenant_id"], fact.get("payload", {}).get("deal_id")]))
        except (ValueError, KeyError) as error:
            print(f"produce: line {number}: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
        producer.produce(given.topic, line.strip().encode(), key, on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0)
    producer.flush(60)
    if failed or len(producer):
        print(f"produce: {len(failed) + len(producer)} records were not written: {failed[:1]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
