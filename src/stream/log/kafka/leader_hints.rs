//! Keeps librdkafka from acting on hints about new leaders (KIP-951), which can crash it.
//!
//! A broker that does not lead a partition any more may name the leader in its answer. librdkafka (2.12.1, and 2.15.0 still)
//! counts the partitions that have such a hint, but leaves out those whose hint says that there is no leader, and then reads
//! as many as it has counted: partition numbers, leaders and epochs from memory that nobody has set. A number below zero ends
//! the process with SIGSEGV. Seen when a broker comes back and leads nothing yet: one crash in some 60 such restarts, and
//! reads of unset memory by `rd_kafka_metadata_update_op` in half of those under valgrind.
//!
//! So hints are not acted on; the answer's error asks for metadata all the same, which is how leaders were found before. The
//! linker puts the function below in the place of librdkafka's own (`--wrap`, in build.rs). To be removed with a librdkafka
//! that has mended it: the hint without a leader must not be counted in `rd_kafkap_Fetch_reply_tags_partition_parse`.

use std::ffi::{c_int, c_void};

/// `RD_KAFKA_OP_RES_HANDLED`: librdkafka then frees what the hints are in.
const HANDLED: c_int = 1;

#[unsafe(no_mangle)]
extern "C" fn __wrap_rd_kafka_metadata_update_op(_client: *mut c_void, _hints: *mut c_void) -> c_int {
    tracing::debug!("a hint about new leaders is not acted on");
    HANDLED
}

unsafe extern "C" {
    /// What `--wrap` calls librdkafka's own.
    fn __real_rd_kafka_metadata_update_op(client: *mut c_void, hints: *mut c_void) -> c_int;
}

/// Never called: where the linker was not told to wrap, nothing has this name, and the program does not link.
#[used]
static TOLD_TO_WRAP: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int = __real_rd_kafka_metadata_update_op;
