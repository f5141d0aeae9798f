//! Durations with their units.

use std::time::Duration;

use figment::value::Value;

use super::field::{Leaf, Unfit};
use super::leaf::unfit;

/// Longer ones are slips of the hand, and adding them to a clock must not overflow.
const DURATION_MS_MAX: u64 = 365 * 24 * 3_600_000;

/// From the longest to the shortest, the order in which they are written.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// `1h30m`: each unit at most once, the longer ones first.
fn from_text(text: &str) -> Option<Duration> {
    let mut total_ms = 0_u64;
    let mut rest = text;
    let mut units = UNITS.iter();
    while !rest.is_empty() || total_ms == 0 && rest.len() == text.len() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        total_ms = number
            .parse::<u64>()
            .ok()?
            .checked_mul(*factor)?
            .checked_add(total_ms)?;
        rest = tail;
    }
    (total_ms <= DURATION_MS_MAX).then_some(Duration::from_millis(total_ms))
}

fn to_text(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in UNITS {
        if rest_ms >= factor {
            text.push_str(&format!("{}{unit}", rest_ms / factor));
            rest_ms %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

impl Leaf for Duration {
    fn form() -> String {
        "a duration such as `250ms`, `10s`, `5m` or `1h30m`, at most `365d`".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        value
            .as_str()
            .and_then(from_text)
            .map_or_else(|| unfit(value), Ok)
    }

    fn render(&self) -> String {
        to_text(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, millis) in [
            ("250ms", Some(250)),
            ("10s", Some(10_000)),
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("1d2h3m4s5ms", Some(93_784_005)),
            ("0s", Some(0)),
            ("90m", Some(5_400_000)),
            ("365d", Some(DURATION_MS_MAX)),
            ("365d1ms", None),
            ("18446744073709551615d", None),
            ("", None),
            ("10", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("30m1h", None),
            ("1s1s", None),
            ("1 s", None),
            ("1µs", None),
        ] {
            let parsed = Duration::parse(&Value::from(text)).ok();
            assert_eq!(parsed, millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_as_a_number_too() {
        assert!(Duration::parse(&Value::from(10)).is_err());
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "250ms", "1h30m", "1d2h3m4s5ms"] {
            assert_eq!(to_text(from_text(text).unwrap()), text);
        }
    }
}
