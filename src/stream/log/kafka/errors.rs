//! What librdkafka's errors mean to the caller.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::{LogError, LogErrorKind};
pub(super) fn is_transient(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| TRANSIENT.contains(&code))
}

/// Errors that pass when brokers, leaders or coordinators are back.
const TRANSIENT: [RDKafkaErrorCode; 23] = [
    RDKafkaErrorCode::AllBrokersDown,
    RDKafkaErrorCode::BrokerTransportFailure,
    RDKafkaErrorCode::OperationTimedOut,
    RDKafkaErrorCode::Resolve,
    RDKafkaErrorCode::CoordinatorNotAvailable,
    RDKafkaErrorCode::CoordinatorLoadInProgress,
    RDKafkaErrorCode::NotCoordinator,
    RDKafkaErrorCode::LeaderNotAvailable,
    RDKafkaErrorCode::NotLeaderForPartition,
    RDKafkaErrorCode::UnknownTopicOrPartition,
    RDKafkaErrorCode::UnknownTopic,
    RDKafkaErrorCode::UnknownPartition,
    RDKafkaErrorCode::PartitionEOF,
    RDKafkaErrorCode::RequestTimedOut,
    RDKafkaErrorCode::NetworkException,
    RDKafkaErrorCode::NotEnoughReplicas,
    RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
    RDKafkaErrorCode::KafkaStorageError,
    RDKafkaErrorCode::FencedLeaderEpoch,
    RDKafkaErrorCode::UnknownLeaderEpoch,
    // A new leader does not know yet how far the old one was (KIP-207).
    RDKafkaErrorCode::OffsetNotAvailable,
    // A transaction that carries the group's offsets is being ended (KIP-447).
    RDKafkaErrorCode::UnstableOffsetCommit,
    RDKafkaErrorCode::ThrottlingQuotaExceeded,
];

/// A partition that librdkafka has not begun to fetch cannot be rewound yet.
pub(super) fn rewinding(error: &KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::State) => LogError::retry(format!("rewinding: {error}")),
        Some(_) | None => classify("rewinding", error),
    }
}

/// What a librdkafka error means to the caller. The one place where its retriable, abortable and fatal flags are read.
pub(super) fn classify(doing: &str, error: &KafkaError) -> LogError {
    let message = format!("{doing}: {error}");
    let fenced = |code: RDKafkaErrorCode| {
        matches!(
            code,
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::FencedMemberEpoch
                | RDKafkaErrorCode::FencedInstanceId
                | RDKafkaErrorCode::InvalidProducerIdMapping
        )
    };
    let kind = match error {
        KafkaError::Transaction(inner) if fenced(inner.code()) => LogErrorKind::Fenced,
        KafkaError::Transaction(inner) if inner.txn_requires_abort() => LogErrorKind::Abort,
        KafkaError::Transaction(inner) if inner.is_retriable() => LogErrorKind::Retry,
        KafkaError::Transaction(_) => LogErrorKind::Fatal,
        // The transaction failed before this record, or another producer has its id: the next commit would have said so.
        KafkaError::MessageProduction(RDKafkaErrorCode::State) => LogErrorKind::Abort,
        KafkaError::MessageProduction(RDKafkaErrorCode::Fatal) => LogErrorKind::Fenced,
        other => match other.rdkafka_error_code() {
            Some(code) if fenced(code) => LogErrorKind::Fenced,
            // Out of range: joining again asks for the committed offset, and says what is wrong with it.
            Some(RDKafkaErrorCode::AutoOffsetReset) => LogErrorKind::Fenced,
            // A record that was not delivered in `delivery.timeout.ms`, because brokers were away or slow, makes librdkafka
            // demand an abort; it is no reason to stop.
            Some(
                RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight | RDKafkaErrorCode::MessageTimedOut,
            ) => LogErrorKind::Abort,
            Some(code) if TRANSIENT.contains(&code) => LogErrorKind::Retry,
            _ => LogErrorKind::Fatal,
        },
    };
    LogError::new(kind, message)
}

impl LogError {
    /// Within a transaction there is nothing to call again: the transaction is aborted and run again as a whole.
    pub(super) fn but_not_retry(self) -> LogError {
        match self.kind {
            LogErrorKind::Retry => LogError::new(LogErrorKind::Abort, self.message),
            LogErrorKind::Abort | LogErrorKind::Unknown | LogErrorKind::Fenced | LogErrorKind::Fatal => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_sent_now_only_aborts() {
        for (code, kind) in [
            (RDKafkaErrorCode::MessageTimedOut, LogErrorKind::Abort),
            (RDKafkaErrorCode::NotLeaderForPartition, LogErrorKind::Abort),
            (RDKafkaErrorCode::ProducerFenced, LogErrorKind::Fenced),
            (RDKafkaErrorCode::State, LogErrorKind::Abort),
            (RDKafkaErrorCode::Fatal, LogErrorKind::Fenced),
            (RDKafkaErrorCode::MessageSizeTooLarge, LogErrorKind::Fatal),
        ] {
            let error = classify("delivering", &KafkaError::MessageProduction(code)).but_not_retry();
            assert_eq!(error.kind, kind, "{code}");
        }
    }
}
