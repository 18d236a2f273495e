//! The sample CRM history of the quick start: two years of a company that sells software.
//!
//! Owns: about 300 deals of one tenant in two currencies, as Debezium would have captured them from PostgreSQL (row
//! changes with transaction metadata), and the rates, accounts, period closes and clock ticks of the same time.
//! Invariants: no clock and no randomness from outside, so every run loads the same bytes; records are in time order;
//! prices are exact. Among them are records that are wrong on purpose, each in its own way.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value as Json, json};

const TENANT: &str = "acme-corp";
const DEALS: u32 = 300;
const CUSTOMERS: u32 = 90;
const FIRST_DAY: Date = date(2025, 1, 1);
/// All days before this one have ended when the history stops.
pub const LAST_TICK: Date = date(2027, 1, 1);
/// Decimals of the CRM's money columns; base64 carries none.
const SCALE: i64 = 10_000;

/// One record to load.
pub struct SampleRecord {
    /// The topic after the CRM's prefix, or the whole name of a topic of facts.
    pub topic: SampleTopic,
    pub timestamp: i64,
    pub key: Option<String>,
    pub value: Option<String>,
}

/// Which source a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SampleTopic {
    Deals,
    LineItems,
    Customers,
    Transactions,
    ReferenceFacts,
}

impl SampleTopic {
    /// The name of the source in `topology.toml`.
    pub fn source(self) -> &'static str {
        match self {
            SampleTopic::Deals => "crm-deals",
            SampleTopic::LineItems => "crm-deal-line-items",
            SampleTopic::Customers => "crm-customers",
            SampleTopic::Transactions => "crm-transactions",
            SampleTopic::ReferenceFacts => "reference-facts",
        }
    }

    fn table(self) -> &'static str {
        match self {
            SampleTopic::Deals => "deals",
            SampleTopic::LineItems => "deal_line_items",
            SampleTopic::Customers => "customers",
            SampleTopic::Transactions | SampleTopic::ReferenceFacts => "",
        }
    }
}

/// The whole history, in time order; what would happen after its end is left out.
pub fn history() -> Vec<SampleRecord> {
    let mut events: Vec<(Timestamp, Happening)> = Vec::new();
    for n in 0..CUSTOMERS {
        events.push((moment(FIRST_DAY, n), Happening::Rows(vec![customer(n)])));
    }
    let mut dice = Dice(20_250_101);
    for n in 0..DEALS {
        deal_life(n, &mut dice, &mut events);
    }
    bad_records(&mut events);
    reference_facts(&mut events);
    let end = moment(LAST_TICK, 24 * 60);
    events.retain(|(at, _)| *at < end);
    events.sort_by_key(|(at, happening)| (*at, matches!(happening, Happening::Fact(_))));

    let mut database = Database {
        lsn: 24_000_000,
        transaction: 700,
        known: BTreeMap::new(),
    };
    events
        .into_iter()
        .flat_map(|(at, happening)| match happening {
            Happening::Rows(rows) => database.commit(at, rows),
            Happening::Fact(fact) => vec![SampleRecord {
                topic: SampleTopic::ReferenceFacts,
                timestamp: at.as_millisecond(),
                key: None,
                value: Some(fact.to_string()),
            }],
            Happening::Raw(topic, value) => vec![SampleRecord {
                topic,
                timestamp: at.as_millisecond(),
                key: Some(json!({"id": "?"}).to_string()),
                value: Some(value),
            }],
        })
        .collect()
}

enum Happening {
    /// One database transaction: rows as they stand after it.
    Rows(Vec<(SampleTopic, Json)>),
    Fact(Json),
    Raw(SampleTopic, String),
}

/// A small linear congruential generator (Knuth's MMIX constants): the same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(n)) as u32
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

/// What a deal is, as its salesperson sees it.
#[derive(Clone)]
struct Sale {
    n: u32,
    currency: &'static str,
    cycle: &'static str,
    start: Date,
    months: u32,
    closed: Timestamp,
    /// Type, whole units of money.
    lines: Vec<(&'static str, i64)>,
}

impl Sale {
    fn id(&self) -> String {
        format!("D-{:05}", 10_001 + self.n)
    }

