//! The metadata of a call, checked once.

use afdg_types::{
    GridError, Reason,
    limits::{CALL_TIMEOUT_MS_DEFAULT, CALL_TIMEOUT_MS_MAX, IDEMPOTENCY_KEY_BYTES_MAX},
};
use http::HeaderMap;
use std::{borrow::Cow, time::Duration};
use tokio::time::Instant;

const KEY: &str = "afdg-key";
const IDEMPOTENCY_KEY: &str = "afdg-idempotency-key";
const MODE: &str = "afdg-mode";
const DELAY: &str = "afdg-delay";
const MAX_STALENESS: &str = "afdg-max-staleness";
const TIMEOUT: &str = "grpc-timeout";
/// Response metadata: the id under which the message took effect.
pub(crate) const MESSAGE_ID: &str = "afdg-message-id";

/// When a call that asks for `timeout` ends; the default if it asks for none, and never past the limit.
pub(crate) fn deadline_after(timeout: Option<Duration>) -> Instant {
    let longest = Duration::from_millis(CALL_TIMEOUT_MS_MAX);
    Instant::now() + timeout.unwrap_or(Duration::from_millis(CALL_TIMEOUT_MS_DEFAULT)).min(longest)
}

/// How much earlier than a client's own deadline it is answered, at most.
const ANSWER_AHEAD_MAX: Duration = Duration::from_millis(20);

/// The timeout that the transport carries, if any, less the time that the answer needs to get back:
/// a client gives up by its own clock, and would never hear whether its message may have taken effect.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, GridError> {
    let timeout = written_timeout(headers)?;
    Ok(timeout.map(|timeout| timeout - (timeout / 10).min(ANSWER_AHEAD_MAX)))
}

fn written_timeout(headers: &HeaderMap) -> Result<Option<Duration>, GridError> {
    let Some(text) = single(headers, TIMEOUT)? else { return Ok(None) };
    let malformed = || {
        GridError::new(
            Reason::RequestMalformed,
            format!(
                "grpc-timeout '{}' is no 1 to 8 digits and one of H M S m u n, as in 500m",
                text.chars().take(20).collect::<String>().escape_debug()
            ),
        )
        .with("field", TIMEOUT)
    };
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(malformed)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let count: u64 = digits.parse().map_err(|_| malformed())?;
    match unit {
        "H" => Ok(Some(Duration::from_secs(count * 3_600))),
        "M" => Ok(Some(Duration::from_secs(count * 60))),
        "S" => Ok(Some(Duration::from_secs(count))),
        "m" => Ok(Some(Duration::from_millis(count))),
        "u" => Ok(Some(Duration::from_micros(count))),
        "n" => Ok(Some(Duration::from_nanos(count))),
        _ => Err(malformed()),
    }
}

/// Refuses what is planned but not there yet: doing as if would break what the caller counts on.
pub(crate) fn check_mode(headers: &HeaderMap) -> Result<(), GridError> {
    match single(headers, MODE)? {
        None | Some("call") => {}
        Some("send") => return Err(unsupported(MODE, "one-way messages (afdg-mode: send) are")),
        Some(_) => {
            let message = "afdg-mode is 'call' or absent";
            return Err(GridError::new(Reason::RequestMalformed, message).with("field", MODE));
        }
    }
    for (name, what) in [(DELAY, "delayed messages (afdg-delay) are"), (MAX_STALENESS, "stale reads are")] {
        if headers.contains_key(name) {
            return Err(unsupported(name, what));
        }
    }
    Ok(())
}

fn unsupported(header: &str, what: &str) -> GridError {
    GridError::new(Reason::UnknownMethod, format!("{what} not supported yet; leave out {header}"))
        .with("field", header)
        .with("resource_type", "metadata")
        .with("resource_name", header)
}

