//! From bytes to a struct.

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::{Field, Misfit, Plan};

/// Reads one value, which must be all of `bytes`. A struct with the fields of the record, in their order, is read straight;
/// any other by the names of the fields, those left out that it has not.
///
/// # Errors
/// The bytes are not of this plan, or are fewer or more; a field of the struct is not in the plan, and has no default.
pub(in crate::codec) fn read<'de, T: Deserialize<'de>>(plan: &Plan, bytes: &'de [u8]) -> Result<T, Misfit> {
    let mut input = Input(bytes);
    let value = T::deserialize(Reader {
        plan,
        input: &mut input,
    })?;
    match input.0.len() {
        0 => Ok(value),
        left => Err(Misfit::new(format_args!("{left} bytes are left after the Avro datum"))),
    }
}

/// What is left to read.
struct Input<'de>(&'de [u8]);

impl<'de> Input<'de> {
    fn take(&mut self, length: usize) -> Result<&'de [u8], Misfit> {
        let (taken, left) = self.0.split_at_checked(length).ok_or_else(cut_short)?;
        self.0 = left;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Misfit> {
        let (byte, left) = self.0.split_first().ok_or_else(cut_short)?;
        self.0 = left;
        Ok(*byte)
    }

    fn long(&mut self) -> Result<i64, Misfit> {
        if let [byte @ 0..0x80, left @ ..] = self.0 {
            self.0 = left;
            return Ok(unfolded((*byte).into()));
        }
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(unfolded(number));
            }
        }
        Err(Misfit::new("a number of more than 64 bits"))
    }

    fn int(&mut self) -> Result<i32, Misfit> {
        let number = self.long()?;
        i32::try_from(number).map_err(|_| Misfit::new(format_args!("{number} is no int")))
    }

    fn bytes(&mut self) -> Result<&'de [u8], Misfit> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| negative(length))?)
    }

    fn text(&mut self) -> Result<&'de str, Misfit> {
        std::str::from_utf8(self.bytes()?).map_err(Misfit::new)
    }

    fn boolean(&mut self) -> Result<bool, Misfit> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Misfit::new(format_args!("{other} is no boolean"))),
        }
    }

    fn one_of<'p, T>(&mut self, choices: &'p [T]) -> Result<&'p T, Misfit> {
        let index = self.long()?;
        usize::try_from(index)
            .ok()
            .and_then(|index| choices.get(index))
            .ok_or_else(|| Misfit::new(format_args!("{index} is none of {} choices", choices.len())))
    }

    fn is_some(&mut self) -> Result<bool, Misfit> {
        self.one_of(&[false, true]).copied()
    }

    /// How many items follow; 0: no more blocks.
    fn block(&mut self) -> Result<usize, Misfit> {
        let mut count = self.long()?;
        if count < 0 {
            // The block's size in bytes follows, for those who skip it.
            self.long()?;
            count = count.checked_neg().ok_or_else(|| negative(count))?;
        }
        match usize::try_from(count) {
            Ok(count) if count <= self.0.len() => Ok(count),
            Ok(_) | Err(_) => Err(cut_short()),
        }
    }

    fn skip(&mut self, plan: &Plan) -> Result<(), Misfit> {
        match plan {
            Plan::Null => {}
            Plan::Boolean => drop(self.boolean()?),
            Plan::Int | Plan::Long | Plan::Enum(_) => drop(self.long()?),
            Plan::Float => drop(self.take(4)?),
            Plan::Double => drop(self.take(8)?),
            Plan::Bytes | Plan::Text => drop(self.bytes()?),
            Plan::Fixed(length) => drop(self.take(*length)?),
            Plan::Array(items) => loop {
                match self.block()? {
                    0 => break,
                    count => (0..count).try_for_each(|_| self.skip(items))?,
                }
            },
            Plan::Map(values) => loop {
                match self.block()? {
                    0 => break,
                    count => (0..count).try_for_each(|_| self.bytes().and_then(|_| self.skip(values)))?,
                }
            },
            Plan::Optional(some) => {
                if self.is_some()? {
                    self.skip(some)?;
                }
            }
            Plan::Union(branches) => {
                let branch = self.one_of(branches)?;
                self.skip(branch)?;
            }
            Plan::Record(record) => record.fields.iter().try_for_each(|field| self.skip(&field.plan))?,
            Plan::Endless => return Err(unread(plan)),
        }
        Ok(())
    }
}

