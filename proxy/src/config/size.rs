//! Sizes with their units.

use std::fmt;

use figment::value::Value;

use super::field::{Leaf, Unfit};
use super::leaf::{unfit, whole_number};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const BINARY: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];
const DECIMAL: [(&str, u64); 4] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

impl ByteSize {
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }

    fn from_text(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        let factor = match BINARY.iter().chain(&DECIMAL).find(|(name, _)| *name == unit) {
            Some((_, factor)) => *factor,
            None if unit.is_empty() || unit == "B" => 1,
            None => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BINARY
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
        {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Leaf for ByteSize {
    fn form() -> String {
        "a size such as `10GiB`, `512MiB`, `1500KB` or `4096` (bytes)".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        let size = whole_number(value)
            .map(Self)
            .or_else(|| value.as_str().and_then(Self::from_text));
        size.map_or_else(|| unfit(value), Ok)
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("7B", Some(7)),
            ("1KiB", Some(1024)),
            ("512MiB", Some(512 << 20)),
            ("10 GiB", Some(10 << 30)),
            ("2TiB", Some(2 << 40)),
            ("1500KB", Some(1_500_000)),
            ("3MB", Some(3_000_000)),
            ("3GB", Some(3_000_000_000)),
            ("16777215TiB", Some(16_777_215 << 40)),
            ("16777216TiB", None),
            ("18446744073709551616", None),
            ("", None),
            ("GiB", None),
            ("1.5GiB", None),
            ("-1", None),
            ("1gib", None),
            ("1G", None),
        ] {
            assert_eq!(
                ByteSize::parse(&Value::from(text)).ok(),
                bytes.map(ByteSize),
                "{text}"
            );
        }
    }

    #[test]
    fn a_size_is_written_in_its_largest_whole_unit() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1KiB"),
            (1536, "1536"),
            (3 << 30, "3GiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
