WITH active AS (
    SELECT p.tenant_id, p.period_index, r.deal_id, r.currency, sum(r.annual_amount) AS arr
    FROM dim_period p
    JOIN dim_deal d ON d.tenant_id = p.tenant_id
    JOIN fact_recurring r
      ON r.tenant_id = d.tenant_id AND r.deal_id = d.deal_id AND r.schedule_revision = d.schedule_revision
     AND r.start_date <= p.last_day AND r.end_date >= p.last_day
    GROUP BY p.tenant_id, p.period_index, r.deal_id, r.currency
), steps AS (
    SELECT tenant_id, period_index, deal_id, currency, sum(was) AS was, sum(is_now) AS is_now
    FROM (
        SELECT tenant_id, period_index, deal_id, currency, 0 * arr AS was, arr AS is_now FROM active
        UNION ALL
        SELECT tenant_id, period_index + 1, deal_id, currency, arr, 0 * arr FROM active
    ) both_ends
    GROUP BY tenant_id, period_index, deal_id, currency
)
SELECT s.tenant_id, s.currency, p.period, p.last_day,
       sum(s.was) AS opening,
       sum(CASE WHEN s.was = 0 THEN s.is_now ELSE 0 END) AS new_business,
       sum(CASE WHEN s.was > 0 AND s.is_now > s.was THEN s.is_now - s.was ELSE 0 END) AS expansion,
       sum(CASE WHEN s.is_now > 0 AND s.is_now < s.was THEN s.was - s.is_now ELSE 0 END) AS contraction,
       sum(CASE WHEN s.is_now = 0 THEN s.was ELSE 0 END) AS churn,
       sum(s.is_now) AS closing
FROM steps s
JOIN dim_period p ON p.tenant_id = s.tenant_id AND p.period_index = s.period_index
GROUP BY s.tenant_id, s.currency, p.period, p.last_day