/// Avro folds negative numbers between the others: 0, -1, 1, -2.
fn unfolded(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cold]
fn cut_short() -> Misfit {
    Misfit::new("the Avro datum is cut short")
}

#[cold]
fn negative(length: i64) -> Misfit {
    Misfit::new(format_args!("{length} is no length"))
}

#[cold]
fn unread(plan: &Plan) -> Misfit {
    Misfit::new(format_args!("{} is not read by this version", plan.kind()))
}

/// Reads one value.
struct Reader<'a, 'de> {
    plan: &'a Plan,
    input: &'a mut Input<'de>,
}

impl<'a> Reader<'a, '_> {
    /// The branch that a union takes; any other plan itself.
    fn branch(self) -> Result<Self, Misfit> {
        let plan = match self.plan {
            Plan::Optional(some) => match self.input.is_some()? {
                true => some,
                false => &Plan::Null,
            },
            Plan::Union(branches) => self.input.one_of(branches)?,
            plan => plan,
        };
        Ok(Reader { plan, ..self })
    }
}

impl<'de> Deserializer<'de> for Reader<'_, 'de> {
    type Error = Misfit;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let input = self.input;
        match self.plan {
            Plan::Null => visitor.visit_unit(),
            Plan::Boolean => visitor.visit_bool(input.boolean()?),
            Plan::Int => visitor.visit_i32(input.int()?),
            Plan::Long => visitor.visit_i64(input.long()?),
            Plan::Bytes => visitor.visit_borrowed_bytes(input.bytes()?),
            Plan::Text => visitor.visit_borrowed_str(input.text()?),
            Plan::Fixed(length) => visitor.visit_borrowed_bytes(input.take(*length)?),
            Plan::Enum(words) => visitor.visit_str(input.one_of(words)?),
            Plan::Array(plan) => visitor.visit_seq(Items { plan, input, count: 0 }),
            Plan::Record(record) => visitor.visit_map(ByName {
                fields: record.fields.iter(),
                value: None,
                input,
            }),
            Plan::Optional(_) | Plan::Union(_) => Reader { plan: self.plan, input }.branch()?.deserialize_any(visitor),
            Plan::Float | Plan::Double | Plan::Map(_) | Plan::Endless => Err(unread(self.plan)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let branch = self.branch()?;
        match branch.plan {
            Plan::Null => visitor.visit_none(),
            _ => visitor.visit_some(branch),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let Reader { plan, input } = self.branch()?;
        match plan {
            Plan::Record(record) if record.is(names) => visitor.visit_seq(InOrder {
                fields: record.fields.iter(),
                input,
            }),
            plan => Reader { plan, input }.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.input.skip(self.plan)?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct
        map enum identifier
    }
}

struct InOrder<'a, 'de> {
    fields: std::slice::Iter<'a, Field>,
    input: &'a mut Input<'de>,
}

impl<'de> SeqAccess<'de> for InOrder<'_, 'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        match self.fields.next() {
            Some(field) => value(seed, field, self.input).map(Some),
            None => Ok(None),
        }
    }
}

struct ByName<'a, 'de> {
    fields: std::slice::Iter<'a, Field>,
    /// The field whose name was asked and whose value was not.
    value: Option<&'a Field>,
    input: &'a mut Input<'de>,
}

impl<'de> MapAccess<'de> for ByName<'_, 'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        self.value = self.fields.next();
        match self.value {
            Some(field) => seed.deserialize(StrDeserializer::new(&field.name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        match self.value.take() {
            Some(field) => value(seed, field, self.input),
            None => Err(Misfit::new("a value was asked before its name")),
        }
    }
}

fn value<'de, T: DeserializeSeed<'de>>(seed: T, field: &Field, input: &mut Input<'de>) -> Result<T::Value, Misfit> {
    seed.deserialize(Reader {
        plan: &field.plan,
        input,
    })
    .map_err(|misfit| misfit.within(&field.name))
}

struct Items<'a, 'de> {
    plan: &'a Plan,
    /// Left of the block at hand.
    count: usize,
    input: &'a mut Input<'de>,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        if self.count == 0 {
            self.count = self.input.block()?;
        }
        if self.count == 0 {
            return Ok(None);
        }
        self.count -= 1;
        let plan = self.plan;
        seed.deserialize(Reader {
            plan,
            input: self.input,
        })
        .map(Some)
    }
}
