//! The `accrue` binary; everything is in the library.

use std::process::ExitCode;

/// Also what C and C++ allocate with (`unprefixed_malloc_on_supported_platforms`): most of it is librdkafka's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas, and pages that are free go back after two seconds: by default there are four arenas a processor and pages stay for
/// ten, so that what `state.memory_budget` leaves for slack would depend on the machine. `MALLOC_CONF` in the environment goes
/// before this.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: &[u8] = b"narenas:4,dirty_decay_ms:2000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    accrue::cli::main()
}
