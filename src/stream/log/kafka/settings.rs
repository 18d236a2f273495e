//! Whether librdkafka takes a setting.
//!
//! Invariant: nothing is connected to and no file is read; a setting is only put down. Deliberately absent: which settings
//! go together, which shows when a client is made.

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

/// Why librdkafka does not take a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// There is none of this name.
    Unknown,
    /// It has another kind of value, or was not built in. The text may quote the value.
    Value(String),
}

/// # Errors
/// librdkafka does not take it.
pub fn check_setting(name: &str, value: &str) -> Result<(), SettingError> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => Err(SettingError::Unknown),
        Err(KafkaError::ClientConfig(_, why, ..)) => Err(SettingError::Value(why)),
        Err(other) => Err(SettingError::Value(other.to_string())),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_taken_unknown_or_of_another_kind() {
        assert_eq!(check_setting("sasl.mechanism", "PLAIN"), Ok(()));
        assert_eq!(check_setting("ssl.ca.location", "/nowhere"), Ok(()));
        assert_eq!(check_setting("sasl.mechanisme", "PLAIN"), Err(SettingError::Unknown));
        let wrong = check_setting("security.protocol", "tls");
        assert!(
            matches!(&wrong, Err(SettingError::Value(why)) if why.contains("security.protocol")),
            "{wrong:?}"
        );
    }
}
