-- A CRM as a sales team keeps it, with the column types that change capture must get right:
-- exact decimals of several scales, days, instants with a zone, a boolean, nullable columns,
-- and a text stored out of line, which an update that leaves it alone does not carry.
-- Replica identity stays at its default: a delete names the key and nothing else.

CREATE TABLE customers (
    id            text PRIMARY KEY,
    tenant_id     text NOT NULL,
    name          text NOT NULL,
    accounting_id text,
    country       char(2)
);

CREATE TABLE deals (
    id                 text PRIMARY KEY,
    tenant_id          text NOT NULL,
    customer_id        text NOT NULL REFERENCES customers,
    name               text NOT NULL DEFAULT '',
    stage              text NOT NULL DEFAULT 'prospecting',
    amount             numeric(18,4) NOT NULL DEFAULT 0,
    currency           char(3) NOT NULL DEFAULT 'USD',
    term_months        integer,
    billing_cycle      text,
    contract_start     date,
    contract_end       date,
    effective_date     date,
    closed_at          timestamptz,
    recognition_method text,
    defer_setup        boolean NOT NULL DEFAULT true,
    notes              text,
    updated_at         timestamptz NOT NULL
);
-- Out of line and not compressed: a long note is a TOAST value at a known length.
ALTER TABLE deals ALTER COLUMN notes SET STORAGE EXTERNAL;

-- Deferred, so that lines may be written before their deal within one transaction.
CREATE TABLE deal_line_items (
    id         text PRIMARY KEY,
    tenant_id  text NOT NULL,
    deal_id    text NOT NULL REFERENCES deals DEFERRABLE INITIALLY DEFERRED,
    type       text NOT NULL,
    name       text,
    amount     numeric(18,4) NOT NULL,
    quantity   numeric(18,6),
    unit_price numeric(24,12),
    ssp        numeric(18,4),
    start_date date,
    end_date   date,
    method     text
);

CREATE TABLE milestones (
    id           text PRIMARY KEY,
    tenant_id    text NOT NULL,
    deal_id      text NOT NULL REFERENCES deals DEFERRABLE INITIALLY DEFERRED,
    line_item_id text NOT NULL,
    percent      numeric(7,4),
    amount       numeric(18,4),
    accepted_on  date,
    CHECK ((percent IS NULL) <> (amount IS NULL))
);
