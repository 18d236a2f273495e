//! Delivery: what the books say, written to systems outside the log, each once.
//!
//! Owns: the one state machine of every external write, the receipts, and the destinations.
//! Invariant: before anything is sent, its key and the hash of its body are durable; what is not known to have failed is
//! looked up before it is sent again.
//! Absent: accounting. A sink writes what `revenue` decided, and changes no amount.
//!
//! * [`document`]: what is written in one piece, in the terms of the books.
//! * [`destination`]: what a system outside must offer, and what its answers mean.

pub mod accounting;
pub mod destination;
pub mod document;
