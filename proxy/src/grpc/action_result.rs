//! Inlining: putting blobs into an action result and taking them out, without touching what else it holds.
//!
//! A result is edited as bytes, so that fields from the future survive (AC-RES-02). Pure: which blobs to read comes out,
//! their bytes go in.

use std::collections::{HashMap, HashSet};

use bytes::{BufMut, Bytes, BytesMut};
use prost::DecodeError;
use prost::encoding::{self, DecodeContext, WireType};
use proto::reapi;

use super::digests;
use crate::digest::{Digest, Function};

const OUTPUT_FILES: u32 = 2;
const STDOUT_RAW: u32 = 5;
const STDERR_RAW: u32 = 7;
const OUTPUT_FILE_CONTENTS: u32 = 5;

/// Bytes that key and length of an inlined field take at most, the length of the file around it included.
const FIELD_OVERHEAD_BYTES: usize = 16;

/// What a client wants to see inlined.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub stdout: bool,
    pub stderr: bool,
    /// Exact paths of output files; unknown ones mean nothing.
    pub files: HashSet<String>,
}

/// Changes to make to a result before it goes to a client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    stdout: Change,
    stderr: Change,
    /// By position among the output files; absent where nothing changes.
    files: HashMap<usize, Change>,
}

/// What becomes of one place where bytes can be inlined.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Change {
    #[default]
    Keep,
    /// Take out what is inlined; the digest says the same.
    Remove,
    /// Put in this blob, if it can be read.
    Insert(Digest),
}

impl Plan {
    /// Decides for `result`, whose encoding has `encoded_bytes`, so that it stays within `bytes_max` (AC-GET-13): stdout
    /// comes first, then stderr, then the files in their order. Nothing is inlined unasked (AC-GET-12).
    pub(super) fn new(
        function: Function,
        result: &reapi::ActionResult,
        encoded_bytes: usize,
        wanted: &Wanted,
        bytes_max: usize,
    ) -> Plan {
        let mut room = Room {
            function,
            left_bytes: bytes_max,
        };
        // What is inlined already competes for the room like what could be.
        let removable_bytes = room.removable_bytes(result);
        let bare_bytes = encoded_bytes.saturating_sub(removable_bytes);
        room.left_bytes = bytes_max.saturating_sub(bare_bytes);
        let stdout = room.change(wanted.stdout, &result.stdout_raw, result.stdout_digest.as_ref());
        let stderr = room.change(wanted.stderr, &result.stderr_raw, result.stderr_digest.as_ref());
        let mut files = HashMap::new();
        for (position, file) in result.output_files.iter().enumerate() {
            let wanted = wanted.files.contains(&file.path);
            match room.change(wanted, &file.contents, file.digest.as_ref()) {
                Change::Keep => {}
                change @ (Change::Remove | Change::Insert(_)) => {
                    files.insert(position, change);
                }
            }
        }
        Plan {
            stdout,
            stderr,
            files,
        }
    }

    /// Whether the result can go as it is.
    pub(super) fn is_empty(&self) -> bool {
        *self == Plan::default()
    }

    /// The blobs to read, each once.
    pub(super) fn blobs(&self) -> Vec<Digest> {
        let mut seen = HashSet::new();
        [&self.stdout, &self.stderr]
            .into_iter()
            .chain(self.files.values())
            .filter_map(Change::blob)
            .filter(|digest| seen.insert(*digest))
            .collect()
    }

    /// Makes the changes. A blob that is not in `blobs` could not be read, and its field stays empty (AC-GET-16).
    ///
    /// # Errors
    /// If `encoded` is no protobuf message.
    pub(super) fn apply(
        &self,
        encoded: &Bytes,
        blobs: &HashMap<Digest, Bytes>,
    ) -> Result<Bytes, DecodeError> {
        let mut edited = BytesMut::with_capacity(encoded.len());
        let mut position = 0;
        for field in fields(encoded)? {
            match field.number {
                STDOUT_RAW if self.stdout == Change::Remove => {}
                STDERR_RAW if self.stderr == Change::Remove => {}
                OUTPUT_FILES => {
                    let change = self.files.get(&position).copied().unwrap_or_default();
                    position += 1;
                    match change {
                        Change::Keep => edited.put_slice(&field.whole),
                        Change::Remove | Change::Insert(_) => {
                            let file = edit_file(&field.payload, change, blobs)?;
                            encoding::bytes::encode(OUTPUT_FILES, &file, &mut edited);
                        }
                    }
                }
                _ => edited.put_slice(&field.whole),
            }
        }
        // The order of fields means nothing, so what is new goes to the end.
        for (number, change) in [(STDOUT_RAW, self.stdout), (STDERR_RAW, self.stderr)] {
            if let Some(bytes) = change.blob().and_then(|digest| blobs.get(&digest)) {
                encoding::bytes::encode(number, bytes, &mut edited);
            }
        }
        Ok(edited.freeze())
    }
}

impl Change {
    fn blob(&self) -> Option<Digest> {
        match self {
            Change::Keep | Change::Remove => None,
            Change::Insert(digest) => Some(*digest),
        }
    }
}

