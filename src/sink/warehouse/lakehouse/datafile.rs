//! Data files: rows as Parquet, and back.
//!
//! Invariant: what is read is what was written, cell by cell; columns are found by name, and one that the file does not
//! have is null. Absent: row groups (a file is small enough to be one) and pushing anything down.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::Field;
use parquet::schema::parser::parse_message_type;

use super::super::WarehouseError;
use super::super::row::{Row, Value};
use super::super::table::{Column, Kind, Table};
use crate::codec::decimal;

/// Bytes of a decimal of 28 digits in two's complement.
const DECIMAL_BYTES: usize = 12;

/// # Errors
/// A value that its column cannot hold.
pub(super) fn write(table: &Table, rows: &[Row]) -> Result<Vec<u8>, WarehouseError> {
    let schema = parse_message_type(&message(table)).map_err(wrong)?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties)).map_err(wrong)?;
    let mut group = writer.next_row_group().map_err(wrong)?;
    for (n, column) in table.columns.iter().enumerate() {
        let Some(mut chunk) = group.next_column().map_err(wrong)? else {
            return Err(refused("a column is missing from the file's schema"));
        };
        let cells = Cells { column, rows, at: n };
        let levels = cells.levels();
        let levels = levels.as_deref();
        let written = match chunk.untyped() {
            ColumnWriter::ByteArrayColumnWriter(out) => out.write_batch(&cells.of(text)?, levels, None),
            ColumnWriter::Int64ColumnWriter(out) => out.write_batch(&cells.of(long)?, levels, None),
            ColumnWriter::BoolColumnWriter(out) => out.write_batch(&cells.of(boolean)?, levels, None),
            ColumnWriter::Int32ColumnWriter(out) => out.write_batch(&cells.of(day)?, levels, None),
            ColumnWriter::FixedLenByteArrayColumnWriter(out) => {
                let scale = column.kind.scale().unwrap_or(0);
                out.write_batch(&cells.of(|value| fixed(value, scale))?, levels, None)
            }
            ColumnWriter::Int96ColumnWriter(_)
            | ColumnWriter::FloatColumnWriter(_)
            | ColumnWriter::DoubleColumnWriter(_) => {
                return Err(refused("a column of a type that tables do not have"));
            }
        };
        written.map_err(wrong)?;
        chunk.close().map_err(wrong)?;
    }
    group.close().map_err(wrong)?;
    writer.into_inner().map_err(wrong)
}

/// # Errors
/// The bytes are no data file of this table.
pub(super) fn read(table: &Table, bytes: Vec<u8>) -> Result<Vec<Row>, WarehouseError> {
    let file = SerializedFileReader::new(Bytes::from(bytes)).map_err(wrong)?;
    let mut rows = Vec::new();
    for found in file.get_row_iter(None).map_err(wrong)? {
        let mut row = vec![Value::Null; table.columns.len()];
        for (name, field) in found.map_err(wrong)?.get_column_iter() {
            if let Some(at) = table.position_of(name) {
                row[at] = value(field, table.columns[at].kind)?;
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

fn message(table: &Table) -> String {
    let mut text = format!("message {} {{\n", table.name);
    for Column { name, kind, key, .. } in table.columns {
        let needed = if *key { "required" } else { "optional" };
        let kind = match kind {
            Kind::Text => format!("binary {name} (UTF8)"),
            Kind::Integer => format!("int64 {name}"),
            Kind::Boolean => format!("boolean {name}"),
            Kind::Amount | Kind::Rate => {
                let scale = kind.scale().unwrap_or(0);
                format!("fixed_len_byte_array({DECIMAL_BYTES}) {name} (DECIMAL(28,{scale}))")
            }
            Kind::Day => format!("int32 {name} (DATE)"),
            Kind::Instant => format!("int64 {name} (TIMESTAMP(MICROS,true))"),
        };
        text += &format!("  {needed} {kind};\n");
    }
    text + "}\n"
}

struct Cells<'a> {
    column: &'a Column,
    rows: &'a [Row],
    at: usize,
}

impl Cells<'_> {
    /// 1 where there is a value, of a column that may be without.
    fn levels(&self) -> Option<Vec<i16>> {
        let level = |row: &Row| i16::from(row[self.at] != Value::Null);
        (!self.column.key).then(|| self.rows.iter().map(level).collect())
    }

    fn of<T>(&self, as_stored: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, WarehouseError> {
        let cells = self
            .rows
            .iter()
            .map(|row| &row[self.at])
            .filter(|cell| **cell != Value::Null);
        cells
            .map(|cell| {
                as_stored(cell).ok_or_else(|| {
                    refused(&format!(
                        "column {}: {cell:?} is no {}",
                        self.column.name,
                        self.column.kind.name()
                    ))
                })
            })
            .collect()
    }
}

fn text(value: &Value) -> Option<ByteArray> {
    match value {
        Value::Text(text) => Some(ByteArray::from(text.as_str())),
        _ => None,
    }
}

fn long(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Instant(instant) => i64::try_from(instant.as_nanosecond().div_euclid(1000)).ok(),
        _ => None,
    }
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(flag) => Some(*flag),
        _ => None,
    }
}

fn day(value: &Value) -> Option<i32> {
    match value {
        Value::Day(day) => Date::constant(1970, 1, 1).until(*day).ok().map(|span| span.get_days()),
        _ => None,
    }
}

fn fixed(value: &Value, scale: u32) -> Option<FixedLenByteArray> {
    let Value::Decimal(number) = value else {
        return None;
    };
    let short = decimal::to_bytes(*number, scale).ok()?;
    let sign = if number.is_sign_negative() && !number.is_zero() {
        0xFF
    } else {
        0
    };
    let mut bytes = vec![sign; DECIMAL_BYTES.checked_sub(short.len())?];
    bytes.extend_from_slice(&short);
    Some(FixedLenByteArray::from(bytes))
}

fn value(field: &Field, kind: Kind) -> Result<Value, WarehouseError> {
    let epoch = Date::constant(1970, 1, 1);
    let found = match field {
        Field::Null => Some(Value::Null),
        Field::Str(text) => Some(Value::Text(text.clone())),
        Field::Long(number) => Some(Value::Integer(*number)),
        Field::Bool(flag) => Some(Value::Boolean(*flag)),
        Field::Decimal(number) => {
            let scale = kind.scale().map(i64::from);
            let number = scale.and_then(|scale| decimal::from_bytes(number.data(), scale).ok());
            number.map(|number| Value::Decimal(number.normalize()))
        }
        Field::Date(days) => {
            let span = jiff::Span::new().try_days(*days).ok();
            span.and_then(|span| epoch.checked_add(span).ok()).map(Value::Day)
        }
        Field::TimestampMicros(micros) => Timestamp::from_microsecond(*micros).ok().map(Value::Instant),
        _ => None,
    };
    found.ok_or_else(|| refused(&format!("a data file holds {field}, which is no {}", kind.name())))
}

fn wrong(error: ParquetError) -> WarehouseError {
    refused(&format!("Parquet: {error}"))
}

fn refused(why: &str) -> WarehouseError {
    WarehouseError::Refused(why.to_owned())
}
