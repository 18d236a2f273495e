WITH moves AS (
    SELECT tenant_id, currency, functional_currency, period,
           sum(CASE WHEN kind IN ('invoice', 'payment', 'credit_memo') THEN credit - debit ELSE 0 END) AS billed,
           sum(CASE WHEN kind IN ('recognition', 'adjustment', 'reversal') THEN debit - credit ELSE 0 END) AS recognised,
           sum(CASE WHEN kind = 'fx_remeasurement' THEN credit - debit ELSE 0 END) AS fx,
           sum(credit - debit) AS change,
           sum(CASE WHEN kind IN ('invoice', 'payment', 'credit_memo')
                    THEN functional_credit - functional_debit ELSE 0 END) AS functional_billed,
           sum(CASE WHEN kind IN ('recognition', 'adjustment', 'reversal')
                    THEN functional_debit - functional_credit ELSE 0 END) AS functional_recognised,
           sum(CASE WHEN kind = 'fx_remeasurement' THEN functional_credit - functional_debit ELSE 0 END) AS functional_fx,
           sum(functional_credit - functional_debit) AS functional_change
    FROM fact_journal_line
    WHERE role = 'contract_liability'
    GROUP BY tenant_id, currency, functional_currency, period
), running AS (
    SELECT moves.*,
           sum(change) OVER (PARTITION BY tenant_id, currency, functional_currency ORDER BY period) AS closing,
           sum(functional_change) OVER (PARTITION BY tenant_id, currency, functional_currency ORDER BY period)
               AS functional_closing
    FROM moves
)
SELECT tenant_id, currency, functional_currency, period,
       closing - change AS opening, billed, recognised, fx, closing,
       functional_closing - functional_change AS functional_opening, functional_billed, functional_recognised,
       functional_fx, functional_closing
FROM running
