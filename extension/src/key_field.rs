//! The agent's key in a request: finding it, agreeing on it.

use crate::wire::{self, Value};
use afdg_types::{AgentRef, AgentRefError, GridError, Reason};

/// The text of field `number`, none if it is absent or empty. As everywhere in protobuf, the last
/// occurrence counts.
pub(crate) fn find(request: &[u8], number: u32) -> Result<Option<&str>, GridError> {
    let malformed = |what: String| {
        GridError::new(
            Reason::RequestMalformed,
            format!("the request is no message of the method's type: {what}"),
        )
    };
    let mut found = None;
    for field in wire::fields(request) {
        let field = field.map_err(|error| malformed(error.to_string()))?;
        if field.number == number {
            match field.value {
                Value::Bytes(bytes) => found = Some(bytes),
                Value::Other => return Err(malformed(format!("field {number}, the key, is no string"))),
            }
        }
    }
    let Some(bytes) = found.filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
    let text = str::from_utf8(bytes).map_err(|error| {
        GridError::new(Reason::KeyMalformed, format!("field {number}, the key, is not UTF-8: {error}"))
            .with("field", number)
    })?;
    Ok(Some(text))
}

/// The key that field and metadata agree on.
pub(crate) fn agree<'a>(field: Option<&'a str>, other: Option<&'a str>) -> Result<&'a str, GridError> {
    match (field, other) {
        (Some(field), Some(other)) if field != other => Err(GridError::new(
            Reason::KeyMalformed,
            "the request's key field and the key given beside the request are different agents' keys",
        )
        .with("field", "key")),
        (Some(key), _) | (None, Some(key)) => Ok(key),
        (None, None) => Err(GridError::new(
            Reason::KeyMissing,
            "the request names no agent: set the field marked (afdg.key) or the metadata entry afdg-key",
        )
        .with("field", "key")),
    }
}

/// The error for an address that is none.
pub(crate) fn refusal(error: &AgentRefError) -> GridError {
    let (reason, field) = match error {
        AgentRefError::KeyMissing => (Reason::KeyMissing, "key"),
        AgentRefError::KeyLength { .. } | AgentRefError::KeyControl { .. } => (Reason::KeyMalformed, "key"),
        AgentRefError::NoSlash { .. } | AgentRefError::TypeLength { .. } | AgentRefError::TypeText { .. } => {
            (Reason::RequestMalformed, "agent")
        }
    };
    GridError::new(reason, error.to_string()).with("field", field)
}

/// The agent of a type that is known to exist.
pub(crate) fn agent(agent_type: &str, key: &str) -> Result<AgentRef, GridError> {
    AgentRef::new(agent_type, key).map_err(|error| refusal(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::Seeded;
    use afdg_proto::key_field::put as insert;

    fn reason<T: std::fmt::Debug>(result: Result<T, GridError>) -> Reason {
        result.unwrap_err().reason
    }

    #[test]
    fn the_last_occurrence_of_the_key_counts() {
        let request = insert(&insert(b"\x10\x05", 1, "alice"), 1, "bob");
        assert_eq!(find(&request, 1), Ok(Some("bob")));
        assert_eq!(find(&request, 2).unwrap_err().reason, Reason::RequestMalformed);
        assert_eq!(find(&request, 3), Ok(None));
        assert_eq!(find(b"", 1), Ok(None));
        assert_eq!(find(&insert(b"", 1, ""), 1), Ok(None));
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        assert_eq!(reason(find(b"\x0a\x01\xff", 1)), Reason::KeyMalformed);
        assert_eq!(reason(find(b"\x0a\x05x", 1)), Reason::RequestMalformed);
        assert_eq!(reason(agent("a.B", "x\ny")), Reason::KeyMalformed);
        assert_eq!(reason(agent("a.B", &"x".repeat(513))), Reason::KeyMalformed);
        assert_eq!(reason(agree(None, None)), Reason::KeyMissing);
        assert_eq!(reason(agree(Some("a"), Some("b"))), Reason::KeyMalformed);
        assert_eq!(agree(Some("a"), Some("a")), Ok("a"));
        assert_eq!(agree(None, Some("b")), Ok("b"));
    }

    #[test]
    fn a_key_put_in_is_found_whatever_is_before_it() {
        let mut seeded = Seeded(0xf1e1d);
        let mut readable = 0;
        for _ in 0..100_000 {
            let before: Vec<u8> = (0..seeded.below(12)).map(|_| seeded.below(256) as u8).collect();
            let number = 1 + seeded.below(30) as u32;
            let was_readable = wire::fields(&before)
                .all(|field| field.is_ok_and(|f| f.number != number || f.value != Value::Other));
            // A cut message may swallow what follows it, so only whole ones tell something.
            let found = find(&insert(&before, number, "alice"), number).map(|key| key.map(str::to_owned));
            if was_readable {
                assert_eq!(found, Ok(Some("alice".to_owned())), "{before:?}");
                readable += 1;
            }
        }
        assert!(readable > 10_000);
    }
}
