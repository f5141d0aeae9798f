//! Values that nobody may see.

use std::fmt;

use figment::value::Value;

use super::field::{Leaf, Unfit};
use super::leaf::{plain_text, unfit};

/// Text that is shown nowhere: not by `Debug`, not in errors, not by `print-config`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that has to send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Leaf for Secret {
    const SECRET: bool = true;

    fn form() -> String {
        "text".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        plain_text(value).map_or_else(|| unfit(value), |text| Ok(Self(text.to_owned())))
    }

    fn render(&self) -> String {
        "\"(hidden)\"".to_owned()
    }
}
