//! What operators and destinations say to one another: commands about deliveries, and tickets.

use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::schemas::{Product, Schemas};
use super::wire::Instant;
use super::{DecodeError, Refused};

/// A decision of an operator about one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkCommand {
    pub sink: String,
    pub key: String,
    /// How often the document had been sent when the person looked at it: what was decided holds for nothing that was sent
    /// since. `None` from the sink itself, and from versions before this one.
    pub attempts: Option<u64>,
    pub decision: Decision,
    /// Who decided.
    pub by: String,
    /// Why.
    pub note: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Try again: what was corrected is taken into account.
    Retry,
    /// Never write it.
    Cancel,
    /// It is in the system, under this name.
    Confirm { external_id: String },
    /// Try again what waits for an account. A task of the sink asks for it after a start, when the topology may have the
    /// account; the key is its partition. What people decided before is read before it.
    RetryUnmapped,
}

/// Something an operator has to look at, and that it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The same for opening and closing.
    pub id: String,
    pub sink: String,
    pub state: TicketState,
    pub at: Timestamp,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketState {
    Opened,
    Closed,
}

impl TicketState {
    pub fn as_str(self) -> &'static str {
        match self {
            TicketState::Opened => "opened",
            TicketState::Closed => "closed",
        }
    }
}

impl FromStr for TicketState {
    type Err = Refused;

    fn from_str(text: &str) -> Result<TicketState, Refused> {
        match text {
            "opened" => Ok(TicketState::Opened),
            "closed" => Ok(TicketState::Closed),
            other => Err(Refused::new("bad_ticket", format!("{other:?} is no state of a ticket"))),
        }
    }
}

impl Schemas {
    pub fn encode_sink_command(&self, command: &SinkCommand) -> Result<Vec<u8>, Refused> {
        let (word, external_id) = match &command.decision {
            Decision::Retry => ("retry", None),
            Decision::Cancel => ("cancel", None),
            Decision::Confirm { external_id } => ("confirm", Some(external_id.clone())),
            Decision::RetryUnmapped => ("retry_unmapped", None),
        };
        let wire = CommandWire {
            sink: command.sink.clone(),
            key: command.key.clone(),
            attempts: command.attempts.map(|count| i64::try_from(count).unwrap_or(i64::MAX)),
            command: word.to_owned(),
            external_id,
            by: command.by.clone(),
            note: command.note.clone(),
        };
        self.encode(Product::SinkCommands, &wire)
    }

    pub fn decode_sink_command(&self, bytes: &[u8]) -> Result<SinkCommand, DecodeError> {
        let wire: CommandWire = self.decode(Product::SinkCommands, bytes)?;
        let decision = match (wire.command.as_str(), wire.external_id) {
            ("retry", _) => Decision::Retry,
            ("cancel", _) => Decision::Cancel,
            ("confirm", Some(external_id)) => Decision::Confirm { external_id },
            ("retry_unmapped", _) => Decision::RetryUnmapped,
            (other, _) => {
                return Err(Refused::new("bad_command", format!("the command {other:?} is not known")).into());
            }
        };
        let count = |number: i64| {
            let no_count = |_| Refused::new("bad_command", format!("attempts: {number} is no count"));
            u64::try_from(number).map_err(no_count)
        };
        Ok(SinkCommand {
            sink: wire.sink,
            key: wire.key,
            attempts: wire.attempts.map(count).transpose()?,
            decision,
            by: wire.by,
            note: wire.note,
        })
    }

    pub fn encode_ticket(&self, ticket: &Ticket) -> Result<Vec<u8>, Refused> {
        let wire = TicketWire {
            id: ticket.id.clone(),
            sink: ticket.sink.clone(),
            state: ticket.state.as_str().to_owned(),
            at: Instant(ticket.at),
            reason: ticket.reason.clone(),
        };
        self.encode(Product::Tickets, &wire)
    }

    pub fn decode_ticket(&self, bytes: &[u8]) -> Result<Ticket, DecodeError> {
        let wire: TicketWire = self.decode(Product::Tickets, bytes)?;
        Ok(Ticket {
            id: wire.id,
            sink: wire.sink,
            state: wire.state.parse()?,
            at: wire.at.0,
            reason: wire.reason,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct CommandWire {
    sink: String,
    key: String,
    command: String,
    external_id: Option<String>,
    by: String,
    note: String,
    attempts: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct TicketWire {
    id: String,
    sink: String,
    state: String,
    at: Instant,
    reason: String,
}
