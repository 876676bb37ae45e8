//! Amounts as people write them: ARIA with up to nine digits behind the point. Exact, without floating point.

use std::fmt;
use std::str::FromStr;

use aria_chain::units::NanoAria;

/// Nano-ARIA of one ARIA.
const ONE: u64 = 1_000_000_000;
/// Digits behind the point.
const DIGITS: usize = 9;

/// An amount of money on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub NanoAria);

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Amount, String> {
        let form =
            || format!("`{text}` is no amount; write ARIA with up to {DIGITS} digits behind the point, as in 1.5");
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(part) || part.len() > DIGITS {
            return Err(form());
        }
        let whole: u64 = whole.parse().map_err(|_| form())?;
        let part: u64 = format!("{part:0<DIGITS$}").parse().map_err(|_| form())?;
        let nano = whole.checked_mul(ONE).and_then(|nano| nano.checked_add(part));
        nano.map(|nano| Amount(NanoAria::new(nano))).ok_or_else(|| format!("`{text}` is more than there can ever be"))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0.get() / ONE, self.0.get() % ONE);
        let digits = format!("{part:0DIGITS$}");
        let digits = digits.trim_end_matches('0');
        let text = if digits.is_empty() { format!("{whole} ARIA") } else { format!("{whole}.{digits} ARIA") };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        for (text, nano, shown) in [
            ("0", 0, "0 ARIA"),
            ("1", 1_000_000_000, "1 ARIA"),
            ("1.5", 1_500_000_000, "1.5 ARIA"),
            ("0.000000001", 1, "0.000000001 ARIA"),
            ("18446744073.709551615", u64::MAX, "18446744073.709551615 ARIA"),
        ] {
            assert_eq!(text.parse(), Ok(Amount(NanoAria::new(nano))));
            assert_eq!(Amount(NanoAria::new(nano)).to_string(), shown);
        }
        assert_eq!(format!("{:>10}", Amount(NanoAria::new(ONE))), "    1 ARIA");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "1,5",
            "1e9",
            "1.0000000001",
            " 1",
            "18446744073.709551616",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }
}
