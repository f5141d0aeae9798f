//! YAML as a tree that keeps what a map type would hide.

use std::collections::BTreeSet;
use std::fmt;

use figment::value::{Dict, Empty, Value};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::fault::Position;
use super::show::{number_text, quoted};

/// A YAML text as a tree. Unlike a map type it keeps entries in order, and repeated keys too, so that each can be told.
#[derive(Debug)]
pub(crate) enum Node {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// A key that stands twice in one map, and its second place.
#[derive(Debug)]
pub(crate) struct Repeated {
    pub(crate) key: String,
    pub(crate) place: Vec<usize>,
}

impl Node {
    pub(crate) fn parse(text: &str) -> Result<Self, serde_yaml::Error> {
        serde_yaml::from_str(text)
    }

    /// The tree as figment has it. Of repeated keys the last stays; ask [`Node::repeated_key`] first.
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Scalar(value) => value.clone(),
            Self::List(items) => Value::from(items.iter().map(Self::to_value).collect::<Vec<_>>()),
            Self::Map(entries) => Value::from(
                entries
                    .iter()
                    .map(|(key, node)| (key.clone(), node.to_value()))
                    .collect::<Dict>(),
            ),
        }
    }

    /// Looks for a repeated key in this node, whose own place in the text is `place`.
    pub(crate) fn repeated_key(&self, place: &[usize]) -> Option<Repeated> {
        let at = |index| [place, &[index]].concat();
        match self {
            Self::Scalar(_) => None,
            Self::List(items) => items
                .iter()
                .enumerate()
                .find_map(|(index, node)| node.repeated_key(&at(index))),
            Self::Map(entries) => {
                let mut seen = BTreeSet::new();
                entries
                    .iter()
                    .enumerate()
                    .find_map(|(index, (key, node))| match seen.insert(key) {
                        true => node.repeated_key(&at(index)),
                        false => Some(Repeated {
                            key: key.clone(),
                            place: at(index),
                        }),
                    })
            }
        }
    }

    /// What it is, without what it says: that may be nobody's business.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(Value::Empty(..)) => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// A YAML text that must be well formed and without repeated keys, as one value. The error is one line.
pub(crate) fn value_of(text: &str) -> Result<Value, String> {
    let node = Node::parse(text).map_err(|error| message(&error))?;
    match node.repeated_key(&[]) {
        Some(twice) => Err(format!("{} is written twice", quoted(&twice.key))),
        None => Ok(node.to_value()),
    }
}

pub(crate) fn position(error: &serde_yaml::Error) -> Option<Position> {
    error.location().map(|at| Position {
        line: at.line(),
        column: at.column(),
    })
}

/// The parser's words without the place, which is told in front.
pub(crate) fn message(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let text = match position(error) {
        Some(Position { line, column }) => text.replace(&format!(" at line {line} column {column}"), ""),
        None => text,
    };
    text.replace(|c: char| c.is_control(), " ")
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

/// The visits of [`NodeVisitor`] that carry a scalar.
macro_rules! visit_scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: serde::de::Error>(self, scalar: $type) -> Result<Node, E> {
            Ok(Node::Scalar(Value::from(scalar)))
        })*
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain YAML without tags")
    }

    visit_scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(Empty::None)))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = items.next_element()? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Key>()? {
            map.push((key.0, entries.next_value()?));
        }
        Ok(Node::Map(map))
    }
}

/// A map's key, as text.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Node::deserialize(deserializer)? {
            Node::Scalar(Value::String(_, text)) => Ok(Self(text)),
            Node::Scalar(Value::Empty(..)) => Ok(Self("null".to_owned())),
            Node::Scalar(Value::Bool(_, yes)) => Ok(Self(yes.to_string())),
            Node::Scalar(value) => number_text(&value)
                .map(Self)
                .ok_or_else(|| D::Error::custom("a key must be text")),
            Node::List(_) | Node::Map(_) => Err(D::Error::custom("a key must be text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_key_is_found_at_its_second_place() {
        let node = Node::parse("{a: 1, b: {c: 1, c: 2}}").unwrap();
        let twice = node.repeated_key(&[]).unwrap();
        assert_eq!((twice.key.as_str(), twice.place), ("c", vec![1, 1]));
    }
}
