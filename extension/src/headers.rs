//! The metadata of a call, checked once.

use afdg_types::{
    GridError, Purpose, Reason, Sending,
    limits::{CALL_TIMEOUT_MS_DEFAULT, CALL_TIMEOUT_MS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, SEND_DELAY_MS_MAX},
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

/// Whether the caller waits for an answer, and how long its message is held back if not.
pub(crate) fn purpose(headers: &HeaderMap, now_ms: u64) -> Result<Purpose, GridError> {
    if headers.contains_key(MAX_STALENESS) {
        // Doing as if would break what the caller counts on.
        let text = format!("stale reads are not supported yet; leave out {MAX_STALENESS}");
        return Err(GridError::new(Reason::UnknownMethod, text)
            .with("field", MAX_STALENESS)
            .with("resource_type", "metadata")
            .with("resource_name", MAX_STALENESS));
    }
    let malformed = |field, what: &str| GridError::new(Reason::RequestMalformed, what).with("field", field);
    let delay = single(headers, DELAY)?;
    match single(headers, MODE)? {
        None | Some("call") if delay.is_none() => Ok(Purpose::Call),
        None | Some("call") => {
            Err(malformed(DELAY, "only a send can be held back: afdg-delay goes with 'afdg-mode: send'"))
        }
        Some("send") => {
            let delay_ms = delay.map(delay_ms).transpose()?.unwrap_or(0);
            sending(delay_ms, now_ms).map_err(|error| error.with("field", DELAY))
        }
        Some(_) => Err(malformed(MODE, "afdg-mode is 'call', 'send' or absent")),
    }
}

/// The generic service has fields for what these say: where they are given all the same, doing as if they were
/// not there would break what the caller counts on.
pub(crate) fn refuse_messaging(headers: &HeaderMap) -> Result<(), GridError> {
    for (name, instead) in [
        (KEY, "the field 'agent'"),
        (IDEMPOTENCY_KEY, "the field 'idempotency_key'"),
        (MODE, "Send in place of Call"),
        (DELAY, "the field 'delay_ms' of Send"),
        (MAX_STALENESS, "nothing: stale reads are not supported yet"),
    ] {
        if headers.contains_key(name) {
            let text = format!("{name} is for an agent's own service; here it is {instead}");
            return Err(GridError::new(Reason::RequestMalformed, text).with("field", name));
        }
    }
    Ok(())
}

/// A client's send that is held back for so long.
pub(crate) fn sending(delay_ms: u64, now_ms: u64) -> Result<Purpose, GridError> {
    if delay_ms > SEND_DELAY_MS_MAX {
        let text =
            format!("a message is held back for {SEND_DELAY_MS_MAX} ms at most; this one for {delay_ms}");
        return Err(GridError::new(Reason::RequestMalformed, text));
    }
    let due_ms = if delay_ms == 0 { 0 } else { now_ms + delay_ms };
    Ok(Purpose::Send(Sending { due_ms, ..Sending::default() }))
}

/// `500ms`, `5s`, `10m`, `2h`, `1d` in milliseconds.
fn delay_ms(text: &str) -> Result<u64, GridError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0_u64,
    };
    let ms = count.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_ms));
    ms.filter(|_| unit_ms > 0).ok_or_else(|| {
        let shown = text.chars().take(20).collect::<String>().escape_debug().to_string();
        let text = format!("afdg-delay '{shown}' is no number with one of ms s m h d, as in 500ms");
        GridError::new(Reason::RequestMalformed, text).with("field", DELAY)
    })
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
    fn the_generic_service_takes_no_metadata_of_messages() {
        assert_eq!(refuse_messaging(&headers(&[(TIMEOUT, "5S"), ("traceparent", "x")])), Ok(()));
        for name in [KEY, IDEMPOTENCY_KEY, MODE, DELAY, MAX_STALENESS] {
            let refused = refuse_messaging(&headers(&[(name, "x")])).unwrap_err();
            assert_eq!(refused.reason, Reason::RequestMalformed, "{name}");
            assert!(refused.message.starts_with(name), "{}", refused.message);
        }
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
    fn a_message_is_a_call_or_a_send_that_may_be_held_back() {
        let of =
            |pairs: &[(&'static str, &str)]| purpose(&headers(pairs), 1_000).map_err(|error| error.reason);
        let send = |due_ms| Ok(Purpose::Send(Sending { due_ms, ..Sending::default() }));
        assert_eq!(of(&[]), Ok(Purpose::Call));
        assert_eq!(of(&[(MODE, "call")]), Ok(Purpose::Call));
        assert_eq!(of(&[(MODE, "send")]), send(0));
        assert_eq!(of(&[(MODE, "shout")]), Err(Reason::RequestMalformed));
        for (delay, ms) in [("0s", 0), ("500ms", 1_500), ("5s", 6_000), ("2m", 121_000), ("1h", 3_601_000)] {
            assert_eq!(of(&[(MODE, "send"), (DELAY, delay)]), send(ms));
        }
        for bad in ["", "5", "s", "5 s", "-5s", "5w", "1.5s", "99999999999999999999s", "367d"] {
            assert_eq!(of(&[(MODE, "send"), (DELAY, bad)]), Err(Reason::RequestMalformed), "{bad}");
        }
        assert_eq!(of(&[(DELAY, "5s")]), Err(Reason::RequestMalformed));
        assert_eq!(of(&[(MAX_STALENESS, "5s")]), Err(Reason::UnknownMethod));
    }

    #[test]
    fn idempotency_keys_have_bounds() {
        let of = |text: &str| idempotency_key(&headers(&[(IDEMPOTENCY_KEY, text)])).map(drop);
        assert!(of("x").is_ok() && of(&"x".repeat(256)).is_ok());
        assert!(of("").is_err() && of(&"x".repeat(257)).is_err());
    }
}
