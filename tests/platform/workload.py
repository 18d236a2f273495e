"""What a sales team does to the CRM, as SQL transactions, and what the books owe for it.

Pure: the same seed gives the same text, with every date in it; no clock, no database.
Invariant: after each transaction the lines of a signed deal add up to its amount, so the
expected end state (`Deal`) is an independent truth for the books.
Covered on purpose: a deal signed with its lines in one transaction, lines written before
their deal, a deal signed long after it was drafted, amendments, cancellations, a line deleted,
a draft deleted whole, a line's primary key changed, an update that leaves a long note alone,
milestones accepted, a customer renamed, names with quotes and non-ASCII letters.
"""

import random
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

SIGNED, CANCELLED, DRAFT = "closed_won", "cancelled", "negotiation"
FIRST_DAY = date(2026, 1, 1)
EXPONENT = {"JPY": 0, "KWD": 3}  # ISO 4217 minor units; two for every other currency here


@dataclass
class Line:
    id: str
    type: str
    amount: Decimal
    method: str | None = None
    quantity: Decimal | None = None


@dataclass
class Deal:
    """One deal as the CRM last knew it. `stage` is None once it is deleted."""

    id: str
    tenant: str
    customer: str
    currency: str = "USD"
    stage: str | None = DRAFT
    start: date = FIRST_DAY
    term_months: int = 12
    signed: bool = False
    amendments: int = 0
    effective: date | None = None
    milestones_open: int = 0
    lines: list[Line] = field(default_factory=list)

    @property
    def amount(self):
        return sum((line.amount for line in self.lines), Decimal(0))

    def expected(self):
        """What an independent check needs, as JSON types; decimals stay text."""
        return {
            "tenant_id": self.tenant,
            "deal_id": self.id,
            "stage": self.stage,
            "signed": self.signed,
            "amount": str(self.amount),
            "currency": self.currency,
            "amendments": self.amendments,
            "milestones_open": self.milestones_open,
            "lines": {line.id: str(line.amount) for line in self.lines},
        }


