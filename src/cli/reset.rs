//! `accrue reset`: the stream processor begins again from what it has read.

use std::collections::BTreeMap;

use clap::Args;

use super::{Failure, TopologyFile, confirm, connect};
use crate::observe::logs;
use crate::pipeline;
use crate::stream::record::Topic;
use crate::stream::reset::Reset;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    file: TopologyFile,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Also where topics no longer reach back to their beginning: the state lacks what was said before
    #[arg(long)]
    as_far_as_kept: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    logs::init("warn");
    let topology = arguments.file.load()?;
    let log = connect::log(&topology)?;
    let shape = pipeline::shape(&topology)?;
    let reset = Reset::plan(&shape, log.as_ref(), arguments.as_far_as_kept)?;

    let mut records: BTreeMap<&Topic, u64> = BTreeMap::new();
    for (at, from) in &reset.from {
        *records.entry(&at.topic).or_default() += log.end(at)?.0 - from.0;
    }
    println!("The stream processor {} begins again:", shape.application_id);
    for (topic, offsets) in &records {
        println!("  {:<44} read again from its start: {offsets} offsets", topic.as_str());
    }
    for changelog in reset.emptied.keys() {
        println!("  {:<44} emptied", changelog.as_str());
    }
    for stage in &reset.going_on {
        println!("  {stage:<44} goes on where it is");
    }
    for topic in &reset.again {
        println!("  {:<44} gets the same records again", topic.as_str());
    }
    println!("{CONSUMERS}");
    confirm(arguments.yes)?;
    let emptied = reset.run()?;
    println!("done: {emptied} keys of state emptied. `accrue run` fills it again");
    Ok(())
}

const CONSUMERS: &str = "Records that come again have the ids and bytes they had, as long as the program, the mappings and the policies are those
that wrote them. Sinks know entries by their ids and post nothing twice. States and schedules go through their past to their
present: stop warehouses and budgets until `accrue status` says that nothing is left. Dead letters come again as well.";
