//! Fields of the schema: how one is declared, listed and read.

use figment::Figment;
use figment::value::Value;

use super::fault::Origin;
use super::layer::Layer;
use super::settings::Settings;

/// A type that a field can have.
pub(crate) trait Leaf: Sized {
    /// Never shown, neither in errors nor by `print-config`.
    const SECRET: bool = false;
    /// Has parts; in the environment it is one variable in YAML's flow form.
    const STRUCTURED: bool = false;
    /// The accepted form, in words that follow "accepted: ".
    fn form() -> String;
    fn parse(value: &Value) -> Result<Self, Unfit>;
    /// The value as YAML on one line, such that `parse` gives it back.
    fn render(&self) -> String;
}

/// A value that a field's type refuses; says what was found.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) found: String,
}

/// What [`Settings::read`] is handed: it names each field once, and gets a value for it.
pub(crate) trait Leaves {
    fn leaf<T: Leaf>(&mut self, path: &'static str, default: &'static str, help: &'static str) -> T;
}

/// One field of the schema.
#[derive(Debug)]
pub struct Field {
    /// Where it stands in the file, sections separated by dots.
    pub path: &'static str,
    /// Its default, as it would be written in the file.
    pub default: &'static str,
    /// What may be written.
    pub form: String,
    pub help: &'static str,
    pub secret: bool,
    pub(crate) structured: bool,
    pub(crate) check: fn(&Value) -> Result<(), Unfit>,
}

impl Field {
    /// `tier2.url` is `GOREGO_TIER2_URL`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!(
            "{}{}",
            super::layer::VARIABLE_PREFIX,
            self.path.replace('.', "_").to_uppercase()
        )
    }

    /// `tier2.url` is `--tier2-url`. Only some fields have a flag.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}", self.path.replace(['.', '_'], "-"))
    }
}

/// Every field there is, in the schema's order.
#[must_use]
pub fn fields() -> Vec<Field> {
    let mut listing = Listing(Vec::new());
    Settings::read(&mut listing);
    listing.0
}

/// What a type makes of a default, which is written in the source and therefore fits.
fn default_value<T: Leaf>(path: &str, default: &str) -> T {
    let value = super::yaml::value_of(default).expect("defaults are YAML");
    T::parse(&value).unwrap_or_else(|unfit| panic!("default of {path} found {}", unfit.found))
}

/// Gives every field its default.
pub(crate) struct Defaults;

impl Leaves for Defaults {
    fn leaf<T: Leaf>(&mut self, path: &'static str, default: &'static str, _help: &'static str) -> T {
        default_value(path, default)
    }
}

struct Listing(Vec<Field>);

impl Leaves for Listing {
    fn leaf<T: Leaf>(&mut self, path: &'static str, default: &'static str, help: &'static str) -> T {
        self.0.push(Field {
            path,
            default,
            form: T::form(),
            help,
            secret: T::SECRET,
            structured: T::STRUCTURED,
            check: |value| T::parse(value).map(drop),
        });
        default_value(path, default)
    }
}

/// A field's effective value.
#[derive(Debug)]
pub(crate) struct Effective {
    pub(crate) path: &'static str,
    /// As YAML on one line.
    pub(crate) rendered: String,
    pub(crate) origin: Origin,
}

/// Reads the schema's values from the layers, of which the last that names a field wins.
pub(crate) struct Reader {
    layers: Vec<Layer>,
    merged: Figment,
    effective: Vec<Effective>,
}

impl Reader {
    pub(crate) fn new(layers: Vec<Layer>) -> Self {
        let merged = layers
            .iter()
            .fold(Figment::new(), |merged, layer| merged.merge(layer));
        Self {
            layers,
            merged,
            effective: Vec::new(),
        }
    }

    pub(crate) fn into_effective(self) -> Vec<Effective> {
        self.effective
    }

    fn winner(&self, path: &str) -> Option<(Value, Origin)> {
        let from = self.merged.find_metadata(path)?;
        self.layers
            .iter()
            .find(|layer| layer.name() == from.name)?
            .leaf(path)
    }
}

impl Leaves for Reader {
    fn leaf<T: Leaf>(&mut self, path: &'static str, default: &'static str, _help: &'static str) -> T {
        // Layers hold only values that passed the field's check, so this one parses.
        let written = self
            .winner(path)
            .and_then(|(value, origin)| Some((T::parse(&value).ok()?, origin)));
        let (value, origin) = written.unwrap_or_else(|| (default_value::<T>(path, default), Origin::Default));
        self.effective.push(Effective {
            path,
            rendered: value.render(),
            origin,
        });
        value
    }
}
