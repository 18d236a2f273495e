//! The schemas of our own topics, and the way to and from bytes on the Confluent wire: a zero, the schema id in four
//! bytes, the Avro datum. <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>
//!
//! Invariant: an id is asked of the registry once; a record is written with the schema that was registered and read
//! with the schema that wrote it. Deliberately absent: Avro enums in our schemas, whose
//! words could then never be added to: strings with documented words stand in their place.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::{Deserialize, Serialize};

use super::avro::{self, Plan};
use super::registry::{Compatibility, Registry, RegistryError, SchemaId, Subject};
use super::shape::Shape;
use super::{DecodeError, Refused, avro_json};

/// The first byte of every record on the Confluent wire.
pub const MAGIC: u8 = 0;
const PREFIX_BYTES: usize = 5;
const LARGEST_ALLOCATION_BYTES: usize = 64 << 20;

/// A topic we own, by what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// The public copy of the deal facts.
    DealCanonical,
    ContractFacts,
    ContractState,
    RecognitionSchedule,
    BillingSchedule,
    JournalEntries,
    DeadLetters,
    /// Internal: what sources said, keyed by deal.
    CrmChanges,
    Receipts,
    Tickets,
    SinkCommands,
}

impl Product {
    pub const ALL: [Product; 11] = [
        Product::DealCanonical,
        Product::ContractFacts,
        Product::ContractState,
        Product::RecognitionSchedule,
        Product::BillingSchedule,
        Product::JournalEntries,
        Product::DeadLetters,
        Product::CrmChanges,
        Product::Receipts,
        Product::Tickets,
        Product::SinkCommands,
    ];

    /// The schema as it is registered.
    pub fn schema_text(self) -> &'static str {
        match self {
            Product::DealCanonical => include_str!("../../avro/deal-canonical.avsc"),
            Product::ContractFacts => include_str!("../../avro/contract-facts.avsc"),
            Product::ContractState => include_str!("../../avro/contract-state.avsc"),
            Product::RecognitionSchedule => include_str!("../../avro/recognition-schedule.avsc"),
            Product::BillingSchedule => include_str!("../../avro/billing-schedule.avsc"),
            Product::JournalEntries => include_str!("../../avro/journal-entry.avsc"),
            Product::DeadLetters => include_str!("../../avro/dead-letter.avsc"),
            Product::CrmChanges => include_str!("../../avro/crm-change.avsc"),
            Product::Receipts => include_str!("../../avro/receipt.avsc"),
            Product::Tickets => include_str!("../../avro/ticket.avsc"),
            Product::SinkCommands => include_str!("../../avro/sink-command.avsc"),
        }
    }

    /// `deal.canonical` is read by teams we do not know: every version must read every other.
    pub fn compatibility(self) -> Compatibility {
        match self {
            Product::DealCanonical => Compatibility::FullTransitive,
            Product::ContractFacts
            | Product::ContractState
            | Product::RecognitionSchedule
            | Product::BillingSchedule
            | Product::JournalEntries
            | Product::DeadLetters
            | Product::CrmChanges
            | Product::Receipts
            | Product::Tickets
            | Product::SinkCommands => Compatibility::Backward,
        }
    }

    fn datum(self) -> &'static Datum {
        static DATUMS: LazyLock<[Datum; 11]> =
            LazyLock::new(|| Product::ALL.map(|product| Datum::of_ours(product.schema_text())));
        &DATUMS[self as usize]
    }
}

/// One schema, parsed once, ready to read and write. Schemas live as long as the process: an id never changes its
/// meaning, so each is parsed and kept once, and their number is that of the ids met.
pub(super) struct Datum {
    schema: &'static Schema,
    plan: Plan,
    /// Whether its data could be nested without end.
    endless: bool,
    reader: GenericDatumReader<'static>,
    pub(super) shape: Arc<Shape>,
}

impl Datum {
    pub(super) fn parse(text: &str) -> Result<Datum, String> {
        // Far above any record; without it a damaged length makes the library ask for half a gigabyte.
        apache_avro::util::max_allocation_bytes(LARGEST_ALLOCATION_BYTES);
        let json = serde_json::from_str(text).map_err(|error| format!("the schema is not JSON: {error}"))?;
        let shape = Arc::new(Shape::of_avro(&json));
        let schema = Schema::parse(&json).map_err(|error| format!("not an Avro schema: {error}"))?;
        let schema: &'static Schema = Box::leak(Box::new(schema));
        let plan = Plan::of(schema);
        let reader = GenericDatumReader::builder(schema)
            .human_readable(false)
            .build()
            .map_err(|error| format!("not a readable Avro schema: {error}"))?;
        Ok(Datum {
            schema,
            endless: plan.is_endless(),
            plan,
            reader,
            shape,
        })
    }

