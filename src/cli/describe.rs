//! `accrue describe`: what reads and writes what.

use clap::{Args, ValueEnum};

use super::{Failure, TopologyFile};
use crate::pipeline;
use crate::sink::application;
use crate::stream::topology::Shape;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    file: TopologyFile,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    /// A flow chart for Markdown
    Mermaid,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let topology = arguments.file.load()?;
    let mut shapes = vec![pipeline::shape(&topology)?];
    for sink in topology.sinks.values() {
        shapes.push(application::shape(&topology, sink)?);
    }
    match arguments.format {
        Format::Text => {
            let texts: Vec<String> = shapes.iter().map(Shape::describe).collect();
            print!("{}", texts.join("\n"));
        }
        // A chart each: sinks of one kind have stages of one name.
        Format::Mermaid => {
            let charts: Vec<String> = shapes.iter().map(Shape::mermaid).collect();
            print!("{}", charts.join("\n"));
        }
    }
    Ok(())
}
