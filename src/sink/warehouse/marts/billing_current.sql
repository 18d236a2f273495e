SELECT b.tenant_id, b.deal_id, d.customer_id, b.row_number, b.invoice_date, b.amount, b.tax, b.currency, b.firm
FROM fact_billing b
JOIN dim_deal d
  ON d.tenant_id = b.tenant_id AND d.deal_id = b.deal_id AND d.billing_revision = b.revision
