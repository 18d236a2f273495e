//! Worked examples as tables: facts in, rows out. Each file of `tests/cases` is one example that a controller can read.
//!
//! ```text
//! # title, source, arithmetic
//! policy straight_line=daily rounding=last_period
//! functional USD
//! as_of 2026-04-01
//! {"event_id": ...}                 one fact a line
//! == schedule                       what the books must say; sections that are left out are not compared
//! 2026-02 li-1 8333.33
//! ```
//!
//! `== balances at 2026-07-01` shows the books of the same facts on another day. A functional amount follows an amount after `=` where the two differ. Journal lines are signed, debit above zero.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use accrue::codec::fact_json;
use accrue::revenue::books::{Books, Report};
use accrue::revenue::checks;
use accrue::revenue::money::Currency;
use accrue::revenue::period::FiscalCalendar;
use accrue::revenue::policy::*;
use accrue::revenue::reference::{Settings, Tenant};
use rust_decimal::Decimal;

#[test]
fn every_case_gives_its_rows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let mut failures = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(path).unwrap();
        let (given, expected) = text.split_once("\n== ").unwrap_or((&text, ""));
        let report = replay(given, None);
        let violations = checks::run(&report);
        assert!(violations.is_empty(), "{}: {violations:#?}", path.display());
        for section in format!("\n== {expected}").split("\n== ").skip(1) {
            let (name, rows) = section.split_once('\n').unwrap_or((section, ""));
            let actual = match name.trim().split_once(" at ") {
                Some((section, day)) => render(&replay(given, Some(day)), section),
                None => render(&report, name.trim()),
            };
            if actual.trim() != rows.trim() {
                failures.push(format!("{}: {name}\n{actual}", path.display()));
            }
        }
    }
    assert!(paths.len() >= 20, "the examples are missing");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The table of rules promises a proof for each; the proofs exist, and no example is left out of it.
#[test]
fn every_rule_names_proofs_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/accounting-rules.md")).unwrap();
    let rows = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| rule"));
    let mut named = BTreeSet::new();
    for row in rows {
        let proofs: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!proofs.is_empty(), "no proof: {row}");
        for proof in proofs {
            match proof.split_once("::") {
                Some((file, test)) => {
                    let tests = fs::read_to_string(root.join(format!("tests/revenue_{file}.rs"))).unwrap();
                    assert!(tests.contains(&format!("fn {test}(")), "{proof}");
                }
                None => {
                    assert!(root.join(format!("tests/cases/{proof}.txt")).exists(), "{proof}");
                    named.insert(proof.to_owned());
                }
            }
        }
    }
    let files = fs::read_dir(root.join("tests/cases")).unwrap();
    let cases: BTreeSet<String> = files
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(named, cases, "examples and their rules");
}

/// `day` takes the place of the case's own `as_of`.
fn replay(given: &str, day: Option<&str>) -> Report {
    let mut tenant = Tenant::default();
    let mut as_of = None;
    let mut facts = Vec::new();
    for line in given
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match line.split_once(' ') {
            Some(("policy", choices)) => choices.split(' ').for_each(|choice| choose(&mut tenant, choice)),
            Some(("functional", code)) => tenant.functional_currency = Some(Currency::parse(code).unwrap()),
            Some(("as_of", day)) => as_of = Some(day.parse().unwrap()),
            Some(_) | None => facts.push(line),
        }
    }
    let settings = Settings {
        default: tenant,
        ..Settings::default()
    };
    let mut books = Books::new(settings.clone());
    for line in facts {
        books.fold(fact_json::read(line.as_bytes(), &settings).unwrap());
    }
    books.finish(day.map(|day| day.parse().unwrap()).or(as_of))
}

