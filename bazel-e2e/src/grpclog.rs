//! Bazel's gRPC log (`--remote_grpc_log`): each attempt of each call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// All attempts of one invocation, in the order in which they ended.
#[derive(Clone, Debug, Default)]
pub struct GrpcLog {
    attempts: Vec<Attempt>,
}

/// One attempt of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attempt {
    /// Full name of the method.
    method: String,
    /// gRPC status code.
    code: i32,
    /// What tells calls apart: the request's metadata (the action it is made for, for one) and what it asks.
    identity: Vec<Bytes>,
}

/// An entry of the file, as far as it is read here.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    metadata: Bytes,
    #[prost(message, optional, tag = "2")]
    status: Option<Status>,
    #[prost(string, tag = "3")]
    method_name: String,
    /// A message that holds one other, by the kind of call; field 1 of that is the request, or a Write's resource names.
    #[prost(bytes = "bytes", tag = "4")]
    details: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
}

impl GrpcLog {
    /// Reads the file that Bazel wrote: entries one after another, each after its length.
    ///
    /// # Errors
    /// If the file cannot be read, or is cut short.
    pub fn read(path: &Path) -> Result<GrpcLog> {
        GrpcLog::parse(Bytes::from(fs_err::read(path)?))
            .with_context(|| format!("reading Bazel's gRPC log {}", path.display()))
    }

    fn parse(mut file: Bytes) -> Result<GrpcLog> {
        let mut attempts = Vec::new();
        while file.has_remaining() {
            let entry = Entry::decode_length_delimited(&mut file)?;
            let mut identity = vec![entry.metadata];
            for call in fields(entry.details)? {
                identity.extend(
                    fields(call.1)?
                        .into_iter()
                        .filter(|(tag, _)| *tag == 1)
                        .map(|(_, value)| value),
                );
            }
            attempts.push(Attempt {
                method: entry.method_name,
                code: entry.status.unwrap_or_default().code,
                identity,
            });
        }
        Ok(GrpcLog { attempts })
    }

    /// How many attempts failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.code != 0).count()
    }

    /// The calls that were made again after they had failed: how often, by method.
    #[must_use]
    pub fn repeated(&self) -> BTreeMap<&str, usize> {
        let mut failed = BTreeSet::new();
        let mut repeated = BTreeMap::new();
        for attempt in &self.attempts {
            let call = (attempt.method.as_str(), &attempt.identity);
            if failed.contains(&call) {
                *repeated.entry(attempt.method.as_str()).or_default() += 1;
            }
            if attempt.code != 0 {
                failed.insert(call);
            }
        }
        repeated
    }
}

/// The fields of a message that are strings, bytes or messages, by their numbers.
fn fields(mut message: Bytes) -> Result<Vec<(u32, Bytes)>> {
    let mut found = Vec::new();
    while message.has_remaining() {
        let (tag, wire_type) = decode_key(&mut message)?;
        if wire_type == WireType::LengthDelimited {
            let len = usize::try_from(decode_varint(&mut message)?)?;
            ensure!(len <= message.remaining(), "a field is cut short");
            found.push((tag, message.split_to(len)));
        } else {
            skip_field(wire_type, tag, &mut message, DecodeContext::default())?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_field(tag: u8, value: &[u8]) -> Vec<u8> {
        let mut field = vec![tag << 3 | 2, u8::try_from(value.len()).unwrap()];
        field.extend_from_slice(value);
        field
    }

    fn entry(action: &str, method: &str, request: &str, code: i32) -> Vec<u8> {
        // The request, then a counter that differs between attempts of one call.
        let mut call = bytes_field(1, request.as_bytes());
        call.extend([2 << 3, u8::try_from(code).unwrap()]);
        let entry = Entry {
            metadata: bytes_field(3, action.as_bytes()).into(),
            status: Some(Status { code }),
            method_name: method.to_owned(),
            details: bytes_field(7, &call).into(),
        };
        entry.encode_length_delimited_to_vec()
    }

    fn log(entries: &[Vec<u8>]) -> GrpcLog {
        GrpcLog::parse(entries.concat().into()).unwrap()
    }

    #[test]
    fn a_call_that_failed_and_came_again_is_repeated() {
        let log = log(&[
            entry("a", "Get", "1", 14),
            entry("a", "Get", "1", 14),
            entry("a", "Get", "1", 0),
            entry("a", "Write", "1", 0),
        ]);
        assert_eq!(log.repeated(), BTreeMap::from([("Get", 2)]));
        assert_eq!(log.failed(), 2);
    }

    #[test]
    fn calls_of_other_actions_for_other_things_or_after_success_are_not() {
        let log = log(&[
            entry("a", "Get", "1", 0),
            entry("a", "Get", "1", 9),
            entry("b", "Get", "1", 9),
            entry("a", "Get", "2", 9),
            entry("a", "Find", "1", 9),
        ]);
        assert_eq!((log.repeated(), log.failed()), (BTreeMap::new(), 4));
    }

    #[test]
    fn a_file_cut_short_is_an_error() {
        let mut file = entry("a", "Get", "1", 0);
        let _last = file.pop();
        assert!(GrpcLog::parse(file.into()).is_err());
    }
}
