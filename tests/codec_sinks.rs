//! What sinks store and say comes back equal, in the bytes that the Avro library would write.

mod avro;

use std::sync::Arc;

use accrue::codec::delivery::{self, ChainRow, DeliveryRow, DoneRow, GroupRow, RefusalRow, Stored};
use accrue::codec::delivery_command::{Decision, SinkCommand, Ticket, TicketState};
use accrue::codec::receipt::Receipt;
use accrue::codec::registry::Embedded;
use accrue::codec::schemas::{Product, Schemas};
use avro::rewritten;
use jiff::Timestamp;

fn schemas(folder: &std::path::Path) -> Schemas {
    let registry = Arc::new(Embedded::open(folder).unwrap());
    Schemas::register(registry, |product| format!("{product:?}")).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_768_645_353 + second).unwrap()
}

fn as_the_library_writes(product: Product, bytes: &[u8]) {
    assert_eq!(
        rewritten(product.schema_text(), &bytes[5..]),
        &bytes[5..],
        "{product:?}"
    );
}

#[test]
fn what_is_stored_of_deliveries_comes_back_equal() {
    let full = DeliveryRow {
        key: "acme/D-1/je-1".into(),
        form: "invoice".into(),
        tenant: "acme".into(),
        deal: Some("D-1".into()),
        source: "journal.entries/0/7".into(),
        entries: vec!["je-1".into(), "je-2".into()],
        source_at: at(0),
        planned_at: at(1),
        first_sent_at: Some(at(2)),
        attempts: 300,
        failures: 2,
        doubt: true,
        remake: false,
        rounds: 2,
        taken: 4,
        reference: Some("ACC-1".into()),
        body: Some(b"{\"n\":1}".to_vec()),
        state: "held".into(),
        since: at(3),
        due_at: Some(at(4)),
        resume: Some("send".into()),
        looks: 9,
        why: "the account is closed".into(),
        refusal: Some(RefusalRow {
            code: "closed".into(),
            words: "Konto geschlossen".into(),
            advice: "open it".into(),
        }),
    };
    let bare = DeliveryRow {
        deal: None,
        entries: Vec::new(),
        first_sent_at: None,
        reference: None,
        body: None,
        due_at: None,
        resume: None,
        refusal: None,
        ..full.clone()
    };
    let done = DoneRow {
        key: "acme/D-1/je-1".into(),
        outcome: "found".into(),
        external_id: Some("4711".into()),
        receipt: vec![0, 255, 7],
    };
    let group = GroupRow {
        tenant: "acme".into(),
        opened_at: at(5),
        source_at: at(6),
        source: "journal.entries/0/8".into(),
        count: 12,
    };
    let chain = ChainRow {
        number: 70_000,
        hash: vec![9; 32],
    };
    for stored in [
        Stored::Delivery(Box::new(full)),
        Stored::Delivery(Box::new(bare)),
        Stored::Placed(b"q\x00key".to_vec()),
        Stored::Done(done),
        Stored::Group(group),
        Stored::Chain(chain),
        Stored::Sequence(3),
        Stored::Books("xero https://books.example 7".into()),
    ] {
        let bytes = delivery::encode(&stored).unwrap();
        assert_eq!(delivery::decode(&bytes).unwrap(), stored);
        let schema = include_str!("../avro/delivery-store.avsc");
        assert_eq!(rewritten(schema, &bytes[1..]), &bytes[1..]);
    }
}

#[test]
fn receipts_commands_and_tickets_come_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let schemas = schemas(folder.path());
    let receipt = Receipt {
        sink: "files".into(),
        chain: 3,
        number: 80,
        previous: Vec::new(),
        hash: vec![7; 32],
        key: "acme/D-1/je-1".into(),
        form: "invoice".into(),
        outcome: "acknowledged".into(),
        tenant: "acme".into(),
        deal: Some("D-1".into()),
        entries: vec!["je-1".into()],
        reference: Some("ACC-1".into()),
        body_sha256: None,
        external_id: Some("4711".into()),
        response_digest: None,
        by: Some("ann".into()),
        note: None,
        attempts: 1,
        source_at: at(0),
        planned_at: at(1),
        sent_at: Some(at(2)),
        settled_at: at(3),
    };
    let bytes = schemas.encode_receipt(&receipt).unwrap();
    assert_eq!(schemas.decode_receipt(&bytes).unwrap(), receipt);
    as_the_library_writes(Product::Receipts, &bytes);

    let confirm = Decision::Confirm {
        external_id: "4711".into(),
    };
    for decision in [Decision::Retry, Decision::Cancel, confirm] {
        let command = SinkCommand {
            sink: "files".into(),
            key: "acme/D-1/je-1".into(),
            attempts: Some(2),
            decision,
            by: "ann".into(),
            note: "seen there".into(),
        };
        let bytes = schemas.encode_sink_command(&command).unwrap();
        assert_eq!(schemas.decode_sink_command(&bytes).unwrap(), command);
        as_the_library_writes(Product::SinkCommands, &bytes);
    }

    let ticket = Ticket {
        id: "files/acme/D-1".into(),
        sink: "files".into(),
        state: TicketState::Opened,
        at: at(0),
        reason: "refused".into(),
    };
    let bytes = schemas.encode_ticket(&ticket).unwrap();
    assert_eq!(schemas.decode_ticket(&bytes).unwrap(), ticket);
    as_the_library_writes(Product::Tickets, &bytes);
}
