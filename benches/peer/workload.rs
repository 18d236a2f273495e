//! The input of the comparison: facts about closed and amended deals, linear, monthly, in one currency.
//!
//! Invariant: a function of the seed and the deal's number, so that every run and both programs see the same bytes.
//! Every amendment takes effect on or after the clock's day: nothing that was posted is ever taken back, which is the
//! part of the rules that the Kafka Streams peer has. Deliberately absent: everything else a contract may do.

use accrue::codec::schemas::Schemas;
use accrue::codec::trace::Trace;
use accrue::pipeline::emit::{Cause, deal_key, incoming, named};
use accrue::revenue::fact::{BillingCycle, Body, Customer, Deal, Fact, Line, Method, RecognitionTerms};
use accrue::revenue::ids::{CustomerId, DealId, EventId, LineId, LineType, TenantId};
use accrue::revenue::money::Currency;
use accrue::revenue::period::add_days;
use accrue::stream::log::{Log, Positions};
use accrue::stream::partitioner::partition_for;
use accrue::stream::processor::Route;
use accrue::stream::record::{Offset, Outgoing, Partition, Record, Timestamp, Topic, TopicPartition};
use anyhow::{Context as _, Result};
use jiff::civil::{Date, date};
use rust_decimal::Decimal;

/// The clock of the books: the first fact of each partition.
const CLOCK: Date = date(2026, 5, 1);
/// How many deals close between a deal's own close and its amendment: far more than one commit holds.
const AMENDED_LATER: u64 = 20_000;
/// Seconds since 1970 of the first close and the first amendment, in 2025: brokers refuse records from the future.
const CLOSED_FROM: i64 = 1_735_689_600;
const AMENDED_FROM: i64 = 1_745_700_000;
/// Deals after which the seconds repeat.
const SECONDS: u64 = 10_000_000;
const FACTS_PER_TRANSACTION: usize = 5_000;

#[derive(clap::Args, Clone, Debug)]
pub struct Workload {
    /// Deals that close
    #[arg(long, default_value_t = 20_000)]
    deals: u64,
    /// The number of the first deal
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Of a hundred deals, how many are amended once
    #[arg(long, default_value_t = 50)]
    amended_percent: u64,
    /// Months of a deal's term; deals of less than a year have one line instead of two and are not amended
    #[arg(long, default_value_t = 12)]
    term_months: u32,
    #[arg(long, default_value_t = 606)]
    seed: u64,
}

impl Workload {
    /// The first deals: their closes, and their amendments.
    pub fn rounds(&self, deals: u64) -> Result<[Vec<Fact>; 2]> {
        let numbers = || self.first..self.first + deals;
        Ok([
            numbers().map(|n| self.closed(n)).collect::<Result<_>>()?,
            numbers().map(|n| self.amended(n)).collect::<Result<_>>()?,
        ])
    }

    /// All facts of deals, in the order in which they are written.
    fn facts(&self) -> impl Iterator<Item = Result<Fact>> + '_ {
        let later = AMENDED_LATER.min(self.deals / 2 + 1);
        (0..self.deals + later).flat_map(move |n| {
            let closed = (n < self.deals).then(|| self.closed(self.first + n));
            let amended = n
                .checked_sub(later)
                .map(|n| self.first + n)
                .filter(|n| self.is_amended(*n))
                .map(|n| self.amended(n));
            closed.into_iter().chain(amended)
        })
    }

    fn is_amended(&self, n: u64) -> bool {
        self.term_months >= 12 && mix(self.seed ^ 1, n) % 100 < self.amended_percent
    }

    fn closed(&self, n: u64) -> Result<Fact> {
        let random = mix(self.seed, n);
        let start = date(2026, 1 + (random % 4) as i8, 1 + ((random >> 8) % 28) as i8);
        let subscription = cents(120_000 + (random >> 16) % 5_000_000);
        let mut deal = deal(n, subscription, self.term_months >= 12)?;
        deal.term_months = Some(self.term_months);
        deal.billing_cycle = Some(BillingCycle::Monthly);
        deal.contract_start = Some(start);
        let number = n % 997;
        deal.customer = Some(Customer {
            customer_id: CustomerId::parse(format!("C-{number}")).context("customer")?,
            name: Some(format!("Customer {number}")),
            accounting_id: None,
        });
        deal.recognition = RecognitionTerms {
            method: Some(Method::StraightLine),
            defer_setup: Some(true),
        };
        fact(
            format!("e-{n}"),
            CLOSED_FROM + (n % SECONDS) as i64,
            Body::DealClosed(deal),
        )
    }

    /// The price of the subscription changes from a day after the clock on; the rest stays.
    fn amended(&self, n: u64) -> Result<Fact> {
        let random = mix(self.seed ^ 2, n);
        let subscription = cents(100_000 + (random >> 16) % 6_000_000);
        let mut deal = deal(n, subscription, true)?;
        deal.effective_date = Some(add_days(CLOCK, (random % 150) as i64));
        fact(
            format!("a-{n}"),
            AMENDED_FROM + (n % SECONDS) as i64,
            Body::DealAmended(deal),
        )
    }
}

