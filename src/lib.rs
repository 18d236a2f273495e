//! Accrue carries closed deals from the CRM to the books, exactly once.
//!
//! The map, in reading order. Arrows point inward: a room uses only rooms named beside it, and `tests/walls.rs` fails on
//! any other.
//!
//! * [`revenue`]: the accounting. Facts in, decisions out; pure. Uses nothing.
//! * [`stream`]: the runtime. Records, partitions, transactions, stores; knows no revenue. Uses nothing.
//! * [`config`]: `topology.toml`, validated. Uses `revenue`.
//! * [`codec`]: the only place that serializes: Debezium, CloudEvents, Avro, stored state, registry. Uses `revenue`, `config`.
//! * [`pipeline`]: the stages, and queries of what they hold. Joins `revenue`, `codec`, `config` and `stream`.
//! * [`sink`]: the books elsewhere: documents in ledgers, tables in warehouses, months of a budget; each once. Uses `revenue`, `codec`, `config`, `stream`.
//! * [`sandbox`]: doubles of accounting systems, to try and to test. Uses nothing.
//! * [`observe`]: logs, metrics, health. Uses nothing.
//! * [`cli`]: one file per subcommand. Sees all.
//!
//! The walk of one record:
//!
//! 1. [`stream::thread`] polls it and hands it to its [`stream::task`], oldest first.
//! 2. [`pipeline::rekey`] decodes it ([`codec::source`]) and sends it to its deal's partition.
//! 3. [`pipeline::canonicalize`] merges it into what the CRM said about the deal ([`pipeline::picture`]), and announces a
//!    fact when the deal's rows agree and say something new.
//! 4. [`pipeline::contract`] loads the contract and calls [`revenue::contract::apply`]: a decision or a rejection.
//! 5. [`stream::processor::Context`] stages store writes and outputs; a record that cannot be used becomes a dead letter.
//! 6. [`stream::commit`] makes outputs, changelog, input offsets and dead letters visible in one transaction, then
//!    writes the store.
//!
//! Load, decide, stage, commit: four verbs, four places.

pub mod cli;
pub mod codec;
pub mod config;
pub mod observe;
pub mod pipeline;
pub mod revenue;
pub mod sandbox;
pub mod sink;
pub mod stream;
