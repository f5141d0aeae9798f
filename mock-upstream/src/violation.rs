//! Servers that break one requirement each, and as little else as can be: for judging those who judge servers.
//!
//! A [`Violation`] bends requests before a handler sees them, or answers before a client does. The handlers know nothing
//! of it, and a client learns nothing but what it is answered.

mod actions;
mod assets;
mod blobs;
mod chunks;
mod compressed;
mod functions;
mod streams;
mod transport;
mod trees;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse, PushBlobRequest,
    PushBlobResponse, PushDirectoryRequest,
};
use proto::bytestream::{QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest};
use proto::reapi::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetActionResultRequest, GetTreeRequest,
    ServerCapabilities, SpliceBlobRequest, SpliceBlobResponse, SplitBlobRequest, SplitBlobResponse,
};
use proto::wire::{ActionResult, GetTreeResponse, UpdateActionResultRequest};
use tonic::{Code, Status, Streaming};

use crate::call::CallHandle;
use crate::contents::Contents;
use crate::method;
use crate::mock::Shared;

/// A way to break one requirement.
pub struct Violation {
    /// The requirement.
    pub id: &'static str,
    /// What the server does.
    pub does: &'static str,
    pub(crate) bends: &'static [Bend],
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.does)
    }
}

impl Violation {
    /// Every violation there is, by the requirements' ids; one for each.
    pub fn all() -> Vec<&'static Violation> {
        let mut all: Vec<&Violation> = [
            transport::VIOLATIONS,
            blobs::VIOLATIONS,
            compressed::VIOLATIONS,
            functions::VIOLATIONS,
            chunks::VIOLATIONS,
            streams::VIOLATIONS,
            trees::VIOLATIONS,
            actions::VIOLATIONS,
            assets::VIOLATIONS,
        ]
        .into_iter()
        .flatten()
        .collect();
        all.sort_by_key(|violation| violation.id);
        all
    }

    /// The one that breaks this requirement.
    pub fn of(id: &str) -> Option<&'static Violation> {
        Violation::all().into_iter().find(|violation| violation.id == id)
    }
}

impl Violation {
    /// Whether calls of this method may be answered otherwise than they should.
    pub fn touches(&self, called: &str) -> bool {
        self.bends
            .iter()
            .any(|bend| bend.method().is_none_or(|method| method == called))
    }
}

const fn violation(id: &'static str, does: &'static str, bends: &'static [Bend]) -> Violation {
    Violation { id, does, bends }
}

/// Changes a request, or refuses it.
pub(crate) type In<Q> = fn(&mut Q, &mut Contents) -> Result<(), Status>;

/// Changes an answer; the request is as the client sent it.
pub(crate) type Out<Q, A> = fn(&Q, &mut Result<A, Status>, &mut Contents);

