//! `accrue describe`: what reads and writes what.

use clap::{Args, ValueEnum};

use super::{Failure, TopologyFile};
use crate::pipeline;

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
    let shape = pipeline::shape(&topology)?;
    match arguments.format {
        Format::Text => print!("{}", shape.describe()),
        Format::Mermaid => print!("{}", shape.mermaid()),
    }
    Ok(())
}
