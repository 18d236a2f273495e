-- A first customer and deal, so that there is something to see.
BEGIN;
INSERT INTO customers (id, tenant_id, name, accounting_id, country)
VALUES ('C-123', 'acme-corp', 'Globex, Inc.', 'AR-212', 'US');
INSERT INTO deals (id, tenant_id, customer_id, name, stage, amount, currency, term_months, billing_cycle,
                   contract_start, closed_at, recognition_method, defer_setup, updated_at)
VALUES ('D-98765', 'acme-corp', 'C-123', 'Globex platform', 'closed_won', 120000, 'USD', 12, 'monthly',
        '2026-02-01', '2026-01-17T10:22:33Z', 'linear', true, '2026-01-17T10:22:33Z');
INSERT INTO deal_line_items (id, tenant_id, deal_id, type, name, amount)
VALUES ('li-1', 'acme-corp', 'D-98765', 'subscription', 'Platform', 100000),
       ('li-2', 'acme-corp', 'D-98765', 'setup', 'Onboarding', 20000);
COMMIT;
