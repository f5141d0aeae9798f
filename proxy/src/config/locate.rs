//! Where something stands in a YAML text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fault::Position;
use super::yaml;

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
    yaml::position(&error)
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
}
