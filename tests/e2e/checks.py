"""What must hold of the topics, checked from the outside.

Pure: decoded records and the CRM's truth in, sentences about what is wrong out. Nothing here
shares code with the project; amounts are exact decimals. Each check yields nothing when all is
well, so the caller also asks how much it saw.
"""

from collections import Counter, defaultdict
from decimal import Decimal

CANCELLED = "cancelled"


def deal_of(value):
    return f"{value['tenant_id']}/{value['deal_id']}"


def keys(records):
    """A record's key names the deal in its value, and a deal stays in one partition of its topic."""
    homes = defaultdict(set)
    for record in records:
        key = (record.key or b"").decode("utf-8", errors="backslashreplace")
        if record.value is not None and key != deal_of(record.value):
            yield f"{record.where()}: key {key!r}, but the value is of {deal_of(record.value)!r}"
        homes[(record.topic, key)].add(record.partition)
    for (topic, key), partitions in homes.items():
        if len(partitions) > 1:
            yield f"{topic}: {key} is in partitions {sorted(partitions)}"


def together(records):
    """Topics with the same number of partitions keep a deal in the same one."""
    homes = defaultdict(dict)
    for record in records:
        homes[record.key][record.topic] = record.partition
    for key, by_topic in homes.items():
        if len(set(by_topic.values())) > 1:
            yield f"{key!r} is in different partitions: {by_topic}"


def unique(records, field):
    """No two records carry the same id."""
    for identity, count in Counter(record.value[field] for record in records).items():
        if count > 1:
            yield f"{records[0].topic}: {field} {identity} is there {count} times"


def balanced(records):
    """Each entry's debits are its credits, in its own and in functional currency; no amount is below zero, no line empty."""
    for record in records:
        entry = record.value
        for prefix in ("", "functional_"):
            debit = sum((line[prefix + "debit"] for line in entry["lines"]), Decimal(0))
            credit = sum((line[prefix + "credit"] for line in entry["lines"]), Decimal(0))
            if debit != credit:
                yield f"{record.where()}: entry {entry['entry_id']} of {deal_of(entry)}: {prefix}debit {debit}, {prefix}credit {credit}"
        if not entry["lines"]:
            yield f"{record.where()}: entry {entry['entry_id']} has no lines"
        for line in entry["lines"]:
            if any(line[name] < 0 for name in ("debit", "credit", "functional_debit", "functional_credit")):
                yield f"{record.where()}: entry {entry['entry_id']} has an amount below zero"


def latest(records):
    """The last value of each deal; deals whose last record is a tombstone are left out."""
    last = {record.key: record.value for record in records}
    return {deal_of(value): value for value in last.values() if value is not None}


def price(state):
    return sum((contract["transaction_price"] for contract in state["contracts"]), Decimal(0))


def schedules(schedule_records, state_records):
    """The current schedule of each deal adds up to its transaction price, and each obligation's to its allocation."""
    schedule, states = latest(schedule_records), latest(state_records)
    for deal, state in states.items():
        rows = schedule.get(deal, {"rows": []})["rows"]
        if (total := sum((row["amount"] for row in rows), Decimal(0))) != price(state):
            yield f"{deal}: the schedule adds up to {total}, the transaction price is {price(state)}"
        by_obligation = defaultdict(Decimal)
        for row in rows:
            by_obligation[row["obligation_id"]] += row["amount"]
        for contract in state["contracts"]:
            for obligation in contract["obligations"]:
                total = by_obligation[obligation["obligation_id"]]
                if total != obligation["allocated"]:
                    yield f"{deal}: obligation {obligation['obligation_id']} is scheduled at {total}, allocated {obligation['allocated']}"
    for deal in schedule.keys() - states.keys():
        yield f"{deal} has a schedule and no state"


def against_crm(state_records, expected):
    """Every signed deal of the CRM is a contract at its amount, every other is none; `expected` is the workload's truth.

    A cancelled deal keeps the price of what was served, which is for the schedule check.
    """
    states = latest(state_records)
    wanted = {deal_of(deal): deal for deal in expected}
    for deal, crm in wanted.items():
        state = states.get(deal)
        if not crm["signed"]:
            if state is not None and state["contracts"]:
                yield f"{deal} was never signed, and has a contract"
            continue
        if state is None:
            yield f"{deal} was signed, and has no contract"
            continue
        cancelled = crm["stage"] == CANCELLED
        if cancelled != (state["status"].lower() == CANCELLED):
            yield f"{deal}: the CRM says {crm['stage']}, the contract {state['status']}"
        if not cancelled and price(state) != Decimal(crm["amount"]):
            yield f"{deal}: the CRM says {crm['amount']}, the contract {price(state)}"
        if cancelled and price(state) > Decimal(crm["amount"]):
            yield f"{deal}: cancelled at more than was sold: {price(state)} of {crm['amount']}"
    for deal in states.keys() - wanted.keys():
        yield f"{deal} is not in the CRM"


def nothing_open(committed, uncommitted):
    """A reader of committed records is told the same end as any other: no transaction is left open."""
    for place, end in uncommitted.items():
        if committed[place] != end:
            yield f"{place[0]}-{place[1]}: committed end {committed[place]}, end {end}: a transaction is open"
