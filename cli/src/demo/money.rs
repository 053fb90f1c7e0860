//! Amounts of money: cents, exactly. No amount is ever a floating-point number.

use std::fmt;

/// A sum of money in cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cents(pub i64);

impl Cents {
    /// None past the largest sum that 64 bits hold.
    pub fn plus(self, other: Cents) -> Option<Cents> {
        self.0.checked_add(other.0).map(Cents)
    }
}

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAmount {
    Empty,
    Negative,
    NotANumber,
    TooManyDecimals,
    TooLarge,
}

impl fmt::Display for NoAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::Negative => "is negative",
            Self::NotANumber => "is no amount; write digits, and a point with one or two more at most",
            Self::TooManyDecimals => "has more than two decimals",
            Self::TooLarge => "is larger than 64 bits of cents can hold",
        })
    }
}

impl std::str::FromStr for Cents {
    type Err = NoAmount;

    /// Reads `12`, `12.5` and `12.50`; from 0 up.
    fn from_str(text: &str) -> Result<Self, NoAmount> {
        if text.is_empty() {
            return Err(NoAmount::Empty);
        }
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, decimals) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        if !digits(whole) || !digits(decimals) {
            return Err(NoAmount::NotANumber);
        }
        if unsigned.len() < text.len() {
            return Err(NoAmount::Negative);
        }
        let parts: i64 = match decimals.len() {
            1 => decimals.parse::<i64>().map_err(|_| NoAmount::NotANumber)? * 10,
            2 => decimals.parse().map_err(|_| NoAmount::NotANumber)?,
            _ => return Err(NoAmount::TooManyDecimals),
        };
        // Digits alone fail to parse only when they are too many.
        let whole: i64 = whole.parse().map_err(|_| NoAmount::TooLarge)?;
        let cents = whole.checked_mul(100).and_then(|cents| cents.checked_add(parts));
        cents.map(Cents).ok_or(NoAmount::TooLarge)
    }
}

impl fmt::Display for Cents {
    /// `2,500,315.63`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let all = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", crate::admin::grouped(all / 100), all % 100)
    }
}

impl serde::Serialize for Cents {
    /// As decimal text without separators, `"2500315.63"`: a JSON number would be read as a float.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.to_string().replace(',', ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_exactly() {
        for (text, cents) in [
            ("0", 0),
            ("0.00", 0),
            ("12", 1_200),
            ("12.5", 1_250),
            ("12.05", 1_205),
            ("0.29", 29),
            ("007.10", 710),
            ("92233720368547758.07", i64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Cents(cents)), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_the_reason() {
        for (text, why) in [
            ("", NoAmount::Empty),
            ("-1", NoAmount::Negative),
            ("-0.00", NoAmount::Negative),
            ("1.234", NoAmount::TooManyDecimals),
            ("1.2.3", NoAmount::NotANumber),
            ("1e3", NoAmount::NotANumber),
            ("+1", NoAmount::NotANumber),
            (" 1", NoAmount::NotANumber),
            ("1.", NoAmount::NotANumber),
            (".5", NoAmount::NotANumber),
            ("-", NoAmount::NotANumber),
            ("NaN", NoAmount::NotANumber),
            ("١", NoAmount::NotANumber),
            ("92233720368547758.08", NoAmount::TooLarge),
            ("99999999999999999999", NoAmount::TooLarge),
        ] {
            assert_eq!(text.parse::<Cents>(), Err(why), "{text}");
        }
    }

    #[test]
    fn sums_are_told_as_people_write_them() {
        assert_eq!(Cents(250_031_563).to_string(), "2,500,315.63");
        assert_eq!(Cents(5).to_string(), "0.05");
        assert_eq!(Cents(-150).to_string(), "-1.50");
        assert_eq!(serde_json::to_string(&Cents(250_031_563)).unwrap(), "\"2500315.63\"");
        assert_eq!(Cents(i64::MAX).plus(Cents(1)), None);
    }
}