    /// A schema of this repository; a test parses each.
    pub(super) fn of_ours(text: &str) -> Datum {
        match Datum::parse(text) {
            Ok(datum) => datum,
            Err(error) => unreachable!("a schema in avro/ does not parse: {error}"),
        }
    }

    /// Appends the datum to `bytes`.
    pub(super) fn write<T: Serialize>(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), Refused> {
        avro::write(&self.plan, value, bytes).map_err(|misfit| Refused::new("unencodable", misfit.to_string()))
    }

    /// Reads one datum, which must be all of the bytes and no more; of another version of the schema too, by its fields' names.
    pub(super) fn read<'de, T: Deserialize<'de>>(&self, bytes: &'de [u8]) -> Result<T, Refused> {
        avro::read(&self.plan, bytes).map_err(not_avro)
    }

    /// Reads a datum that has no struct of ours. The Avro library goes as deep as the data does, so data of a schema within
    /// itself could ask for more stack than there is.
    pub(super) fn read_value(&self, bytes: &[u8]) -> Result<apache_avro::types::Value, Refused> {
        if self.endless {
            let message = "the schema is within itself, and a row of a table is not; name the topic of a table";
            return Err(Refused::new("not_avro", message));
        }
        let mut bytes = Exactly { bytes, short: false };
        let value = self.reader.read_value(&mut bytes).map_err(not_avro)?;
        bytes.end()?;
        Ok(value)
    }

    /// A datum of another schema as one of this.
    fn rewritten(&self, writer: &Datum, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
        let value = writer.read_value(bytes)?.resolve(self.schema).map_err(not_avro)?;
        let to = GenericDatumWriter::builder(self.schema).human_readable(false).build();
        let mut bytes = Vec::new();
        to.and_then(|to| to.write_value(&mut bytes, value)).map_err(not_avro)?;
        Ok(bytes)
    }
}

/// Bytes that remember whether more was asked than there was: apache-avro reads the end of its input as null, so a
/// record cut short would otherwise be taken for one whose last columns are empty.
struct Exactly<'a> {
    bytes: &'a [u8],
    short: bool,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.short |= buffer.len() > self.bytes.len();
        self.bytes.read(buffer)
    }
}

impl Exactly<'_> {
    fn end(&self) -> Result<(), Refused> {
        if self.short {
            return Err(Refused::new("not_avro", "the Avro datum is cut short"));
        }
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(Refused::new(
                "not_avro",
                format!("{left} bytes are left after the Avro datum"),
            )),
        }
    }
}

fn not_avro(error: impl std::error::Error) -> Refused {
    Refused::new("not_avro", format!("the Avro datum does not match its schema: {error}"))
}

/// Schemas by id, whoever registered them; asked of the registry once.
pub(super) struct Readers {
    registry: Arc<dyn Registry>,
    /// A schema that does not parse, or is not Avro, never will be: that is remembered too.
    known: RwLock<HashMap<SchemaId, Result<Arc<Datum>, Refused>>>,
}

impl Readers {
    fn new(registry: Arc<dyn Registry>) -> Readers {
        Readers {
            registry,
            known: RwLock::default(),
        }
    }

    /// Splits off the prefix and finds the writer's schema.
    pub(super) fn open<'a>(&self, bytes: &'a [u8]) -> Result<(Arc<Datum>, &'a [u8]), DecodeError> {
        let (id, datum) = split(bytes)?;
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok((known.clone()?, datum));
        }
        let found = match self.registry.schema(id) {
            Ok(text) => match Datum::parse(&text) {
                Ok(parsed) => Ok(Arc::new(parsed)),
                Err(error) => Err(Refused::new("unknown_schema", format!("schema id {}: {error}", id.0))),
            },
            Err(error @ RegistryError::NotAvro { .. }) => Err(Refused::new("not_avro", error.to_string())),
            // A clear answer about this id, but another may register it yet.
            Err(error @ (RegistryError::UnknownSchema(_) | RegistryError::Incompatible { .. })) => {
                return Err(Refused::new("unknown_schema", error.to_string()).into());
            }
            Err(RegistryError::Unavailable(why)) => return Err(DecodeError::Unavailable(why)),
            // We are not let in: that says nothing about the record, and is mended without it.
            Err(error @ RegistryError::Refused(_)) => return Err(DecodeError::Unavailable(error.to_string())),
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let found = known.entry(id).or_insert(found);
        Ok((found.clone()?, datum))
    }
}

fn split(bytes: &[u8]) -> Result<(SchemaId, &[u8]), Refused> {
    match bytes {
        [MAGIC, a, b, c, d, datum @ ..] => Ok((SchemaId(u32::from_be_bytes([*a, *b, *c, *d])), datum)),
        _ => Err(Refused::new(
            "not_avro",
            "the bytes do not start with a zero and a schema id (the Confluent wire format)",
        )),
    }
}

