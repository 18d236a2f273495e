//! How many members a group has, whichever protocol it uses.
//!
//! Owns: the one call of librdkafka's administration that rdkafka has no name for (`DescribeConsumerGroups`). rdkafka's own list of
//! groups is the classic protocol's, in which a group of KIP-848 has no members.

use std::ffi::{CStr, CString};
use std::ptr::null_mut;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::LogError;
use super::errors::classify;

type Options = Owned<sys::rd_kafka_AdminOptions_t>;
type Queue = Owned<sys::rd_kafka_queue_t>;
type Event = Owned<sys::rd_kafka_event_t>;

/// Something of librdkafka's that we have to free.
struct Owned<T> {
    it: *mut T,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `it` is ours and alive, and nobody has it after this.
        if !self.it.is_null() {
            unsafe { (self.free)(self.it) }
        }
    }
}

/// The members of `group`; none where there is no such group.
///
/// # Errors
/// No answer within `timeout`, or a refusal, such as a lacking right to describe the group.
pub(super) fn count<C: ClientContext>(client: &Client<C>, group: &str, timeout: Duration) -> Result<usize, LogError> {
    let doing = format!("asking for the members of group {group}");
    let refused = |code: RDKafkaErrorCode| classify(&doing, &KafkaError::GroupListFetch(code));
    let name = CString::new(group).map_err(|_| LogError::fatal(format!("{doing}: a name has no NUL")))?;
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives every pointer here; what librdkafka gives out is freed once, by `Owned`, options after
    // the call that copies them, results with their event. Names and results are read while their owners live.
    unsafe {
        let options = Options {
            it: sys::rd_kafka_AdminOptions_new(
                client.native_ptr(),
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
            ),
            free: sys::rd_kafka_AdminOptions_destroy,
        };
        let set = sys::rd_kafka_AdminOptions_set_request_timeout(options.it, milliseconds, null_mut(), 0);
        debug_assert!(set == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
        let queue = Queue {
            it: sys::rd_kafka_queue_new(client.native_ptr()),
            free: sys::rd_kafka_queue_destroy,
        };
        let mut names = [name.as_ptr()];
        sys::rd_kafka_DescribeConsumerGroups(client.native_ptr(), names.as_mut_ptr(), 1, options.it, queue.it);
        let event = Event {
            it: sys::rd_kafka_queue_poll(queue.it, milliseconds.saturating_add(1_000)),
            free: sys::rd_kafka_event_destroy,
        };
        if event.it.is_null() {
            return Err(refused(RDKafkaErrorCode::OperationTimedOut));
        }
        let failed = sys::rd_kafka_event_error(event.it);
        if failed != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(refused(failed.into()));
        }
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event.it);
        let mut groups_len = 0;
        let groups = match result.is_null() {
            true => null_mut(),
            false => sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut groups_len),
        };
        if groups.is_null() || groups_len != 1 {
            return Err(LogError::fatal(format!("{doing}: {groups_len} answers")));
        }
        let described = *groups;
        let error = sys::rd_kafka_ConsumerGroupDescription_error(described);
        if error.is_null() {
            return Ok(sys::rd_kafka_ConsumerGroupDescription_member_count(described));
        }
        match sys::rd_kafka_error_code(error).into() {
            RDKafkaErrorCode::GroupIdNotFound => Ok(0),
            code => {
                let why = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy();
                let known = refused(code);
                Err(LogError::new(known.kind, format!("{} ({why})", known.message)))
            }
        }
    }
}
