//! Delivery: what the books say, written to systems outside the log, each once.
//!
//! ```text
//! journal.entries --> intake --> Planned --> Sent, committed --> courier --> destination
//!                                                 ^                  |
//!                     receipts <-- Acknowledged --+----- answer <----'
//! ```
//!
//! Owns: the one state machine of every external write, the receipts, and the destinations.
//! Invariant: before anything is sent, its key and body are durable; what is not known to have failed is looked up before
//! it is sent again, or sent again under a key that the system still remembers.
//! Absent: accounting. A sink writes what `revenue` decided, and changes no amount.
//!
//! In reading order:
//! * [`document`]: what is written in one piece, in the terms of the books; [`assemble`]: how entries become one.
//! * [`destination`]: what a system outside must offer, and what its answers mean; [`accounting`]: those there are.
//! * [`delivery`]: the state machine. [`store`]: where a document's state is kept.
//! * [`collect`]: entries and decisions by deal; [`worker`]: the processor that drives it; [`courier`]: requests and answers; [`gate`] and [`breaker`]: how much may be
//!   asked; [`board`]: what is left to do; [`application`]: all of it as a stream application.
//! * [`receipt`]: the chain of what was written; [`reading`] and [`sla`]: what it says, from outside; [`metrics`].
//! * Beside them, without documents or receipts: [`warehouse`], the books as tables, and [`budget`], what is planned for each month, as files.

pub mod accounting;
pub mod application;
pub mod assemble;
pub mod board;
pub mod breaker;
pub mod budget;
pub mod collect;
pub mod courier;
pub mod delivery;
pub mod destination;
pub mod document;
pub mod gate;
pub mod metrics;
pub mod reading;
pub mod receipt;
pub mod sla;
pub mod store;
pub mod warehouse;
pub mod worker;