/// What is left of the message's limit.
struct Room {
    function: Function,
    left_bytes: usize,
}

impl Room {
    /// Bytes that are inlined beside a digest, and hence can be taken out.
    fn removable_bytes(&self, result: &reapi::ActionResult) -> usize {
        let streams = [
            (&result.stdout_raw, result.stdout_digest.as_ref()),
            (&result.stderr_raw, result.stderr_digest.as_ref()),
        ];
        let files = result.output_files.iter();
        files
            .map(|file| (&file.contents, file.digest.as_ref()))
            .chain(streams)
            .filter(|(_, digest)| self.parse(*digest).is_some())
            .map(|(inlined, _)| inlined.len())
            .sum()
    }

    fn parse(&self, digest: Option<&reapi::Digest>) -> Option<Digest> {
        digests::parse(self.function, digest?).ok()
    }

    fn change(&mut self, wanted: bool, inlined: &Bytes, digest: Option<&reapi::Digest>) -> Change {
        // Without a digest the inlined bytes are all there is, or nothing says what to inline.
        let Some(digest) = self.parse(digest) else {
            return Change::Keep;
        };
        if !inlined.is_empty() {
            let stays = wanted && self.take(inlined.len());
            return if stays { Change::Keep } else { Change::Remove };
        }
        if !wanted || digest.is_empty() {
            return Change::Keep;
        }
        let needed_bytes = usize::try_from(digest.size_bytes())
            .unwrap_or(usize::MAX)
            .saturating_add(FIELD_OVERHEAD_BYTES);
        if self.take(needed_bytes) {
            Change::Insert(digest)
        } else {
            Change::Keep
        }
    }

    /// Takes room, if there is enough.
    fn take(&mut self, bytes: usize) -> bool {
        let left_bytes = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left_bytes.unwrap_or(self.left_bytes);
        left_bytes.is_some()
    }
}

fn edit_file(encoded: &Bytes, change: Change, blobs: &HashMap<Digest, Bytes>) -> Result<Bytes, DecodeError> {
    let mut edited = BytesMut::with_capacity(encoded.len());
    for field in fields(encoded)? {
        if !(field.number == OUTPUT_FILE_CONTENTS && change == Change::Remove) {
            edited.put_slice(&field.whole);
        }
    }
    if let Some(bytes) = change.blob().and_then(|digest| blobs.get(&digest)) {
        encoding::bytes::encode(OUTPUT_FILE_CONTENTS, bytes, &mut edited);
    }
    Ok(edited.freeze())
}

/// One field of an encoded message.
struct Field {
    number: u32,
    /// Key, length and payload, as they came.
    whole: Bytes,
    /// The bytes of a field that has a length; empty for others.
    payload: Bytes,
}

fn fields(encoded: &Bytes) -> Result<Vec<Field>, DecodeError> {
    let mut rest = encoded.clone();
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let start = encoded.len() - rest.len();
        let (number, wire_type) = encoding::decode_key(&mut rest)?;
        let mut payload = Bytes::new();
        if wire_type == WireType::LengthDelimited {
            encoding::bytes::merge(wire_type, &mut payload, &mut rest, DecodeContext::default())?;
        } else {
            encoding::skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        }
        let end = encoded.len() - rest.len();
        fields.push(Field {
            number,
            whole: encoded.slice(start..end),
            payload,
        });
    }
    Ok(fields)
}

/// Checks a result that is to be stored, or that was: every reference has a well-formed digest, and bytes that are inlined
/// beside a digest fit it (AC-UPD-05, AC-UPD-13). Anything else is the client's business.
///
/// # Errors
/// INVALID_ARGUMENT with the place.
pub(super) fn check(function: Function, result: &reapi::ActionResult) -> Result<(), tonic::Status> {
    for file in &result.output_files {
        let digest = digests::required(function, file.digest.as_ref(), "digest of an output file")?;
        fits(&digest, &file.contents)?;
    }
    for directory in &result.output_directories {
        let tree = directory.tree_digest.as_ref();
        let root = directory.root_directory_digest.as_ref();
        // Either names the directory; what is there has to be right.
        if tree.is_some() || root.is_none() {
            digests::required(function, tree, "tree digest of an output directory")?;
        }
        if root.is_some() {
            digests::required(function, root, "root digest of an output directory")?;
        }
    }
    let streams = [
        (&result.stdout_digest, &result.stdout_raw, "stdout digest"),
        (&result.stderr_digest, &result.stderr_raw, "stderr digest"),
    ];
    for (digest, inlined, what) in streams {
        // Absent means none, not the empty blob (AC-RES-11).
        if digest.is_some() {
            let digest = digests::required(function, digest.as_ref(), what)?;
            fits(&digest, inlined)?;
        }
    }
    Ok(())
}

fn fits(digest: &Digest, inlined: &Bytes) -> Result<(), tonic::Status> {
    if inlined.is_empty() || Digest::of(digest.function(), inlined) == *digest {
        return Ok(());
    }
    Err(super::status::invalid(format_args!(
        "bytes that are inlined do not fit their digest: {digest}"
    )))
}

#[cfg(test)]
mod tests;
