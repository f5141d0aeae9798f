//! One layer of the configuration: what the defaults, the file, the environment or the flags say, field by field.
//!
//! A layer takes in only names of the schema with values of an accepted form; everything else becomes a fault. figment then
//! decides which layer wins for each field.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::fault::{Fault, Faults, Origin, nearest};
use super::field::{Field, Unfit};
use super::kubernetes;
use super::yaml::{self, Node, What};

pub(crate) const VARIABLE_PREFIX: &str = "GOREGO_";

/// A file larger than this is not a configuration. Read before anything is checked, hence bounded.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

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
                found: format!("{} ({problem})", yaml::quoted(text)),
            })
        } else if text.contains(char::REPLACEMENT_CHARACTER) {
            Err(Unfit {
                found: format!("{}, which is not UTF-8", yaml::quoted(text)),
            })
        } else {
            Ok(Value::from(text))
        };
        match value {
            Ok(value) => self.add(field, value, origin, faults),
            Err(unfit) => faults.add(unfit_fault(field, unfit, origin)),
        }
    }

    fn add(&mut self, field: &Field, value: Value, origin: Origin, faults: &mut Faults) {
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

fn read_text(path: &Path) -> Result<String, String> {
    let file = fs_err::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 from byte {}", error.utf8_error().valid_up_to()))
}

/// Sorts what the file says into fields and faults.
struct FileReader<'a> {
    text: &'a str,
    path: Arc<PathBuf>,
    fields: &'a [Field],
    layer: &'a mut Layer,
    faults: &'a mut Faults,
}

impl FileReader<'_> {
    fn read(mut self) {
        match Node::parse(self.text) {
            Ok(Node::Map(entries)) => self.section("", &entries, &mut Vec::new()),
            // An empty file, or one with comments only.
            Ok(Node::Scalar(Value::Empty(..))) => {}
            Ok(other) => {
                let origin = self.origin(&[], What::Value);
                let fault = Fault::new(origin, format!("found {}", other.describe()));
                self.faults.add(fault.accepted("a map of fields"));
            }
            Err(error) => {
                let origin = Origin::File {
                    path: Arc::clone(&self.path),
                    at: yaml::position(&error),
                };
                self.faults.add(Fault::new(origin, yaml::message(&error)));
            }
        }
    }

    fn section(&mut self, section: &str, entries: &[(String, Node)], place: &mut Vec<usize>) {
        let mut seen = BTreeSet::new();
        for (index, (key, node)) in entries.iter().enumerate() {
            place.push(index);
            let path = if section.is_empty() {
                key.clone()
            } else {
                format!("{section}.{key}")
            };
            if !seen.insert(key) {
                self.refuse_key(&path, place, "written twice", None);
            } else if key.contains('.') || key.is_empty() {
                let known = self.fields.iter().any(|field| field.path == path);
                let problem = if known {
                    "a field's path in one key"
                } else {
                    "unknown field"
                };
                self.refuse_key(
                    &path,
                    place,
                    problem,
                    known.then(|| "one map inside the other".to_owned()),
                );
            } else if let Some(field) = self.fields.iter().find(|field| field.path == path) {
                self.leaf(field, node, place);
            } else if self
                .fields
                .iter()
                .any(|field| field.path.starts_with(&format!("{path}.")))
            {
                match node {
                    Node::Map(inner) => self.section(&path, inner, place),
                    // A section whose fields are all commented out.
                    Node::Scalar(Value::Empty(..)) => {}
                    Node::Scalar(_) | Node::List(_) => {
                        let fault = Fault::new(
                            self.origin(place, What::Value),
                            format!("found {}", node.describe()),
                        );
                        self.faults.add(fault.path(path).accepted("a map of fields"));
                    }
                }
            } else {
                self.refuse_key(&path, place, "unknown field", None);
            }
            place.pop();
        }
    }

    fn leaf(&mut self, field: &Field, node: &Node, place: &mut Vec<usize>) {
        if let Some(twice) = node.repeated_key(place) {
            let origin = self.origin(&twice.place, What::Key);
            self.faults.add(
                Fault::new(origin, format!("{} is written twice", yaml::quoted(&twice.key))).path(field.path),
            );
            return;
        }
        let origin = self.origin(place, What::Value);
        self.layer.add(field, node.to_value(), origin, self.faults);
    }

    fn refuse_key(&mut self, path: &str, place: &[usize], problem: &str, accepted: Option<String>) {
        // Names are compared only for faults that will be shown.
        let unknown = accepted.is_none() && problem == "unknown field" && self.faults.has_room();
        let meant = if unknown {
            nearest(path, self.known_names())
        } else {
            None
        };
        let mut fault = Fault::new(self.origin(place, What::Key), problem)
            .path(shortened(path))
            .meant(meant);
        fault.accepted = accepted;
        self.faults.add(fault);
    }

    /// Paths of fields and of sections.
    fn known_names(&self) -> impl Iterator<Item = String> {
        let sections = self
            .fields
            .iter()
            .filter_map(|field| Some(field.path.rsplit_once('.')?.0));
        self.fields
            .iter()
            .map(|field| field.path)
            .chain(sections)
            .map(str::to_owned)
    }

    fn origin(&self, place: &[usize], what: What) -> Origin {
        let at = if self.faults.has_room() {
            yaml::locate(self.text, place, what)
        } else {
            None
        };
        Origin::File {
            path: Arc::clone(&self.path),
            at,
        }
    }
}

/// A name from the file as an error may show it.
fn shortened(path: &str) -> String {
    if path.chars().all(|c| c.is_alphanumeric() || c.is_ascii_graphic())
        && path.len() <= yaml::SHOWN_CHARS_MAX
    {
        path.to_owned()
    } else {
        yaml::quoted(path)
    }
}
