//! Resource names.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::sample::select;
use tonic::Code;

use super::Trial;
use crate::check::{Outcome, Verdict, expect};
use crate::target::Target;

/// A change to a right name.
#[derive(Clone, Copy, Debug)]
enum Edit {
    /// A word more, before the segment of this number.
    Insert(usize, &'static str),
    /// A word instead of the segment.
    Replace(usize, &'static str),
    /// A segment less.
    Remove(usize),
    /// A character more in a segment.
    Grow(usize, char),
    /// A character less in a segment.
    Shrink(usize),
}

/// What names are made of, and what is often done to them.
const WORDS: &[&str] = &[
    "",
    "blobs",
    "uploads",
    "compressed-blobs",
    "actions",
    "zstd",
    "identity",
    "sha256",
    "blake3",
    "..",
    ".",
    "-1",
    "0",
    "100",
    "+100",
    "0100",
    "%2e%2e",
    "x",
    "9223372036854775808",
    "\u{e9}",
    "a b",
];

pub(super) fn any_name(trial: &Trial<'_>) -> Outcome {
    let word = || select(WORDS);
    let edit = prop_oneof![
        (0..5_usize, word()).prop_map(|(at, word)| Edit::Insert(at, word)),
        (0..5_usize, word()).prop_map(|(at, word)| Edit::Replace(at, word)),
        (0..5_usize).prop_map(Edit::Remove),
        (0..5_usize, any::<char>()).prop_map(|(at, character)| Edit::Grow(at, character)),
        (0..5_usize).prop_map(Edit::Shrink),
    ];
    trial.draw(&vec(edit, 0..4), names_are_exact)
}

fn edited(name: &str, edits: &[Edit]) -> String {
    let mut segments: Vec<String> = name.split('/').map(str::to_owned).collect();
    for edit in edits {
        match *edit {
            Edit::Insert(at, word) => segments.insert(at.min(segments.len()), word.to_owned()),
            Edit::Replace(at, word) => {
                if let Some(segment) = segments.get_mut(at) {
                    word.clone_into(segment);
                }
            }
            Edit::Remove(at) if at < segments.len() => {
                segments.remove(at);
            }
            Edit::Remove(_) => {}
            Edit::Grow(at, character) => {
                if let Some(segment) = segments.get_mut(at) {
                    segment.push(character);
                }
            }
            Edit::Shrink(at) => {
                if let Some(segment) = segments.get_mut(at) {
                    segment.pop();
                }
            }
        }
    }
    segments.join("/")
}

async fn names_are_exact(t: Target, edits: Vec<Edit>) -> Verdict {
    let blob = t.stored(100).await?;
    let right = t.read_name(&blob.digest);
    let name = edited(&right, &edits);
    // Allowed, where it is redundant: the function of that length.
    let redundant = t.named(&format!("blobs/sha256/{}/100", blob.digest.hash));
    match t.read(&name, 0, 0).await {
        Ok(bytes) if name == right => expect(bytes == blob.bytes, || "other bytes than were stored".into()),
        Ok(bytes) => expect(bytes != blob.bytes || name == redundant, || {
            format!("{name:?} is read as {right}")
        }),
        Err(status) => {
            let theirs =
                [Code::InvalidArgument, Code::NotFound, Code::Unimplemented].contains(&status.code());
            expect(theirs && name != right, || {
                format!("{name:?} is {:?}", status.code())
            })
        }
    }
}
