SELECT tenant_id, currency, functional_currency, period, first_day, line_type,
       sum(amount) AS planned,
       sum(posted_amount) AS posted,
       sum(amount - posted_amount) AS open_amount,
       sum(functional_amount) AS functional_planned,
       sum(posted_functional_amount) AS functional_posted
FROM recognition_current
GROUP BY tenant_id, currency, functional_currency, period, first_day, line_type
