#!/usr/bin/env python3
"""Each check accepts good books and names each planted fault: a check that finds nothing proves nothing by itself."""

import copy
import unittest
from decimal import Decimal
from types import SimpleNamespace

import checks
from reader import digest, set_hash


def record(topic, value, key="acme/D-1", partition=0, offset=0):
    raw = None if value is None else repr(value).encode()
    return SimpleNamespace(
        topic=topic, partition=partition, offset=offset, key=key.encode(), raw=raw, value=value, where=lambda: f"{topic}-{partition}@{offset}"
    )


def amount(text):
    return Decimal(text)


OF_DEAL = {"tenant_id": "acme", "deal_id": "D-1"}
STATE = OF_DEAL | {
    "status": "active",
    "schedule_revision": 2,
    "contracts": [
        {
            "transaction_price": amount("100.00"),
            "obligations": [
                {"obligation_id": "o-1", "line_item_id": "l-1", "allocated": amount("70.00")},
                {"obligation_id": "o-2", "line_item_id": "l-2", "allocated": amount("30.00")},
            ],
        }
    ],
}


def planned(revision, **obligations):
    return OF_DEAL | {
        "revision": revision,
        "obligations": [
            {"obligation_id": name.replace("_", "-"), "rows": [{"period": f"2026-{n:02}", "amount": amount(it)} for n, it in enumerate(rows, 1)]}
            for name, rows in obligations.items()
        ],
    }


SCHEDULE = [
    planned(1, o_1=["99.00"], o_3=["1.00"]),
    planned(2, o_1=["35.00", "35.00"], o_2=["30.00"]),
    planned(2, o_1=["35.00", "35.00"], o_2=["30.00"]),
]
ENTRY = OF_DEAL | {
    "entry_id": "e-1",
    "lines": [
        {"debit": amount("1.10"), "credit": amount("0"), "functional_debit": amount("1.00"), "functional_credit": amount("0")},
        {"debit": amount("0"), "credit": amount("1.10"), "functional_debit": amount("0"), "functional_credit": amount("1.00")},
    ],
}
CRM = OF_DEAL | {"stage": "closed_won", "signed": True, "amount": "100.0000"}


