//! `accrue deal`: one deal as it was known at any time, about any day, and why each of its amounts is what it is.
//!
//! Invariant: two times, never mixed: `--known-at` chooses the facts that count at all, `--as-of` the day on which the deal is
//! looked at, by which nothing later had happened to it. Deliberately absent: any change to a deal; that is a fact.

mod explain;
mod show;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::civil::Date;

pub(super) use self::explain::paragraphs;
use super::books::known::{Folded, FoldedDeal, Given, Known};
use super::books::tenant;
use super::out::Format;
use super::{Failure, deadletters};
use crate::revenue::contract::{Status, View};
use crate::revenue::ids::{DealId, TenantId};
use crate::revenue::reference::{Context, Reference};

#[derive(Subcommand)]
pub enum Command {
    /// Contract, balances, schedule, invoices and entries of a deal
    Show(Show),
    /// Each version and each amount: the rule, what went in, the calculation, the facts
    Explain(explain::Arguments),
}

#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    which: Which,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Which deal.
#[derive(Args)]
struct Which {
    /// The deal's id in the CRM
    #[arg(value_name = "ID", value_parser = deal_id)]
    deal: DealId,
    /// Whose deal; needed where several tenants have one of that id
    #[arg(long, value_parser = tenant)]
    tenant: Option<TenantId>,
    #[command(flatten)]
    given: Given,
}

fn deal_id(text: &str) -> Result<DealId, String> {
    DealId::parse(text).ok_or_else(|| "a deal id has no `/` and no control characters".to_owned())
}

pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Show(arguments) => show::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
    }
}

/// A deal that was found.
struct Found {
    known: Known,
    tenant: TenantId,
    deal: DealId,
    /// The partition it is in, with this deal alone.
    folded: Folded,
    /// What was known of the tenant, with the clock on the day asked for.
    reference: Reference,
}

impl Which {
    /// Errors: no fact tells of the deal by then, or facts of several tenants do.
    fn find(&self) -> Result<Found, Failure> {
        let known = self.given.read()?;
        let deal = &self.deal;
        let wanted = |tenant: &TenantId| self.tenant.as_ref().is_none_or(|wanted| wanted == tenant);
        let of_it = known.facts().filter(|fact| fact.body.deal_id() == Some(deal));
        let first = of_it
            .filter(|fact| wanted(&fact.tenant))
            .map(|fact| fact.occurred_at)
            .min();
        let known = known.by_then();
        let folded = known.contracts(&|tenant, id| wanted(tenant) && id == deal);
        let mut found: Vec<(TenantId, Folded)> = Vec::new();
        for part in folded {
            let tenants: Vec<TenantId> = part.deals.keys().map(|(tenant, _)| tenant.clone()).collect();
            if let [others @ .., tenant] = tenants.as_slice() {
                if let Some(other) = others.first() {
                    return Err(several(deal, other, tenant));
                }
                found.push((tenant.clone(), part));
            }
        }
        let Some((tenant, folded)) = found.pop() else {
            return Err(self.unknown(known.as_of.zip(first))?.into());
        };
        if let Some((other, _)) = found.first() {
            return Err(several(deal, other, &tenant));
        }
        Ok(Found {
            reference: known.reference(),
            known,
            tenant,
            deal: deal.clone(),
            folded,
        })
    }

    /// Why there is nothing to show. `later`: the day asked for, and when the deal's first fact occurred.
    fn unknown(&self, later: Option<(Date, Timestamp)>) -> Result<anyhow::Error, Failure> {
        let deal = &self.deal;
        if let Some((day, first)) = later {
            return Ok(anyhow::anyhow!(
                "by {day} nothing tells of deal {deal}: its first fact occurred at {first}"
            ));
        }
        let when = self.given.known_at().map_or(String::new(), |at| format!(" by {at}"));
        let Some(topology) = self.given.log()? else {
            return Ok(anyhow::anyhow!("no fact{when} tells of deal {deal}"));
        };
        Ok(match deadletters::open_about(&topology, deal)? {
            0 => anyhow::anyhow!("no fact{when} tells of deal {deal}; no dead letter does either"),
            letters => anyhow::anyhow!(
                "no fact{when} tells of deal {deal}, but {letters} dead letters do: `accrue deadletters list --deal {deal}`"
            ),
        })
    }
}

fn several(deal: &DealId, one: &TenantId, other: &TenantId) -> Failure {
    Failure::Usage(format!("both {one} and {other} have a deal {deal}; give --tenant"))
}

impl Found {
    fn kept(&self) -> Option<&FoldedDeal> {
        self.folded.deals.get(&(self.tenant.clone(), self.deal.clone()))
    }

    /// Everything that was known, with the clock on the day asked for.
    fn context(&self) -> Context<'_> {
        Context::new(&self.known.settings, &self.reference, &self.tenant)
    }

    /// The day that the books are looked at.
    fn day(&self) -> Option<Date> {
        self.context().reference.clock()
    }

    fn view(&self) -> View {
        let contract = self.kept().and_then(|kept| kept.contract.as_ref());
        let view = contract.and_then(|contract| contract.view_now(&self.context()));
        view.unwrap_or_else(|| View {
            tenant: self.tenant.clone(),
            deal: self.deal.clone(),
            status: Status::Draft,
            version: 0,
            currency: None,
            contracts: Vec::new(),
            balances: None,
            recurring: Vec::new(),
            history: Vec::new(),
        })
    }
}
