#!/usr/bin/env python3
"""Checks what Accrue wrote against the CRM's truth, from the outside.

    check.py --dir DIR --truth FILE [--prefix finance.] [--every-change]

DIR is the folder of `platform up`, FILE what `crm.py load` printed: one deal a line. Prints what it saw, then what is
wrong, one sentence a line. Exit codes: 0 all is well, 1 something is wrong, 2 nothing to check.
"""

import argparse
import json
import sys
from decimal import Decimal
from pathlib import Path

import checks
from topics import Reader

PRODUCTS = ["deal.canonical", "contract.facts", "contract.state", "recognition.schedule", "billing.schedule", "journal.entries"]
HEADERS = ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_tenantid", "traceparent"]


def headers(records):
    """Every record says what it is (CloudEvents, binary mode) and which trace it belongs to."""
    for record in records:
        missing = [name for name in HEADERS if name not in dict(record.headers)]
        if missing:
            yield f"{record.where()}: headers {missing} are missing"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--every-change", action="store_true", help="no two committed changes of a deal may be merged into one")
    given = parser.parse_args()
    env = dict(line.split("=", 1) for line in (Path(given.dir) / "env").read_text().splitlines())
    reader = Reader(env["KAFKA_BOOTSTRAP"], env["REGISTRY_URL"])
    names = [given.prefix + name for name in PRODUCTS]
    records = reader.read(names)
    of = {name: [record for record in records if record.topic == given.prefix + name] for name in PRODUCTS}
    letters = reader.read([given.prefix + "accrue.dead-letters"])
    truth = [json.loads(line, parse_float=Decimal) for line in Path(given.truth).read_text().splitlines()]
    signed = [deal for deal in truth if deal["signed"]]

    for name in PRODUCTS:
        print(f"saw {len(of[name]):6} records of {name}")
    print(f"saw {len(letters):6} dead letters, {len(truth)} deals in the CRM, {len(signed)} signed")
    if not signed or not of["journal.entries"]:
        print("nothing to check: no signed deal, or no entry")
        return 2

    wrong = []
    deal_products = [r for name in PRODUCTS if name != "contract.facts" for r in of[name]]
    wrong += checks.keys(deal_products)
    wrong += checks.together(deal_products)
    wrong += headers(records)
    wrong += checks.unique(of["deal.canonical"], "event_id")
    wrong += checks.unique(of["journal.entries"], "entry_id")
    wrong += checks.balanced(of["journal.entries"])
    wrong += checks.schedules(of["recognition.schedule"], of["contract.state"])
    wrong += checks.posted(of["recognition.schedule"], of["journal.entries"], of["contract.state"])
    wrong += checks.balances(of["journal.entries"], of["contract.state"])
    wrong += checks.against_crm(of["contract.state"], truth)
    if given.every_change:
        wrong += checks.every_change(of["contract.state"], truth)
    wrong += checks.nothing_open(reader.ends(names, True), reader.ends(names, False))
    for letter in letters:
        wrong.append(f"{letter.where()}: dead letter {letter.value['code']}: {letter.value['message']}")
    for sentence in wrong[:50]:
        print(f"WRONG {sentence}")
    print("all is well" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
