//! `[mapping.NAME]`: what the tables and words of one CRM mean.
//!
//! Owns the translation of stages, line types, billing cycles and methods, and the choice of tenant. A finance-systems
//! person changes it without code. Invariant: a [`Mapping`] can yield a deal: it has a currency, an end of term, and a
//! stage that closes. Absent on purpose: reading records (codec) and deciding what happened (pipeline).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::{Column, CustomerColumns, DealColumns, LineColumns, MilestoneColumns};
use super::leaf::Name;
use super::measure::Interval;
use super::policy::words;
use super::problem::{KeyPath, Problems};
use super::source::TableRole;
use super::tenants::{CurrencyCode, LineTypeName, TenantName};
use crate::revenue::fact::{BillingCycle, Method};
use crate::revenue::ids::{LineType, TenantId};
use crate::revenue::money::Currency;

/// What the tables and words of one CRM mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub name: Name,
    pub tenant: TenantOf,
    pub deal: DealColumns,
    pub line: Option<LineColumns>,
    pub customer: Option<CustomerColumns>,
    pub milestone: Option<MilestoneColumns>,
    /// Of deals whose row names none.
    pub currency: Option<Currency>,
    /// Of deals whose row names none.
    pub billing_cycle: Option<BillingCycle>,
    /// Of base64 decimals whose record and column name none.
    pub decimal_scale: Option<u32>,
    pub snapshot: Snapshot,
    /// In stream time, the time of the records.
    pub settle_timeout: Interval,
    stages: BTreeMap<String, Stage>,
    line_types: BTreeMap<String, LineType>,
    default_line_type: Option<LineType>,
    billing_cycles: BTreeMap<String, BillingCycle>,
    methods: BTreeMap<String, Method>,
}

impl Mapping {
    /// What a stage of the CRM means; [`Stage::Ignore`] for one that is not listed.
    pub fn stage(&self, crm: &str) -> Stage {
        self.stages.get(crm).copied().unwrap_or(Stage::Ignore)
    }

    /// The line type for the CRM's own; `None` when it cannot be a line type. `default_line_type` stands for an empty
    /// column, and for what is not listed where it is given; else the CRM's word is taken as it is.
    pub fn line_type(&self, crm: Option<&str>) -> Option<LineType> {
        let listed = crm
            .and_then(|crm| self.line_types.get(crm))
            .or(self.default_line_type.as_ref());
        listed.cloned().or_else(|| LineType::parse(crm?))
    }

    /// Every line type that the file names as ours.
    pub fn named_line_types(&self) -> BTreeSet<&LineType> {
        self.line_types.values().chain(&self.default_line_type).collect()
    }

    /// The billing cycle for the CRM's word: as listed, else by our own names; `None` when it is neither.
    pub fn billing_cycle(&self, crm: &str) -> Option<BillingCycle> {
        let own = || read_word::<BillingCycleText>(crm).map(BillingCycle::from);
        self.billing_cycles.get(crm).copied().or_else(own)
    }

    /// The recognition method for the CRM's word: as listed, else by our own names; `None` when it is neither.
    pub fn method(&self, crm: &str) -> Option<Method> {
        let own = || read_word::<MethodText>(crm).map(Method::from);
        self.methods.get(crm).copied().or_else(own)
    }

    /// Every column this mapping reads of a table, the tenant's among them; nothing for a table it does not describe.
    pub fn columns(&self, table: TableRole) -> Vec<&str> {
        let named: Vec<&Column> = match table {
            TableRole::Deals => self.deal.named().collect(),
            TableRole::DealLineItems => self.line.iter().flat_map(LineColumns::named).collect(),
            TableRole::Customers => self.customer.iter().flat_map(CustomerColumns::named).collect(),
            TableRole::Milestones => self.milestone.iter().flat_map(MilestoneColumns::named).collect(),
            TableRole::Transaction => return Vec::new(),
        };
        let tenant = match &self.tenant {
            TenantOf::Column(column) => Some(column.as_str()),
            TenantOf::Fixed(_) => None,
        };
        named
            .into_iter()
            .map(|column| column.name.as_str())
            .chain(tenant)
            .collect()
    }

    /// Decimals of a column, as far as the file says.
    pub fn scale(&self, column: &Column) -> Option<u32> {
        column.scale.or(self.decimal_scale)
    }

    /// The section that would have to describe this table, if it is missing.
    pub(super) fn lacks(&self, table: TableRole) -> Option<&'static str> {
        let (section, described) = match table {
            TableRole::Deals | TableRole::Transaction => return None,
            TableRole::DealLineItems => ("line", self.line.is_some()),
            TableRole::Customers => ("customer", self.customer.is_some()),
            TableRole::Milestones => ("milestone", self.milestone.is_some()),
        };
        (!described).then_some(section)
    }
}

fn read_word<T: for<'de> Deserialize<'de>>(word: &str) -> Option<T> {
    T::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word)).ok()
}

/// Whose deals these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantOf {
    /// Every row is this tenant's.
    Fixed(TenantId),
    /// The column that names the tenant, in every table of the mapping.
    Column(String),
}

/// What a stage of the CRM means for the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The deal is won. A later change of a closed deal's terms is an amendment by itself.
    Closed,
    /// The row is the deal as it now stands.
    Amended,
    /// The row is a following term.
    Renewed,
    /// The deal ends at its effective date.
    Cancelled,
    /// Nothing for the books.
    Ignore,
}

/// What a row that Debezium's snapshot read (`op: r`) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Snapshot {
    /// It is state; a deal that the books do not have yet is announced.
    Announce,
    /// It is state the books were opened with; nothing is announced.
    Baseline,
}

