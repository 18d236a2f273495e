//! How one line of an entry is written in other ledgers' texts: hledger, Beancount, CSV.
//!
//! hledger gets each line in its own currency at its total cost in functional currency (`@@`), so that
//! `hledger balance -B` shows the functional books. Beancount gets functional amounts, with the line's own amount as
//! metadata: a price is no part of a Beancount position, so a remeasured receivable would else never come back to zero.
//!
//! Invariant: what others wrote never ends the place it stands in; amounts have their currency's exponent. Deliberately
//! absent: what surrounds a posting ([`export`](super::export) for a whole journal, the file sink for one document).
//!
//! Sources: hledger 1.x manual, "Costs", "Commodity directive"; Beancount 2 language syntax, "Metadata"; RFC 4180.

use rust_decimal::Decimal;

use crate::revenue::journal::EntryLine;
use crate::revenue::money::Currency;

/// The postings of one line: one, or two where a total cost, which has no sign of its own, cannot say it.
pub fn hledger_postings(account: &str, line: &EntryLine, own: Currency, functional: Currency) -> String {
    let (amount, value) = (line.debit - line.credit, line.functional_debit - line.functional_credit);
    let stated = format!("{} {own}", own.format(amount));
    let worth = |value| format!("{} {functional}", functional.format(value));
    let amounts = if own == functional {
        vec![stated]
    } else if amount.is_zero() {
        // Only the value moved: a remeasurement, an exchange result.
        vec![worth(value)]
    } else if amount.is_sign_negative() != value.is_sign_negative() && !value.is_zero() {
        vec![format!("{stated} @@ {}", worth(Decimal::ZERO)), worth(value)]
    } else {
        vec![format!("{stated} @@ {}", worth(value.abs()))]
    };
    amounts
        .iter()
        .map(|amount| format!("    {account}  {amount}\n"))
        .collect()
}

/// The directive that shows how a currency's amounts are written.
pub fn hledger_commodity(currency: Currency) -> String {
    let mut sample = currency.format(Decimal::from(1000));
    if currency.exponent() == 0 {
        // The decimal mark has to be shown, or it is not known.
        sample.push('.');
    }
    format!("commodity {sample} {currency}")
}

/// The posting of one line, with its own amount beside the functional one.
pub fn beancount_posting(account: &str, line: &EntryLine, own: Currency, functional: Currency) -> String {
    let value = functional.format(line.functional_debit - line.functional_credit);
    let mut text = format!("  {account}  {value} {functional}\n");
    if own != functional {
        text += &format!("    amount: {} {own}\n", own.format(line.debit - line.credit));
    }
    text
}

/// A Beancount string.
pub fn quoted(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Currency, debit, credit; then the same in functional currency.
pub fn csv_amounts(line: &EntryLine, own: Currency, functional: Currency) -> [String; 6] {
    [
        own.code().to_owned(),
        own.format(line.debit),
        own.format(line.credit),
        functional.code().to_owned(),
        functional.format(line.functional_debit),
        functional.format(line.functional_credit),
    ]
}

/// A row of RFC 4180, ended by a line feed alone, as most readers expect.
pub fn csv_row<T: AsRef<str>>(cells: impl IntoIterator<Item = T>) -> String {
    let cell = |text: T| {
        let text = text.as_ref();
        match text.contains(['"', ',', '\n', '\r']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        }
    };
    let mut row = cells.into_iter().map(cell).collect::<Vec<_>>().join(",");
    row.push('\n');
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_break_out_of_its_place() {
        assert_eq!(quoted("a \"b\" \\ \n"), r#""a \"b\" \\  ""#);
        assert_eq!(csv_row(["a,b", "c\"d", "e"]), "\"a,b\",\"c\"\"d\",e\n");
    }
}
