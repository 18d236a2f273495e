//! What a user writes into `topology.toml` to deliver to a double.
//!
//! Invariant: it is a whole sink that `accrue check` accepts; a test holds it to that.

use std::fmt::Write as _;

use super::{odoo, oracle, quickbooks, tokens, xero};

/// Account codes, as the doubles and the examples use them.
const ACCOUNTS: [(&str, &str); 11] = [
    ("accounts_receivable", "1100"),
    ("cash", "1000"),
    ("contract_asset", "1200"),
    ("contract_liability", "2400"),
    ("tax_payable", "2300"),
    ("refund_liability", "2500"),
    ("fx_gain_loss", "7100"),
    ("revenue.subscription", "4000"),
    ("revenue.setup", "4100"),
    ("revenue.services", "4200"),
    ("revenue.usage", "4300"),
];

/// The sink of a system at an address.
pub fn topology(name: &str, url: &str) -> String {
    let oauth = |token: &str| {
        let (id, secret) = (tokens::CLIENT_ID, tokens::CLIENT_SECRET);
        format!("oauth = {{ client_id = \"{id}\", client_secret = \"{secret}\", token_url = \"{url}/{token}\" }}\n")
    };
    let own = match name {
        "xero" => format!(
            "url = \"{url}/api.xro/2.0\"\norganisation = \"{}\"\n{}",
            xero::ORGANISATION,
            oauth("connect/token")
        ),
        "quickbooks" => format!(
            "url = \"{url}\"\ncompany = \"{}\"\n{}{}",
            quickbooks::REALM,
            oauth("oauth2/v1/tokens/bearer"),
            items()
        ),
        "netsuite" => format!(
            "url = \"{url}\"\n{}{}",
            oauth("services/rest/auth/oauth2/v1/token"),
            items()
        ),
        "odoo" => format!("url = \"{url}\"\napi_key = \"{}\"\n", odoo::API_KEY),
        "oracle" => format!(
            "url = \"{url}\"\nuser = \"{}\"\npassword = \"{}\"\nledger_id = 1\ndata_access_set_id = 1\nsource = \"Accrue\"\n\
             category = \"Revenue\"\npoll_every = \"1s\"\n",
            oracle::USER,
            oracle::PASSWORD
        ),
        _ => String::new(),
    };
    let mut text = format!("[sinks.{name}]\nkind = \"{name}\"\ndocuments = \"invoices\"\n\n[sinks.{name}.accounts]\n");
    text.push_str(&accounts());
    let _ = write!(text, "\n[sinks.{name}.{name}]\n{own}");
    text
}

/// The lines of an accounts table.
pub fn accounts() -> String {
    let line = |(role, account): &(&str, &str)| format!("{role} = \"{account}\"\n");
    ACCOUNTS.iter().map(line).collect()
}

fn items() -> String {
    let pairs: Vec<String> = ACCOUNTS
        .iter()
        .map(|(_, account)| format!("{account} = \"item-{account}\""))
        .collect();
    format!("items = {{ {} }}\n", pairs.join(", "))
}
