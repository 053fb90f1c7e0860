//! A stored item as JSON, for people and tools that don't have the author's types.

use serde::de::{Deserialize, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Deepest nesting of an item that is shown.
pub const JSON_DEPTH_MAX: usize = 64;

/// MessagePack as JSON. Binary becomes a list of numbers, a key that is no text becomes its JSON text,
/// a number that JSON lacks (NaN, infinity) becomes text. Bytes that are no item, or are nested deeper
/// than [`JSON_DEPTH_MAX`], become `{"unreadable": reason, "bytes": count}`.
pub fn item_to_json(item: &[u8]) -> Value {
    let mut input = rmp_serde::Deserializer::new(item);
    input.set_max_depth(JSON_DEPTH_MAX);
    let reason = match Json::deserialize(&mut input) {
        Ok(json) if input.get_ref().is_empty() => return json.0,
        Ok(_) => format!("{} more bytes follow the item", input.get_ref().len()),
        Err(error) => error.to_string(),
    };
    serde_json::json!({ "unreadable": reason, "bytes": item.len() })
}

struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(Json)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MessagePack item")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f32<E: Error>(self, value: f32) -> Result<Value, E> {
        self.visit_f64(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Json(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((Json(key), Json(value))) = entries.next_entry()? {
            let key = match key {
                Value::String(text) => text,
                other => other.to_string(),
            };
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    /// MessagePack's extension types: `[type, bytes]`.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom("an enum that does not describe itself"))
    }
}

#[cfg(test)]
mod tests {
    use super::item_to_json;
    use serde::Serialize;
    use std::collections::BTreeMap;

    #[derive(Serialize)]
    enum Kind {
        Plain,
        Named { id: u64 },
    }

    fn shown(item: &(impl Serialize + ?Sized)) -> String {
        item_to_json(&rmp_serde::to_vec_named(item).unwrap()).to_string()
    }

    #[test]
    fn items_are_shown_without_their_type() {
        assert_eq!(shown(&(1, -2, "three", 4.5, None::<u8>, true)), r#"[1,-2,"three",4.5,null,true]"#);
        assert_eq!(shown(&[u64::MAX]), "[18446744073709551615]");
        assert_eq!(shown(&(Kind::Plain, Kind::Named { id: 7 })), r#"["Plain",{"Named":{"id":7}}]"#);
        assert_eq!(shown(&BTreeMap::from([(1, "a"), (2, "b")])), r#"{"1":"a","2":"b"}"#);
        assert_eq!(shown(&BTreeMap::from([((1, true), "a")])), r#"{"[1,true]":"a"}"#);
        assert_eq!(shown(&[f64::NAN, f64::INFINITY]), r#"["NaN","inf"]"#);
        assert_eq!(item_to_json(b"\xc4\x02\x01\xff").to_string(), "[1,255]");
        assert_eq!(item_to_json(b"\xd4\x05\x09").to_string(), "[5,[9]]");
        assert_eq!(item_to_json(b"\xa2\xff\xfe").to_string(), "[255,254]");
    }

    #[test]
    fn bytes_that_are_no_item_say_so() {
        let deep = [[0x91; 100].as_slice(), &[0xc0]].concat();
        let long = [0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0];
        for bytes in [&b""[..], b"\xc1", b"\xc0\xc0", b"\x92\x01", &deep, &long] {
            let shown = item_to_json(bytes);
            assert_eq!(shown["bytes"], bytes.len(), "{shown}");
            assert!(shown["unreadable"].is_string(), "{shown}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                item_to_json(&[first, second]);
                item_to_json(&[first, second, 0xff, 0x00, 0x91, 0xa1, 0x7f]);
            }
        }
    }
}