words! {
    /// How often is invoiced.
    BillingCycleText for BillingCycle {
        /// Every month.
        Monthly = "monthly",
        /// Every three months.
        Quarterly = "quarterly",
        /// Every twelve months.
        Annual = "annual",
        /// Once, at the start.
        Upfront = "upfront",
        /// When a milestone is accepted.
        Milestone = "milestone",
    }
}

words! {
    /// How the progress of an obligation is measured.
    MethodText for Method {
        /// Evenly over time.
        StraightLine = "straight_line",
        /// At the start day, or on delivery.
        PointInTime = "point_in_time",
        /// Units delivered of units sold.
        Units = "units",
        /// By milestones accepted.
        Milestone = "milestone",
        /// By percent complete, or cost to date.
        Progress = "progress",
        /// By reported usage.
        Usage = "usage",
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum TenantOfText {
    Fixed(TenantName),
    Column(TenantColumn),
}

/// The column that names the tenant; every table of the mapping must have it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TenantColumn {
    /// Name of the column.
    #[schemars(length(min = 1), example = &"tenant_id")]
    column: String,
}

/// What the tables and words of one CRM mean.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MappingText {
    /// Whose deals these are: a tenant, or `{ column = "tenant_id" }` where every table names it.
    tenant: TenantOfText,
    /// Currency of deals whose row names none. This or `deal.currency` must be given.
    currency: Option<CurrencyCode>,
    /// Billing cycle of deals whose row names none. Without it, such a deal is stated without one.
    billing_cycle: Option<BillingCycleText>,
    /// Decimals of numeric columns, where records carry base64 numbers without their scale (JSON without schemas and
    /// `decimal.handling.mode` left at `precise`). A column may state its own. Leave it out where decimals are text.
    #[schemars(range(min = 0, max = 28))]
    decimal_scale: Option<u32>,
    /// What each stage of the CRM means, as the CRM writes it. Stages that are not listed are ignored.
    #[schemars(example = stages_example())]
    stages: BTreeMap<String, Stage>,
    /// Our line type for each of the CRM's. `setup` is the type of setup fees; others name revenue accounts.
    #[serde(default)]
    line_types: BTreeMap<String, LineTypeName>,
    /// Line type where the CRM's is empty or not listed. Without it, what is not listed is taken as it is.
    default_line_type: Option<LineTypeName>,
    /// Our billing cycle for each of the CRM's. Our own names need no entry.
    #[serde(default)]
    billing_cycles: BTreeMap<String, BillingCycleText>,
    /// Our recognition method for each of the CRM's. Our own names need no entry.
    #[serde(default)]
    methods: BTreeMap<String, MethodText>,
    /// What a row read by Debezium's snapshot says.
    #[serde(default = "default_snapshot")]
    snapshot: Snapshot,
    /// How long, by the time of the records, a deal may stay inconsistent (lines missing, sums that do not meet)
    /// before it is parked, visibly.
    #[serde(default = "default_settle_timeout")]
    settle_timeout: Interval,
    deal: DealColumns,
    line: Option<LineColumns>,
    customer: Option<CustomerColumns>,
    milestone: Option<MilestoneColumns>,
}

fn stages_example() -> BTreeMap<&'static str, Stage> {
    BTreeMap::from([("Closed Won", Stage::Closed)])
}

fn default_snapshot() -> Snapshot {
    Snapshot::Announce
}

fn default_settle_timeout() -> Interval {
    Interval::seconds(600)
}

/// The rules inside one mapping.
pub(super) fn mapping(name: &Name, text: MappingText, problems: &mut Problems<'_>) -> Mapping {
    let at = KeyPath::of(["mapping", name.as_str()]);
    let deal = at.key("deal");
    if text.deal.currency.is_none() && text.currency.is_none() {
        let message = "no deal would have a currency; write deal.currency = \"COLUMN\", or currency = \"USD\" for all";
        problems.report(&at.key("currency"), message);
    }
    if text.deal.term_months.is_none() && text.deal.contract_end.is_none() {
        let message = "no deal would end; write term_months = \"COLUMN\" or contract_end = \"COLUMN\"";
        problems.report(&deal.key("term_months"), message);
    }
    if !text.stages.values().any(|stage| *stage == Stage::Closed) {
        let message = "no stage closes a deal; write for example \"Closed Won\" = \"closed\"";
        problems.report(&at.key("stages"), message);
    }
    if let Some(milestone) = &text.milestone {
        if milestone.percent.is_none() && milestone.amount.is_none() {
            let message = "a milestone would have no value; write percent = \"COLUMN\" or amount = \"COLUMN\"";
            problems.report(&at.key("milestone").key("percent"), message);
        }
        if text.line.is_none() {
            let message = format!("milestones belong to lines; add [mapping.{name}.line]");
            problems.report(&at.key("line"), message);
        }
    }
    Mapping {
        name: name.clone(),
        tenant: match text.tenant {
            TenantOfText::Fixed(tenant) => TenantOf::Fixed(tenant.into()),
            TenantOfText::Column(TenantColumn { column }) => TenantOf::Column(column),
        },
        deal: text.deal,
        line: text.line,
        customer: text.customer,
        milestone: text.milestone,
        currency: text.currency.map(Currency::from),
        billing_cycle: text.billing_cycle.map(BillingCycle::from),
        decimal_scale: text.decimal_scale,
        snapshot: text.snapshot,
        settle_timeout: text.settle_timeout,
        stages: text.stages,
        line_types: translated(text.line_types),
        default_line_type: text.default_line_type.map(LineType::from),
        billing_cycles: translated(text.billing_cycles),
        methods: translated(text.methods),
    }
}

fn translated<T, U: From<T>>(words: BTreeMap<String, T>) -> BTreeMap<String, U> {
    words.into_iter().map(|(crm, ours)| (crm, ours.into())).collect()
}