class Checks(unittest.TestCase):
    def good(self, found):
        self.assertEqual(list(found), [])

    def bad(self, found, *words):
        found = list(found)
        self.assertEqual(len(found), 1, found)
        for word in words:
            self.assertIn(word, found[0])

    def test_keys(self):
        self.good(checks.keys([record("t", STATE), record("t", None, offset=1)]))
        self.bad(checks.keys([record("t", STATE, key="acme/D-2")]), "D-2", "D-1")
        self.bad(checks.keys([record("t", STATE), record("t", STATE, partition=1)]), "partitions [0, 1]")

    def test_together(self):
        self.good(checks.together([record("t", STATE), record("u", STATE)]))
        self.bad(checks.together([record("t", STATE), record("u", STATE, partition=2)]), "'u': 2")

    def test_unique(self):
        other = ENTRY | {"entry_id": "e-2"}
        self.good(checks.unique([record("j", ENTRY), record("j", other)], "entry_id"))
        self.bad(checks.unique([record("j", ENTRY), record("j", other), record("j", ENTRY)], "entry_id"), "e-1", "2 times")

    def test_balanced(self):
        self.good(checks.balanced([record("j", ENTRY)]))
        for name in ("debit", "functional_debit"):
            off = copy.deepcopy(ENTRY)
            off["lines"][0][name] += amount("0.000001")
            self.bad(checks.balanced([record("j", off)]), "e-1", name)
        self.bad(checks.balanced([record("j", ENTRY | {"lines": []})]), "no lines")
        negative = copy.deepcopy(ENTRY)
        for line in negative["lines"]:
            line["debit"], line["credit"] = -line["debit"], -line["credit"]
        self.assertIn("below zero", next(checks.balanced([record("j", negative)])))

    def test_schedules(self):
        rows = [record("r", row) for row in SCHEDULE]
        self.good(checks.schedules(rows, [record("s", STATE)]))
        # A plan replaces the one before: an older revision's rows are not in the sum, nor an obligation that is gone.
        self.assertTrue(list(checks.schedules(rows, [record("s", STATE | {"schedule_revision": 1})])))
        moved = copy.deepcopy(SCHEDULE)
        moved[2]["obligations"][0]["rows"][1]["amount"] += amount("0.01")
        # Wrong by a cent: the whole, and the obligation.
        self.assertEqual(len(list(checks.schedules([record("r", row) for row in moved], [record("s", STATE)]))), 2)
        self.bad(checks.schedules(rows, []), "no state")

    def test_against_crm(self):
        self.good(checks.against_crm([record("s", STATE)], [CRM]))
        self.bad(checks.against_crm([record("s", STATE)], [CRM | {"amount": "100.01"}]), "100.01", "100.00")
        self.bad(checks.against_crm([record("s", STATE)], [CRM | {"stage": "cancelled"}]), "cancelled", "active")
        self.bad(checks.against_crm([record("s", STATE)], [CRM | {"signed": False}]), "never signed")
        self.bad(checks.against_crm([], [CRM]), "no contract")
        self.bad(checks.against_crm([record("s", STATE)], []), "not in the CRM")
        ended = copy.deepcopy(STATE) | {"status": "cancelled"}
        self.good(checks.against_crm([record("s", ended)], [CRM | {"stage": "cancelled", "amount": "120"}]))
        self.bad(checks.against_crm([record("s", ended)], [CRM | {"stage": "cancelled", "amount": "90"}]), "more than was sold")

    def test_every_change(self):
        twice = CRM | {"amendments": 1}
        self.good(checks.every_change([record("s", STATE | {"version": 2})], [twice]))
        self.bad(checks.every_change([record("s", STATE | {"version": 1})], [twice]), "committed 2", "saw 1")
        self.bad(checks.every_change([record("s", STATE | {"version": 2})], [twice | {"stage": "cancelled"}]), "committed 3")

    def test_posted_and_balances(self):
        revenue = {"role": "revenue.setup", "debit": amount("0"), "credit": amount("30")}
        liability = {"role": "contract_liability", "debit": amount("30"), "credit": amount("0")}
        entry = record("j", OF_DEAL | {"obligation_id": "o-2", "lines": [revenue, liability]})
        plans = copy.deepcopy(SCHEDULE)
        for plan in plans:
            for of in plan["obligations"]:
                for row in of["rows"]:
                    row["posted"] = of["obligation_id"] == "o-2"
        rows = [record("r", plan) for plan in plans]
        state = STATE | {
            "balances": {
                "receivable": amount("0"),
                "contract_asset": amount("30"),
                "contract_liability": amount("0"),
                "recognised": amount("30"),
            }
        }
        self.good(checks.posted(rows, [entry], [record("s", STATE)]))
        self.bad(checks.posted(rows, [], [record("s", STATE)]), "o-2", "no revenue")
        self.bad(checks.posted(rows, [entry, entry], [record("s", STATE)]), "revenue of 60")
        self.good(checks.balances([entry], [record("s", state)]))
        self.assertEqual(len(list(checks.balances([entry, entry], [record("s", state)]))), 2)  # position, recognised

    def test_nothing_open(self):
        self.good(checks.nothing_open({("t", 0): 5}, {("t", 0): 5}))
        self.bad(checks.nothing_open({("t", 0): 4}, {("t", 0): 5}), "open")

    def test_set_hash(self):
        one, two = record("t", STATE), record("t", ENTRY, key="acme/D-2")
        one, two, empty = digest(one), digest(two), digest(record("t", None))
        self.assertEqual(set_hash([one, two]), set_hash([two, one]))
        self.assertNotEqual(set_hash([one, two]), set_hash([one]))
        self.assertNotEqual(set_hash([one, two]), set_hash([one, two, two]))
        self.assertNotEqual(set_hash([empty]), set_hash([one]))


if __name__ == "__main__":
    unittest.main()