fn choose(tenant: &mut Tenant, choice: &str) {
    let policy = &mut tenant.policy;
    if let Some(months) = choice.trim().strip_prefix("customer_life_months=") {
        policy.customer_life_months = months.parse().unwrap();
        return;
    }
    match choice.trim() {
        "straight_line=monthly" => policy.straight_line = StraightLine::Monthly,
        "straight_line=monthly_even" => policy.straight_line = StraightLine::MonthlyEven,
        "straight_line=daily" => policy.straight_line = StraightLine::Daily,
        "straight_line=half_month" => policy.straight_line = StraightLine::HalfMonth,
        "straight_line=thirty_360" => policy.straight_line = StraightLine::Thirty360,
        "rounding=last_period" => policy.rounding = Rounding::LastPeriod,
        "rounding=first_period" => policy.rounding = Rounding::FirstPeriod,
        "rounding=largest_remainder" => policy.rounding = Rounding::LargestRemainder,
        "billing=in_arrears" => policy.billing = BillingTiming::InArrears,
        "setup_fees=over_customer_life" => policy.setup_fees = SetupFees::OverCustomerLife,
        "setup_fees=immediately" => policy.setup_fees = SetupFees::Immediately,
        "modification=prospective" => policy.modification = Treatment::Prospective,
        "modification=cumulative_catch_up" => policy.modification = Treatment::CumulativeCatchUp,
        "modification=separate_contract" => policy.modification = Treatment::SeparateContract,
        "recognition_posting=upfront" => policy.recognition_posting = RecognitionPosting::Upfront,
        "recognition_posting=at_close" => policy.recognition_posting = RecognitionPosting::AtClose,
        "calendar=4-4-5" => tenant.fiscal = FiscalCalendar::FOUR_FOUR_FIVE,
        unknown => panic!("no such choice: {unknown}"),
    }
}

fn render(report: &Report, section: &str) -> String {
    let rows: Vec<String> = match section {
        "contracts" => report
            .contracts
            .iter()
            .flat_map(|view| {
                view.contracts.iter().map(move |it| {
                    format!(
                        "{} v{} {} {}",
                        it.contract,
                        view.version,
                        view.status.as_str(),
                        view.currency
                            .map_or_else(String::new, |currency| currency.format(it.transaction_price))
                    )
                })
            })
            .collect(),
        "schedule" => report
            .schedule
            .iter()
            .map(|row| {
                let amount = row.currency.format(row.amount);
                let functional = row.functional_amount.map(|it| row.functional_currency.format(it));
                match functional {
                    Some(functional) if functional == amount => format!("{} {} {amount}", row.period, row.line_id),
                    Some(functional) => format!("{} {} {amount} = {functional}", row.period, row.line_id),
                    None => format!("{} {} {amount} = unknown", row.period, row.line_id),
                }
            })
            .collect(),
        "billing" => report
            .billing
            .iter()
            .map(|row| match row.tax.is_zero() {
                true => format!("{} {}", row.date, row.currency.format(row.amount)),
                false => format!(
                    "{} {} + {}",
                    row.date,
                    row.currency.format(row.amount),
                    row.currency.format(row.tax)
                ),
            })
            .collect(),
        "journals" => report
            .journals
            .iter()
            .map(|entry| {
                let lines = entry.lines.iter().map(|line| {
                    let amount = entry.currency.format(line.debit - line.credit);
                    let functional: Decimal = line.functional_debit - line.functional_credit;
                    let functional = entry.functional_currency.format(functional);
                    match functional == amount {
                        true => format!("{} {amount}", line.role.name()),
                        false => format!("{} {amount} = {functional}", line.role.name()),
                    }
                });
                let concerns = match entry.concerns == entry.period {
                    true => String::new(),
                    false => format!(" (concerns {})", entry.concerns),
                };
                let lines = lines.collect::<Vec<_>>().join(", ");
                format!("{} {}{concerns}: {lines}", entry.date, entry.kind.as_str())
            })
            .collect(),
        "balances" => report
            .contracts
            .iter()
            .filter_map(|view| view.balances.as_ref())
            .map(|it| {
                format!(
                    "liability {} asset {} receivable {} recognised {} remaining {}",
                    it.currency.format(it.contract_liability),
                    it.currency.format(it.contract_asset),
                    it.currency.format(it.receivable),
                    it.currency.format(it.recognised),
                    it.currency.format(it.remaining)
                )
            })
            .collect(),
        "rejections" => report
            .rejections
            .iter()
            .map(|(event, it)| format!("{event} {} {}", it.code, it.field))
            .collect(),
        unknown => panic!("no such section: {unknown}"),
    };
    rows.join("\n")
}
