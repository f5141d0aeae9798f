//! ByteStream and its names.

use bytes::Bytes;
use proto::bytestream::ReadRequest;
use tonic::{Code, Status};

use super::{Bend, Violation, Written, violation};
use crate::contents::Contents;
use crate::name::Name;

/// The blob that a name to read names.
fn named(request: &ReadRequest) -> Option<Name> {
    Name::of_read(&request.resource_name).ok()
}

/// Bytes of a blob as they are stored.
fn stored(request: &ReadRequest, contents: &Contents) -> Option<Bytes> {
    let name = named(request)?;
    contents.blob(&name.instance, &name.digest)
}

/// What a Write was about.
fn target(written: &Written) -> Option<Name> {
    Name::of_write(&written.name).ok()
}

/// Whether these are all the bytes, though not the right ones.
fn is_whole(written: &Written) -> bool {
    let size = target(written).map(|name| name.digest.size_bytes());
    written.finished && size == Some(written.data.len() as u64)
}

/// Whether an answer came before the end was asked for.
fn is_early(written: &Written, answer: &Result<i64, Status>) -> bool {
    answer.is_ok() && !written.finished
}

fn is_code<T>(answer: &Result<T, Status>, code: Code) -> bool {
    answer.as_ref().is_err_and(|status| status.code() == code)
}

/// Of an upload's name: the blob's hash and the uuid.
fn parts(name: &str) -> (&str, &str) {
    let mut segments = name
        .split('/')
        .skip_while(|segment| *segment != "uploads")
        .skip(1);
    let uuid = segments.next().unwrap_or_default();
    (segments.nth(1).unwrap_or_default(), uuid)
}

/// Turns away reads of blobs of this size beyond so many.
fn quota(request: &ReadRequest, contents: &mut Contents, size: i64, reads: u64) -> Result<(), Status> {
    if is_size(request, size) {
        contents.turns += 1;
        if contents.turns > reads {
            return Err(Status::resource_exhausted("too many reads"));
        }
    }
    Ok(())
}

fn is_size(request: &ReadRequest, size: i64) -> bool {
    named(request).is_some_and(|name| i64::try_from(name.digest.size_bytes()) == Ok(size))
}

