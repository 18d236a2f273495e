//! The `accrue` binary; everything is in the library.

use std::process::ExitCode;

/// Also what C and C++ allocate with (`unprefixed_malloc_on_supported_platforms`): most of it is librdkafka's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    accrue::cli::main()
}
