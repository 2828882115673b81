//! Query strings, parsed as strictly as bodies: errors name an unknown name, a repeated name or bad percent-encoding.

use serde::{
    de::{
        self, DeserializeOwned, Error as _, IntoDeserializer, Visitor,
        value::{Error, MapDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{json::located, problem::Problem};
use crate::api::percent;

/// Parses a query string (WHATWG URL, `application/x-www-form-urlencoded`: a `+` is a space).
pub(crate) fn read<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let pairs = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, Value(decode(value)?)))
        })
        .collect::<Result<Vec<_>, Problem>>()?;
    serde_path_to_error::deserialize(MapDeserializer::new(pairs.into_iter()))
        .map_err(|error| Problem::malformed(format!("in the query string, {}", located(&error))))
}

fn decode(part: &str) -> Result<String, Problem> {
    percent::decode(&part.replace('+', " "))
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Problem::malformed("the query string is not percent-encoded UTF-8"))
}

/// One value: text that is parsed as its member's type.
struct Value(String);

impl Value {
    fn number(&self) -> Result<u64, Error> {
        self.0.parse().map_err(|_| Error::custom("must be a whole number in decimal digits"))
    }
}

impl IntoDeserializer<'_, Error> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for Value {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.number()?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.number()?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.as_str() {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(Error::custom("must be true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 u8 u32 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct enum
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::api::{
        Nothing, clients::TagQuery, groups::EpochRange, joining::WelcomeQuery, key_packages::KeyPackageQuery,
    };

    fn check<T: DeserializeOwned + Debug>(query: &str, refusal: Option<&str>) {
        match (read::<T>(query), refusal) {
            (Ok(_), None) => {}
            (Err(problem), Some(part)) => {
                assert!(problem.detail().contains(part), "{query}: {}", problem.detail())
            }
            (outcome, _) => panic!("{query}: {outcome:?}"),
        }
    }

    #[test]
    fn queries_are_read_strictly() {
        check::<Nothing>("", None);
        check::<Nothing>("&", None);
        check::<Nothing>("x=1", Some("unknown field `x`"));
        check::<TagQuery>("tag=a&domain=b.example&limit=5&cursor=x", None);
        check::<TagQuery>("tag=", None);
        check::<TagQuery>("tag", None);
        check::<TagQuery>("", None);
        check::<TagQuery>("limit=5", None);
        check::<TagQuery>("tag=a&tag=b", Some("duplicate field `tag`"));
        check::<TagQuery>("tag=a&%74ag=b", Some("duplicate field `tag`"));
        check::<TagQuery>("tag=%f", Some("percent-encoded"));
        check::<TagQuery>("tag=%ff", Some("percent-encoded"));
        check::<TagQuery>("tag=a&limit=0", Some("`limit`: must be from 1 to 1000"));
        check::<TagQuery>("tag=a&limit=1001", Some("`limit`: must be from 1 to 1000"));
        check::<TagQuery>("tag=a&limit=99999999999999999999", Some("`limit`: must be a whole number"));
        check::<TagQuery>("tag=a&limit=", Some("`limit`: must be a whole number"));
        check::<TagQuery>("tag=a&limit=+1", Some("`limit`: must be a whole number"));
        check::<TagQuery>("tag=a&domain=", Some("`domain`: not a DNS name"));
        check::<EpochRange>("startEpochId=18446744073709551615", None);
        check::<EpochRange>("startEpochId=-1", Some("`startEpochId`: must be a whole number"));
        check::<EpochRange>("endEpochId=1", Some("missing field `startEpochId`"));
        check::<WelcomeQuery>("ratchetTree=true&after=00000000000000ff", None);
        check::<WelcomeQuery>("ratchetTree=1", Some("`ratchetTree`: must be true or false"));
        check::<WelcomeQuery>("after=1", Some("`after`: not the `id` of a join info"));
        check::<KeyPackageQuery>("protocolVersion=1&cipherSuite=1&receiverClientId=a", None);
        check::<KeyPackageQuery>("protocolVersion=1&cipherSuite=1&receiver_client_id=a", None);
        check::<KeyPackageQuery>(
            "protocolVersion=1&cipherSuite=1&receiver_client_id=a&receiverClientId=a",
            Some("duplicate field `receiverClientId`"),
        );
        check::<KeyPackageQuery>(
            "protocolVersion=70000&cipherSuite=1&receiverClientId=a",
            Some("`protocolVersion`: invalid value: integer"),
        );
    }

    #[test]
    fn values_are_decoded() {
        let query: TagQuery = read("tag=account_id%3Aalice%40org+x%2By").unwrap();
        assert_eq!(query.tag.as_deref(), Some("account_id:alice@org x+y"));
    }
}