class Workload:
    """`transactions` (lists of SQL statements, in order) and `deals` after the last one."""

    def __init__(self, seed, deals, tenants=("acme-corp",), currencies=("USD",), prefix="D"):
        self.random = random.Random(f"accrue crm {seed}")
        self.clock = datetime(2026, 1, 2, 9, tzinfo=timezone.utc)
        self.transactions = []
        self.deals = []
        self.customers = {}
        self.prefix = prefix
        lives = [self.life(f"{prefix}-{number:05}", tenants, currencies) for number in range(1, deals + 1)]
        # Interleave the deals' lives, each in its own order, a bounded number open at once.
        waiting, open_lives = lives[::-1], []
        while waiting or open_lives:
            while waiting and len(open_lives) < 40:
                open_lives.append(waiting.pop())
            life = self.random.choice(open_lives)
            statements = next(life, None)
            if statements is None:
                open_lives.remove(life)
            else:
                self.transactions.append(statements)

    def life(self, identity, tenants, currencies):
        """Yields the transactions of one deal from draft or signature to its last change."""
        chance = self.random
        tenant = chance.choice(tenants)
        customer = f"C-{tenant}-{chance.randrange(1, 1 + max(3, 25))}"
        deal = Deal(identity, tenant, customer, chance.choice(currencies))
        deal.start = FIRST_DAY + timedelta(days=chance.randrange(0, 120))
        deal.term_months = chance.choice([1, 3, 6, 12, 12, 12, 24, 36])
        self.deals.append(deal)

        statements = self.customer(tenant, customer)
        number = iter(range(1, 100))
        deal.lines.append(self.line(deal, next(number), "subscription"))
        if chance.random() < 0.5:
            deal.lines.append(self.line(deal, next(number), "setup"))
        staged = chance.random() < 0.15
        if staged:
            deal.lines.append(self.line(deal, next(number), "services", method="milestone"))
        if chance.random() < 0.1:
            # A draft first: nothing for the books until it is signed.
            yield statements + [self.insert_deal(deal)] + [self.insert_line(deal, line) for line in deal.lines]
            if chance.random() < 0.3:
                deal.stage, deal.lines = None, []
                yield [f"DELETE FROM deal_line_items WHERE deal_id = {text(deal.id)}", f"DELETE FROM deals WHERE id = {text(deal.id)}"]
                return
            deal.stage, deal.signed = SIGNED, True
            milestones = self.milestones(deal) if staged else []
            yield milestones + [self.update_deal(deal, f"stage = {text(SIGNED)}, closed_at = {self.now()}")]
        else:
            deal.stage, deal.signed = SIGNED, True
            milestones = self.milestones(deal) if staged else []
            rows = [self.insert_deal(deal)] + [self.insert_line(deal, line) for line in deal.lines]
            yield statements + (rows[::-1] if chance.random() < 0.3 else rows) + milestones

        if chance.random() < 0.25:
            # The note is long and stays out of line: this update does not carry it.
            yield [self.update_deal(deal, f"name = {text('Renamed ' + deal.id)}")]
        if chance.random() < 0.05:
            renamed = f"{deal.lines[0].id}-r"
            yield [f"UPDATE deal_line_items SET id = {text(renamed)} WHERE id = {text(deal.lines[0].id)}"]
            deal.lines[0].id = renamed
        if chance.random() < 0.03:
            yield [f"UPDATE customers SET name = {text('Renamed ' + customer)} WHERE id = {text(customer)}"]
        for milestone in range(deal.milestones_open):
            day = deal.start + timedelta(days=20 + 10 * milestone)
            deal.milestones_open -= 1
            yield [f"UPDATE milestones SET accepted_on = {day_of(day)} WHERE id = {text(f'{deal.id}-m{milestone + 1}')}"]
        if chance.random() < 0.25:
            yield self.amend(deal, next(number))
        if chance.random() < 0.08:
            deal.stage, deal.effective = CANCELLED, self.midway(deal)
            yield [self.update_deal(deal, f"stage = {text(CANCELLED)}, effective_date = {day_of(deal.effective)}")]

    def amend(self, deal, number):
        """More seats, a line added, or a line dropped; the deal's amount follows in the same transaction."""
        deal.amendments += 1
        deal.effective = self.midway(deal)
        kind = self.random.choice(["seats", "line", "drop"])
        if kind == "drop" and len(deal.lines) > 1 and deal.lines[-1].method is None:
            dropped = deal.lines.pop()
            change = f"DELETE FROM deal_line_items WHERE id = {text(dropped.id)}"
        elif kind == "line":
            line = self.line(deal, number, "subscription")
            deal.lines.append(line)
            change = self.insert_line(deal, line, start=deal.effective)
        else:
            line = deal.lines[0]
            line.amount += self.money(deal, 100, 5000)
            change = f"UPDATE deal_line_items SET amount = {line.amount} WHERE id = {text(line.id)}"
        return [change, self.update_deal(deal, f"amount = {deal.amount}, effective_date = {day_of(deal.effective)}")]

    def customer(self, tenant, customer):
        if customer in self.customers:
            return []
        names = ["Globex, Inc.", "O'Brien & Søn", "Größe GmbH", 'Say "Hi" Ltd', "株式会社テスト", "Initech \\ LLC"]
        self.customers[customer] = self.random.choice(names)
        row = ", ".join([text(customer), text(tenant), text(self.customers[customer]), text(f"AR-{customer}"), "'DE'"])
        # Another seed may have made the same customer.
        return [f"INSERT INTO customers (id, tenant_id, name, accounting_id, country) VALUES ({row}) ON CONFLICT DO NOTHING"]

    def line(self, deal, number, kind, method=None):
        amount = self.money(deal, 500, 90000) if kind == "subscription" else self.money(deal, 100, 9000)
        quantity = Decimal(self.random.randrange(1, 200)) if kind == "subscription" else None
        return Line(f"{deal.id}-l{number}", kind, amount, method, quantity)

    def milestones(self, deal):
        shares = self.random.choice([("40", "60"), ("33.3333", "33.3333", "33.3334"), ("100",)])
        deal.milestones_open = len(shares)
        line = next(line for line in deal.lines if line.method == "milestone")
        return [
            "INSERT INTO milestones (id, tenant_id, deal_id, line_item_id, percent) VALUES "
            f"({text(f'{deal.id}-m{number}')}, {text(deal.tenant)}, {text(deal.id)}, {text(line.id)}, {share})"
            for number, share in enumerate(shares, 1)
        ]

    def insert_deal(self, deal):
        long_note = "".join(self.random.choices("abcdefghij ", k=3000))
        row = {
            "id": text(deal.id),
            "tenant_id": text(deal.tenant),
            "customer_id": text(deal.customer),
            "name": text(f"{self.customers[deal.customer]} {deal.id}"),
            "stage": text(deal.stage),
            "amount": deal.amount,
            "currency": text(deal.currency),
            "term_months": deal.term_months,
            "billing_cycle": text(self.random.choice(["monthly", "quarterly", "annual", "upfront"])),
            "contract_start": day_of(deal.start),
            "closed_at": self.now() if deal.signed else "NULL",
            "recognition_method": text("linear"),
            "defer_setup": self.random.choice(["true", "true", "false"]),
            "notes": text(long_note) if self.random.random() < 0.3 else "NULL",
            "updated_at": self.now(),
        }
        return f"INSERT INTO deals ({', '.join(row)}) VALUES ({', '.join(map(str, row.values()))})"

    def update_deal(self, deal, change):
        return f"UPDATE deals SET {change}, updated_at = {self.now()} WHERE id = {text(deal.id)}"

    def insert_line(self, deal, line, start=None):
        row = {
            "id": text(line.id),
            "tenant_id": text(deal.tenant),
            "deal_id": text(deal.id),
            "type": text(line.type),
            "name": text(f"{line.type} of {deal.id}"),
            "amount": line.amount,
            "quantity": line.quantity or "NULL",
            "unit_price": (line.amount / line.quantity).quantize(Decimal("1e-12")) if line.quantity else "NULL",
            "start_date": day_of(start),
            "method": text(line.method) if line.method else "NULL",
        }
        return f"INSERT INTO deal_line_items ({', '.join(row)}) VALUES ({', '.join(map(str, row.values()))})"

    def midway(self, deal):
        return deal.start + timedelta(days=self.random.randrange(5, max(6, 28 * deal.term_months)))

    def money(self, deal, low, high):
        unit = 10 ** EXPONENT.get(deal.currency, 2)
        return Decimal(self.random.randrange(low * unit, high * unit)) / unit

    def now(self):
        self.clock += timedelta(seconds=self.random.randrange(1, 90), microseconds=self.random.randrange(1000000))
        return f"'{self.clock.isoformat()}'"


def text(value):
    return "'" + value.replace("'", "''") + "'"


def day_of(day):
    return f"'{day.isoformat()}'" if day else "NULL"
