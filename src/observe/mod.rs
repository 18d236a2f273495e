//! What operators see: logs, metrics, health.
//!
//! Owns: [`logs`] (set up once), [`server`] (`/live`, `/ready`, `/metrics`).
//! Invariant: no record's content and no secret is logged; keys, offsets and codes are.
//! Absent: decisions. Nothing here changes what the program does.

pub mod logs;
pub mod server;
