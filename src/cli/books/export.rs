//! `accrue books export`: the journal for other ledgers.

use clap::{Args, ValueEnum};

use super::super::Failure;
use super::known::Given;
use crate::codec::export::{self, Chart};
use crate::revenue::ids::TenantId;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    given: Given,
    /// Which program reads it
    #[arg(long, value_enum)]
    format: Format,
    /// Whose journal; needed where the facts are of several tenants
    #[arg(long, value_parser = super::tenant)]
    tenant: Option<TenantId>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Plain text accounting with hledger; passes `hledger check --strict`
    Hledger,
    /// Plain text accounting with Beancount; passes `bean-check`
    Beancount,
    /// One row for each line of an entry
    Csv,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let known = arguments.given.read()?;
    let tenant = known.one_tenant(arguments.tenant.as_ref())?;
    let mut journal = known.journal();
    journal.retain(|entry| entry.tenant == tenant);
    let text = match arguments.format {
        Format::Hledger => export::hledger(&journal, &Chart::of(&journal)),
        Format::Beancount => export::beancount(&journal, &Chart::of(&journal)),
        Format::Csv => export::csv(&journal),
    };
    print!("{text}");
    Ok(())
}