/// Where a violation takes hold.
pub(crate) enum Bend {
    /// Refuses a call by its path and headers.
    Call(fn(&str, &http::HeaderMap) -> Option<Status>),
    Capabilities(fn(&mut ServerCapabilities, &mut Contents)),
    /// Capabilities come so much later.
    CapabilitiesLate(Duration),
    /// What a call is told whose deadline has passed.
    Late(Code),
    FindIn(In<FindMissingBlobsRequest>),
    FindOut(Out<FindMissingBlobsRequest, FindMissingBlobsResponse>),
    UpdateIn(In<BatchUpdateBlobsRequest>),
    UpdateOut(Out<BatchUpdateBlobsRequest, BatchUpdateBlobsResponse>),
    BatchReadIn(In<BatchReadBlobsRequest>),
    BatchReadOut(Out<BatchReadBlobsRequest, BatchReadBlobsResponse>),
    TreeIn(In<GetTreeRequest>),
    TreeOut(Out<GetTreeRequest, Vec<GetTreeResponse>>),
    GetIn(In<GetActionResultRequest>),
    GetOut(Out<GetActionResultRequest, ActionResult>),
    PutIn(In<UpdateActionResultRequest>),
    PutOut(Out<UpdateActionResultRequest, ActionResult>),
    ReadIn(In<ReadRequest>),
    ReadOut(Out<ReadRequest, Bytes>),
    /// The first message of a Write.
    WriteIn(In<WriteRequest>),
    WriteOut(Out<Written, i64>),
    /// Bytes in one message of a Read, whatever is set.
    ReadChunk(usize),
    /// A Write is read to its end before it is refused.
    WriteLate,
    SplitIn(In<SplitBlobRequest>),
    SplitOut(Out<SplitBlobRequest, SplitBlobResponse>),
    SpliceIn(In<SpliceBlobRequest>),
    SpliceOut(Out<SpliceBlobRequest, SpliceBlobResponse>),
    QueryIn(In<QueryWriteStatusRequest>),
    QueryOut(Out<QueryWriteStatusRequest, QueryWriteStatusResponse>),
    FetchIn(In<FetchBlobRequest>),
    FetchOut(Out<FetchBlobRequest, FetchBlobResponse>),
    FetchDirectoryOut(Out<FetchDirectoryRequest, FetchDirectoryResponse>),
    PushIn(In<PushBlobRequest>),
    PushOut(Out<PushBlobRequest, PushBlobResponse>),
    PushDirectoryIn(In<PushDirectoryRequest>),
}

impl Bend {
    /// The method that it is about; none for all.
    fn method(&self) -> Option<&'static str> {
        match self {
            Bend::Call(_) | Bend::Late(_) => None,
            Bend::Capabilities(_) | Bend::CapabilitiesLate(_) => Some(method::CAPABILITIES),
            Bend::FindIn(_) | Bend::FindOut(_) => Some(method::FIND_MISSING),
            Bend::UpdateIn(_) | Bend::UpdateOut(_) => Some(method::BATCH_UPDATE),
            Bend::BatchReadIn(_) | Bend::BatchReadOut(_) => Some(method::BATCH_READ),
            Bend::TreeIn(_) | Bend::TreeOut(_) => Some(method::GET_TREE),
            Bend::GetIn(_) | Bend::GetOut(_) => Some(method::GET_ACTION),
            Bend::PutIn(_) | Bend::PutOut(_) => Some(method::UPDATE_ACTION),
            Bend::ReadIn(_) | Bend::ReadOut(_) | Bend::ReadChunk(_) => Some(method::READ),
            Bend::WriteIn(_) | Bend::WriteOut(_) | Bend::WriteLate => Some(method::WRITE),
            Bend::SplitIn(_) | Bend::SplitOut(_) => Some(method::SPLIT),
            Bend::SpliceIn(_) | Bend::SpliceOut(_) => Some(method::SPLICE),
            Bend::QueryIn(_) | Bend::QueryOut(_) => Some(method::QUERY_WRITE_STATUS),
            Bend::FetchIn(_) | Bend::FetchOut(_) => Some(method::FETCH_BLOB),
            Bend::FetchDirectoryOut(_) => Some(method::FETCH_DIRECTORY),
            Bend::PushIn(_) | Bend::PushOut(_) => Some(method::PUSH_BLOB),
            Bend::PushDirectoryIn(_) => Some(method::PUSH_DIRECTORY),
        }
    }
}

/// What came of a Write until it was answered.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) name: String,
    pub(crate) start: i64,
    pub(crate) data: Vec<u8>,
    pub(crate) finished: bool,
    /// The message with `finish_write` had no data, though others had.
    pub(crate) bare_finish: bool,
    /// A message in between had no data.
    pub(crate) pause: bool,
}