/// The agent's key beside the request. One with a `%` is percent-decoded, so that any text fits.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, GridError> {
    let malformed =
        |what: &str| GridError::new(Reason::KeyMalformed, format!("afdg-key {what}")).with("field", KEY);
    let Some(text) = single(headers, KEY)? else { return Ok(None) };
    if !text.contains('%') {
        return Ok(Some(Cow::Borrowed(text)));
    }
    let bytes = percent_decoded(text.as_bytes())
        .ok_or_else(|| malformed("has a '%' without two hexadecimal digits; write '%' itself as %25"))?;
    let text = String::from_utf8(bytes).map_err(|_| malformed("is not UTF-8 once percent-decoded"))?;
    Ok(Some(Cow::Owned(text)))
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        decoded.push((hex(high)? * 16 + hex(low)?) as u8);
        rest = after;
    }
    Some(decoded)
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, GridError> {
    let key = single(headers, IDEMPOTENCY_KEY)?;
    key.map(check_idempotency_key).transpose()
}

pub(crate) fn check_idempotency_key(key: &str) -> Result<&str, GridError> {
    if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(key);
    }
    let message =
        format!("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes; this one has {}", key.len());
    Err(GridError::new(Reason::RequestMalformed, message).with("field", "idempotency_key"))
}

/// A header that may be there once, as visible ASCII.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, GridError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let malformed = |what: &str| {
        let reason = if name == KEY { Reason::KeyMalformed } else { Reason::RequestMalformed };
        GridError::new(reason, format!("{name} {what}")).with("field", name)
    };
    if values.next().is_some() {
        return Err(malformed("is given more than once"));
    }
    let text = value.to_str().map_err(|_| malformed("holds other than visible ASCII; percent-encode it"))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let of = |text| written_timeout(&headers(&[(TIMEOUT, text)]));
        for (text, ms) in
            [("3H", 10_800_000), ("2M", 120_000), ("1S", 1_000), ("500m", 500), ("7000u", 7), ("1000000n", 1)]
        {
            assert_eq!(of(text), Ok(Some(Duration::from_millis(ms))));
        }
        for bad in ["", "5", "S", "-1S", "+1S", "123456789m", "1s", "1 S", "1.5S", "ü", "1ü"] {
            assert_eq!(of(bad).unwrap_err().reason, Reason::RequestMalformed, "{bad}");
        }
        assert_eq!(timeout(&headers(&[])), Ok(None));
        assert_eq!(timeout(&headers(&[(TIMEOUT, "100m")])), Ok(Some(Duration::from_millis(90))));
        assert_eq!(timeout(&headers(&[(TIMEOUT, "9S")])), Ok(Some(Duration::from_millis(8_980))));
        let longest = Instant::now() + Duration::from_millis(CALL_TIMEOUT_MS_MAX + 1_000);
        assert!(deadline_after(of("99999999H").unwrap()) < longest);
    }

    #[test]
    fn keys_are_percent_decoded() {
        let of = |text| key(&headers(&[(KEY, text)])).map(|key| key.unwrap().into_owned());
        assert_eq!(of("alice"), Ok("alice".to_owned()));
        assert_eq!(of("100%25%20%C3%bc"), Ok("100% ü".to_owned()));
        for bad in ["%", "%4", "%zz", "%+1", "%ff", "ü"] {
            assert_eq!(of(bad).unwrap_err().reason, Reason::KeyMalformed, "{bad}");
        }
        let twice = headers(&[(KEY, "a"), (KEY, "b")]);
        assert_eq!(key(&twice).unwrap_err().reason, Reason::KeyMalformed);
    }

    #[test]
    fn what_is_not_there_yet_is_refused() {
        let of = |name, value| check_mode(&headers(&[(name, value)])).map_err(|error| error.reason);
        assert_eq!(of(MODE, "call"), Ok(()));
        assert_eq!(of(MODE, "send"), Err(Reason::UnknownMethod));
        assert_eq!(of(MODE, "shout"), Err(Reason::RequestMalformed));
        assert_eq!(of(DELAY, "5s"), Err(Reason::UnknownMethod));
        assert_eq!(of(MAX_STALENESS, "5s"), Err(Reason::UnknownMethod));
    }

    #[test]
    fn idempotency_keys_have_bounds() {
        let of = |text: &str| idempotency_key(&headers(&[(IDEMPOTENCY_KEY, text)])).map(drop);
        assert!(of("x").is_ok() && of(&"x".repeat(256)).is_ok());
        assert!(of("").is_err() && of(&"x".repeat(257)).is_err());
    }
}