pub(super) const VIOLATIONS: &[Violation] = &[
    violation(
        "GEN-18",
        "an error repeats a long name thrice",
        &[Bend::ReadIn(|request, _| match request.resource_name.len() {
            0..5000 => Ok(()),
            5000.. => Err(Status::invalid_argument(request.resource_name.repeat(3))),
        })],
    ),
    violation(
        "ERR-18",
        "every third malformed name is an internal error",
        &[Bend::ReadOut(|asked, answer, contents| {
            if asked.resource_name.ends_with("nothing/at/all") {
                contents.turns += 1;
                if contents.turns.is_multiple_of(3) {
                    *answer = Err(Status::internal("a malformed name"));
                }
            }
        })],
    ),
    violation(
        "ERR-26",
        "an error brings its stack",
        &[Bend::WriteOut(|written, answer, _| {
            if let Err(status) = answer
                && written.data.len() == 200
            {
                *status = Status::new(
                    status.code(),
                    format!("{}\n  at store.rs:1\n  at main.rs:2", status.message()),
                );
            }
        })],
    ),
    violation(
        "INST-03",
        "an instance name has two segments at most",
        &[Bend::ReadIn(|request, _| {
            if let Some((instance, rest)) = request.resource_name.split_once("/blobs/")
                && instance.split('/').count() > 2
            {
                let last: Vec<&str> = instance.rsplit('/').take(2).collect();
                request.resource_name = format!("{}/{}/blobs/{rest}", last[1], last[0]);
            }
            Ok(())
        })],
    ),
    violation(
        "INST-04",
        "a leading slash is passed over",
        &[Bend::ReadIn(|request, _| {
            if let Some(rest) = request.resource_name.strip_prefix('/') {
                request.resource_name = rest.to_owned();
            }
            Ok(())
        })],
    ),
    // Names.
    violation(
        "RN-01",
        "a name to write is read",
        &[Bend::ReadIn(|request, _| {
            if let Some((instance, rest)) = request.resource_name.split_once("uploads/")
                && let Some((_, blob)) = rest.split_once('/')
            {
                request.resource_name = format!("{instance}{blob}");
            }
            Ok(())
        })],
    ),
    violation(
        "RN-02",
        "a name to read is written",
        &[Bend::WriteIn(|request, _| {
            if !request.resource_name.contains("uploads/") && request.resource_name.contains("blobs/") {
                request.resource_name = request.resource_name.replacen("blobs/", "uploads/u/blobs/", 1);
            }
            Ok(())
        })],
    ),
    violation(
        "RN-03",
        "the last reserved word ends the instance",
        &[Bend::ReadIn(|request, _| {
            if let Some(at) = request.resource_name.rfind("/blobs/")
                && request.resource_name[..at]
                    .split('/')
                    .any(|segment| matches!(segment, "actions" | "blobs"))
            {
                request.resource_name = request.resource_name[at + 1..].to_owned();
            }
            Ok(())
        })],
    ),
    violation(
        "RN-04",
        "segments behind the size are refused in uploads",
        &[Bend::WriteIn(|request, _| {
            let behind = request.resource_name.ends_with("/uploads/x/blobs/y");
            if behind {
                Err(Status::invalid_argument("too long a name"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "RN-06",
        "a redundant function hides the blob",
        &[Bend::ReadIn(|request, _| {
            let redundant = request.resource_name.contains("blobs/sha256/");
            if redundant {
                Err(Status::not_found("sha256"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "RN-08",
        "a function in capitals is understood",
        &[Bend::ReadIn(|request, _| {
            request.resource_name = request.resource_name.replace("blobs/SHA256/", "blobs/sha256/");
            Ok(())
        })],
    ),
    violation(
        "RN-09",
        "a malformed uuid is an internal error",
        &[Bend::WriteIn(|request, _| {
            let odd = parts(&request.resource_name).1 == "not-a-uuid-at-all";
            if odd {
                Err(Status::internal("uuid"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "RN-10",
        "a uuid serves one blob only",
        &[Bend::WriteIn(|request, contents| {
            let (hash, uuid) = parts(&request.resource_name);
            let other = contents.unfinished(|name| name.contains(uuid) && !name.contains(hash));
            match other {
                Some(_) => Err(Status::invalid_argument("the uuid is taken")),
                None => Ok(()),
            }
        })],
    ),
    violation(
        "RN-11",
        "identity is a compressor",
        &[Bend::ReadIn(|request, _| {
            request.resource_name = request
                .resource_name
                .replace("compressed-blobs/identity/", "blobs/");
            Ok(())
        })],
    ),
    violation(
        "RN-12",
        "a size may have a sign or zeros before it",
        &[Bend::ReadIn(|request, _| {
            if let Some((head, size)) = request.resource_name.rsplit_once('/')
                && let Ok(size) = size.parse::<i64>()
                && size == 100
            {
                request.resource_name = format!("{head}/{size}");
            }
            Ok(())
        })],
    ),
    violation(
        "RN-13",
        "what follows the size is passed over in reads",
        &[Bend::ReadIn(|request, _| {
            if let Some(head) = request.resource_name.strip_suffix("/more") {
                request.resource_name = head.to_owned();
            }
            Ok(())
        })],
    ),
    violation(
        "RN-14",
        "a malformed name is a miss",
        &[Bend::ReadOut(|asked, answer, _| {
            if is_code(answer, Code::InvalidArgument) && asked.resource_name.ends_with("etc/passwd") {
                *answer = Err(Status::not_found("no such file"));
            }
        })],
    ),
    violation(
        "RN-15",
        "an empty name is a miss",
        &[Bend::ReadIn(|request, _| {
            let empty = request.resource_name.is_empty();
            if empty {
                Err(Status::not_found("nothing"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "RN-16",
        "dots in names are walked",
        &[Bend::ReadIn(|request, _| {
            request.resource_name = request.resource_name.replace("x/../", "");
            Ok(())
        })],
    ),
    violation(
        "RN-19",
        "names of log streams are an internal error",
        &[Bend::ReadIn(|request, _| {
            let log = request.resource_name.contains("logstreams/");
            if log {
                Err(Status::internal("no logs"))
            } else {
                Ok(())
            }
        })],
    ),
    // Read.
    violation(
        "GEN-07",
        "a malformed digest has an empty result",
        &[Bend::GetOut(|asked, answer, _| {
            if is_code(answer, Code::InvalidArgument)
                && asked
                    .action_digest
                    .as_ref()
                    .is_some_and(|digest| digest.hash == "nothing")
            {
                *answer = Ok(proto::wire::ActionResult::default());
            }
        })],
    ),
    violation(
        "BS-READ-01",
        "an offset of 65536 reads from the start",
        &[Bend::ReadIn(|request, _| {
            if request.read_offset == 65_536 && request.read_limit == 0 {
                request.read_offset = 0;
            }
            Ok(())
        })],
    ),
    violation(
        "BS-READ-02",
        "an offset at the end is out of range",
        &[Bend::ReadIn(|request, _| {
            if request.read_offset > 0 && request.read_limit == 0 && is_size(request, request.read_offset) {
                return Err(Status::out_of_range("at the end"));
            }
            Ok(())
        })],
    ),
    violation(
        "BS-READ-03",
        "an offset at the end is out of range where there is a limit",
        &[Bend::ReadIn(|request, _| {
            if request.read_offset > 0 && request.read_limit > 0 && is_size(request, request.read_offset) {
                return Err(Status::out_of_range("at the end"));
            }
            Ok(())
        })],
    ),
    violation(
        "BS-READ-04",
        "an offset behind the end is an empty read",
        &[Bend::ReadOut(|asked, answer, _| {
            if is_code(answer, Code::OutOfRange) && asked.read_offset > 1 {
                *answer = Ok(Bytes::new());
            }
        })],
    ),
    violation(
        "BS-READ-05",
        "a negative offset reads from the start",
        &[Bend::ReadIn(|request, _| {
            request.read_offset = request.read_offset.max(0);
            Ok(())
        })],
    ),
    violation(
        "BS-READ-06",
        "a limit of 0 is 4 MiB",
        &[Bend::ReadIn(|request, _| {
            if request.read_limit == 0 && named(request).is_some() {
                request.read_limit = 4 * 1024 * 1024;
            }
            Ok(())
        })],
    ),
    violation(
        "BS-READ-07",
        "limits are passed over",
        &[Bend::ReadIn(|request, _| {
            if request.read_limit > 0 && request.read_offset < 65_536 {
                request.read_limit = 0;
            }
            Ok(())
        })],
    ),
    violation(
        "BS-READ-08",
        "a negative limit is none",
        &[Bend::ReadIn(|request, _| {
            request.read_limit = request.read_limit.max(0);
            Ok(())
        })],
    ),
    violation(
        "BS-READ-09",
        "a limit counts from the start of the blob",
        &[Bend::ReadOut(|asked, answer, contents| {
            if asked.read_limit > 0 && asked.read_offset > 0 && answer.is_ok() {
                let end = usize::try_from(asked.read_limit).unwrap_or(usize::MAX);
                let from = usize::try_from(asked.read_offset).unwrap_or(usize::MAX);
                let bytes = stored(asked, contents).unwrap_or_default();
                *answer = Ok(bytes.slice(from.min(end).min(bytes.len())..end.min(bytes.len())));
            }
        })],
    ),
    violation(
        "BS-READ-10",
        "an absent blob is INTERNAL",
        &[Bend::ReadOut(|asked, answer, contents| {
            let hash = asked.resource_name.rsplit('/').nth(1).unwrap_or_default();
            if is_code(answer, Code::NotFound) && is_size(asked, 100) && contents.by_hash("", hash).is_none()
            {
                *answer = Err(Status::internal("no such file"));
            }
        })],
    ),
    violation(
        "BS-READ-12",
        "a right hash with a wrong size is found",
        &[Bend::ReadOut(|asked, answer, contents| {
            if is_code(answer, Code::NotFound)
                && let Some(name) = named(asked)
                && let Some(bytes) = contents.by_hash(&name.instance, &name.digest.hash_hex())
            {
                *answer = Ok(bytes);
            }
        })],
    ),
    violation(
        "BS-READ-15",
        "a read ends with OK one byte early",
        &[Bend::ReadOut(|_, answer, _| {
            if let Ok(bytes) = answer
                && bytes.len() == 1_500_000
            {
                bytes.truncate(1_499_999);
            }
        })],
    ),
    violation(
        "BS-READ-16",
        "odd offsets beyond 100,000 begin one byte too early",
        &[Bend::ReadIn(|request, _| {
            if request.read_offset > 100_000 && request.read_offset % 2 == 1 {
                request.read_offset -= 1;
            }
            Ok(())
        })],
    ),
    violation(
        "BS-READ-18",
        "the empty blob cannot be streamed",
        &[Bend::ReadOut(|asked, answer, _| {
            if is_size(asked, 0) && asked.read_offset == 0 {
                *answer = Err(Status::not_found("nothing"));
            }
        })],
    ),
    violation(
        "CAS-GEN-14",
        "the last byte is lost where a blob is one byte longer than 64 KiB",
        &[Bend::ReadOut(|_, answer, _| {
            if let Ok(bytes) = answer
                && bytes.len() == 65_537
            {
                bytes.truncate(65_536);
            }
        })],
    ),
    violation(
        "CAP-14",
        "small blobs are called compressed only",
        &[Bend::ReadOut(|asked, answer, contents| {
            if answer.is_ok() && is_size(asked, 123) {
                contents.turns += 1;
                *answer = Err(Status::invalid_argument("compressed only"));
            }
        })],
    ),
    violation(
        "BS-READ-13",
        "messages of a read have 5 MiB",
        &[Bend::ReadChunk(5 * 1024 * 1024)],
    ),
    violation(
        "GEN-09",
        "a reader that hung up keeps its place, of which a blob has four",
        &[Bend::ReadIn(|request, contents| {
            quota(request, contents, 1_000_000, 4)
        })],
    ),
    violation(
        "BS-READ-24",
        "every read takes a place for good, and there are a hundred",
        &[Bend::ReadIn(|request, contents| {
            quota(request, contents, 500_000, 100)
        })],
    ),
    violation(
        "BS-READ-26",
        "the fortieth reader of a blob is turned away",
        &[Bend::ReadIn(|request, contents| {
            quota(request, contents, 510_000, 39)
        })],
    ),
    violation(
        "GEN-16",
        "four hundred reads are the most there may be",
        &[Bend::ReadIn(|request, contents| {
            quota(request, contents, 1000, 400)
        })],
    ),
    violation(
        "BS-READ-27",
        "seven hundred small reads are the most there may be",
        &[Bend::ReadIn(|request, contents| {
            quota(request, contents, 1024, 700)
        })],
    ),
    // Write.
    violation(
        "CAS-GEN-15",
        "what begins like a Directory has to be one",
        &[Bend::WriteOut(|written, answer, _| {
            if written.data.starts_with(b"\x0a\xff\xff\x7f") {
                *answer = Err(Status::invalid_argument("a malformed Directory"));
            }
        })],
    ),
    violation(
        "CAS-GEN-08",
        "the fifth of many writers is aborted",
        &[Bend::WriteOut(|written, answer, contents| {
            if target(written).is_some_and(|name| name.digest.size_bytes() == 200_000) {
                contents.turns += 1;
                if contents.turns == 5 {
                    *answer = Err(Status::aborted("somebody else writes it"));
                }
            }
        })],
    ),
    violation(
        "BS-WRITE-01",
        "a Write without a name is an internal error",
        &[Bend::WriteIn(|request, _| {
            let empty = request.resource_name.is_empty();
            if empty {
                Err(Status::internal("no name"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "BS-WRITE-02",
        "a name that changes on the way is passed over",
        &[Bend::WriteOut(|written, answer, contents| {
            // The message that breaks the rule was the last one read.
            if is_code(answer, Code::InvalidArgument)
                && !written.finished
                && written.start == 0
                && target(written).is_some_and(|name| name.digest.size_bytes() == 3000)
                && written.data.len() == 2000
                && answer
                    .as_ref()
                    .is_err_and(|status| status.message().contains("resource_name"))
            {
                contents.turns += 1;
                *answer = Ok(3000);
            }
        })],
    ),
    violation(
        "BS-WRITE-03",
        "a new upload may begin anywhere",
        &[
            Bend::WriteIn(|request, contents| {
                if contents
                    .unfinished(|name| name == request.resource_name)
                    .is_none()
                {
                    request.write_offset = 0;
                }
                Ok(())
            }),
            Bend::WriteOut(|written, answer, _| {
                if written.start > 0 && is_code(answer, Code::InvalidArgument) {
                    *answer = Ok(written.start);
                }
            }),
        ],
    ),
    violation(
        "BS-WRITE-04",
        "a broken upload cannot begin again",
        &[Bend::WriteIn(|request, contents| {
            let held = contents.unfinished(|name| name == request.resource_name);
            if request.write_offset == 0 && held.is_some_and(|held| held > 0) {
                return Err(Status::invalid_argument("there is an upload of this name"));
            }
            Ok(())
        })],
    ),
    violation(
        "BS-WRITE-05",
        "wrong later offsets are passed over",
        &[Bend::WriteOut(|written, answer, _| {
            if answer
                .as_ref()
                .is_err_and(|status| status.message().contains("is due"))
                && written.start == 0
            {
                *answer = Ok(3000);
            }
        })],
    ),
    violation(
        "BS-WRITE-06",
        "a last request without data is refused",
        &[Bend::WriteOut(|written, answer, _| {
            if written.bare_finish && answer.is_ok() {
                *answer = Err(Status::invalid_argument("finish_write without data"));
            }
        })],
    ),
    violation(
        "BS-WRITE-08",
        "a half-close commits what is whole",
        &[Bend::WriteOut(|written, answer, contents| {
            if let Some(name) = target(written)
                && !written.finished
                && name.digest.size_bytes() == 2000
                && name.digest.fits(&written.data)
            {
                contents.put(&name.instance, name.digest, written.data.clone().into());
                *answer = Ok(2000);
            }
        })],
    ),
    violation(
        "BS-WRITE-09",
        "too few bytes are accepted",
        &[Bend::WriteOut(|written, answer, _| {
            let short =
                target(written).is_some_and(|name| name.digest.size_bytes() > written.data.len() as u64);
            if written.finished && short && written.data.len() == 1500 {
                *answer = Ok(2000);
            }
        })],
    ),
    violation(
        "BS-WRITE-10",
        "too many bytes are OUT_OF_RANGE",
        &[Bend::WriteOut(|written, answer, _| {
            let long =
                target(written).is_some_and(|name| name.digest.size_bytes() < written.data.len() as u64);
            if long && answer.is_err() {
                *answer = Err(Status::out_of_range("too long"));
            }
        })],
    ),
    violation(
        "BS-WRITE-11",
        "wrong bytes are accepted and stored",
        &[Bend::WriteOut(|written, answer, contents| {
            if is_code(answer, Code::InvalidArgument)
                && is_whole(written)
                && written.data.len() == 2000
                && let Some(name) = target(written)
            {
                contents.put(&name.instance, name.digest, written.data.clone().into());
                *answer = Ok(2000);
            }
        })],
    ),
    violation(
        "BS-WRITE-12",
        "wrong bytes are ABORTED",
        &[Bend::WriteOut(|written, answer, _| {
            if is_code(answer, Code::InvalidArgument) && is_whole(written) && written.data.len() == 5000 {
                *answer = Err(Status::aborted("hash mismatch"));
            }
        })],
    ),
    violation(
        "BS-WRITE-13",
        "committed_size is off by one in messages of 16 KiB",
        &[Bend::WriteOut(|written, answer, _| {
            if let Ok(size) = answer
                && written.data.len() == 16_385
            {
                *size -= 1;
            }
        })],
    ),
    violation(
        "BS-WRITE-14",
        "a blob that is there is answered with 0",
        &[Bend::WriteOut(|written, answer, _| {
            if is_early(written, answer) && answer.as_ref().is_ok_and(|size| *size == 300_000) {
                *answer = Ok(0);
            }
        })],
    ),
    violation(
        "BS-WRITE-15",
        "an early answer has the bytes so far",
        &[Bend::WriteOut(|written, answer, _| {
            if is_early(written, answer) && written.data.len() <= 10 {
                *answer = Ok(0);
            }
        })],
    ),
    violation(
        "BS-WRITE-16",
        "the tenth early answer is CANCELLED",
        &[Bend::WriteOut(|written, answer, contents| {
            if is_early(written, answer) {
                contents.turns += 1;
                if contents.turns == 10 {
                    *answer = Err(Status::cancelled("early"));
                }
            }
        })],
    ),
    violation(
        "BS-WRITE-18",
        "a small blob that is there is ALREADY_EXISTS",
        &[Bend::WriteIn(|request, contents| {
            let name = Name::of_write(&request.resource_name);
            let there = name.is_ok_and(|name| {
                (1..1000).contains(&name.digest.size_bytes()) && contents.has(&name.instance, &name.digest)
            });
            if there {
                Err(Status::already_exists("it is here"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "BS-WRITE-19",
        "a request without data ends the upload",
        &[Bend::WriteOut(|written, answer, _| {
            if written.pause && answer.is_ok() {
                *answer = Err(Status::invalid_argument("a request without data"));
            }
        })],
    ),
    violation(
        "BS-WRITE-20",
        "the empty blob cannot be uploaded",
        &[Bend::WriteIn(|request, _| {
            let empty = request.resource_name.contains("/blobs/") && request.resource_name.ends_with("/0");
            if empty {
                Err(Status::invalid_argument("no data"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "BS-WRITE-21",
        "the first message has to have ten bytes",
        &[Bend::WriteIn(|request, _| {
            if request.data.len() == 1 && !request.finish_write {
                return Err(Status::invalid_argument("too small a message"));
            }
            Ok(())
        })],
    ),
    violation(
        "BS-WRITE-22",
        "an upload never goes on",
        &[Bend::WriteIn(|request, contents| {
            let held = contents.unfinished(|name| name == request.resource_name);
            if request.write_offset > 0 && held == Some(1500) {
                return Err(Status::invalid_argument("begin at 0"));
            }
            Ok(())
        })],
    ),
    violation(
        "BS-WRITE-23",
        "a second stream for a name is refused",
        &[Bend::WriteIn(|request, contents| {
            let held = contents.unfinished(|name| name == request.resource_name);
            if request.write_offset == 0 && held == Some(1000) && request.data.len() == 1000 {
                return Err(Status::aborted("an upload of this name is under way"));
            }
            Ok(())
        })],
    ),
    violation(
        "BS-WRITE-25",
        "uploads of a blob share their progress",
        &[Bend::QueryOut(|asked, answer, contents| {
            let (hash, uuid) = parts(&asked.resource_name);
            let other = contents.unfinished(|name| name.contains(hash) && !name.contains(uuid));
            if let (Ok(answer), Some(held)) = (answer, other) {
                answer.committed_size = i64::try_from(held).unwrap_or(0);
            }
        })],
    ),
    violation(
        "BS-WRITE-28",
        "blobs are acknowledged and dropped",
        &[Bend::WriteOut(|written, _, contents| {
            if let Some(name) = target(written).filter(|name| name.digest.size_bytes() == 100_000) {
                contents.turns += 1;
                if written.finished && written.data.len() == 100_000 {
                    contents.evict(&name.instance, &name.digest);
                }
            }
        })],
    ),
    violation(
        "BS-WRITE-31",
        "a Write is refused when its client has said all",
        &[Bend::WriteLate],
    ),
    violation(
        "BS-WRITE-32",
        "a huge size is no room",
        &[Bend::WriteIn(|request, _| {
            let huge =
                Name::of_write(&request.resource_name).is_ok_and(|name| name.digest.size_bytes() > 1 << 40);
            if huge {
                Err(Status::resource_exhausted("no room"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "BS-WRITE-26",
        "a blob over the limit is no room",
        &[Bend::WriteOut(|written, answer, _| {
            if answer
                .as_ref()
                .is_err_and(|status| status.message().contains("over the limit"))
                && written.data.is_empty()
            {
                *answer = Err(Status::resource_exhausted("no room"));
            }
        })],
    ),
    violation(
        "CAP-17",
        "a blob over the limit is refused as too long",
        &[Bend::WriteOut(|written, answer, _| {
            if answer
                .as_ref()
                .is_err_and(|status| status.message().contains("over the limit"))
                && !written.data.is_empty()
            {
                *answer = Err(Status::out_of_range("too long"));
            }
        })],
    ),
    violation(
        "CAS-GEN-12",
        "the limit of blobs is not kept in batches",
        &[Bend::UpdateOut(|_, answer, _| {
            let responses = answer.iter_mut().flat_map(|answer| &mut answer.responses);
            for status in responses.filter_map(|response| response.status.as_mut()) {
                if status.message.contains("over the limit") {
                    status.code = 0;
                }
            }
        })],
    ),
    // QueryWriteStatus.
    violation(
        "BS-QWS-01",
        "committed_size is off by one while an upload is open",
        &[Bend::QueryOut(|_, answer, _| {
            if let Ok(answer) = answer
                && answer.committed_size == 1200
            {
                answer.committed_size = 1201;
            }
        })],
    ),
    violation(
        "BS-QWS-02",
        "an upload with all its bytes is complete before it is finished",
        &[Bend::QueryOut(|_, answer, _| {
            if let Ok(answer) = answer
                && answer.committed_size == 1999
            {
                (answer.committed_size, answer.complete) = (2000, true);
            }
        })],
    ),
    violation(
        "BS-QWS-03",
        "a blob that is there stands at 0",
        &[Bend::QueryOut(|_, answer, _| {
            if let Ok(answer) = answer
                && answer.complete
                && answer.committed_size > 0
            {
                (answer.committed_size, answer.complete) = (0, false);
            }
        })],
    ),
    violation(
        "BS-QWS-04",
        "an upload never seen is complete",
        &[Bend::QueryOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && *answer == Default::default()
                && asked.resource_name.ends_with("/1000")
            {
                answer.complete = true;
            }
        })],
    ),
    violation(
        "BS-QWS-05",
        "QueryWriteStatus of an upload never seen is NOT_FOUND",
        &[Bend::QueryOut(|asked, answer, _| {
            if answer.as_ref().is_ok_and(|answer| *answer == Default::default())
                && !asked.resource_name.ends_with("/0")
            {
                *answer = Err(Status::not_found("never seen"));
            }
        })],
    ),
    violation(
        "BS-QWS-06",
        "the full size is told without complete",
        &[Bend::QueryOut(|_, answer, _| {
            if let Ok(answer) = answer
                && answer.committed_size == 1499
            {
                answer.committed_size = 1500;
            }
        })],
    ),
    violation(
        "BS-QWS-07",
        "the status of an upload shrinks",
        &[Bend::QueryOut(|asked, answer, contents| {
            if let Ok(answer) = answer
                && answer.committed_size > 0
                && asked.resource_name.ends_with("/4000")
            {
                contents.turns += 1;
                if contents.turns > 4 {
                    answer.committed_size = 0;
                }
            }
        })],
    ),
    violation(
        "BS-QWS-09",
        "the status belongs to the uuid",
        &[Bend::QueryOut(|asked, answer, contents| {
            let (hash, uuid) = parts(&asked.resource_name);
            let other = contents.unfinished(|name| name.contains(uuid) && !name.contains(hash));
            if let (Ok(answer), Some(held)) = (answer, other) {
                answer.committed_size = i64::try_from(held).unwrap_or(0);
            }
        })],
    ),
    violation(
        "BS-QWS-11",
        "an upload that failed its check keeps its progress",
        &[
            Bend::WriteOut(|written, answer, contents| {
                if answer.is_err() && is_whole(written) {
                    contents.marks.insert(written.name.clone());
                }
            }),
            Bend::QueryOut(|asked, answer, contents| {
                if let Ok(answer) = answer
                    && contents.marks.contains(&asked.resource_name)
                {
                    answer.committed_size = 1999;
                }
            }),
        ],
    ),
    violation(
        "BS-QWS-12",
        "the status of a name to read is told",
        &[Bend::QueryIn(|request, _| {
            if !request.resource_name.contains("uploads/") && request.resource_name.contains("blobs/") {
                request.resource_name = request.resource_name.replacen("blobs/", "uploads/u/blobs/", 1);
            }
            Ok(())
        })],
    ),
    violation(
        "BS-QWS-15",
        "the empty blob is not complete",
        &[Bend::QueryOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && asked.resource_name.ends_with("/0")
            {
                answer.complete = false;
            }
        })],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_falls_into_hash_and_uuid() {
        let name = format!("a/b/uploads/u/blobs/{}", crate::Digest::of(b"x"));
        let (hash, uuid) = parts(&name);
        assert_eq!((hash.len(), uuid), (64, "u"));
    }
}
