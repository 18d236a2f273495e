//! Names of things, each a type of its own, so that no bare text crosses a module.
//!
//! Invariant: an id is not empty, at most [`MAX_ID_BYTES`] long, and free of control characters and `/` (which
//! separates tenant and deal in record keys); a tenant id uses only `[A-Za-z0-9._-]`. Ids are shared, not copied: most of
//! what is derived from a fact names it. Deliberately absent: any meaning inside an id.

use std::fmt;
use std::sync::Arc;

/// The longest id accepted, in bytes.
pub const MAX_ID_BYTES: usize = 256;

macro_rules! text_ids {
    ($($(#[$doc:meta])* $name:ident: $accepts:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// `None` when the text breaks the rule of this module.
            pub fn parse(text: impl AsRef<str>) -> Option<$name> {
                let text = text.as_ref();
                (!text.is_empty() && text.len() <= MAX_ID_BYTES && text.chars().all($accepts)).then(|| $name(text.into()))
            }

            /// An id made of texts that kept the rules before, or of our own letters and digits.
            #[allow(dead_code)] // not every kind of id is made here
            pub(super) fn trusted(text: impl Into<Arc<str>>) -> $name {
                $name(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text_ids! {
    /// Unique within a tenant.
    EventId: printable;
    TenantId: plain;
    DealId: no_slash;
    /// Unique within a deal.
    LineId: no_slash;
    /// Unique within a line.
    MilestoneId: no_slash;
    /// An uncertain part of the price; unique within a deal and line.
    EstimateId: no_slash;
    CustomerId: printable;
    InvoiceId: printable;
    /// `subscription`, `setup`: the tail of the role `revenue.<line type>`.
    LineType: plain;
    /// One enforceable agreement of a deal; the deal's first is named after the deal.
    ContractId: no_slash;
    ObligationId: printable;
    EntryId: printable;
}

/// Of a deal or line with one uncertainty, which needs no name.
impl Default for EstimateId {
    fn default() -> EstimateId {
        EstimateId::trusted("variable")
    }
}

fn printable(c: char) -> bool {
    !c.is_control()
}

fn no_slash(c: char) -> bool {
    !c.is_control() && c != '/'
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_would_break_a_record_key() {
        assert!(DealId::parse("D-98765").is_some());
        assert!(DealId::parse("Überdeal 7").is_some());
        assert!(DealId::parse("a/b").is_none());
        assert!(TenantId::parse("acme corp").is_none());
        assert!(TenantId::parse("").is_none());
        assert!(EventId::parse("line\nfeed").is_none());
        assert!(EventId::parse("x".repeat(257)).is_none());
    }
}
