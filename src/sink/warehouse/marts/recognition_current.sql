SELECT r.tenant_id, r.deal_id, d.customer_id, r.contract_id, r.obligation_id, r.line_item_id,
       coalesce(l.line_type, 'subscription') AS line_type,
       r.period, p.first_day, p.last_day, p.fiscal_year, p.fiscal_quarter, p.period_index,
       r.amount, r.currency, r.functional_amount, r.functional_currency, r.rate, r.version, r.posted,
       coalesce(j.amount, 0) AS posted_amount,
       coalesce(j.functional_amount, 0) AS posted_functional_amount
FROM fact_recognition r
JOIN dim_deal d
  ON d.tenant_id = r.tenant_id AND d.deal_id = r.deal_id AND d.schedule_revision = r.revision
LEFT JOIN dim_period p ON p.tenant_id = r.tenant_id AND p.period = r.period
LEFT JOIN dim_deal_line l
  ON l.tenant_id = r.tenant_id AND l.deal_id = r.deal_id AND l.line_item_id = r.line_item_id
LEFT JOIN (
    SELECT tenant_id, deal_id, obligation_id, period,
           sum(credit - debit) AS amount, sum(functional_credit - functional_debit) AS functional_amount
    FROM fact_journal_line
    WHERE role LIKE 'revenue%' AND obligation_id IS NOT NULL
    GROUP BY tenant_id, deal_id, obligation_id, period
) j ON j.tenant_id = r.tenant_id AND j.deal_id = r.deal_id
   AND j.obligation_id = r.obligation_id AND j.period = r.period
