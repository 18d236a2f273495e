//! The page that shows what every system holds.
//!
//! Invariant: text of others is escaped. Absent: scripts and styles from elsewhere; it works without the internet.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rust_decimal::Decimal;

use super::room::Posted;

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">\
<title>Accounting systems of the sandbox</title><style>body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}\
td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left;vertical-align:top}.n{text-align:right;white-space:nowrap}</style>\
<h1>Accounting systems of the sandbox</h1>";

/// The whole page.
pub fn page(systems: &[(&str, Vec<Posted>)]) -> String {
    let mut page = HEAD.to_owned();
    for (name, documents) in systems {
        let _ = write!(page, "<h2>{}</h2>", escape(name));
        if documents.is_empty() {
            page.push_str("<p>No documents yet.</p>");
            continue;
        }
        let _ = write!(page, "<p>{} documents.</p>{}", documents.len(), balances(documents));
        page.push_str(
            "<table><tr><th>date<th>kind<th>reference<th>customer<th>text<th>status<th>currency<th>lines</tr>",
        );
        for document in documents {
            let texts = [
                document.date.as_str(),
                document.kind,
                &document.reference,
                &document.customer,
                &document.text,
                &document.status,
                &document.currency,
            ];
            page.push_str("<tr>");
            for text in texts {
                let _ = write!(page, "<td>{}", escape(text));
            }
            page.push_str("<td><table>");
            for (account, amount) in &document.lines {
                page.push_str(&row(account, *amount));
            }
            page.push_str("</table></tr>");
        }
        page.push_str("</table>");
    }
    page
}

fn balances(documents: &[Posted]) -> String {
    let mut sums: BTreeMap<(&str, &str), Decimal> = BTreeMap::new();
    for document in documents {
        for (account, amount) in &document.lines {
            *sums.entry((account, &document.currency)).or_default() += amount;
        }
    }
    let mut table = "<table><tr><th>account<th>debit<th>credit</tr>".to_owned();
    for ((account, currency), sum) in sums {
        table.push_str(&row(&format!("{account} {currency}"), sum));
    }
    table + "</table><p></p>"
}

fn row(account: &str, amount: Decimal) -> String {
    let (debit, credit) = match amount.is_sign_negative() {
        true => (String::new(), (-amount).to_string()),
        false => (amount.to_string(), String::new()),
    };
    format!(
        "<tr><td>{}<td class=n>{debit}<td class=n>{credit}</tr>",
        escape(account)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_cannot_become_markup() {
        let document = Posted {
            kind: "invoice",
            id: "1".to_owned(),
            reference: "je_1".to_owned(),
            date: "2026-02-01".to_owned(),
            currency: "USD".to_owned(),
            status: "POSTED".to_owned(),
            customer: "<script>alert(1)</script> & \"Co\"".to_owned(),
            text: String::new(),
            lines: vec![
                ("200".to_owned(), Decimal::new(-1050, 2)),
                ("610".to_owned(), Decimal::new(1050, 2)),
            ],
        };
        let page = page(&[("xero", vec![document])]);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;Co&quot;"));
        assert!(page.contains("<td>200 USD<td class=n><td class=n>10.50"), "{page}");
    }
}
