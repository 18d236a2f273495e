//! From a topology to the things it names: the log, the registry, the schemas, the stream topology.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;

use super::Failure;
use crate::codec::registry::confluent::Access;
use crate::codec::registry::{Confluent, Embedded, Registry, RegistryError, serve};
use crate::codec::schemas::Schemas;
use crate::config::{self, RegistryAuth, RegistryPlace, Topology};
use crate::observe::server;
use crate::pipeline;
use crate::stream::app::{self, RuntimeConfig};
use crate::stream::budget::Budget;
use crate::stream::log::Log;
use crate::stream::log::embedded::EmbeddedLog;
use crate::stream::log::kafka::{GroupProtocol, KafkaLog, KafkaTimeouts};
use crate::stream::metrics::Metrics;
use crate::stream::topology::Shape;

/// Opens the log that the topology names; waits for Kafka as long as it says, visibly.
pub fn log(topology: &Topology) -> Result<Arc<dyn Log>, Failure> {
    log_of(topology, 1)
}

/// The same for `applications` that share a process and its memory.
pub fn log_of(topology: &Topology, applications: usize) -> Result<Arc<dyn Log>, Failure> {
    match &topology.log {
        config::Log::Embedded(embedded) => Ok(Arc::new(EmbeddedLog::open(&embedded.dir, embedded.sync)?)),
        config::Log::Kafka(kafka) => {
            let mut properties: BTreeMap<String, String> = kafka
                .properties
                .iter()
                .map(|(name, value)| (name.to_owned(), value.reveal().to_owned()))
                .collect();
            properties.insert(
                "bootstrap.servers".to_owned(),
                kafka.bootstrap_servers.as_str().to_owned(),
            );
            let threads = applications.max(1) * usize::from(topology.runtime.threads);
            let memory = memory(topology).part(threads);
            let log = KafkaLog::connect(
                properties,
                KafkaTimeouts {
                    transaction: topology.runtime.transaction_timeout.get(),
                    session: topology.runtime.session_timeout.get(),
                },
                kafka.startup_timeout.get(),
                &|message| tracing::warn!("{message}"),
            )?;
            let protocol = match kafka.group_protocol {
                config::GroupProtocol::Classic => GroupProtocol::Classic,
                config::GroupProtocol::Consumer => GroupProtocol::Consumer,
            };
            Ok(Arc::new(log.with_memory(memory).with_protocol(protocol)))
        }
    }
}

/// A schema registry, and the embedded one once more when it is that, to be served.
pub type Registries = (Arc<dyn Registry>, Option<Arc<Embedded>>);

/// The schema registry that the topology names.
pub fn registry(topology: &Topology) -> Result<Registries, Failure> {
    match &topology.registry.place {
        RegistryPlace::Embedded { dir } => {
            let embedded = Arc::new(Embedded::open(dir)?);
            Ok((embedded.clone(), Some(embedded)))
        }
        RegistryPlace::Confluent { url, auth } => {
            let access = match auth {
                RegistryAuth::None => Access::Open,
                RegistryAuth::Basic { username, password } => Access::Basic {
                    user: username.clone(),
                    password: password.reveal().to_owned(),
                },
                RegistryAuth::Token(token) => Access::Bearer {
                    token: token.reveal().to_owned(),
                },
            };
            let registry =
                Confluent::new(url.as_str(), access).with_context(|| format!("schema registry {}", url.as_str()))?;
            Ok((Arc::new(registry), None))
        }
    }
}

/// The embedded registry over HTTP: anyone who reaches it may read, and who shows `http.token` may write.
pub fn registry_routes(topology: &Topology, embedded: Arc<Embedded>) -> Router {
    let token = topology.http.token.as_ref().map(|token| token.reveal().to_owned());
    serve::reading(embedded.clone()).merge(server::guarded(serve::writing(embedded), token))
}

/// Registers the schemas of everything we write. Waits for a registry that is away as long as for Kafka, visibly.
pub fn schemas(topology: &Topology, registry: &Arc<dyn Registry>) -> Result<Schemas, Failure> {
    let wait = match &topology.log {
        config::Log::Kafka(kafka) => kafka.startup_timeout.get(),
        config::Log::Embedded(_) => Duration::ZERO,
    };
    let deadline = Instant::now() + wait;
    loop {
        match pipeline::schemas(topology, registry.clone()) {
            Err(RegistryError::Unavailable(why)) if Instant::now() < deadline => {
                tracing::warn!("waiting for the schema registry: {why}");
                std::thread::sleep(Duration::from_secs(1));
            }
            Err(RegistryError::Unavailable(why)) => {
                return Err(anyhow::anyhow!(
                    "no schema registry answered within {} s: {why}. Check registry.url, and that the registry is up",
                    wait.as_secs()
                )
                .into());
            }
            registered => return Ok(registered?),
        }
    }
}

/// The process's memory, shared out.
pub fn memory(topology: &Topology) -> Budget {
    Budget::of(topology.state.memory_budget.bytes() as usize)
}

/// How often what is left to process is looked at.
const LAG_EVERY: Duration = Duration::from_secs(15);

/// Keeps the gauges of what is left to process, for as long as the process lives.
pub fn report_lag(shape: Shape, log: Arc<dyn Log>, metrics: Metrics) -> std::io::Result<()> {
    let look = move || loop {
        match app::lags(&shape, log.as_ref()) {
            Ok(lags) => lags.iter().for_each(|(topic, left)| {
                let of = [shape.application_id.as_str(), topic.as_str()];
                metrics.lag.with_label_values(&of).set(*left as i64);
            }),
            Err(fault) => tracing::debug!(%fault, "what is left to process cannot be seen now"),
        }
        std::thread::sleep(LAG_EVERY);
    };
    std::thread::Builder::new()
        .name("lag".to_owned())
        .spawn(look)
        .map(|_| ())
}

/// The runtime's settings.
pub fn runtime_config(topology: &Topology) -> RuntimeConfig {
    let runtime = &topology.runtime;
    RuntimeConfig {
        threads: usize::from(runtime.threads),
        state_dir: topology.state.dir.clone(),
        memory: memory(topology),
        commit_interval: runtime.commit_interval.get(),
        max_records_per_commit: runtime.max_records_per_commit as usize,
        overlay_max_bytes: runtime.overlay_max_bytes.bytes() as usize,
        ask_ends_after: Duration::from_millis(250),
        restore_threads: usize::from(runtime.restore_threads),
        standbys: runtime.standbys,
        instance: match &topology.log {
            config::Log::Kafka(kafka) => kafka.instance_id.as_ref().map(|id| id.as_str().to_owned()),
            config::Log::Embedded(_) => None,
        },
    }
}
