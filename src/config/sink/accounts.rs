//! `[sinks.NAME.accounts]`: the ledger's account for each role, and where tenants differ.
//!
//! Owns how a role is written (`cash`, `revenue.subscription`). Invariant: an account is a text that fits on one line.
//! Absent on purpose: whether the ledger has the account; the ledger says that itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;

use crate::config::leaf::AccountName;
use crate::config::tenants::{LineTypeName, TenantName};
use crate::revenue::ids::TenantId;
use crate::revenue::ledger::Role;

/// Which account a role is in a ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    all: BTreeMap<Role, AccountName>,
    tenants: BTreeMap<TenantId, BTreeMap<Role, AccountName>>,
}

impl Accounts {
    pub(super) fn new(all: AccountsText, tenants: TenantAccountsText) -> Accounts {
        let tenants = tenants.0.into_iter();
        Accounts {
            all: all.by_role(),
            tenants: tenants
                .map(|(tenant, text)| (TenantId::from(tenant), text.by_role()))
                .collect(),
        }
    }

    /// The ledger's account for a role of a tenant; `None` where the file maps none.
    pub fn account(&self, tenant: &TenantId, role: &Role) -> Option<&str> {
        let own = self.tenants.get(tenant).and_then(|own| own.get(role));
        own.or_else(|| self.all.get(role)).map(AccountName::as_str)
    }

    /// Whether a role has an account, be it of one tenant.
    pub fn has(&self, role: &Role) -> bool {
        self.all.contains_key(role) || self.tenants.values().any(|own| own.contains_key(role))
    }

    /// Every account that is named, for any tenant; some more than once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let of_tenants = self.tenants.values().flat_map(BTreeMap::values);
        self.all.values().chain(of_tenants).map(AccountName::as_str)
    }
}

/// The ledger's account for each role.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AccountsText {
    /// What customers owe.
    accounts_receivable: Option<AccountName>,
    /// Where payments arrive.
    cash: Option<AccountName>,
    /// Deferred revenue.
    contract_liability: Option<AccountName>,
    /// Unbilled revenue.
    contract_asset: Option<AccountName>,
    /// Tax owed on what was invoiced.
    tax_payable: Option<AccountName>,
    /// Exchange differences.
    fx_gain_loss: Option<AccountName>,
    /// What is owed back to customers.
    refund_liability: Option<AccountName>,
    /// Revenue by line type: `revenue.subscription = "4000"`.
    #[schemars(extend("propertyNames" = line_type_shape()))]
    revenue: BTreeMap<LineTypeName, AccountName>,
}

/// By tenant id: accounts that differ from the shared ones.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct TenantAccountsText(
    #[schemars(extend("propertyNames" = tenant_shape()))] BTreeMap<TenantName, AccountsText>,
);

fn line_type_shape() -> schemars::Schema {
    LineTypeName::json_schema(&mut SchemaSettings::draft07().into_generator())
}

fn tenant_shape() -> schemars::Schema {
    TenantName::json_schema(&mut SchemaSettings::draft07().into_generator())
}

impl AccountsText {
    fn by_role(self) -> BTreeMap<Role, AccountName> {
        let named = [
            (Role::AccountsReceivable, self.accounts_receivable),
            (Role::Cash, self.cash),
            (Role::ContractLiability, self.contract_liability),
            (Role::ContractAsset, self.contract_asset),
            (Role::TaxPayable, self.tax_payable),
            (Role::FxGainLoss, self.fx_gain_loss),
            (Role::RefundLiability, self.refund_liability),
        ];
        let named = named.into_iter().filter_map(|(role, account)| Some((role, account?)));
        let revenue = self.revenue.into_iter();
        named
            .chain(revenue.map(|(line_type, account)| (Role::Revenue(line_type.into()), account)))
            .collect()
    }
}
