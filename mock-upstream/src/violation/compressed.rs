//! Blobs in zstd.

use bytes::Bytes;
use proto::bytestream::ReadRequest;
use proto::reapi;
use tonic::{Code, Status};

use super::{Bend, Violation, Written, violation};
use crate::codec;
use crate::contents::Contents;
use crate::digest::Digest;
use crate::name::{Name, plain};

/// The blob that is read in zstd.
fn read(request: &ReadRequest) -> Option<Name> {
    Name::of_read(&plain(&request.resource_name)?).ok()
}

/// The blob that is written in zstd.
fn wrote(written: &Written) -> Option<Name> {
    Name::of_write(&plain(&written.name)?).ok()
}

fn reads_size(request: &ReadRequest, size: u64) -> bool {
    read(request).is_some_and(|name| name.digest.size_bytes() == size)
}

fn wrote_size(written: &Written, size: u64) -> bool {
    wrote(written).is_some_and(|name| name.digest.size_bytes() == size)
}

/// A refusal of an upload in zstd gets another code, where it is so.
fn recode(written: &Written, answer: &mut Result<i64, Status>, code: Code, is_meant: impl Fn(&[u8]) -> bool) {
    if answer.is_err() && wrote(written).is_some() && is_meant(&written.data) {
        *answer = Err(Status::new(code, "undecodable"));
    }
}

/// Accepts an upload in zstd that was refused, and stores what it decodes to or nothing.
fn accept(written: &Written, answer: &mut Result<i64, Status>, contents: &mut Contents, size: u64) {
    if let Some(name) = wrote(written).filter(|name| name.digest.size_bytes() == size)
        && answer.is_err()
        && written.finished
    {
        let bytes = codec::decode(&written.data, size).unwrap_or_default();
        contents.put(&name.instance, name.digest, bytes);
        *answer = Ok(i64::try_from(written.data.len()).unwrap_or(0));
    }
}

const MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";
const SKIPPABLE: &[u8] = b"\x50\x2a\x4d\x18";

/// The byte of a frame's header that says what else is in it.
fn descriptor(data: &[u8]) -> u8 {
    match data.strip_prefix(MAGIC) {
        Some([descriptor, ..]) => *descriptor,
        Some([]) | None => 0,
    }
}

const HAS_CHECKSUM: u8 = 0b100;
const HAS_DICTIONARY: u8 = 0b11;
const SINGLE_SEGMENT: u8 = 0b10_0000;

fn refuse(written: &Written, answer: &mut Result<i64, Status>, is_meant: impl Fn(&[u8]) -> bool) {
    if answer.is_ok() && wrote(written).is_some() && is_meant(&written.data) {
        *answer = Err(Status::invalid_argument("no such frame"));
    }
}

