//! `accrue sandbox`: doubles of accounting systems on one address, until SIGTERM or SIGINT.
//!
//! Prints what to write into the topology to deliver to them, and where to see what arrived.

use std::net::SocketAddr;

use clap::Args;

use super::Failure;
use crate::observe::logs;
use crate::sandbox::{self, Options, Sandbox};

#[derive(Args)]
pub struct Arguments {
    /// The systems to play; all of them unless named
    names: Vec<String>,
    /// Where they are served
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Of a thousand writes, so many meet a fault: lost answers, late commits, outages, expired tokens
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    faults: u32,
    /// Chooses the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seconds of the systems' clocks pass in one second
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    speed: u32,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    logs::init("warn");
    let mut vendors = sandbox::vendors();
    let known: Vec<&str> = vendors.iter().map(|vendor| vendor.name()).collect();
    if let Some(unknown) = arguments.names.iter().find(|name| !known.contains(&name.as_str())) {
        let message = format!("no system is called {unknown:?}; the systems are {}", known.join(", "));
        return Err(Failure::Usage(message));
    }
    if !arguments.names.is_empty() {
        vendors.retain(|vendor| arguments.names.iter().any(|name| name == vendor.name()));
    }
    let tables: Vec<_> = vendors.iter().map(|vendor| vendor.name()).collect();
    let options = Options {
        speed: arguments.speed,
        seed: arguments.seed,
        faults_per_thousand: arguments.faults,
        limits: true,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let sandbox = Sandbox::start(vendors, arguments.listen, options).await?;
        println!("# What arrives is shown at http://{}/", sandbox.address);
        for name in tables {
            println!("\n{}", sandbox::settings::topology(name, &sandbox.url(name)));
        }
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            ended = sandbox.wait() => ended,
            _ = terminate.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted,
        }
    })?;
    Ok(())
}
