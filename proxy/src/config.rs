//! Configuration: defaults, then a YAML file, then the environment, then flags. Parsed once, all faults reported together.
//!
//! `Settings::read` is the schema: one line per field with its path, default and help. The table of
//! fields, the environment names, the reader and the documentation all come from it, so none can forget a field.
//! `Settings` (as written) becomes [`Config`] (as checked), and only [`Config`] travels.

mod check;
mod checked;
mod duration;
mod fault;
mod field;
mod file;
mod instances;
mod kubernetes;
mod layer;
mod leaf;
mod locate;
mod print;
mod secret;
mod settings;
mod show;
mod size;
#[cfg(test)]
mod tests;
mod url;
mod words;
mod yaml;

use std::path::Path;

use self::fault::Faults;
use self::field::{Effective, Reader};
use self::layer::Layer;
use self::settings::Settings;

pub use self::checked::{Config, Limits, Tier1, Tier2, Tier2Place, Upstream};
pub use self::fault::{ConfigErrors, Fault, Origin, Position};
pub use self::field::{Field, fields};
pub use self::instances::UpstreamInstances;
pub use self::print::fields_as_markdown;
pub use self::secret::Secret;
pub use self::settings::{Cas, Log, Readiness, Shutdown, Touch, Upload};
pub use self::size::ByteSize;
pub use self::url::UpstreamUrl;
pub use self::words::{Repair, Tier1Write, WhenDown};

/// A configuration without faults, and where each of its values came from.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    effective: Vec<Effective>,
}

impl Loaded {
    /// Every field's path and where its value came from, in the schema's order.
    pub fn origins(&self) -> impl Iterator<Item = (&'static str, &Origin)> {
        self.effective.iter().map(|leaf| (leaf.path, &leaf.origin))
    }

    /// The effective values as a YAML file, each with a comment that says where it came from. Secrets are hidden.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        print::effective_as_yaml(&self.effective)
    }
}

/// Reads all four layers and checks them. Touches no file but `file`, and no port.
///
/// `env` is the process's environment as data; names that do not begin with `GOREGO_` are skipped. `flags` are pairs of a
/// field's path and the text given for it.
///
/// # Errors
/// All faults of all layers at once.
pub fn load(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[(&'static str, String)],
) -> Result<Loaded, ConfigErrors> {
    let fields = fields();
    let mut faults = Faults::default();
    let layers = vec![
        Layer::from_defaults(&fields),
        Layer::from_file(file, &fields, &mut faults),
        Layer::from_environment(env, &fields, &mut faults),
        Layer::from_flags(flags, &fields, &mut faults),
    ];
    let mut reader = Reader::new(layers);
    let settings = Settings::read(&mut reader);
    let effective = reader.into_effective();
    let config = check::check(settings, &effective, &mut faults);
    match (config, faults.into_errors()) {
        (Some(config), None) => Ok(Loaded { config, effective }),
        (_, errors) => Err(errors.expect("the checks refuse nothing without a fault")),
    }
}