pub(super) const VIOLATIONS: &[Violation] = &[
    violation(
        "COMP-01",
        "a compressed upload is acknowledged and dropped",
        &[Bend::WriteOut(|written, answer, contents| {
            if let Some(name) = wrote(written).filter(|name| name.digest.size_bytes() == 1200)
                && answer.is_ok()
            {
                contents.evict(&name.instance, &name.digest);
            }
        })],
    ),
    violation(
        "COMP-02",
        "a compressed read comes plain",
        &[Bend::ReadOut(|asked, answer, _| {
            if let Ok(bytes) = answer
                && reads_size(asked, 1111)
            {
                *bytes = codec::decode(bytes, 1111).unwrap_or_default();
            }
        })],
    ),
    violation(
        "COMP-03",
        "a broken compressed upload stands where it cannot go on",
        &[Bend::QueryOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && !answer.complete
                && plain(&asked.resource_name).is_some()
                && asked.resource_name.ends_with("/1300")
            {
                answer.committed_size = 7;
            }
        })],
    ),
    violation(
        "COMP-04",
        "offsets in a compressed upload are passed over",
        &[Bend::WriteOut(|written, answer, _| {
            if wrote(written).is_some()
                && answer
                    .as_ref()
                    .is_err_and(|status| status.message().contains("is due"))
                && written.start == 0
            {
                *answer = Ok(1);
            }
        })],
    ),
    violation(
        "COMP-05",
        "a compressed upload that begins behind 0 is acknowledged and dropped",
        &[Bend::WriteOut(|written, answer, _| {
            if wrote(written).is_some() && written.start > 0 {
                *answer = Ok(1);
            }
        })],
    ),
    violation(
        "COMP-06",
        "an offset behind the end of a compressed read is an empty read",
        &[Bend::ReadOut(|asked, answer, _| {
            if read(asked).is_some()
                && answer
                    .as_ref()
                    .is_err_and(|status| status.code() == Code::OutOfRange)
            {
                *answer = Ok(Bytes::new());
            }
        })],
    ),
    violation(
        "COMP-07",
        "the offset of a compressed read is passed over",
        &[Bend::ReadIn(|request, _| {
            if reads_size(request, 70_000) {
                request.read_offset = 0;
            }
            Ok(())
        })],
    ),
    violation(
        "COMP-08",
        "a limit on a compressed read is passed over",
        &[Bend::ReadIn(|request, _| {
            if read(request).is_some() {
                request.read_limit = 0;
            }
            Ok(())
        })],
    ),
    violation(
        "COMP-09",
        "an early answer to a compressed upload is the size",
        &[Bend::WriteOut(|written, answer, _| {
            if let Some(name) = wrote(written)
                && answer.as_ref().is_ok_and(|size| *size == -1)
            {
                *answer = Ok(i64::try_from(name.digest.size_bytes()).unwrap_or(0));
            }
        })],
    ),
    violation(
        "COMP-10",
        "a compressed upload commits one byte more than it had",
        &[Bend::WriteOut(|written, answer, _| {
            if let Ok(size) = answer
                && wrote(written).is_some()
                && *size > 0
            {
                *size += 1;
            }
        })],
    ),
    violation(
        "COMP-11",
        "what was streamed plain cannot be read in zstd",
        &[
            Bend::WriteOut(|written, _, contents| {
                if wrote(written).is_none() && written.data.len() == 1500 {
                    contents
                        .marks
                        .extend(Name::of_write(&written.name).map(|name| name.digest.hash_hex()));
                }
            }),
            Bend::ReadIn(|request, contents| {
                let hash = read(request).map(|name| name.digest.hash_hex());
                match hash.filter(|hash| contents.marks.contains(hash)) {
                    Some(hash) => Err(Status::not_found(hash)),
                    None => Ok(()),
                }
            }),
        ],
    ),
    violation(
        "COMP-12",
        "of two levels the second is refused",
        &[Bend::WriteOut(|written, answer, contents| {
            if wrote_size(written, 1700) {
                contents.turns += 1;
                if contents.turns == 2 {
                    *answer = Err(Status::invalid_argument("too high a level"));
                }
            }
        })],
    ),
    violation(
        "COMP-13",
        "a compressed read begins at an even byte",
        &[Bend::ReadIn(|request, _| {
            if reads_size(request, 1800) {
                request.read_offset &= !1;
            }
            Ok(())
        })],
    ),
    violation(
        "COMP-14",
        "a bomb is out of room",
        &[Bend::WriteOut(|written, answer, _| {
            if wrote_size(written, 100) {
                recode(written, answer, Code::ResourceExhausted, |_| true);
            }
        })],
    ),
    violation(
        "COMP-15",
        "what is no frame is an internal error",
        &[Bend::WriteOut(|written, answer, _| {
            recode(written, answer, Code::Internal, |data| !data.starts_with(MAGIC));
        })],
    ),
    violation(
        "COMP-16",
        "a stream that decodes to too little is accepted",
        &[Bend::WriteOut(|written, answer, contents| {
            accept(written, answer, contents, 1001)
        })],
    ),
    violation(
        "COMP-17",
        "the empty blob cannot be read in zstd",
        &[Bend::ReadIn(|request, _| {
            if reads_size(request, 0) {
                return Err(Status::not_found("nothing"));
            }
            Ok(())
        })],
    ),
    violation(
        "COMP-19",
        "an unknown compressor is none",
        &[Bend::WriteIn(|request, _| {
            request.resource_name = request.resource_name.replace("compressed-blobs/lz17/", "blobs/");
            Ok(())
        })],
    ),
    violation(
        "COMP-21",
        "a stream larger than its blob is refused",
        &[Bend::WriteOut(|written, answer, _| {
            if let Some(name) = wrote(written) {
                let size = name.digest.size_bytes();
                refuse(written, answer, |data| size >= 65_536 && data.len() as u64 > size);
            }
        })],
    ),
    violation(
        "COMP-22",
        "an absent blob is INTERNAL in zstd",
        &[Bend::ReadOut(|asked, answer, _| {
            if answer.is_err() && reads_size(asked, 77) {
                *answer = Err(Status::internal("no such file"));
            }
        })],
    ),
    violation(
        "COMP-23",
        "frames of other data are stored as they came",
        &[Bend::WriteOut(|written, answer, contents| {
            accept(written, answer, contents, 900)
        })],
    ),
    violation(
        "COMP-24",
        "zstd in a batch is called plain",
        &[Bend::BatchReadOut(|_, answer, _| {
            for response in answer.iter_mut().flat_map(|answer| &mut answer.responses) {
                response.compressor = 0;
            }
        })],
    ),
    violation(
        "ZSTD-01",
        "a frame with a checksum is refused",
        &[Bend::WriteOut(|written, answer, _| {
            refuse(written, answer, |data| descriptor(data) & HAS_CHECKSUM != 0);
        })],
    ),
    violation(
        "ZSTD-02",
        "frames to skip are refused",
        &[Bend::WriteOut(|written, answer, _| {
            refuse(written, answer, |data| data.starts_with(SKIPPABLE));
        })],
    ),
    violation(
        "ZSTD-03",
        "a frame with a dictionary is an internal error",
        &[Bend::WriteOut(|written, answer, _| {
            recode(written, answer, Code::Internal, |data| {
                descriptor(data) & HAS_DICTIONARY != 0
            });
        })],
    ),
    violation(
        "ZSTD-04",
        "windows of more than 4 MiB are refused",
        &[Bend::WriteOut(|written, answer, _| {
            refuse(written, answer, |data| {
                descriptor(data) & SINGLE_SEGMENT == 0
                    && data.len() > 5
                    && data[5] >> 3 > 12
                    && data.starts_with(MAGIC)
            });
        })],
    ),
    violation(
        "ZSTD-05",
        "checksums are not looked at",
        &[Bend::WriteOut(|written, answer, contents| {
            accept(written, answer, contents, 1900)
        })],
    ),
    violation(
        "ZSTD-06",
        "the first message has to hold the frame's header",
        &[Bend::WriteIn(|request, _| {
            let compressed = plain(&request.resource_name).is_some();
            if compressed && request.data.len() == 1 && !request.finish_write {
                return Err(Status::invalid_argument("no header"));
            }
            Ok(())
        })],
    ),
    violation(
        "ZSTD-07",
        "a content size that lies is an internal error",
        &[Bend::WriteOut(|written, answer, _| {
            if wrote_size(written, 310) {
                recode(written, answer, Code::Internal, |_| true);
            }
        })],
    ),
    violation(
        "BS-QWS-10",
        "a compressed upload that is complete stands at -1",
        &[Bend::QueryOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && answer.complete
                && plain(&asked.resource_name).is_some()
            {
                answer.committed_size = -1;
            }
        })],
    ),
    violation(
        "CAS-GEN-10",
        "what a batch brought cannot be read in zstd",
        &[
            Bend::UpdateOut(|asked, _, contents| {
                let entries = asked.requests.iter().filter(|entry| entry.data.len() == 1600);
                contents
                    .marks
                    .extend(entries.filter_map(|entry| Some(entry.digest.as_ref()?.hash.clone())));
            }),
            Bend::ReadIn(|request, contents| {
                let hash = read(request).map(|name| name.digest.hash_hex());
                match hash.filter(|hash| contents.marks.contains(hash)) {
                    Some(hash) => Err(Status::not_found(hash)),
                    None => Ok(()),
                }
            }),
        ],
    ),
    violation(
        "CAS-BUB-09",
        "the batch limit counts what entries decode to",
        &[Bend::UpdateIn(|request, _| {
            let sizes = request.requests.iter().filter_map(|entry| entry.digest.as_ref());
            let total: i64 = sizes.map(|digest| digest.size_bytes).fold(0, i64::saturating_add);
            let compressed = request.requests.iter().any(|entry| entry.compressor == 1);
            if compressed && total > 3_670_016 {
                return Err(Status::invalid_argument("over the limit"));
            }
            Ok(())
        })],
    ),
    violation(
        "CAS-BUB-11",
        "compressed entries are stored as they came",
        &[Bend::UpdateOut(|asked, _, contents| {
            for entry in asked
                .requests
                .iter()
                .filter(|entry| entry.compressor == 1 && entry.data.len() < 1000)
            {
                if let Ok(digest) =
                    Digest::from_wire(entry.digest.as_ref()).map(|digest| (digest, &entry.data))
                    && digest.0.size_bytes() == 2100
                {
                    contents.put(&asked.instance_name, digest.0, digest.1.clone());
                }
            }
        })],
    ),
    violation(
        "CAS-BUB-12",
        "undecodable entries are an internal error",
        &[Bend::UpdateOut(|asked, answer, _| {
            let compressed = |entry: &&reapi::batch_update_blobs_request::Request| entry.compressor == 1;
            let any = asked.requests.iter().any(|entry| compressed(&entry));
            for response in answer
                .iter_mut()
                .filter(|_| any)
                .flat_map(|answer| &mut answer.responses)
            {
                if let Some(status) = response.status.as_mut().filter(|status| status.code == 3) {
                    status.code = Code::Internal as i32;
                }
            }
        })],
    ),
];