impl Shared {
    pub(crate) fn bends(&self) -> &'static [Bend] {
        self.violation.lock().map_or(&[], |violation| violation.bends)
    }

    /// The client's request, as the violation would have it.
    pub(crate) fn bend_in<Q>(
        &self,
        request: &mut Q,
        pick: impl Fn(&Bend) -> Option<In<Q>>,
    ) -> Result<(), Status> {
        for bend in self.bends().iter().filter_map(pick) {
            bend(request, &mut self.contents.lock())?;
        }
        Ok(())
    }

    /// The answer, as the violation would have it.
    pub(crate) fn bend_out<Q, A>(
        &self,
        asked: &Q,
        answer: &mut Result<A, Status>,
        pick: impl Fn(&Bend) -> Option<Out<Q, A>>,
    ) {
        for bend in self.bends().iter().filter_map(pick) {
            bend(asked, answer, &mut self.contents.lock());
        }
    }

    /// A call of one message and one answer, each as the violation would have it.
    pub(crate) async fn bent<Q, A, F>(
        &self,
        request: tonic::Request<Q>,
        pick_in: impl Fn(&Bend) -> Option<In<Q>>,
        pick_out: impl Fn(&Bend) -> Option<Out<Q, A>>,
        answer: impl FnOnce(CallHandle, Q) -> F,
    ) -> Result<tonic::Response<A>, Status>
    where
        Q: Clone,
        F: Future<Output = Result<A, Status>>,
    {
        let call = CallHandle::of(&request)?;
        let asked = request.into_inner();
        let mut request = asked.clone();
        self.bend_in(&mut request, pick_in)?;
        let mut answer = answer(call, request).await;
        self.bend_out(&asked, &mut answer, pick_out);
        answer.map(tonic::Response::new)
    }

    /// The refusal of a call that a violation does not like.
    pub(crate) fn bend_call(&self, path: &str, headers: &http::HeaderMap) -> Option<Status> {
        let mut bends = self.bends().iter();
        bends.find_map(|bend| {
            if let Bend::Call(refuses) = bend {
                refuses(path, headers)
            } else {
                None
            }
        })
    }
}

/// The function in a bend, if it is of this kind.
macro_rules! pick {
    ($kind:ident) => {
        |bend: &crate::violation::Bend| {
            if let crate::violation::Bend::$kind(bend) = bend {
                Some(*bend)
            } else {
                None
            }
        }
    };
}
pub(crate) use pick;

/// The messages of a Write, as the violation would have them. Remembers what came only where one is in force.
pub(crate) struct Messages {
    stream: Streaming<WriteRequest>,
    shared: Arc<Shared>,
    begun: bool,
    pub(crate) written: Written,
}

impl Messages {
    pub(crate) fn new(stream: Streaming<WriteRequest>, shared: Arc<Shared>) -> Messages {
        Messages {
            stream,
            shared,
            begun: false,
            written: Written::default(),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<WriteRequest>, Status> {
        let Some(mut message) = self.stream.message().await? else {
            return Ok(None);
        };
        if self.shared.bends().is_empty() {
            return Ok(Some(message));
        }
        if !self.begun {
            self.begun = true;
            message.resource_name.clone_into(&mut self.written.name);
            self.written.start = message.write_offset;
            self.shared.bend_in(&mut message, pick!(WriteIn))?;
        }
        self.written.data.extend_from_slice(&message.data);
        if message.data.is_empty() && !self.written.data.is_empty() {
            self.written.bare_finish |= message.finish_write;
            self.written.pause |= !message.finish_write;
        }
        self.written.finished |= message.finish_write;
        Ok(Some(message))
    }

    /// Reads to the end, if the violation is to read on after a refusal.
    pub(crate) async fn linger(&mut self) {
        if self
            .shared
            .bends()
            .iter()
            .any(|bend| matches!(bend, Bend::WriteLate))
        {
            while let Ok(Some(_)) = self.stream.message().await {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_requirement_has_one_violation_that_says_what_it_does() {
        let all = Violation::all();
        let ids: BTreeSet<_> = all.iter().map(|violation| violation.id).collect();
        assert_eq!(ids.len(), all.len());
        let deeds: BTreeSet<_> = all.iter().map(|violation| violation.does).collect();
        assert_eq!(deeds.len(), all.len());
        assert!(all.iter().all(|violation| !violation.bends.is_empty()));
        assert!(Violation::of("NO-99").is_none());
    }
}
