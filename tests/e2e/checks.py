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


def current_rows(schedule_records, states):
    """The rows of each deal's plan: of the last record of the revision that its state names."""
    rows = {}
    for record in schedule_records:
        plan = record.value
        deal = deal_of(plan)
        if deal not in states or plan["revision"] == states[deal]["schedule_revision"]:
            rows[deal] = [row | {"obligation_id": of["obligation_id"]} for of in plan["obligations"] for row in of["rows"]]
    return rows


def lines(state):
    """Ids of the deal's lines that the contract knows, those that are gone included."""
    return {obligation["line_item_id"] for contract in state["contracts"] for obligation in contract["obligations"]}


def price(state):
    return sum((contract["transaction_price"] for contract in state["contracts"]), Decimal(0))


def schedules(schedule_records, state_records):
    """The current schedule of each deal adds up to its transaction price, and each obligation's to its allocation."""
    states = latest(state_records)
    schedule = current_rows(schedule_records, states)
    for deal, state in states.items():
        by_obligation = defaultdict(Decimal)
        for row in schedule.get(deal, []):
            by_obligation[row["obligation_id"]] += row["amount"]
        if (total := sum(by_obligation.values(), Decimal(0))) != price(state):
            yield f"{deal}: the schedule adds up to {total}, the transaction price is {price(state)}"
        for contract in state["contracts"]:
            for obligation in contract["obligations"]:
                total = by_obligation[obligation["obligation_id"]]
                if total != obligation["allocated"]:
                    yield f"{deal}: obligation {obligation['obligation_id']} is scheduled at {total}, allocated {obligation['allocated']}"
    for deal in schedule.keys() - states.keys():
        yield f"{deal} has a schedule and no state"


def posted(schedule_records, journal_records, state_records):
    """Revenue in the journal is what the current schedule says is posted, for each deal and obligation."""
    booked, planned = defaultdict(Decimal), defaultdict(Decimal)
    for record in journal_records:
        entry = record.value
        for line in entry["lines"]:
            if line["role"].startswith("revenue."):
                booked[(deal_of(entry), entry["obligation_id"])] += line["credit"] - line["debit"]
    for deal, rows in current_rows(schedule_records, latest(state_records)).items():
        for row in rows:
            if row["posted"]:
                planned[(deal, row["obligation_id"])] += row["amount"]
    for (deal, obligation), amount in booked.items():
        if amount != planned[(deal, obligation)]:
            yield f"{deal}: obligation {obligation} has revenue of {amount}, its posted rows are {planned[(deal, obligation)]}"
    for (deal, obligation), amount in planned.items():
        if amount != 0 and (deal, obligation) not in booked:
            yield f"{deal}: obligation {obligation} has posted rows of {amount}, and no revenue"


def balances(journal_records, state_records):
    """Each contract's balances are what its journal entries add up to, by role."""
    totals = defaultdict(lambda: defaultdict(Decimal))
    for record in journal_records:
        for line in record.value["lines"]:
            role = "revenue" if line["role"].startswith("revenue.") else line["role"]
            totals[deal_of(record.value)][role] += line["debit"] - line["credit"]
    for deal, state in latest(state_records).items():
        told, sums = state["balances"], totals[deal]
        if told is None:
            continue
        for name, booked in (
            ("receivable", sums["accounts_receivable"]),
            ("position", sums["contract_asset"] + sums["contract_liability"]),
            ("recognised", -sums["revenue"]),
        ):
            stated = told["contract_asset"] - told["contract_liability"] if name == "position" else told[name]
            if stated != booked:
                yield f"{deal}: {name} is stated as {stated}, the journal adds up to {booked}"


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
        # A line that an amendment removed keeps what was earned of it.
        removed = len(lines(state)) > len(crm.get("lines", {}) or lines(state))
        if not cancelled and price(state) != Decimal(crm["amount"]) and not (removed and price(state) > Decimal(crm["amount"])):
            yield f"{deal}: the CRM says {crm['amount']}, the contract {price(state)}"
        if cancelled and price(state) > Decimal(crm["amount"]):
            yield f"{deal}: cancelled at more than was sold: {price(state)} of {crm['amount']}"
    for deal in states.keys() - wanted.keys():
        yield f"{deal} is not in the CRM"


def every_change(state_records, expected):
    """Each signature, amendment and cancellation that the CRM committed is a change of terms of its own, none merged."""
    states = latest(state_records)
    for crm in expected:
        state = states.get(deal_of(crm))
        if crm["signed"] and state is not None:
            committed = 1 + crm["amendments"] + (crm["stage"] == CANCELLED)
            if state["version"] != committed:
                yield f"{deal_of(crm)}: the CRM committed {committed} changes of terms, the contract saw {state['version']}"


def nothing_open(committed, uncommitted):
    """A reader of committed records is told the same end as any other: no transaction is left open."""
    for place, end in uncommitted.items():
        if committed[place] != end:
            yield f"{place[0]}-{place[1]}: committed end {committed[place]}, end {end}: a transaction is open"