fn clock() -> Result<Fact> {
    fact("clock-1".to_owned(), CLOSED_FROM - 1, Body::ClockTicked(CLOCK))
}

/// Writes the clock to each partition, then the deals' facts, and returns where each partition ends.
pub fn load(log: &dyn Log, schemas: &Schemas, topic: &Topic, workload: &Workload) -> Result<Positions> {
    let count = log.partitions(topic)?.context("the input topic is missing")?;
    let mut producer = log.producer(&format!("load-{topic}"))?;
    let mut ends = Positions::new();
    producer.begin()?;
    for n in 0..count {
        producer.send(record(topic, Partition(n), 0, &clock()?, schemas)?)?;
    }
    let mut open = 0;
    for (n, fact) in workload.facts().enumerate() {
        let fact = fact?;
        let deal = fact.body.deal_id().context("a fact of a deal")?;
        let to = partition_for(&deal_key(&fact.tenant, deal), count);
        producer.send(record(topic, to, n as u64 + 1, &fact, schemas)?)?;
        open += 1;
        if open == FACTS_PER_TRANSACTION {
            ends.extend(producer.commit(&Positions::new(), None)?);
            producer.begin()?;
            open = 0;
        }
    }
    ends.extend(producer.commit(&Positions::new(), None)?);
    Ok(ends)
}

/// Writes facts to the only partition; the clock before them, if they are the first.
pub fn load_round(log: &dyn Log, schemas: &Schemas, topic: &Topic, first: bool, facts: &[Fact]) -> Result<()> {
    let mut producer = log.producer(&format!("load-{topic}"))?;
    producer.begin()?;
    if first {
        producer.send(record(topic, Partition(0), 0, &clock()?, schemas)?)?;
    }
    for (n, fact) in (1..).zip(facts) {
        producer.send(record(topic, Partition(0), n, fact, schemas)?)?;
    }
    producer.commit(&Positions::new(), None)?;
    Ok(())
}

/// A fact as the second stage writes it: Avro, with CloudEvents headers.
fn record(topic: &Topic, to: Partition, n: u64, fact: &Fact, schemas: &Schemas) -> Result<Outgoing> {
    let cause = Record {
        at: TopicPartition::new(topic, to),
        offset: Offset(n),
        timestamp: Timestamp(fact.occurred_at.as_millisecond()),
        key: None,
        value: None,
        headers: Vec::new(),
    };
    let key = match fact.body.deal_id() {
        Some(deal) => deal_key(&fact.tenant, deal),
        None => format!("{}/{}", fact.tenant, fact.body.type_name()).into_bytes(),
    };
    let value = schemas
        .encode_fact(fact)
        .map_err(|refused| anyhow::anyhow!("{refused}"))?;
    let trace = incoming(&cause, Trace::of);
    let caused = Cause::new(&cause, &trace, fact, fact.body.deal_id());
    let emission = caused.emission((topic, Route::To(to)), key, value, named(fact));
    Ok(Outgoing {
        to: cause.at,
        timestamp: emission.timestamp,
        key: emission.key,
        value: emission.value,
        headers: emission.headers,
    })
}

fn fact(id: String, second: i64, body: Body) -> Result<Fact> {
    Ok(Fact {
        event_id: EventId::parse(id).context("event id")?,
        source: "bench".to_owned(),
        occurred_at: jiff::Timestamp::from_second(second)?,
        tenant: TenantId::parse("acme").context("tenant")?,
        body,
    })
}

/// What a close and an amendment have in common: a subscription, and a setup fee over the term.
fn deal(n: u64, subscription: Decimal, with_setup: bool) -> Result<Deal> {
    let mut lines = vec![line("l1", "subscription", subscription)?];
    if with_setup {
        lines.push(line("l2", "setup", cents(200_000 + n % 1_000))?);
    }
    // Numbers far apart for deals that come one after the other: a CRM's ids are seldom in the order of their closing. Each
    // is of one deal, since the factor is odd.
    let id = (n as u32).wrapping_mul(2_654_435_761);
    Ok(Deal {
        deal_id: DealId::parse(format!("D-{id:08x}")).context("deal id")?,
        amount: lines.iter().map(|line| line.amount).sum(),
        currency: Currency::parse("USD").context("currency")?,
        term_months: None,
        billing_cycle: None,
        contract_start: None,
        contract_end: None,
        effective_date: None,
        customer: None,
        lines,
        instalments: Vec::new(),
        recognition: RecognitionTerms::default(),
        renewal: None,
        tax: None,
        treatment: None,
    })
}

fn line(id: &str, line_type: &str, amount: Decimal) -> Result<Line> {
    Ok(Line {
        id: LineId::parse(id).context("line id")?,
        line_type: LineType::parse(line_type).context("line type")?,
        name: None,
        amount,
        quantity: None,
        unit_price: None,
        ssp: None,
        ssp_range: None,
        discount: None,
        start: None,
        end: None,
        method: None,
        milestones: Vec::new(),
        distinct: None,
        recurring: None,
        bundle: None,
    })
}

fn cents(amount: u64) -> Decimal {
    Decimal::new(amount as i64, 2)
}

/// SplitMix64: well-spread numbers without state.
fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
