//! One layer of the configuration: what the defaults, the file, the environment or the flags say, field by field.
//!
//! A layer takes in only names of the schema with values of an accepted form; everything else becomes a fault. figment then
//! decides which layer wins for each field.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::fault::{Fault, Faults, Origin, nearest};
use super::field::{Field, Unfit};
use super::file::{FileReader, read_text};
use super::yaml;
use super::{kubernetes, show};

pub(crate) const VARIABLE_PREFIX: &str = "GOREGO_";

#[derive(Debug)]
pub(crate) struct Layer {
    name: &'static str,
    leaves: BTreeMap<&'static str, (Value, Origin)>,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (path, (value, _)) in &self.leaves {
            insert(&mut root, path, value.clone());
        }
        Ok(Map::from([(Profile::Default, root)]))
    }
}

/// Puts `value` under its dotted path. It travels in a list of one: figment would join the maps of two layers, and here a map
/// is one value, of which the later layer's replaces the earlier's.
fn insert(section: &mut Dict, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            section.insert(path.to_owned(), Value::from(vec![value]));
        }
        Some((head, rest)) => {
            let mut inner = match section.remove(head) {
                Some(Value::Dict(_, dict)) => dict,
                _ => Dict::new(),
            };
            insert(&mut inner, rest, value);
            section.insert(head.to_owned(), Value::from(inner));
        }
    }
}

impl Layer {
    fn named(name: &'static str) -> Self {
        Self {
            name,
            leaves: BTreeMap::new(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn leaf(&self, path: &str) -> Option<(Value, Origin)> {
        self.leaves.get(path).cloned()
    }

    pub(crate) fn from_defaults(fields: &[Field]) -> Self {
        let mut layer = Self::named("defaults");
        for field in fields {
            let value = yaml::value_of(field.default).expect("defaults are YAML");
            layer.leaves.insert(field.path, (value, Origin::Default));
        }
        layer
    }

    pub(crate) fn from_file(path: Option<&Path>, fields: &[Field], faults: &mut Faults) -> Self {
        let mut layer = Self::named("file");
        let Some(path) = path else { return layer };
        let path = Arc::new(path.to_owned());
        match read_text(&path) {
            Ok(text) => FileReader {
                text: &text,
                path,
                fields,
                layer: &mut layer,
                faults,
            }
            .read(),
            Err(problem) => faults.add(Fault::new(Origin::File { path, at: None }, problem)),
        }
        layer
    }

    pub(crate) fn from_environment(
        env: impl Iterator<Item = (String, String)>,
        fields: &[Field],
        faults: &mut Faults,
    ) -> Self {
        let mut layer = Self::named("environment");
        // Sorted, so that the report does not depend on the order of the environment.
        let ours: BTreeMap<_, _> = env
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect();
        for (name, text) in ours {
            let origin = Origin::Variable(name.clone());
            if let Some(field) = fields.iter().find(|field| field.variable() == name) {
                layer.add_text(field, &text, origin, faults);
            } else if !kubernetes::injects(&name, &text) {
                let meant = nearest(&name, fields.iter().map(Field::variable));
                faults.add(Fault::new(origin, "no field has this environment name").meant(meant));
            }
        }
        layer
    }

    pub(crate) fn from_flags(
        flags: &[(&'static str, String)],
        fields: &[Field],
        faults: &mut Faults,
    ) -> Self {
        let mut layer = Self::named("flags");
        for (path, text) in flags {
            match fields.iter().find(|field| field.path == *path) {
                Some(field) => layer.add_text(field, text, Origin::Flag(field.flag()), faults),
                None => faults.add(Fault::new(
                    Origin::Flag((*path).to_owned()),
                    "no field has this path",
                )),
            }
        }
        layer
    }

    /// Takes a value that is only text: a variable or a flag. Only fields with parts are read as YAML, so that an instance
    /// called `9092` or `true` stays text.
    fn add_text(&mut self, field: &Field, text: &str, origin: Origin, faults: &mut Faults) {
        let value = if field.structured {
            yaml::value_of(text).map_err(|problem| Unfit {
                found: format!("{} ({problem})", show::quoted(text)),
            })
        } else if text.contains(char::REPLACEMENT_CHARACTER) {
            Err(Unfit {
                found: format!("{}, which is not UTF-8", show::quoted(text)),
            })
        } else {
            Ok(Value::from(text))
        };
        match value {
            Ok(value) => self.add(field, value, origin, faults),
            Err(unfit) => faults.add(unfit_fault(field, unfit, origin)),
        }
    }

    /// Takes a value if its field accepts it.
    pub(crate) fn add(&mut self, field: &Field, value: Value, origin: Origin, faults: &mut Faults) {
        match (field.check)(&value) {
            Ok(()) => {
                self.leaves.insert(field.path, (value, origin));
            }
            Err(unfit) => faults.add(unfit_fault(field, unfit, origin)),
        }
    }
}

fn unfit_fault(field: &Field, unfit: Unfit, origin: Origin) -> Fault {
    let found = if field.secret {
        "a value that does not fit".to_owned()
    } else {
        unfit.found
    };
    Fault::new(origin, format!("found {found}"))
        .path(field.path)
        .accepted(field.form.as_str())
}
