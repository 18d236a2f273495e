//! `accrue books verify`, `hash` and `close`: are the books right, what is a period's hash, and no more of it.
//!
//! A close is a fact like any other: the command says it to the log, and the stream processor acts on it. Invariant:
//! nothing is said unless every check holds for the books as they will be with the period closed, and the printed hash
//! is that of those books: so nothing is said while facts wait that could still change them. What is said twice before it
//! is processed is said once. Deliberately absent: reopening, which is a fact posted by hand.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::super::out::Format;
use super::super::{Failure, facts, look};
use super::known::{Given, Known};
use crate::codec::{fact_json, source};
use crate::config::{Log, Topology};
use crate::pipeline;
use crate::pipeline::emit::incoming;
use crate::revenue::books::Report;
use crate::revenue::checks::{self, Violation};
use crate::revenue::fact::{Body, Fact};
use crate::revenue::ids::{DealId, EventId, TenantId};
use crate::revenue::period::Period;
use crate::revenue::reference::Reference;
use crate::revenue::reject::Code;
use crate::stream::app;
use crate::stream::log::{LogError, read_topic};
use crate::stream::record::Topic;

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    given: Given,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Args)]
pub struct Hash {
    /// The period, such as 2026-02 or FY2026-P02
    #[arg(long, value_parser = super::period)]
    period: Period,
    /// Whose; needed where the facts are of several tenants
    #[arg(long, value_parser = super::tenant)]
    tenant: Option<TenantId>,
    #[command(flatten)]
    given: Given,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Args)]
pub struct Close {
    #[command(flatten)]
    hash: Hash,
    /// When it is said [default: now]
    #[arg(long, value_name = "TIMESTAMP")]
    at: Option<Timestamp>,
    /// The source to whose topic the fact is written
    #[arg(long, default_value = "reference-facts")]
    source: String,
    /// Close it though facts wait to be processed, deals wait for a rate in it, or no clock says that it has ended
    #[arg(long)]
    force: bool,
}

