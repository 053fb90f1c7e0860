//! Small text files that tell by themselves when a byte of them has changed.

use bytes::Bytes;

const KEY: &str = "crc32c = ";

/// Why a file's text can't be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("it is no text")]
    NoText,
    #[error("its checksum is wrong: it was damaged, or changed by hand")]
    Wrong,
}

/// The lines of `text`, and a last one with the CRC-32C of their bytes.
pub fn seal(text: &str) -> Bytes {
    let lines = format!("{}\n", text.trim_end_matches('\n'));
    let checksum = checksum_of(&lines);
    Bytes::from(format!("{lines}{KEY}{checksum}\n"))
}

/// The lines that were sealed. A file without a checksum is given back whole, and the flag is false.
pub fn unseal(content: &[u8]) -> Result<(&str, bool), SealError> {
    let text = std::str::from_utf8(content).map_err(|_| SealError::NoText)?;
    let Some(at) = text.rfind(KEY).filter(|&at| at == 0 || text[..at].ends_with('\n')) else {
        return Ok((text, false));
    };
    let (lines, last) = text.split_at(at);
    // Compared as text: a changed bit may turn a digit into the same one in upper case.
    let is_right =
        last.strip_prefix(KEY).and_then(|rest| rest.strip_suffix('\n')) == Some(&checksum_of(lines));
    if is_right { Ok((lines, true)) } else { Err(SealError::Wrong) }
}

fn checksum_of(lines: &str) -> String {
    format!("{:08x}", crc32c::crc32c(lines.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_bit_shows() {
        let sealed = seal("one = 1\ntwo = 2");
        assert_eq!(unseal(&sealed), Ok(("one = 1\ntwo = 2\n", true)));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(unseal(&damaged), Ok((_, true))), "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert!(!matches!(unseal(&sealed[..cut]), Ok((_, true))), "cut at {cut}");
        }
        assert_eq!(unseal(b"one = 1\n"), Ok(("one = 1\n", false)));
    }

    /// Never edit the bytes: they stand for files that exist.
    #[test]
    fn the_bytes_are_frozen() {
        assert_eq!(seal("123456789"), &b"123456789\ncrc32c = a8dab577\n"[..]);
    }
}
