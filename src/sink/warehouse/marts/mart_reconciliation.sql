WITH price AS (
    SELECT v.tenant_id, v.deal_id, sum(v.transaction_price) AS amount
    FROM fact_contract_version v
    JOIN dim_deal d ON d.tenant_id = v.tenant_id AND d.deal_id = v.deal_id AND d.version = v.version
    GROUP BY v.tenant_id, v.deal_id
), plan AS (
    SELECT tenant_id, deal_id, sum(amount) AS amount FROM recognition_current GROUP BY tenant_id, deal_id
), revenue AS (
    SELECT tenant_id, deal_id, sum(credit - debit) AS amount
    FROM fact_journal_line WHERE role LIKE 'revenue%' GROUP BY tenant_id, deal_id
), billing AS (
    SELECT tenant_id, deal_id, sum(amount + tax) AS amount FROM billing_current GROUP BY tenant_id, deal_id
), invoiced AS (
    SELECT tenant_id, deal_id, sum(debit - credit) AS amount
    FROM fact_journal_line
    WHERE role = 'accounts_receivable' AND kind IN ('invoice', 'credit_memo')
    GROUP BY tenant_id, deal_id
), entries AS (
    SELECT DISTINCT tenant_id, deal_id, entry_id FROM fact_journal_line
), delivered AS (
    SELECT DISTINCT tenant_id, entry_id FROM fact_receipt WHERE outcome <> 'cancelled'
), delivery AS (
    SELECT e.tenant_id, e.deal_id, count(*) AS issued, count(d.entry_id) AS delivered
    FROM entries e
    LEFT JOIN delivered d ON d.tenant_id = e.tenant_id AND d.entry_id = e.entry_id
    GROUP BY e.tenant_id, e.deal_id
)
SELECT d.tenant_id, d.deal_id, d.customer_id, d.status, d.currency,
       coalesce(price.amount, 0) AS transaction_price,
       coalesce(plan.amount, 0) AS planned_revenue,
       coalesce(revenue.amount, 0) AS posted_revenue,
       coalesce(billing.amount, 0) AS planned_billing,
       coalesce(invoiced.amount, 0) AS posted_billing,
       coalesce(delivery.issued, 0) AS issued_entries,
       coalesce(delivery.delivered, 0) AS delivered_entries,
       CASE
           WHEN d.waits_for_rate IS NOT NULL THEN 'waits for an exchange rate'
           WHEN coalesce(price.amount, 0) <> coalesce(plan.amount, 0) THEN 'plan differs from price'
           WHEN abs(coalesce(revenue.amount, 0)) > abs(coalesce(plan.amount, 0)) THEN 'more posted than planned'
           ELSE 'agrees'
       END AS finding
FROM dim_deal d
LEFT JOIN price ON price.tenant_id = d.tenant_id AND price.deal_id = d.deal_id
LEFT JOIN plan ON plan.tenant_id = d.tenant_id AND plan.deal_id = d.deal_id
LEFT JOIN revenue ON revenue.tenant_id = d.tenant_id AND revenue.deal_id = d.deal_id
LEFT JOIN billing ON billing.tenant_id = d.tenant_id AND billing.deal_id = d.deal_id
LEFT JOIN invoiced ON invoiced.tenant_id = d.tenant_id AND invoiced.deal_id = d.deal_id
LEFT JOIN delivery ON delivery.tenant_id = d.tenant_id AND delivery.deal_id = d.deal_id
WHERE d.status <> 'draft'