pub fn verify(arguments: &Verify) -> Result<(), Failure> {
    let report = arguments.given.read()?.report();
    let violations = checks::run(&report);
    match arguments.format {
        Format::Text => print!("{}", verdict(&report, &violations)),
        Format::Json => println!(
            "{:#}",
            json!({
                "checks": checks::ALL.iter().map(|(name, _)| json!({
                    "check": name,
                    "violations": violations.iter().filter(|it| it.check == *name).map(|it| json!({
                        "subject": it.subject,
                        "detail": it.detail,
                    })).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
                "entries": report.journals.len(),
                "rejections": report.rejections.len(),
            })
        ),
    }
    holds(&violations)
}

/// One line a check, and each violation of it below.
fn verdict(report: &Report, violations: &[Violation]) -> String {
    let mut text = String::new();
    for (name, _) in checks::ALL {
        let broken: Vec<&Violation> = violations.iter().filter(|it| it.check == *name).collect();
        text += &match broken.len() {
            0 => format!("ok    {name}\n"),
            count => format!("FAIL  {name}: {count} violations\n"),
        };
        for it in broken {
            text += &format!("        {}: {}\n", it.subject, it.detail);
        }
    }
    text += &format!(
        "{} deals, {} entries, {} facts without effect\n",
        report.contracts.len(),
        report.journals.len(),
        report.rejections.len()
    );
    text
}

fn holds(violations: &[Violation]) -> Result<(), Failure> {
    match violations {
        [] => Ok(()),
        [first, ..] => Err(anyhow::anyhow!(
            "{} violations, the first of check {}: {}: {}",
            violations.len(),
            first.check,
            first.subject,
            first.detail
        )
        .into()),
    }
}

pub fn hash(arguments: &Hash) -> Result<(), Failure> {
    let known = arguments.given.read()?;
    let tenant = known.one_tenant(arguments.tenant.as_ref())?;
    let closed = known
        .reference()
        .tenant(&tenant)
        .closed_periods()
        .contains(&arguments.period);
    let seal = Seal::of(&known.report(), tenant, arguments.period);
    seal.print(arguments.format, if closed { "closed" } else { "open" }, None);
    Ok(())
}

/// The hash over a period's entries.
struct Seal {
    tenant: TenantId,
    period: Period,
    entries: usize,
    hash: String,
}

impl Seal {
    fn of(report: &Report, tenant: TenantId, period: Period) -> Seal {
        let hash = checks::period_hash(&report.journals, &tenant, period);
        let of = report.journals.iter().filter(|it| it.tenant == tenant);
        Seal {
            entries: of.filter(|it| it.period == period).count(),
            tenant,
            period,
            hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// `fact`: what there is still to append.
    fn print(&self, format: Format, state: &str, fact: Option<&Fact>) {
        match format {
            Format::Text => {
                println!(
                    "{} {} {state}: {} entries, sha256 {}",
                    self.tenant, self.period, self.entries, self.hash
                );
                if let Some(fact) = fact {
                    println!("{}", fact_json::write(fact));
                }
            }
            Format::Json => println!(
                "{:#}",
                json!({
                    "tenant_id": self.tenant.as_str(),
                    "period": self.period.to_string(),
                    "state": state,
                    "entries": self.entries,
                    "sha256": self.hash,
                    "fact": fact.map(fact_json::write),
                })
            ),
        }
    }
}

pub fn close(arguments: &Close) -> Result<(), Failure> {
    let Hash {
        period,
        tenant,
        given,
        format,
    } = &arguments.hash;
    let place = given.log()?;
    let waiting = place.as_ref().map_or(Ok(0), settled)?;
    if waiting > 0 && !arguments.force {
        return Err(anyhow::anyhow!(
            "{waiting} records wait to be processed and may change {period}; `accrue run` processes them and `accrue status` shows \
             how many are left. Wait until there are none, or use --force"
        )
        .into());
    }
    let known = given.read()?;
    let tenant = known.one_tenant(tenant.as_ref())?;
    let reference = known.reference();
    if reference.tenant(&tenant).closed_periods().contains(period) {
        let seal = Seal::of(&known.report(), tenant, *period);
        seal.print(*format, "was closed before, nothing said", None);
        return Ok(());
    }
    let fact = said(&known, &tenant, *period, arguments.at.unwrap_or_else(Timestamp::now))?;
    let last = known.settings.tenant(&tenant).fiscal.last_day(*period);
    match reference.tenant(&tenant).clock() {
        // No force helps: whoever reads the fact refuses it (`Settings::check_period`).
        Some(clock) if clock <= last => {
            return Err(anyhow::anyhow!(
                "{period} ends on {last}, and the clock of {tenant} stands at {clock}; wait for its end"
            )
            .into());
        }
        None if !arguments.force => {
            return Err(anyhow::anyhow!(
                "{period} ends on {last}, and the clock of {tenant} never ticked; wait for its end, or use --force"
            )
            .into());
        }
        Some(_) | None => {}
    }
    if !arguments.force {
        let parked = parked(&known, &tenant, *period);
        if !parked.is_empty() {
            return Err(anyhow::anyhow!(
                "{} deals are parked in {period}; publish the rates, or use --force and find them in a later period:\n{}",
                parked.len(),
                parked.join("\n")
            )
            .into());
        }
    }
    let report = known.report_with(std::slice::from_ref(&fact));
    holds(&checks::run(&report))?;
    let seal = Seal::of(&report, tenant, *period);
    let Some(topology) = place else {
        seal.print(*format, "closed by this fact, to be appended", Some(&fact));
        return Ok(());
    };
    let topic = facts::takes_facts(&topology, &arguments.source)?;
    if waiting > 0 && is_said(&topology, &topic, &fact)? {
        let state = format!("close was said to {topic} before and waits to be processed, nothing said");
        seal.print(*format, &state, None);
        return Ok(());
    }
    let line = format!("{}\n", fact_json::write(&fact));
    facts::send(&topology, &arguments.source, line.as_bytes())?;
    seal.print(*format, &format!("close said to {topic}"), None);
    if *format == Format::Text {
        println!(
            "`accrue books hash --period {period}` shows it closed, with this hash, once `accrue run` has processed it"
        );
    }
    Ok(())
}

/// How many records wait to be processed, once a process that is at work has had a moment for them.
fn settled(topology: &Topology) -> Result<u64, Failure> {
    let log = look::log(topology)?;
    let shape = pipeline::shape(topology)?;
    // An embedded log is open here, so nobody else is at work on it.
    let patience = match &topology.log {
        Log::Kafka(_) => Duration::from_secs(10),
        Log::Embedded(_) => Duration::ZERO,
    };
    let began = Instant::now();
    loop {
        let left = app::lag(&shape, log.as_ref())?;
        if left == 0 || began.elapsed() >= patience {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Whether the fact is in its topic, whatever the time it gives itself: a second one of its id would contradict it.
fn is_said(topology: &Topology, topic: &Topic, fact: &Fact) -> Result<bool, Failure> {
    let log = look::log(topology)?;
    let mut found = false;
    read_topic(log.as_ref(), topic, |record| {
        let said = incoming(&record, |record| source::fact(record, topology.settings()));
        found |= said.is_ok_and(|said| (&said.tenant, &said.event_id) == (&fact.tenant, &fact.event_id));
        Ok::<(), LogError>(())
    })?;
    Ok(found)
}

/// The fact that closes a period. Its id tells closes of one period apart, and repeats when the command is repeated.
fn said(known: &Known, tenant: &TenantId, period: Period, at: Timestamp) -> Result<Fact, Failure> {
    let closes = known
        .facts()
        .filter(|fact| fact.tenant == *tenant && fact.body == Body::PeriodClosed(period))
        .map(|fact| &fact.event_id)
        .collect::<BTreeSet<_>>()
        .len();
    let id = format!("accrue-close-{period}-{}", closes + 1);
    let fact = Fact {
        event_id: EventId::parse(id).ok_or_else(|| anyhow::anyhow!("{period} makes no event id"))?,
        source: "accrue books close".to_owned(),
        occurred_at: at,
        tenant: tenant.clone(),
        body: Body::PeriodClosed(period),
    };
    let wrong = |rejection| Failure::Usage(format!("--period {period}: {rejection}"));
    fact.validate().map_err(wrong)?;
    // Whether it is over by the clock is the caller's to say in its own words.
    known
        .settings
        .check_period(&fact, &Reference::default())
        .map_err(wrong)?;
    Ok(fact)
}

/// The deals of a tenant that cannot be posted up to the end of a period, for want of a rate.
fn parked(known: &Known, tenant: &TenantId, period: Period) -> Vec<String> {
    let last = known.settings.tenant(tenant).fiscal.last_day(period);
    let report = known.report();
    let waiting: BTreeSet<&EventId> = report
        .rejections
        .iter()
        .filter(|(_, rejection)| rejection.code == Code::RateMissing)
        .map(|(event, _)| event)
        .collect();
    let deals: BTreeSet<&DealId> = known
        .facts()
        .filter(|fact| fact.tenant == *tenant && waiting.contains(&fact.event_id))
        .filter_map(|fact| fact.body.deal_id())
        .collect();
    let folded = known.contracts(&|of, deal| of == tenant && deals.contains(deal));
    let contracts = folded.iter().flat_map(|it| it.deals.iter());
    contracts
        .filter_map(|((_, deal), kept)| {
            let needed = kept.contract.as_ref()?.waits_for().filter(|it| it.date <= last)?;
            Some(format!(
                "  {deal} waits for {}/{} of {}",
                needed.base, needed.quote, needed.date
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::replay::lines;
    use crate::revenue::books::Books;
    use crate::revenue::reference::Settings;
    use rust_decimal::Decimal;

    #[test]
    fn an_altered_cent_is_found() {
        let event = r#"{"event_id":"e1","source":"crm","type":"deal.closed","occurred_at":"2026-01-01T00:00:00Z",
            "tenant_id":"acme","payload":{"deal_id":"D-1","amount":1200,"currency":"USD","term_months":12,
            "billing_cycle":"annual","contract_start":"2026-01-01",
            "line_items":[{"id":"a","type":"subscription","amount":1200}]}}"#
            .replace('\n', " ");
        let mut books = Books::new(Settings::default());
        for line in lines(event.as_bytes(), &Settings::default()) {
            books.fold(line.expect("a fact"));
        }
        let mut report = books.finish(Some(jiff::civil::date(2026, 7, 1)));
        assert!(holds(&checks::run(&report)).is_ok());
        assert!(verdict(&report, &[]).starts_with("ok    entries_balance\n"));

        report.journals[0].lines[0].debit += Decimal::new(1, 2);
        let violations = checks::run(&report);
        assert!(holds(&violations).is_err());
        let text = verdict(&report, &violations);
        assert!(text.starts_with("FAIL  entries_balance: 1 violations\n"), "{text}");
    }
}
