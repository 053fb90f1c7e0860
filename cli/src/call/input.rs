//! A request's JSON: given, from a file, or from standard input.

use crate::failure::usage;
use afdg_types::limits::MESSAGE_BYTES_MAX;
use std::io::Read;

/// JSON takes more room than the message it stands for; past this it is not read.
const JSON_BYTES_MAX: usize = 8 * MESSAGE_BYTES_MAX;

/// `-` reads standard input, `@file` a file; all else is the JSON itself.
pub fn read(argument: &str) -> anyhow::Result<String> {
    if argument == "-" {
        return bounded("standard input", &mut std::io::stdin().lock());
    }
    let Some(file) = argument.strip_prefix('@') else { return Ok(argument.to_owned()) };
    match std::fs::File::open(file) {
        Ok(mut opened) => bounded(file, &mut opened),
        Err(error) => usage(format!("the request's file {file} can't be opened: {error}")),
    }
}

fn bounded(name: &str, from: &mut dyn Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if let Err(error) = from.take(JSON_BYTES_MAX as u64 + 1).read_to_end(&mut bytes) {
        return usage(format!("the request can't be read from {name}: {error}"));
    }
    if bytes.len() > JSON_BYTES_MAX {
        return usage(format!("the request from {name} has more than {JSON_BYTES_MAX} bytes"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => usage(format!("the request from {name} is not UTF-8: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_request_comes_from_the_argument_or_a_file() {
        assert_eq!(read("{\"a\":1}").unwrap(), "{\"a\":1}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"{}").unwrap();
        assert_eq!(read(&format!("@{}", file.path().display())).unwrap(), "{}");
        assert!(read("@/no/such/file").unwrap_err().to_string().contains("/no/such/file"));
    }

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        assert!(bounded("x", &mut std::io::repeat(b' ')).is_err());
        assert!(bounded("x", &mut &b"\xff"[..]).is_err());
    }
}
