//! The query of a URL as a call's own struct; what is wrong with it is said as with every other field.

use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use crate::error::{Fault, Kind, clip, there_is};

/// Reads a query. Errors: `malformed` (an unknown field), `invalid`, with the field, what was expected there and found.
pub fn read<T: DeserializeOwned>(uri: &http::Uri) -> Result<T, Fault> {
    let pairs = pairs(uri)?;
    let pairs = pairs.iter().map(|(name, text)| (name.as_str(), Text { name, text }));
    T::deserialize(MapDeserializer::new(pairs)).map_err(|Wrong(fault)| *fault)
}

/// The names and values of a query, as they came. Errors: `invalid`.
pub fn pairs(uri: &http::Uri) -> Result<Vec<(String, String)>, Fault> {
    let query = axum::extract::Query::try_from_uri(uri).map_err(|_| {
        let found = format!("`{}`", clip(uri.query().unwrap_or_default()));
        Fault::mismatch("query", "pairs of name=value", found)
    })?;
    Ok(query.0)
}

/// What is wrong with a query.
#[derive(Debug)]
struct Wrong(Box<Fault>);

impl Wrong {
    fn field(name: &str, expected: &str, found: &str) -> Self {
        let fault = Fault::mismatch(format!("query: {}", clip(name)), expected, found);
        Self(Box::new(Fault { tensor: clip(name), ..fault }))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(Box::new(Fault::new(Kind::Invalid, format!("query: {what}"))))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        let detail =
            format!("query: unknown field `{}`; {}", clip(name), there_is(name, known.iter().copied()));
        Self(Box::new(Fault::new(Kind::Malformed, detail)))
    }

    fn missing_field(name: &'static str) -> Self {
        Self::field(name, "a value", "none")
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::field(name, "one value", "several")
    }
}

/// The text of one field.
#[derive(Clone, Copy)]
struct Text<'a> {
    name: &'a str,
    text: &'a str,
}

impl Text<'_> {
    fn parse<T: std::str::FromStr>(self, expected: impl FnOnce() -> String) -> Result<T, Wrong> {
        let wrong = |_| Wrong::field(self.name, &expected(), &format!("`{}`", clip(self.text)));
        self.text.parse().map_err(wrong)
    }
}

impl<'de> IntoDeserializer<'de, Wrong> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! whole_numbers {
    ($($method:ident, $visit:ident, $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let expected = || format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX);
            visitor.$visit(self.parse::<$type>(expected)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = Wrong;

    whole_numbers! {
        deserialize_u32, visit_u32, u32;
        deserialize_u64, visit_u64, u64;
        deserialize_i64, visit_i64, i64;
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_f64(self.parse(|| "a number".into())?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_bool(self.parse(|| "true or false".into())?)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_str(self.text)
    }

    /// A parameter without a value, `?limit=`, is one that was not given.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.text.is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Ask {
        rig: Option<String>,
        limit: Option<u32>,
        from: Option<u64>,
        max_hz: Option<f64>,
    }

    fn asked(query: &str) -> Result<Ask, Fault> {
        read(&format!("/v1/runs?{query}").parse().unwrap())
    }

    #[test]
    fn names_and_values_are_decoded_and_what_is_left_out_is_none() {
        let ask = asked("rig=a%20b+c&limit=7&from=18446744073709551615&max_hz=2.5").unwrap();
        let rig = Some("a b c".to_owned());
        assert_eq!(ask, Ask { rig, limit: Some(7), from: Some(u64::MAX), max_hz: Some(2.5) });
        assert_eq!(asked("").unwrap(), Ask::default());
        assert_eq!(asked("rig=&limit=&from=&max_hz=").unwrap(), Ask::default());
        assert_eq!(read::<Ask>(&"/v1/runs".parse().unwrap()).unwrap(), Ask::default());
    }

    #[test]
    fn what_is_wrong_is_said_by_field_expected_and_found() {
        let told = |query| {
            let fault = asked(query).unwrap_err();
            assert_eq!(fault.kind, Kind::Invalid);
            (fault.detail, fault.tensor)
        };
        let said = |detail: &str, field: &str| (detail.to_owned(), field.to_owned());
        assert_eq!(
            told("limit=abc"),
            said("query: limit: expected a whole number from 0 to 4294967295, found `abc`", "limit")
        );
        let whole = "expected a whole number from 0 to 18446744073709551615";
        assert_eq!(told("from=-1"), said(&format!("query: from: {whole}, found `-1`"), "from"));
        assert_eq!(told("from=%20"), said(&format!("query: from: {whole}, found ` `"), "from"));
        assert_eq!(told("max_hz=fast"), said("query: max_hz: expected a number, found `fast`", "max_hz"));
        let unknown = asked("limt=1").unwrap_err();
        assert_eq!(unknown.kind, Kind::Malformed);
        assert_eq!(unknown.detail, "query: unknown field `limt`; there are: limit, rig, from, max_hz");
        assert_eq!(told("from=1&from=2"), said("query: from: expected one value, found several", "from"));
    }
}
