//! The little of YAML that a configuration needs: a tree that keeps repeated keys, places in the text, and quoting.

use std::collections::BTreeSet;
use std::fmt;

use figment::value::{Dict, Empty, Value};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::fault::Position;

/// Characters of a found value that an error shows; enough to recognise it.
pub(crate) const SHOWN_CHARS_MAX: usize = 120;

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

    pub(crate) fn describe(&self) -> String {
        describe(&self.to_value())
    }
}

/// What stands in a value, for "found …".
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, c) => quoted(&c.to_string()),
        Value::Bool(_, yes) => yes.to_string(),
        Value::Num(_, number) => format!(
            "the number {}",
            number_text(value).unwrap_or_else(|| format!("{number:?}"))
        ),
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a map".to_owned(),
        Value::Array(..) => "a list".to_owned(),
    }
}

/// A number in digits.
pub(crate) fn number_text(value: &Value) -> Option<String> {
    let unsigned = value.to_u128().map(|number| number.to_string());
    let signed = || value.to_i128().map(|number| number.to_string());
    unsigned
        .or_else(signed)
        .or_else(|| value.to_f64().map(|number| number.to_string()))
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

/// Text as a YAML scalar on one line: bare if it is read back as the same text, else in quotes.
pub(crate) fn scalar(text: &str) -> String {
    let harmless = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "./_:-[]".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || "/.".contains(c));
    let same = || matches!(Node::parse(text), Ok(Node::Scalar(Value::String(_, read))) if read == text);
    if harmless && same() {
        text.to_owned()
    } else {
        escaped(text)
    }
}

/// Text in double quotes, shortened for an error message.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", escaped(&text[..end])),
        None => escaped(text),
    }
}

/// Text in YAML's double quotes. Whatever is not plainly printable is written by number.
pub(crate) fn escaped(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() => quoted.push(c),
            c => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
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

/// Which half of a map's entry to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Key,
    Value,
}

/// Where something stands in `text`, which was parsed before. `place` leads there: an index per map or list.
///
/// serde_yaml tells places only in errors, so the text is walked again and an error raised on arrival.
pub(crate) fn locate(text: &str, place: &[usize], what: What) -> Option<Position> {
    let seek = Seek { place, what };
    let error = seek.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    position(&error)
}

struct Seek<'p> {
    place: &'p [usize],
    what: What,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.place {
            [] => deserializer.deserialize_any(Arrived),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let (index, rest) = self
            .place
            .split_first()
            .ok_or_else(|| A::Error::custom("arrived"))?;
        for _ in 0..*index {
            entries.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if rest.is_empty() && self.what == What::Key {
            entries.next_key_seed(Seek {
                place: &[],
                what: self.what,
            })?;
        } else {
            entries.next_key::<IgnoredAny>()?;
        }
        entries.next_value_seed(Seek {
            place: rest,
            what: self.what,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let (index, rest) = self
            .place
            .split_first()
            .ok_or_else(|| A::Error::custom("arrived"))?;
        for _ in 0..*index {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Seek {
            place: rest,
            what: self.what,
        })?;
        Ok(())
    }
}

/// Refuses whatever comes: a visitor's visits are errors unless written out.
struct Arrived;

impl Visitor<'_> for Arrived {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_place(text: &str, place: &[usize], what: What, line: usize, column: usize) {
        assert_eq!(locate(text, place, what), Some(Position { line, column }));
    }

    #[test]
    fn keys_values_and_items_are_found_where_they_stand() {
        let text = "a: 1\nb:\n  \"c\": [x, y]\n  d: {e: 2}\n";
        check_place(text, &[0], What::Key, 1, 1);
        check_place(text, &[0], What::Value, 1, 4);
        check_place(text, &[1, 0], What::Key, 3, 3);
        check_place(text, &[1, 0, 1], What::Value, 3, 12);
        check_place(text, &[1, 1, 0], What::Value, 4, 10);
        check_place(text, &[1], What::Value, 3, 3);
    }

    #[test]
    fn a_repeated_key_is_found_at_its_second_place() {
        let node = Node::parse("{a: 1, b: {c: 1, c: 2}}").unwrap();
        let twice = node.repeated_key(&[]).unwrap();
        assert_eq!((twice.key.as_str(), twice.place), ("c", vec![1, 1]));
    }

    #[test]
    fn text_is_quoted_unless_it_is_read_back_as_itself() {
        for (text, written) in [
            ("10GiB", "10GiB"),
            ("127.0.0.1:8980", "127.0.0.1:8980"),
            ("true", "\"true\""),
            ("12", "\"12\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a\u{2028}\"", "\"a\\U00002028\\\"\""),
            ("[::1]:80", "\"[::1]:80\""),
            ("-", "\"-\""),
        ] {
            assert_eq!(scalar(text), written);
        }
    }
}
