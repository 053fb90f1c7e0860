//! The field of a request that holds the agent's key: put in where the caller named the agent elsewhere.

use bytes::{Bytes, BytesMut};
use prost::encoding::{DecodeContext, WireType, decode_key, encode_key, encode_varint, skip_field};

/// Tag and length of a field.
const FIELD_BYTES_MAX: usize = 16;

/// The request with the key in field `number`, which is empty or absent in it. It stands where it does when a caller
/// sets it, before the fields with greater numbers, so that both are the same request to whoever compares them.
pub fn put(request: &[u8], number: u32, key: &str) -> Bytes {
    let (before, after) = request.split_at(place_of(request, number).unwrap_or(request.len()));
    let mut message = BytesMut::with_capacity(request.len() + key.len() + FIELD_BYTES_MAX);
    message.extend_from_slice(before);
    encode_key(number, WireType::LengthDelimited, &mut message);
    encode_varint(key.len() as u64, &mut message);
    message.extend_from_slice(key.as_bytes());
    message.extend_from_slice(after);
    message.freeze()
}

/// Where the first field with a greater number begins; none if there is none, or if an empty key comes after it, since
/// of two the last one counts.
fn place_of(request: &[u8], number: u32) -> Option<usize> {
    let mut rest = request;
    let mut place = None;
    while !rest.is_empty() {
        let at = request.len() - rest.len();
        // What can't be read is the handler's to refuse.
        let (field, wire_type) = decode_key(&mut rest).ok()?;
        if field > number {
            place.get_or_insert(at);
        } else if field == number && place.is_some() {
            return None;
        }
        skip_field(wire_type, field, &mut rest, DecodeContext::default()).ok()?;
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_where_a_caller_puts_it() {
        assert_eq!(put(b"", 1, "ann"), b"\x0a\x03ann"[..]);
        assert_eq!(put(b"\x10\x05", 1, "ann"), b"\x0a\x03ann\x10\x05"[..], "before field 2");
        assert_eq!(put(b"\x08\x01\x18\x05", 2, "ann"), b"\x08\x01\x12\x03ann\x18\x05"[..], "between 1 and 3");
        assert_eq!(put(b"\x08\x01", 2, "ann"), b"\x08\x01\x12\x03ann"[..], "behind 1");
        assert_eq!(
            put(b"\x0a\x00\x10\x05", 1, "ann"),
            b"\x0a\x00\x0a\x03ann\x10\x05"[..],
            "behind an empty one"
        );
    }

    #[test]
    fn it_is_the_last_one_in_what_is_in_no_order_or_no_message() {
        assert_eq!(put(b"\x10\x05\x0a\x00", 1, "ann"), b"\x10\x05\x0a\x00\x0a\x03ann"[..]);
        assert_eq!(put(b"\x10\x05\x12\x09x", 1, "ann"), b"\x10\x05\x12\x09x\x0a\x03ann"[..]);
    }
}
