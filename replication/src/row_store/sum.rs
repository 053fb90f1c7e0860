//! What the blocks of a tree add up to. It is kept with them, so that a tree of which blocks are missing, or
//! older than the others, is known by it. sled's own checksums tell of a changed
//! byte where it is read, but take what is damaged at the end of its file for a write that was cut off.

use super::StoreError;
use bytes::{Buf, BufMut};

/// The sum of a number for each block, made from its bound and its bytes; in no order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BlockSum {
    blocks: u64,
    sum: u64,
}

impl BlockSum {
    /// Of its bytes.
    pub const BYTES: usize = 16;

    pub fn add(&mut self, bound: &[u8], block: &[u8]) {
        self.blocks = self.blocks.wrapping_add(1);
        self.sum = self.sum.wrapping_add(number(bound, block));
    }

    pub fn take_away(&mut self, bound: &[u8], block: &[u8]) {
        self.blocks = self.blocks.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(number(bound, block));
    }

    /// `blocks u64, sum u64`. Little endian.
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.put_u64_le(self.blocks);
        bytes.put_u64_le(self.sum);
        bytes
    }

    pub fn decode(mut bytes: &[u8]) -> Result<Self, StoreError> {
        let broken = |_| StoreError::Malformed { found: "a broken sum of blocks".into() };
        let (blocks, sum) =
            (bytes.try_get_u64_le().map_err(broken)?, bytes.try_get_u64_le().map_err(broken)?);
        if !bytes.is_empty() {
            return Err(StoreError::Malformed { found: "a sum of blocks that is too long".into() });
        }
        Ok(Self { blocks, sum })
    }

    /// Nothing, if `written` is what was counted.
    pub fn check(self, group: u64, written: Self) -> Result<(), StoreError> {
        if self == written {
            return Ok(());
        }
        let found = format!(
            "{} blocks of group {group} that add up to {:016x}, and written were {} that add up to {:016x}",
            self.blocks, self.sum, written.blocks, written.sum
        );
        Err(StoreError::Malformed { found })
    }
}

/// The checksums of both, stirred so that sums of them tell as much as one does: the last steps of
/// SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014).
fn number(bound: &[u8], block: &[u8]) -> u64 {
    let mut bits = u64::from(crc32c::crc32c(bound)) << 32 | u64::from(crc32c::crc32c(block));
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(blocks: &[(&str, &str)]) -> BlockSum {
        let mut sum = BlockSum::default();
        blocks.iter().for_each(|(bound, block)| sum.add(bound.as_bytes(), block.as_bytes()));
        sum
    }

    #[test]
    fn a_sum_is_of_the_blocks_in_no_order() {
        let mut changed = sum(&[("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(changed, sum(&[("c", "3"), ("a", "1"), ("b", "2")]));
        changed.take_away(b"b", b"2");
        assert_eq!(changed, sum(&[("a", "1"), ("c", "3")]));
        for other in [[("a", "1"), ("c", "2")], [("a", "3"), ("c", "1")], [("b", "1"), ("c", "3")]] {
            assert_ne!(changed, sum(&other));
        }
    }

    /// Never edit the bytes: they stand for stores that exist.
    #[test]
    fn the_bytes_of_a_sum_are_frozen() {
        let bytes = sum(&[("", "block"), ("m", "other")]).encode();
        assert_eq!(bytes, FROZEN);
        assert_eq!(BlockSum::decode(&bytes).unwrap().encode(), bytes);
        for wrong in [&bytes[..15], &[&bytes[..], b"x"].concat()] {
            assert!(matches!(BlockSum::decode(wrong), Err(StoreError::Malformed { .. })));
        }
    }

    const FROZEN: &[u8] = &[2, 0, 0, 0, 0, 0, 0, 0, 50, 161, 146, 238, 242, 52, 252, 250];
}
