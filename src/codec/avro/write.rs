//! From a struct to bytes.

use serde::ser::{Impossible, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use super::{Field, Misfit, Plan};

/// Appends `value` to `out`.
///
/// # Errors
/// `value` is not what the plan says, field by field in its order, or holds what cannot be written.
pub(in crate::codec) fn write<T: Serialize>(plan: &Plan, value: &T, out: &mut Vec<u8>) -> Result<(), Misfit> {
    value.serialize(Writer { plan, out })
}

/// Writes one value.
struct Writer<'a> {
    plan: &'a Plan,
    out: &'a mut Vec<u8>,
}

fn long(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Misfit> {
    long(out, i64::try_from(bytes.len()).map_err(Misfit::new)?);
    out.extend_from_slice(bytes);
    Ok(())
}

impl Writer<'_> {
    #[cold]
    fn misfit<T>(&self, given: &str) -> Result<T, Misfit> {
        let kind = self.plan.kind();
        Err(Misfit::new(format_args!("{given} where the schema has {kind}")))
    }
}

macro_rules! misfits {
    ($($method:ident($($of:ty),*) -> $ok:ty: $given:literal,)*) => {$(
        fn $method(self $(, _: $of)*) -> Result<$ok, Misfit> {
            self.misfit($given)
        }
    )*};
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Misfit;
    type SerializeSeq = Items<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeTuple = Impossible<(), Misfit>;
    type SerializeTupleStruct = Impossible<(), Misfit>;
    type SerializeTupleVariant = Impossible<(), Misfit>;
    type SerializeMap = Impossible<(), Misfit>;
    type SerializeStructVariant = Impossible<(), Misfit>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, flag: bool) -> Result<(), Misfit> {
        match self.plan {
            Plan::Boolean => {
                self.out.push(flag.into());
                Ok(())
            }
            _ => self.misfit("a boolean"),
        }
    }

    fn serialize_i32(self, number: i32) -> Result<(), Misfit> {
        match self.plan {
            Plan::Int => {
                long(self.out, number.into());
                Ok(())
            }
            _ => self.misfit("an int"),
        }
    }

    fn serialize_i64(self, number: i64) -> Result<(), Misfit> {
        match self.plan {
            Plan::Long => {
                long(self.out, number);
                Ok(())
            }
            _ => self.misfit("a long"),
        }
    }

    fn serialize_str(self, text: &str) -> Result<(), Misfit> {
        match self.plan {
            Plan::Text => bytes(self.out, text.as_bytes()),
            _ => self.misfit("a string"),
        }
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Misfit> {
        match self.plan {
            Plan::Bytes => bytes(self.out, value),
            _ => self.misfit("bytes"),
        }
    }

    fn serialize_none(self) -> Result<(), Misfit> {
        match self.plan {
            Plan::Optional(_) => {
                self.out.push(0); // the first branch
                Ok(())
            }
            _ => self.misfit("null"),
        }
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Misfit> {
        match self.plan {
            Plan::Optional(plan) => {
                self.out.push(2); // the second branch, as a varint
                value.serialize(Writer { plan, out: self.out })
            }
            _ => self.misfit("an option"),
        }
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Misfit> {
        value.serialize(self)
    }

    /// All items are one block.
    fn serialize_seq(self, length: Option<usize>) -> Result<Items<'a>, Misfit> {
        match (self.plan, length) {
            (Plan::Array(plan), Some(missing)) => {
                if missing > 0 {
                    long(self.out, i64::try_from(missing).map_err(Misfit::new)?);
                }
                Ok(Items {
                    plan,
                    missing,
                    out: self.out,
                })
            }
            (Plan::Array(_), None) => Err(Misfit::new("a list of unknown length")),
            _ => self.misfit("a list"),
        }
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Fields<'a>, Misfit> {
        match self.plan {
            Plan::Record(record) => Ok(Fields {
                missing: record.fields.iter(),
                out: self.out,
            }),
            _ => self.misfit(name),
        }
    }

    misfits! {
        serialize_i8(i8) -> (): "a byte",
        serialize_i16(i16) -> (): "a short",
        serialize_u8(u8) -> (): "a byte",
        serialize_u16(u16) -> (): "an unsigned short",
        serialize_u32(u32) -> (): "an unsigned int",
        serialize_u64(u64) -> (): "an unsigned long",
        serialize_f32(f32) -> (): "a float",
        serialize_f64(f64) -> (): "a double",
        serialize_char(char) -> (): "a character",
        serialize_unit() -> (): "nothing",
        serialize_unit_struct(&'static str) -> (): "an empty struct",
        serialize_unit_variant(&'static str, u32, &'static str) -> (): "an enum",
        serialize_tuple(usize) -> Self::SerializeTuple: "a tuple",
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct: "a tuple",
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant: "an enum",
        serialize_map(Option<usize>) -> Self::SerializeMap: "a map",
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant: "an enum",
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Misfit> {
        self.misfit("an enum")
    }
}

struct Items<'a> {
    plan: &'a Plan,
    missing: usize,
    out: &'a mut Vec<u8>,
}

impl SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Misfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Misfit> {
        self.missing = self
            .missing
            .checked_sub(1)
            .ok_or_else(|| Misfit::new("more items than said"))?;
        item.serialize(Writer {
            plan: self.plan,
            out: self.out,
        })
    }

    fn end(self) -> Result<(), Misfit> {
        if self.missing > 0 {
            return Err(Misfit::new("fewer items than said"));
        }
        self.out.push(0);
        Ok(())
    }
}

struct Fields<'a> {
    missing: std::slice::Iter<'a, Field>,
    out: &'a mut Vec<u8>,
}

impl SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Misfit;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Misfit> {
        match self.missing.next() {
            Some(field) if field.is(name) => value
                .serialize(Writer {
                    plan: &field.plan,
                    out: self.out,
                })
                .map_err(|misfit| misfit.within(name)),
            Some(field) => Err(Misfit::new(format_args!(
                "field {name} where the schema has {}",
                field.name
            ))),
            None => Err(Misfit::new(format_args!("field {name}, which the schema has not"))),
        }
    }

    fn end(mut self) -> Result<(), Misfit> {
        match self.missing.next() {
            None => Ok(()),
            Some(field) => Err(Misfit::new(format_args!("no field {}", field.name))),
        }
    }
}
