//! The types that fields have, as far as they need no file of their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use figment::value::Value;

use super::field::{Leaf, Unfit};
use super::show;

/// Refuses a value.
pub(crate) fn unfit<T>(value: &Value) -> Result<T, Unfit> {
    Err(Unfit {
        found: show::describe(value),
    })
}

/// Text that stands in one line. Control characters belong into no path and no name, and would break logs.
pub(crate) fn plain_text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.chars().any(char::is_control))
}

/// A whole number, written as such or (in the environment) as text.
pub(crate) fn whole_number(value: &Value) -> Option<u64> {
    match value.as_str() {
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Some(_) => None,
        None => u64::try_from(value.to_u128()?).ok(),
    }
}

impl Leaf for bool {
    fn form() -> String {
        "`true` or `false`".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        match (value.to_bool(), value.as_str()) {
            (Some(yes), _) => Ok(yes),
            (None, Some("true")) => Ok(true),
            (None, Some("false")) => Ok(false),
            (None, _) => unfit(value),
        }
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

/// A whole number with limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounded<const LEAST: u32, const MOST: u32>(u32);

impl<const LEAST: u32, const MOST: u32> Bounded<LEAST, MOST> {
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl<const LEAST: u32, const MOST: u32> Leaf for Bounded<LEAST, MOST> {
    fn form() -> String {
        format!("a whole number from {LEAST} to {MOST}")
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        match whole_number(value).map(u32::try_from) {
            Some(Ok(number)) if (LEAST..=MOST).contains(&number) => Ok(Self(number)),
            _ => unfit(value),
        }
    }

    fn render(&self) -> String {
        self.0.to_string()
    }
}

/// A part of a whole, from 1 % to 100 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Percent(u8);

impl Percent {
    pub(crate) fn of(self, whole: u64) -> u64 {
        let part = u128::from(whole) * u128::from(self.0) / 100;
        u64::try_from(part).expect("a part is not more than the whole")
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl Leaf for Percent {
    fn form() -> String {
        "a percentage from 1 to 100, such as `95` or `95%`".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        let digits = value
            .as_str()
            .map(|text| Value::from(text.trim_end_matches('%').trim_end()));
        match whole_number(digits.as_ref().unwrap_or(value)).map(u8::try_from) {
            Some(Ok(percent)) if (1..=100).contains(&percent) => Ok(Self(percent)),
            _ => unfit(value),
        }
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

impl Leaf for SocketAddr {
    fn form() -> String {
        "an IP address and a port, such as `127.0.0.1:8980` or `\"[::1]:8980\"`; port 0 lets the system choose".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        match value.as_str().and_then(|text| text.parse().ok()) {
            Some(address) => Ok(address),
            None => unfit(value),
        }
    }

    fn render(&self) -> String {
        show::scalar(&self.to_string())
    }
}

impl Leaf for PathBuf {
    fn form() -> String {
        "a path; a relative one starts at the working directory".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        match plain_text(value) {
            Some(path) if !path.is_empty() => Ok(path.into()),
            _ => unfit(value),
        }
    }

    fn render(&self) -> String {
        show::scalar(&self.to_string_lossy())
    }
}

/// A field that may be left open: `null` in the file. Empty text says the same, unless it is a value of the type itself.
impl<T: Leaf> Leaf for Option<T> {
    const SECRET: bool = T::SECRET;
    const STRUCTURED: bool = T::STRUCTURED;

    fn form() -> String {
        format!("{}, or `null`", T::form())
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        match (T::parse(value), value) {
            (Ok(inner), _) => Ok(Some(inner)),
            (Err(_), Value::Empty(..)) => Ok(None),
            (Err(_), Value::String(_, text)) if text.is_empty() => Ok(None),
            (Err(unfit), _) => Err(unfit),
        }
    }

    fn render(&self) -> String {
        self.as_ref().map_or_else(|| "null".to_owned(), T::render)
    }
}

impl<K: Leaf + Ord, V: Leaf> Leaf for BTreeMap<K, V> {
    const SECRET: bool = V::SECRET;
    const STRUCTURED: bool = true;

    fn form() -> String {
        format!(
            "a map such as `{{a: b, c: d}}` from {} to {}",
            K::form(),
            V::form()
        )
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        let Some(dict) = value.as_dict() else {
            return if matches!(value, Value::Empty(..)) {
                Ok(Self::new())
            } else {
                unfit(value)
            };
        };
        let inside = |key: &str, unfit: Unfit| Unfit {
            found: format!("{} under {}", unfit.found, show::quoted(key)),
        };
        dict.iter()
            .map(|(key, value)| {
                let name = K::parse(&Value::from(key.as_str())).map_err(|unfit| Unfit {
                    found: format!("the key {}", unfit.found),
                })?;
                Ok((name, V::parse(value).map_err(|unfit| inside(key, unfit))?))
            })
            .collect()
    }

    fn render(&self) -> String {
        let entries: Vec<_> = self
            .iter()
            .map(|(key, value)| format!("{}: {}", key.render(), value.render()))
            .collect();
        format!("{{{}}}", entries.join(", "))
    }
}
