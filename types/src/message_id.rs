//! The id by which a message takes effect at most once.

use crate::{AgentRef, limits};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// 128 bits, laid out and written like a UUID of version 7 or 8 (RFC 9562):
///
/// - made by a router: version 7, 48 bits of Unix time in milliseconds, 74 random bits;
/// - from a caller's idempotency key, and from a parent's id and a call's ordinal: version 8, a hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId([u8; 16]);

/// Who made an id, which decides how long it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageIdKind {
    /// Made by a router for one call; kept [`limits::ROUTER_ID_KEPT_MS`].
    Router,
    /// Follows from a caller's idempotency key; kept [`limits::LASTING_ID_KEPT_MS`] after it was last seen.
    Keyed,
    /// Follows from the id of the turn that made the call; kept [`limits::LASTING_ID_KEPT_MS`].
    Derived,
}

const VERSION_ROUTER: u8 = 0x70;
const VERSION_HASHED: u8 = 0x80;
const VARIANT_ROUTER_OR_KEYED: u8 = 0x80;
/// Tells sends from calls; a turn makes fewer of either.
const SEND_BIT: u32 = 1 << 31;
/// Hashed ids use one bit of the hash to tell keyed from derived.
const DERIVED_BIT: u8 = 0x20;

impl MessageId {
    pub const BYTES: usize = 16;

    /// An id made for one call at `now_ms`.
    pub fn from_router(now_ms: u64, random: u128) -> Self {
        let mut bytes = random.to_be_bytes();
        bytes[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
        bytes[6] = VERSION_ROUTER | bytes[6] & 0x0f;
        bytes[8] = VARIANT_ROUTER_OR_KEYED | bytes[8] & 0x3f;
        Self(bytes)
    }

    /// The id of every call to `agent` under the caller's `idempotency_key`.
    pub fn from_idempotency_key(agent: &AgentRef, idempotency_key: &str) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(agent.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(idempotency_key.as_bytes());
        Self::hashed(hasher.digest128(), 0)
    }

    /// The id of the `ordinal`th call that the turn of message `parent` makes.
    pub fn derived(parent: MessageId, ordinal: u32) -> Self {
        let mut input = [0; 20];
        input[..16].copy_from_slice(&parent.0);
        input[16..].copy_from_slice(&ordinal.to_be_bytes());
        Self::hashed(xxh3_128(&input), DERIVED_BIT)
    }

    /// The id of the send with that place among the calls and sends of the turn of message `parent`. Another
    /// than a call's of the same place: a turn that is run again may go another way.
    pub fn of_send(parent: MessageId, ordinal: u32) -> Self {
        Self::derived(parent, ordinal | SEND_BIT)
    }

    /// The id of what the schedule `name` of `agent` sends for a due time. `generation` tells it from earlier
    /// schedules of that name.
    pub fn of_firing(agent: &AgentRef, name: &str, generation: u64, due_ms: u64) -> Self {
        let mut hasher = Xxh3::new();
        for text in [agent.as_str(), name] {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&generation.to_be_bytes());
        hasher.update(&due_ms.to_be_bytes());
        Self::hashed(hasher.digest128(), DERIVED_BIT)
    }

    fn hashed(hash: u128, derived: u8) -> Self {
        let mut bytes = hash.to_be_bytes();
        bytes[6] = VERSION_HASHED | bytes[6] & 0x0f;
        bytes[8] = VARIANT_ROUTER_OR_KEYED | derived | bytes[8] & 0x1f;
        Self(bytes)
    }

    pub fn kind(self) -> MessageIdKind {
        match (self.0[6] & 0xf0, self.0[8] & DERIVED_BIT) {
            (VERSION_ROUTER, _) => MessageIdKind::Router,
            (_, 0) => MessageIdKind::Keyed,
            _ => MessageIdKind::Derived,
        }
    }

    /// When a router made the id, milliseconds since the Unix epoch by that router's clock.
    pub fn made_at_ms(self) -> Option<u64> {
        let mut time = [0; 8];
        time[2..].copy_from_slice(&self.0[..6]);
        (self.kind() == MessageIdKind::Router).then(|| u64::from_be_bytes(time))
    }

    /// How long the id is kept after it took effect or was last seen, in milliseconds.
    pub fn kept_ms(self) -> u64 {
        match self.kind() {
            MessageIdKind::Router => limits::ROUTER_ID_KEPT_MS,
            MessageIdKind::Keyed | MessageIdKind::Derived => limits::LASTING_ID_KEPT_MS,
        }
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageIdError> {
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| MessageIdError)?;
        match (bytes[6] & 0xf0, bytes[8] & 0xc0) {
            (VERSION_ROUTER | VERSION_HASHED, 0x80) => Ok(Self(bytes)),
            _ => Err(MessageIdError),
        }
    }
}

/// The bytes or the text are no message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id has 16 bytes, written like a UUID of version 7 or 8")]
pub struct MessageIdError;

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        if digits.len() != 32 || !text.is_ascii() {
            return Err(MessageIdError);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let high = (pair[0] as char).to_digit(16).ok_or(MessageIdError)?;
            let low = (pair[1] as char).to_digit(16).ok_or(MessageIdError)?;
            *byte = (high * 16 + low) as u8;
        }
        Self::from_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_knows_who_made_it_and_reads_back() {
        let agent: AgentRef = "bank.v1.Account/alice".parse().unwrap();
        let router = MessageId::from_router(1_700_000_000_000, u128::MAX);
        let keyed = MessageId::from_idempotency_key(&agent, "order-1");
        let derived = MessageId::derived(router, 0);
        assert_eq!(router.kind(), MessageIdKind::Router);
        assert_eq!(router.made_at_ms(), Some(1_700_000_000_000));
        assert_eq!(keyed.made_at_ms(), None);
        assert_eq!(keyed.kind(), MessageIdKind::Keyed);
        assert_eq!(derived.kind(), MessageIdKind::Derived);
        for id in [router, keyed, derived] {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(MessageId::from_bytes(id.as_bytes()), Ok(id));
        }
        assert_ne!(MessageId::derived(router, 0), MessageId::derived(router, 1));
        assert_ne!(MessageId::derived(router, 0), MessageId::of_send(router, 0));
        let firing = MessageId::of_firing(&agent, "rent", 7, 1_000);
        assert_eq!(firing.kind(), MessageIdKind::Derived);
        for other in [("ren", 7, 1_000), ("rent", 8, 1_000), ("rent", 7, 1_001)] {
            assert_ne!(MessageId::of_firing(&agent, other.0, other.1, other.2), firing);
        }
    }

    #[test]
    fn ids_that_are_stored_never_change() {
        let agent: AgentRef = "bank.v1.Account/alice".parse().unwrap();
        let keyed = MessageId::from_idempotency_key(&agent, "order-1");
        assert_eq!(keyed.to_string(), "a53817a3-8c29-8a5d-935d-c454a3c69ce9");
        assert_eq!(MessageId::derived(keyed, 7).to_string(), "47ba93dc-810c-8390-a713-5998c0732bad");
        assert_eq!(MessageId::of_send(keyed, 7), MessageId::derived(keyed, 0x8000_0007));
        let firing = MessageId::of_firing(&agent, "rent", 7, 1_700_000_000_000);
        assert_eq!(firing.to_string(), "2d2f5259-1de2-8902-b6a8-77b8ef1eb577");
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(MessageId::from_bytes(&[]).is_err());
        assert!(MessageId::from_bytes(&[0; 16]).is_err());
        assert!(MessageId::from_bytes(&[0xff; 17]).is_err());
        assert!("not-an-id".parse::<MessageId>().is_err());
    }
}