    fn rows(&self, stage: &str, effective: Option<Date>) -> Vec<(SampleTopic, Json)> {
        let total: i64 = self.lines.iter().map(|(_, amount)| amount).sum();
        let deal = json!({
            "id": self.id(), "tenant_id": TENANT, "customer_id": customer_id(self.n % CUSTOMERS),
            "name": format!("{} {}", customer_name(self.n % CUSTOMERS), self.start.year()),
            "stage": stage, "amount": money(total), "currency": self.currency, "term_months": self.months,
            "billing_cycle": self.cycle, "contract_start": days(self.start), "contract_end": null,
            "effective_date": effective.map(days), "closed_at": self.closed.to_string(),
            "recognition_method": "linear", "defer_setup": true,
        });
        let lines = self.lines.iter().enumerate().map(|(i, (line_type, amount))| {
            let line = json!({
                "id": format!("{}-L{}", self.id(), i + 1), "tenant_id": TENANT, "deal_id": self.id(),
                "type": line_type, "name": format!("{line_type} of {}", self.id()), "amount": money(*amount),
                "quantity": null, "unit_price": null, "ssp": null, "start_date": null, "end_date": null, "method": null,
            });
            (SampleTopic::LineItems, line)
        });
        [(SampleTopic::Deals, deal)].into_iter().chain(lines).collect()
    }
}

/// From proposal to close, and what became of it.
fn deal_life(n: u32, dice: &mut Dice, events: &mut Vec<(Timestamp, Happening)>) {
    let signed = plus_days(FIRST_DAY, i64::from(dice.below(690)));
    let first_of_next = month_after(signed, 1);
    let start = if dice.chance(80) {
        first_of_next
    } else {
        plus_days(signed, i64::from(dice.below(20)))
    };
    let subscription = i64::from(dice.below(90) + 4) * 600 + i64::from(dice.below(50));
    let mut lines = vec![("subscription", subscription)];
    if dice.chance(45) {
        lines.push(("setup", i64::from(dice.below(30) + 5) * 100));
    }
    if dice.chance(20) {
        lines.push(("services", i64::from(dice.below(40) + 10) * 150));
    }
    let mut sale = Sale {
        n,
        currency: if dice.chance(30) { "EUR" } else { "USD" },
        cycle: dice.pick(&["monthly", "monthly", "quarterly", "yearly", "upfront"]),
        start,
        months: dice.pick(&[6, 12, 12, 12, 24, 36]),
        closed: moment(signed, 9 * 60 + dice.below(500)),
        lines,
    };
    let proposed = moment(
        plus_days(signed, -i64::from(dice.below(40) + 3)).max(FIRST_DAY),
        600 + n,
    );
    events.push((proposed, Happening::Rows(sale.rows("proposal", None))));
    if dice.chance(6) {
        let lost = moment(signed, 700);
        events.push((lost.max(proposed), Happening::Rows(sale.rows("closed_lost", None))));
        return;
    }
    events.push((
        sale.closed.max(proposed),
        Happening::Rows(sale.rows("closed_won", None)),
    ));

    let end = month_after_day(start, sale.months);
    let mut changed = start;
    if dice.chance(22) {
        let from = month_after(start, 2 + dice.below(sale.months.saturating_sub(3).max(1)));
        if from < end {
            let factor = dice.pick(&[80, 120, 150, 200]);
            sale.lines[0].1 = sale.lines[0].1 * factor / 100;
            changed = from;
            events.push((
                moment(plus_days(from, -5), 660 + n),
                Happening::Rows(sale.rows("closed_won", Some(from))),
            ));
        }
    }
    if dice.chance(8) {
        let from = month_after(changed, 1 + dice.below(sale.months.saturating_sub(4).max(1)));
        if from < end {
            events.push((
                moment(plus_days(from, -2), 720 + n),
                Happening::Rows(sale.rows("cancelled", Some(from))),
            ));
            return;
        }
    }
    if end < date(2026, 11, 1) && dice.chance(70) {
        let mut next = sale.clone();
        next.start = end;
        next.lines.truncate(1);
        next.lines[0].1 = next.lines[0].1 * dice.pick(&[100, 103, 105, 110]) / 100;
        events.push((
            moment(plus_days(end, -10), 780 + n),
            Happening::Rows(next.rows("renewed", Some(end))),
        ));
    }
}

/// Records that are wrong, one of each kind: each becomes a dead letter or a parked deal, and nothing else suffers.
fn bad_records(events: &mut Vec<(Timestamp, Happening)>) {
    let sale = |n: u32, lines: Vec<(&'static str, i64)>| Sale {
        n: 900 + n,
        currency: "USD",
        cycle: "monthly",
        start: date(2025, 7, 1),
        months: 12,
        closed: moment(date(2025, 6, 10), 600 + n),
        lines,
    };
    let at = |n: u32| moment(date(2025, 6, 10), 600 + n);
    events.push((
        at(0),
        Happening::Raw(SampleTopic::Deals, "{\"before\": null, \"after\": {\"id\": ".to_owned()),
    ));
    let change = |n: u32, change: &dyn Fn(&mut Json)| {
        let mut rows = sale(n, vec![("subscription", 12_000)]).rows("closed_won", None);
        change(&mut rows[0].1);
        (at(n), Happening::Rows(rows))
    };
    events.push(change(1, &|deal| deal["currency"] = json!("XYZ")));
    events.push(change(2, &|deal| deal["term_months"] = json!(-12)));
    events.push(change(3, &|deal| deal["contract_start"] = Json::Null));
    events.push(change(4, &|deal| deal["tenant_id"] = Json::Null));
    // Lines of 12,000 under an amount of 13,000: the deal waits, and is parked.
    events.push(change(5, &|deal| deal["amount"] = money(13_000)));
    events.push((
        at(6),
        Happening::Fact(json!({
            "event_id": "fx-broken", "source": "treasury", "type": "fx.rate", "occurred_at": at(6).to_string(),
            "tenant_id": TENANT, "payload": {"base": "EUR", "quote": "USD", "date": "2025-06-10", "rate": -1},
        })),
    ));
}

fn reference_facts(events: &mut Vec<(Timestamp, Happening)>) {
    let fact = |at: Timestamp, id: String, source: &str, kind: &str, payload: Json| {
        let fact = json!({
            "event_id": id, "source": source, "type": kind, "occurred_at": at.to_string(), "tenant_id": TENANT,
            "payload": payload,
        });
        (at, Happening::Fact(fact))
    };
    for (role, account) in [
        ("accounts_receivable", "1100 Receivables"),
        ("contract_asset", "1150 Unbilled"),
        ("contract_liability", "2400 Deferred revenue"),
        ("revenue.subscription", "4000 Subscriptions"),
        ("revenue.setup", "4100 Setup fees"),
        ("revenue.services", "4200 Services"),
    ] {
        let payload = json!({"role": role, "accounting_id": account, "from": FIRST_DAY.to_string()});
        events.push(fact(
            moment(FIRST_DAY, 0),
            format!("account-{role}"),
            "finance",
            "account.mapped",
            payload,
        ));
    }
    // A rate for each working day, drifting around 1.10.
    let mut dice = Dice(7);
    let mut pips: i64 = 11_000;
    let mut day = FIRST_DAY;
    while day < LAST_TICK {
        if !matches!(
            day.weekday(),
            jiff::civil::Weekday::Saturday | jiff::civil::Weekday::Sunday
        ) {
            pips = (pips + i64::from(dice.below(41)) - 20).clamp(10_200, 11_900);
            let payload = json!({
                "base": "EUR", "quote": "USD", "date": day.to_string(),
                "rate": format!("{}.{:04}", pips / 10_000, pips % 10_000),
            });
            events.push(fact(
                moment(day, 1),
                format!("fx-EURUSD-{day}"),
                "treasury",
                "fx.rate",
                payload,
            ));
        }
        day = plus_days(day, 1);
    }
    // The clock ticks on the first of each month; the month before last is closed on the tenth.
    let mut month = month_after(FIRST_DAY, 1);
    while month <= LAST_TICK {
        let payload = json!({"date": month.to_string()});
        events.push(fact(
            moment(month, 5),
            format!("tick-{month}"),
            "clock",
            "clock.ticked",
            payload,
        ));
        if month < LAST_TICK {
            let closed = plus_days(month, -1);
            let period = format!("{:04}-{:02}", closed.year(), closed.month());
            let payload = json!({"period": period});
            events.push(fact(
                moment(plus_days(month, 9), 1_000),
                format!("close-{period}"),
                "finance",
                "period.closed",
                payload,
            ));
        }
        month = month_after(month, 1);
    }
}

/// Turns rows into the records Debezium would write.
struct Database {
    lsn: i64,
    transaction: i64,
    /// Rows by table and id, to tell inserts from updates and to leave unchanged ones alone.
    known: BTreeMap<(SampleTopic, String), Json>,
}

impl Database {
    fn commit(&mut self, at: Timestamp, rows: Vec<(SampleTopic, Json)>) -> Vec<SampleRecord> {
        let ms = at.as_millisecond();
        self.transaction += 1;
        let begin = self.lsn;
        let mut records = Vec::new();
        let mut per_table: BTreeMap<SampleTopic, u32> = BTreeMap::new();
        // Lines that a renewal dropped are deleted with it.
        let mut gone = Vec::new();
        if let Some((SampleTopic::Deals, deal)) = rows.first() {
            let kept: Vec<&Json> = rows
                .iter()
                .filter(|(topic, _)| *topic == SampleTopic::LineItems)
                .map(|(_, row)| &row["id"])
                .collect();
            for (topic, id) in self.known.keys() {
                let row = &self.known[&(*topic, id.clone())];
                if *topic == SampleTopic::LineItems && row["deal_id"] == deal["id"] && !kept.contains(&&row["id"]) {
                    gone.push(id.clone());
                }
            }
        }
        let mut write = |database: &mut Database, topic: SampleTopic, id: &str, op: &str, after: Json| {
            database.lsn += 184;
            let order = records.len() as u32 + 1;
            let nth = per_table.entry(topic).or_default();
            *nth += 1;
            let before = if op == "d" {
                json!({"id": id, "deal_id": "", "amount": ""})
            } else {
                Json::Null
            };
            records.push(SampleRecord {
                topic,
                timestamp: ms,
                key: Some(json!({"id": id}).to_string()),
                value: Some(
                    json!({
                        "before": before, "after": after,
                        "source": {
                            "version": "3.6.3.Final", "connector": "postgresql", "name": "crm", "ts_ms": ms,
                            "snapshot": "false", "db": "crm", "schema": "public", "table": topic.table(),
                            "txId": database.transaction, "lsn": database.lsn,
                        },
                        "transaction": {
                            "id": format!("{}:{}", database.transaction, database.lsn),
                            "total_order": order, "data_collection_order": *nth,
                        },
                        "op": op, "ts_ms": ms,
                    })
                    .to_string(),
                ),
            });
        };
        for (topic, row) in rows {
            let id = row["id"].as_str().unwrap_or_default().to_owned();
            let known = self.known.insert((topic, id.clone()), row.clone());
            match known {
                Some(old) if old == row => {}
                Some(_) => write(self, topic, &id, "u", row),
                None => write(self, topic, &id, "c", row),
            }
        }
        for id in gone {
            self.known.remove(&(SampleTopic::LineItems, id.clone()));
            write(self, SampleTopic::LineItems, &id, "d", Json::Null);
        }
        let count = records.len();
        if count == 0 {
            return records;
        }
        let collections: Vec<Json> = per_table
            .iter()
            .map(|(topic, count)| json!({"data_collection": format!("public.{}", topic.table()), "event_count": count}))
            .collect();
        let mark = |status: &str, count: Json, collections: Json| SampleRecord {
            topic: SampleTopic::Transactions,
            timestamp: ms,
            key: Some(json!({"id": format!("{}:{begin}", self.transaction)}).to_string()),
            value: Some(
                json!({
                    "status": status, "id": format!("{}:{}", self.transaction, self.lsn), "event_count": count,
                    "data_collections": collections, "ts_ms": ms,
                })
                .to_string(),
            ),
        };
        let mut all = vec![mark("BEGIN", Json::Null, Json::Null)];
        all.extend(records);
        all.push(mark("END", json!(count), json!(collections)));
        all
    }
}

fn customer(n: u32) -> (SampleTopic, Json) {
    let row = json!({
        "id": customer_id(n), "tenant_id": TENANT, "name": customer_name(n), "accounting_id": format!("AR-{:04}", 100 + n),
    });
    (SampleTopic::Customers, row)
}

fn customer_id(n: u32) -> String {
    format!("C-{:03}", n + 1)
}

fn customer_name(n: u32) -> String {
    const FIRST: [&str; 10] = [
        "Northwind",
        "Globex",
        "Initech",
        "Umbra",
        "Halden",
        "Brightwater",
        "Kestrel",
        "Solano",
        "Ostfjord",
        "Palisade",
    ];
    const SECOND: [&str; 9] = [
        "Foods",
        "Logistics",
        "Energy",
        "Health",
        "Robotics",
        "Media",
        "Retail",
        "Bank",
        "Labs",
    ];
    format!("{} {}", FIRST[(n % 10) as usize], SECOND[(n / 10 % 9) as usize])
}

/// Base64 of the unscaled big-endian bytes, as `decimal.handling.mode=precise` writes numeric(18,4).
fn money(units: i64) -> Json {
    let bytes = (units * SCALE).to_be_bytes();
    let skip = bytes
        .windows(2)
        .take_while(|pair| pair[0] == 0 && pair[1] < 0x80)
        .count();
    json!(BASE64.encode(&bytes[skip..]))
}

fn days(day: Date) -> i64 {
    day.since(date(1970, 1, 1)).map_or(0, |span| i64::from(span.get_days()))
}

fn moment(day: Date, minute: u32) -> Timestamp {
    let midnight = day.to_datetime(jiff::civil::Time::midnight());
    let midnight = TimeZone::UTC.to_timestamp(midnight).unwrap_or(Timestamp::UNIX_EPOCH);
    midnight + i64::from(minute).minutes()
}

fn plus_days(day: Date, count: i64) -> Date {
    day.saturating_add(count.days())
}

/// The first day of the month `count` months after `day`'s.
fn month_after(day: Date, count: u32) -> Date {
    day.first_of_month().saturating_add(i64::from(count).months())
}

fn month_after_day(day: Date, count: u32) -> Date {
    day.saturating_add(i64::from(count).months())
}
