//! `accrue check`: is the topology file right?

use super::{Failure, TopologyFile};

pub fn run(file: &TopologyFile) -> Result<(), Failure> {
    let topology = file.load()?;
    println!(
        "{}: good. Application {}, {} sources, {} mappings.",
        file.topology.display(),
        topology.application_id.as_str(),
        topology.sources.len(),
        topology.mappings.len(),
    );
    Ok(())
}
