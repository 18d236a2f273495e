"""Makes the company of the tests in a fresh Tryton: currencies, chart of accounts, fiscal years, a journal, a user's rights.

    setup.py CONFIGURATION DATABASE

Owns the chart: the codes are those that the tests map roles to. Absent on purpose: parties and documents.
"""

import datetime
import sys
from decimal import Decimal

from proteus import Model, Wizard, config

# Code, name, kind.
ACCOUNTS = [
    ("1000", "Cash", "cash"),
    ("1100", "Trade receivables", "receivable"),
    ("1200", "Contract assets", "asset"),
    ("2100", "Trade payables", "payable"),
    ("2300", "Sales tax payable", "deposit"),
    ("2400", "Contract liabilities", "deposit"),
    ("2500", "Refund liabilities", "liability"),
    ("4000", "Subscription revenue", "revenue"),
    ("4100", "Setup revenue", "revenue"),
    ("4200", "Services revenue", "revenue"),
    ("4300", "Usage revenue", "revenue"),
    ("7100", "Exchange differences", "income"),
]
KINDS = {
    "cash": dict(statement="balance", assets=True),
    "receivable": dict(statement="balance", assets=True, receivable=True),
    "asset": dict(statement="balance", assets=True),
    "payable": dict(statement="balance", payable=True),
    "liability": dict(statement="balance"),
    "deposit": dict(statement="balance", deposit=True),  # what invoices may credit beside revenue; kept by customer
    "revenue": dict(statement="income", revenue=True),
    "income": dict(statement="income"),
}
CURRENCIES = [("USD", "840", "US dollar"), ("EUR", "978", "Euro"), ("GBP", "826", "Pound sterling")]
YEARS = range(2024, 2030)


def main(configuration, database):
    config.set_trytond(database=f"postgresql:///{database}", config_file=configuration)
    currencies = make_currencies()
    company = make_company(currencies["USD"])
    context = config.get_config()._context
    context["company"] = company.id
    make_accounts(company)
    make_years(company)


def make_currencies():
    Currency = Model.get("currency.currency")
    Rate = Model.get("currency.currency.rate")
    made = {}
    for code, number, name in CURRENCIES:
        currency = Currency(name=name, symbol=code, code=code, numeric_code=number, digits=2, rounding=Decimal("0.01"))
        currency.rates.append(Rate(date=datetime.date(2020, 1, 1), rate=Decimal(1)))
        currency.save()
        made[code] = currency
    return made


def make_company(currency):
    party = Model.get("party.party")(name="Accrue test company")
    party.save()
    wizard = Wizard("company.company.config")
    wizard.execute("company")
    wizard.form.party = party
    wizard.form.currency = currency
    wizard.execute("add")
    (company,) = Model.get("company.company").find([])
    user = Model.get("res.user")(config.get_config().user)
    user.companies.append(company)
    user.company = company
    user.save()
    return company


def make_accounts(company):
    Type = Model.get("account.account.type")
    Account = Model.get("account.account")
    root = Type(name="Accounts", company=company)
    root.save()
    types = {}
    for kind, flags in KINDS.items():
        types[kind] = Type(name=kind, parent=root, company=company, **flags)
        types[kind].save()
    made = {}
    for code, name, kind in ACCOUNTS:
        account = Account(code=code, name=name, company=company, type=types[kind])
        account.party_required = kind in ("receivable", "payable", "deposit")
        account.reconcile = kind in ("receivable", "payable")
        account.save()
        made[code] = account
    settings = Model.get("account.configuration")(1)
    settings.default_account_receivable = made["1100"]
    settings.default_account_payable = made["2100"]
    settings.save()


def make_years(company):
    Sequence = Model.get("ir.sequence")
    Strict = Model.get("ir.sequence.strict")
    kind = {name: Model.get("ir.sequence.type").find([("name", "=", name)], limit=1)[0] for name in ("Account Move", "Invoice")}
    for year in YEARS:
        fiscal = Model.get("account.fiscalyear")(name=str(year), company=company)
        fiscal.start_date, fiscal.end_date = datetime.date(year, 1, 1), datetime.date(year, 12, 31)
        moves = Strict(name=f"moves {year}", sequence_type=kind["Account Move"], company=company)
        moves.save()
        fiscal.move_sequence = moves
        invoices = Strict(name=f"invoices {year}", sequence_type=kind["Invoice"], company=company)
        invoices.save()
        (sequence,) = fiscal.invoice_sequences
        sequence.company = company
        sequence.in_invoice_sequence = sequence.in_credit_note_sequence = invoices
        sequence.out_invoice_sequence = sequence.out_credit_note_sequence = invoices
        fiscal.save()
        fiscal.click("create_period")


if __name__ == "__main__":
    main(*sys.argv[1:])
