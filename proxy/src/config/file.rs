//! The layer that comes from a file.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::Value;

use super::fault::{Fault, Faults, Origin, nearest};
use super::field::Field;
use super::layer::Layer;
use super::locate::What;
use super::yaml::{self, Node};
use super::{locate, show};

/// A file larger than this is not a configuration. Read before anything is checked, hence bounded.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

pub(crate) fn read_text(path: &Path) -> Result<String, String> {
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
pub(crate) struct FileReader<'a> {
    pub(crate) text: &'a str,
    pub(crate) path: Arc<PathBuf>,
    pub(crate) fields: &'a [Field],
    pub(crate) layer: &'a mut Layer,
    pub(crate) faults: &'a mut Faults,
}

impl FileReader<'_> {
    pub(crate) fn read(mut self) {
        match Node::parse(self.text) {
            Ok(Node::Map(entries)) => self.section("", &entries, &mut Vec::new()),
            // An empty file, or one with comments only.
            Ok(Node::Scalar(Value::Empty(..))) => {}
            Ok(other) => {
                let origin = self.origin(&[], What::Value);
                let fault = Fault::new(origin, format!("found {}", other.kind()));
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
                        let fault =
                            Fault::new(self.origin(place, What::Value), format!("found {}", node.kind()));
                        self.faults.add(fault.path(path).accepted("a map of fields"));
                    }
                }
            } else {
                self.refuse_key(&path, place, "unknown field", None);
            }
            place.pop();
        }
    }

    fn leaf(&mut self, field: &Field, node: &Node, place: &[usize]) {
        if let Some(twice) = node.repeated_key(place) {
            let origin = self.origin(&twice.place, What::Key);
            self.faults.add(
                Fault::new(origin, format!("{} is written twice", show::quoted(&twice.key))).path(field.path),
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
            locate::locate(self.text, place, what)
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
        && path.len() <= show::SHOWN_CHARS_MAX
    {
        path.to_owned()
    } else {
        show::quoted(path)
    }
}
