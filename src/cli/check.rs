//! `accrue check`: is the topology file right?
//!
//! What keeps a command from starting is an error; what lets documents wait later is a warning, and the file is good.

use super::{Failure, TopologyFile};
use crate::config::Topology;
use crate::revenue::ledger::Role;

pub fn run(file: &TopologyFile) -> Result<(), Failure> {
    let topology = file.load()?;
    for warning in unmapped(&topology) {
        eprintln!("warning: {warning}");
    }
    println!(
        "{}: good. Application {}, {} sources, {} mappings.",
        file.topology.display(),
        topology.application_id.as_str(),
        topology.sources.len(),
        topology.mappings.len(),
    );
    Ok(())
}

/// Line types that deals will have, and a sink no revenue account for.
fn unmapped(topology: &Topology) -> Vec<String> {
    let mut found = Vec::new();
    for (name, mapping) in &topology.mappings {
        // A discount lowers the price of other lines and earns nothing itself.
        let earning = mapping
            .named_line_types()
            .into_iter()
            .filter(|it| it.as_str() != "discount");
        for line_type in earning {
            let role = Role::Revenue(line_type.clone());
            let lacking = topology.sinks.iter().filter(|(_, sink)| !sink.accounts.has(&role));
            found.extend(lacking.map(|(sink, _)| {
                format!(
                    "mapping.{name} makes lines of type {line_type}, and sinks.{sink}.accounts has no {}: their documents will wait until it has",
                    role.name()
                )
            }));
        }
    }
    found
}
