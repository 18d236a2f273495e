WITH clock AS (
    SELECT tenant_id, max(period_index) AS posted_index
    FROM recognition_current
    WHERE posted
    GROUP BY tenant_id
)
SELECT r.tenant_id, r.currency,
       sum(r.amount - r.posted_amount) AS remaining,
       sum(CASE WHEN r.period_index <= coalesce(c.posted_index, 0) + 12
                THEN r.amount - r.posted_amount ELSE 0 END) AS within_12_periods,
       sum(CASE WHEN r.period_index > coalesce(c.posted_index, 0) + 12
                THEN r.amount - r.posted_amount ELSE 0 END) AS later,
       count(DISTINCT r.deal_id) AS deals
FROM recognition_current r
LEFT JOIN clock c ON c.tenant_id = r.tenant_id
WHERE NOT r.posted
GROUP BY r.tenant_id, r.currency
