//! What librdkafka's errors mean to the caller.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::{LogError, LogErrorKind};
pub(super) fn is_transient(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| TRANSIENT.contains(&code))
}

/// Errors that pass when brokers, leaders or coordinators are back.
const TRANSIENT: [RDKafkaErrorCode; 13] = [
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
        other => match other.rdkafka_error_code() {
            Some(code) if fenced(code) => LogErrorKind::Fenced,
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
    fn a_record_that_was_not_delivered_in_time_only_aborts() {
        for (code, kind) in [
            (RDKafkaErrorCode::MessageTimedOut, LogErrorKind::Abort),
            (RDKafkaErrorCode::NotLeaderForPartition, LogErrorKind::Abort),
            (RDKafkaErrorCode::ProducerFenced, LogErrorKind::Fenced),
            (RDKafkaErrorCode::MessageSizeTooLarge, LogErrorKind::Fatal),
        ] {
            let error = classify("delivering", &KafkaError::MessageProduction(code)).but_not_retry();
            assert_eq!(error.kind, kind, "{code}");
        }
    }
}
