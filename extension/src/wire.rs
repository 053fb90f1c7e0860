//! Reading protobuf's wire format without a schema.
//!
//! Works on bytes of strangers: every length is checked, nothing is copied, groups nest to a bound.

use std::fmt;

/// Groups within groups.
const GROUP_DEPTH_MAX: usize = 100;

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A string, bytes, message or packed list.
    Bytes(&'a [u8]),
    /// Any other wire type; what it holds does not matter here.
    Other,
}

/// The bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The top-level fields of a message, in order. Ends after the first error.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

pub(crate) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<Field<'a>, Malformed> {
        let (number, wire_type) = self.tag()?;
        let value = match wire_type {
            2 => Value::Bytes(self.length_delimited()?),
            4 => return Err(Malformed("a group ends that did not begin")),
            _ => {
                self.skip(number, wire_type)?;
                Value::Other
            }
        };
        Ok(Field { number, value })
    }

    fn skip(&mut self, number: u32, wire_type: u8) -> Result<(), Malformed> {
        match wire_type {
            0 => self.varint().map(drop),
            1 => self.take(8).map(drop),
            2 => self.length_delimited().map(drop),
            3 => self.skip_group(number),
            5 => self.take(4).map(drop),
            _ => Err(Malformed("a field has a wire type that does not exist")),
        }
    }

    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        let mut open = vec![number];
        while let Some(innermost) = open.last() {
            match self.tag()? {
                (number, 4) if number == *innermost => {
                    open.pop();
                }
                (_, 4) => return Err(Malformed("a group ends that did not begin")),
                (_, 3) if open.len() >= GROUP_DEPTH_MAX => return Err(Malformed("groups nest too deeply")),
                (number, 3) => open.push(number),
                (number, wire_type) => self.skip(number, wire_type)?,
            }
        }
        Ok(())
    }

    fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed("a field's number is too large"))?;
        match tag >> 3 {
            0 => Err(Malformed("a field has the number 0")),
            number => Ok((number, (tag & 7) as u8)),
        }
    }

    fn length_delimited(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) =
            self.rest.split_at_checked(bytes).ok_or(Malformed("a field ends after the message"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take(1)? else { break };
            // The tenth byte holds one bit.
            if shift == 63 && *byte > 1 {
                break;
            }
            value |= u64::from(*byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number has more than 64 bits"))
    }
}

/// Appends a field that holds bytes.
#[cfg(test)]
pub(crate) fn put_bytes_field(message: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_varint(message, u64::from(number) << 3 | 2);
    put_varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

#[cfg(test)]
fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Numbers that are the same in every run (xorshift64*).
    pub(crate) struct Seeded(pub(crate) u64);

    impl Seeded {
        pub(crate) fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
        }
    }

    fn read(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        fields(message).map(|field| field.map(|field| (field.number, field.value))).collect()
    }

    #[test]
    fn every_wire_type_is_passed_over() {
        let message = [
            0x08, 0x96, 0x01, // 1: varint
            0x11, 1, 2, 3, 4, 5, 6, 7, 8, // 2: 64 bits
            0x1a, 2, b'h', b'i', // 3: bytes
            0x23, 0x2b, 0x08, 1, 0x2c, 0x24, // 4: group with group 5
            0x35, 1, 2, 3, 4, // 6: 32 bits
        ];
        let expected = [
            (1, Value::Other),
            (2, Value::Other),
            (3, Value::Bytes(b"hi")),
            (4, Value::Other),
            (6, Value::Other),
        ];
        assert_eq!(read(&message), Ok(expected.to_vec()));
        for cut in 1..message.len() {
            let whole = [3, 12, 16, 22].contains(&cut);
            assert_eq!(read(&message[..cut]).is_ok(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn broken_messages_are_refused() {
        let deep = vec![0x0b; 200];
        for bad in [
            &[0x00][..],
            &[0x02, 0],
            &[0x0c],
            &[0x0b, 0x14],
            &[0x0e],
            &[0x0f],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0],
            &deep,
        ] {
            assert!(read(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn random_bytes_neither_panic_nor_loop() {
        let mut seeded = Seeded(0x5eed);
        for _ in 0..200_000 {
            let bytes: Vec<u8> = (0..seeded.below(40)).map(|_| seeded.below(256) as u8).collect();
            assert!(fields(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn what_is_put_reads_back() {
        let mut message = Vec::new();
        put_bytes_field(&mut message, 536_870_911, &[7; 300]);
        put_bytes_field(&mut message, 1, b"");
        let expected = [(536_870_911, Value::Bytes(&[7; 300][..])), (1, Value::Bytes(b""))];
        assert_eq!(read(&message), Ok(expected.to_vec()));
    }
}
