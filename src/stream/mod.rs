//! The runtime: bytes, partitions, offsets, transactions, stores.
//!
//! In reading order:
//!
//! * [`record`]: records and their coordinates; [`partitioner`]: which partition a key belongs to.
//! * [`log`]: the port to the log, with [`log::kafka`] and [`log::embedded`] behind it.
//! * [`topology`]: what reads and writes what; [`processor`]: what a stage implements.
//! * [`overlay`], [`store`], [`restore`], [`standby`]: uncommitted state, committed state, how it comes back, and how it
//!   is kept ready elsewhere.
//! * [`task`], [`commit`], [`fault`], [`thread`], [`app`]: the work of a partition, the commit protocol, failures by
//!   what follows from them, the loop, the process.
//! * [`budget`]: how the memory of a process is shared out.
//! * [`topics`], [`layout`], [`reset`], [`rewind`]: the topics it needs; what an application was when it last ran and has to
//!   stay; how it begins again, or reads inputs again.
//! * [`query`], [`directory`]: committed state for whoever asks, and which process has it.
//! * [`verify`]: whether log and stores are whole, as seen from outside.
//! * [`seeded`]: bugs to prove the simulation with.
//!
//! Invariant: outputs, changelog, input offsets and dead letters move together or not at all.
//! Absent: revenue, CRM, Avro. This room imports nothing of ours.

pub mod app;
pub mod budget;
pub mod commit;
pub mod directory;
pub mod fault;
pub mod layout;
pub mod log;
pub mod metrics;
pub mod overlay;
pub mod partitioner;
pub mod processor;
pub mod query;
pub mod record;
pub mod reset;
pub mod restore;
pub mod rewind;
pub mod seeded;
pub mod standby;
pub mod store;
pub mod task;
pub mod thread;
pub mod topics;
pub mod topology;
pub mod verify;
