//! The accounting: facts in, decisions out, under ASC 606 / IFRS 15. Pure.
//!
//! Reading order: [`fact`] what was said, [`policy`] how it is judged, [`contract`] the fold, [`derive`] from facts to
//! wanted books, [`journal`] from wanted minus issued to entries.
//!
//! ```text
//! facts of a deal --derive--> Wanted (obligations, rows, invoices, credits) --journal::plan--> entries not yet issued
//!                    ^ policy, rates, periods, clock (Context)                  ^ what the contract says it issued
//! ```
//!
//! Invariant: the same facts under the same context give the same decision, whatever their order of arrival, and
//! nothing issued is ever changed: it is corrected by a further entry. Deliberately absent: I/O, clocks, async,
//! serialization, floats, and every word of Kafka or of a vendor.

pub mod content;
pub mod ids;
pub mod money;
pub mod period;

pub mod difference;
pub mod fact;
pub mod policy;
pub mod reject;
pub mod validate;

pub mod reference;

pub mod allocate;
pub mod billing;
pub mod curve;
pub mod derive;
pub mod modify;
pub mod obligation;
pub mod performance;

pub mod journal;
pub mod ledger;

pub mod contract;
pub mod view;

pub mod books;
pub mod checks;
pub mod explain;
pub mod measures;
