//! Twins on the wire of some messages of [`reapi`], for whoever passes them on.
//!
//! A twin has the field numbers of the message it stands for, but what must survive unchanged is held as the bytes it
//! came in: action results, Directories. Unknown fields, their order and odd encodings stay, and with them the digests
//! that others compute. The services here are reached under the same names as those of [`reapi`]; only the types differ:
//!
//! | service | twins |
//! | --- | --- |
//! | `ActionCache` | [`UpdateActionResultRequest`], [`ActionResult`] |
//! | `ContentAddressableStorage` | [`GetTreeResponse`] |
//!
//! Bytes held by a twin are unchecked. [`ActionResult::parse`], or `decode` of the generated type, tells what they say.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message, Name,
    encoding::{self, DecodeContext, WireType},
};

use crate::reapi;

pub use services::*;

#[expect(
    clippy::allow_attributes_without_reason,
    reason = "generated code follows the generators' taste"
)]
mod services {
    include!(concat!(
        env!("OUT_DIR"),
        "/twins/build.bazel.remote.execution.v2.rs"
    ));
}

/// Twin of [`reapi::ActionResult`] where it is the whole message, as in both answers of `ActionCache`: the encoded bytes.
///
/// Decoding takes any bytes. It cannot be a field of another message; such fields are [`Bytes`] here.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ActionResult(pub Bytes);

impl ActionResult {
    /// What the bytes say, as far as this crate knows the fields.
    ///
    /// # Errors
    /// If they are no action result.
    pub fn parse(&self) -> Result<reapi::ActionResult, DecodeError> {
        reapi::ActionResult::decode(self.0.clone())
    }
}

impl From<&reapi::ActionResult> for ActionResult {
    fn from(result: &reapi::ActionResult) -> Self {
        ActionResult(result.encode_to_vec().into())
    }
}

impl fmt::Debug for ActionResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActionResult({} bytes)", self.0.len())
    }
}

impl Message for ActionResult {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn merge(&mut self, mut buf: impl Buf) -> Result<(), DecodeError> {
        append(&mut self.0, buf.copy_to_bytes(buf.remaining()));
        Ok(())
    }

    /// A nested message arrives field by field, its keys already decoded: too late to keep the bytes.
    fn merge_field(
        &mut self,
        _tag: u32,
        _wire_type: WireType,
        _buf: &mut impl Buf,
        _ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        #[expect(
            deprecated,
            reason = "prost 0.14 has no other way to make this error outside of itself"
        )]
        Err(DecodeError::new(
            "a raw action result is a whole message, never a part of one",
        ))
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Twin of [`reapi::UpdateActionResultRequest`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateActionResultRequest {
    pub instance_name: String,
    pub action_digest: Option<reapi::Digest>,
    /// An encoded [`reapi::ActionResult`]; unchecked.
    pub action_result: Option<Bytes>,
    pub results_cache_policy: Option<reapi::ResultsCachePolicy>,
    /// A [`reapi::digest_function::Value`].
    pub digest_function: i32,
}

impl Message for UpdateActionResultRequest {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.instance_name.is_empty() {
            encoding::string::encode(1, &self.instance_name, buf);
        }
        if let Some(digest) = &self.action_digest {
            encoding::message::encode(2, digest, buf);
        }
        if let Some(result) = &self.action_result {
            encoding::bytes::encode(3, result, buf);
        }
        if let Some(policy) = &self.results_cache_policy {
            encoding::message::encode(4, policy, buf);
        }
        if self.digest_function != 0 {
            encoding::int32::encode(5, &self.digest_function, buf);
        }
    }

    fn encoded_len(&self) -> usize {
        let instance_name = match self.instance_name.as_str() {
            "" => 0,
            _ => encoding::string::encoded_len(1, &self.instance_name),
        };
        let digest_function = match self.digest_function {
            0 => 0,
            _ => encoding::int32::encoded_len(5, &self.digest_function),
        };
        instance_name
            + self
                .action_digest
                .as_ref()
                .map_or(0, |digest| encoding::message::encoded_len(2, digest))
            + self
                .action_result
                .as_ref()
                .map_or(0, |result| encoding::bytes::encoded_len(3, result))
            + self
                .results_cache_policy
                .as_ref()
                .map_or(0, |policy| encoding::message::encoded_len(4, policy))
            + digest_function
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (field, merged) = match tag {
            1 => (
                "instance_name",
                encoding::string::merge(wire_type, &mut self.instance_name, buf, ctx),
            ),
            2 => {
                let digest = self.action_digest.get_or_insert_default();
                (
                    "action_digest",
                    encoding::message::merge(wire_type, digest, buf, ctx),
                )
            }
            3 => (
                "action_result",
                merge_message(wire_type, &mut self.action_result, buf, ctx),
            ),
            4 => {
                let policy = self.results_cache_policy.get_or_insert_default();
                (
                    "results_cache_policy",
                    encoding::message::merge(wire_type, policy, buf, ctx),
                )
            }
            5 => (
                "digest_function",
                encoding::int32::merge(wire_type, &mut self.digest_function, buf, ctx),
            ),
            _ => return encoding::skip_field(wire_type, tag, buf, ctx),
        };
        merged.map_err(|error| located(error, reapi::UpdateActionResultRequest::NAME, field))
    }

    fn clear(&mut self) {
        *self = UpdateActionResultRequest::default();
    }
}

