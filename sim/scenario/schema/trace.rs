//! What a type reads: found out by having it read, and looking at what it asks for.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, Error, UsizeDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How the names of [`toml::Spanned`]'s parts begin: its start, its end, its value.
const SPANNED: &str = "$__serde_spanned_private_";

/// A step into a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// To a field of a struct.
    Field(&'static str),
    /// To a list's item.
    Item,
}

/// What is read at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Struct {
        name: &'static str,
        fields: &'static [&'static str],
    },
    List,
    Choice(&'static [&'static str]),
    Text,
    Bool,
    Ignored,
    /// Anything, of which a visitor says what it expects.
    Other(String),
}

/// What `T` reads at a place in it, and whether it may be left out.
pub(super) fn trace<T: DeserializeOwned>(way: &[Step]) -> (Shape, bool) {
    let found = RefCell::new(None);
    // It never comes to an end: what it asked for is what was wanted.
    let _ = T::deserialize(Tracer { way, optional: false, found: &found });
    found.into_inner().unwrap_or((Shape::Ignored, true))
}

#[derive(Debug, Clone, Copy)]
struct Tracer<'t> {
    way: &'t [Step],
    optional: bool,
    found: &'t RefCell<Option<(Shape, bool)>>,
}

impl<'t> Tracer<'t> {
    fn found<V>(self, shape: Shape) -> Result<V, Error> {
        *self.found.borrow_mut() = Some((shape, self.optional));
        Err(Error::custom("found"))
    }

    /// A step further.
    fn further(self) -> Self {
        Self { way: &self.way[1..], optional: false, ..self }
    }
}

/// What a visitor says that it expects.
struct Expected<'v, V>(&'v V);

impl<'de, V: Visitor<'de>> fmt::Display for Expected<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.found(Shape::Other(Expected(&visitor).to_string()))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.found(Shape::Bool)
    }

    fn deserialize_str<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.found(Shape::Text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.found(Shape::Text)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(Self { optional: true, ..self })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.way.first() {
            Some(Step::Item) => visitor.visit_seq(One(self.further())),
            _ => self.found(Shape::List),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name.starts_with(SPANNED) {
            return visitor.visit_map(Spanned { inner: self, fields, read: 0 });
        }
        match self.way.first() {
            Some(Step::Field(field)) => visitor.visit_map(Field { name: Some(field), inner: self.further() }),
            _ => self.found(Shape::Struct { name, fields }),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.found(Shape::Choice(variants))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.found(Shape::Ignored)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct map
        identifier
    }
}

/// A list of one item.
struct One<'t>(Tracer<'t>);

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        seed.deserialize(self.0).map(Some)
    }
}

/// A struct of one field.
struct Field<'t> {
    name: Option<&'static str>,
    inner: Tracer<'t>,
}

impl<'de> MapAccess<'de> for Field<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.name.take().map(|name| seed.deserialize(BorrowedStrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.inner)
    }
}

/// A value with its place.
struct Spanned<'t> {
    inner: Tracer<'t>,
    fields: &'static [&'static str],
    read: usize,
}

impl<'de> MapAccess<'de> for Spanned<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let key = self.fields.get(self.read).map(|field| seed.deserialize(BorrowedStrDeserializer::new(field)));
        self.read += 1;
        key.transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        if self.read < self.fields.len() {
            return seed.deserialize(UsizeDeserializer::new(0));
        }
        seed.deserialize(self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::fault::table::FaultTable;
    use crate::scenario::raw::LinkTable;

    #[test]
    fn types_say_what_they_read() {
        let (Shape::Struct { name, fields }, false) = trace::<LinkTable>(&[]) else { panic!("a struct") };
        assert_eq!(name, "LinkTable");
        assert!(fields.contains(&"latency"));
        let latency = trace::<LinkTable>(&[Step::Field("latency")]);
        assert_eq!(latency, (Shape::Other("a duration such as \"20ms\"".to_owned()), true));
        assert_eq!(trace::<FaultTable>(&[Step::Field("crash")]), (Shape::Text, true));
        let groups = [Step::Field("partition"), Step::Item, Step::Item];
        assert_eq!(trace::<FaultTable>(&groups[..2]), (Shape::List, false));
        assert_eq!(trace::<FaultTable>(&groups), (Shape::Text, false));
    }
}