/// The schemas the pipeline writes and reads with; built once at start.
pub struct Schemas {
    pub(super) readers: Readers,
    /// What the records of each product start with.
    prefixes: [[u8; PREFIX_BYTES]; 11],
}

impl Schemas {
    /// Registers the schema of every product under its topic's subject; idempotent. `topic` gives each product's topic
    /// name.
    ///
    /// # Errors
    /// The registry is away (try again), or refuses a schema (it names the subject and the reason).
    pub fn register(registry: Arc<dyn Registry>, topic: impl Fn(Product) -> String) -> Result<Schemas, RegistryError> {
        Schemas::register_at(registry, topic, Product::compatibility)
    }

    /// As [`Schemas::register`]; `level` gives each subject's compatibility. It is set before a schema is registered: a
    /// stricter one that came after would not have been asked about this version.
    ///
    /// # Errors
    /// As [`Schemas::register`].
    pub fn register_at(
        registry: Arc<dyn Registry>,
        topic: impl Fn(Product) -> String,
        level: impl Fn(Product) -> Compatibility,
    ) -> Result<Schemas, RegistryError> {
        for product in Product::ALL {
            registry.set_compatibility(&Subject::value_of(&topic(product)), level(product))?;
        }
        Schemas::with_ids(registry.clone(), |product| {
            registry.register(&Subject::value_of(&topic(product)), product.schema_text())
        })
    }

    /// Looks up ids that `accrue apply` registered, for users who do not let applications register schemas.
    ///
    /// # Errors
    /// As `register`; `Refused` names a subject whose schema is not registered.
    pub fn look_up(registry: Arc<dyn Registry>, topic: impl Fn(Product) -> String) -> Result<Schemas, RegistryError> {
        Schemas::with_ids(registry.clone(), |product| {
            let subject = Subject::value_of(&topic(product));
            registry.lookup(&subject, product.schema_text())?.ok_or_else(|| {
                RegistryError::Refused(format!(
                    "{subject} does not have this version's schema; run accrue apply"
                ))
            })
        })
    }

    fn with_ids(
        registry: Arc<dyn Registry>,
        id: impl Fn(Product) -> Result<SchemaId, RegistryError>,
    ) -> Result<Schemas, RegistryError> {
        let mut prefixes = [[MAGIC; PREFIX_BYTES]; 11];
        for (product, prefix) in Product::ALL.into_iter().zip(&mut prefixes) {
            prefix[1..].copy_from_slice(&id(product)?.0.to_be_bytes());
        }
        Ok(Schemas {
            readers: Readers::new(registry),
            prefixes,
        })
    }

    /// The bytes of one record's value.
    pub(super) fn encode<T: Serialize>(&self, product: Product, value: &T) -> Result<Vec<u8>, Refused> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&self.prefixes[product as usize]);
        product.datum().write(value, &mut bytes)?;
        Ok(bytes)
    }

    /// The value of one record, with the schema that wrote it.
    pub(super) fn decode<'de, T: Deserialize<'de>>(
        &self,
        product: Product,
        bytes: &'de [u8],
    ) -> Result<T, DecodeError> {
        if let Some(datum) = bytes.strip_prefix(&self.prefixes[product as usize]) {
            return Ok(product.datum().read(datum)?);
        }
        let (writer, datum) = self.readers.open(bytes)?;
        Ok(writer.read(datum)?)
    }

    /// The datum of a record of a product, as this version writes it: one that another version wrote is brought to today's
    /// schema. So two records say the same if these bytes are the same.
    ///
    /// # Errors
    /// The bytes are no record of the product; the registry does not answer.
    pub fn datum<'a>(&self, product: Product, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, DecodeError> {
        if let Some(datum) = bytes.strip_prefix(&self.prefixes[product as usize]) {
            return Ok(datum.into());
        }
        let (writer, datum) = self.readers.open(bytes)?;
        Ok(product.datum().rewritten(&writer, datum)?.into())
    }
}

/// Any record's value for people to read: Avro by its registered schema, JSON, or text.
pub struct AnyReader {
    readers: Readers,
}

impl AnyReader {
    pub fn new(registry: Arc<dyn Registry>) -> AnyReader {
        AnyReader {
            readers: Readers::new(registry),
        }
    }

    /// Amounts as decimal text, days and instants as ISO 8601. What cannot be decoded is shown as it is.
    pub fn json(&self, bytes: &[u8]) -> serde_json::Value {
        match self.avro(bytes) {
            Ok(value) => value,
            Err(_) => serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into()),
        }
    }

    /// As [`AnyReader::json`], of Avro alone.
    ///
    /// # Errors
    /// The bytes are no Avro on the Confluent wire, or the registry does not answer.
    pub fn avro(&self, bytes: &[u8]) -> Result<serde_json::Value, DecodeError> {
        let (writer, datum) = self.readers.open(bytes)?;
        Ok(writer.shape.for_people(avro_json::json(writer.read_value(datum)?)))
    }
}