/// Twin of [`reapi::GetTreeResponse`].
#[derive(Clone, PartialEq, Message)]
pub struct GetTreeResponse {
    /// Encoded [`reapi::Directory`] messages; unchecked.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub directories: Vec<Bytes>,
    #[prost(string, tag = "2")]
    pub next_page_token: String,
}

/// Twin of [`reapi::Tree`], a blob of the CAS: for looking into it. Children are found by the digest of their bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// An encoded [`reapi::Directory`]; unchecked.
    pub root: Option<Bytes>,
    /// Encoded [`reapi::Directory`] messages; unchecked.
    pub children: Vec<Bytes>,
}

impl Message for Tree {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if let Some(root) = &self.root {
            encoding::bytes::encode(1, root, buf);
        }
        encoding::bytes::encode_repeated(2, &self.children, buf);
    }

    fn encoded_len(&self) -> usize {
        self.root
            .as_ref()
            .map_or(0, |root| encoding::bytes::encoded_len(1, root))
            + encoding::bytes::encoded_len_repeated(2, &self.children)
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (field, merged) = match tag {
            1 => ("root", merge_message(wire_type, &mut self.root, buf, ctx)),
            2 => (
                "children",
                encoding::bytes::merge_repeated(wire_type, &mut self.children, buf, ctx),
            ),
            _ => return encoding::skip_field(wire_type, tag, buf, ctx),
        };
        merged.map_err(|error| located(error, reapi::Tree::NAME, field))
    }

    fn clear(&mut self) {
        *self = Tree::default();
    }
}

/// Takes in one occurrence of a message field that may stand once. Protobuf merges a second one into the first; a twin
/// that kept only the last would hide from us what other readers see.
fn merge_message(
    wire_type: WireType,
    field: &mut Option<Bytes>,
    buf: &mut impl Buf,
    ctx: DecodeContext,
) -> Result<(), DecodeError> {
    let mut piece = Bytes::new();
    encoding::bytes::merge(wire_type, &mut piece, buf, ctx)?;
    append(field.get_or_insert_default(), piece);
    Ok(())
}

/// Merges encoded messages: by definition of the format, that is to append one to the other.
///
/// Grows in place once the bytes are ours alone, so that a message of a million tiny pieces costs no more than its size.
fn append(bytes: &mut Bytes, piece: Bytes) {
    if bytes.is_empty() {
        *bytes = piece;
    } else if !piece.is_empty() {
        let mut grown = std::mem::take(bytes)
            .try_into_mut()
            .unwrap_or_else(|shared| shared.as_ref().into());
        grown.extend_from_slice(&piece);
        *bytes = grown.freeze();
    }
}

fn located(mut error: DecodeError, message: &'static str, field: &'static str) -> DecodeError {
    error.push(message, field);
    error
}

#[cfg(test)]
mod tests;
