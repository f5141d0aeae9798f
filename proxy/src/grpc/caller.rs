//! Who calls, and how long they wait: what the services need of a request's headers.

use bytes::Bytes;
use http::request::Parts;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::deadline::Deadline;
use super::request_metadata;
use super::status::invalid;
use crate::call::{Call, Cause, InstanceName, ShareGroups, Via};
use crate::metrics::CallMetrics;

/// The header in which a client may repeat the resource name of a ByteStream call (META-07).
const RESOURCE_NAME_HEADER: &str = "build.bazel.remote.execution.v2.resource-name";

/// One client call, before it is known which instance it is about.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    deadline: Option<Deadline>,
    request_metadata: Option<Bytes>,
    resource_name: Option<Bytes>,
    groups: ShareGroups,
    via: Via,
}

impl Caller {
    /// Reads the headers. What is malformed in metadata is left out, counted in `calls`, and changes nothing (META-03).
    ///
    /// # Errors
    /// FAILED_PRECONDITION for a call that this node, whose id is `node_id`, has sent itself, however far round.
    pub(super) fn new(
        parts: Parts,
        groups: ShareGroups,
        node_id: &str,
        calls: &CallMetrics,
    ) -> Result<Caller, Status> {
        let metadata = MetadataMap::from_headers(parts.headers);
        let via = metadata.get(Via::HEADER).and_then(|value| value.to_str().ok());
        let via = Via::arrived(via.unwrap_or_default(), node_id).map_err(|error| {
            tracing::warn!(via, %error, "a call goes in a circle: look at the tier2.url of each node");
            Status::failed_precondition(error.to_string())
        })?;
        let resource_name = metadata
            .get(RESOURCE_NAME_HEADER)
            .map(|value| Bytes::copy_from_slice(value.as_bytes()));
        Ok(Caller {
            deadline: parts.extensions.get::<Deadline>().copied(),
            request_metadata: request_metadata::to_send_on(&metadata, calls),
            resource_name,
            groups,
            via,
        })
    }

    /// The call, for the instance that a message names.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for what cannot be an instance name.
    pub(super) fn call(&self, instance: &str) -> Result<Call, Status> {
        Ok(self.call_to(InstanceName::parse(instance).map_err(invalid)?))
    }

    /// The call, for the instance that a resource name begins with.
    pub(super) fn call_to(&self, instance: InstanceName) -> Call {
        Call {
            scope: self.groups.scope_of(&instance),
            instance,
            deadline: self.deadline.map(|deadline| deadline.0),
            cause: Cause::Client(self.request_metadata.clone()),
            via: self.via.clone(),
        }
    }

    /// Checks the header that routers look at against the resource name that counts.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if they differ.
    pub(super) fn agrees_on(&self, resource_name: &str) -> Result<(), Status> {
        match &self.resource_name {
            Some(header) if header != resource_name.as_bytes() => Err(Status::invalid_argument(
                "the header and the message name different resources",
            )),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::{HeaderValue, Request};
    use proto::REQUEST_METADATA_HEADER;
    use tokio::time::Instant;

    use super::*;
    use crate::call::Scope;
    use crate::metrics::Metrics;

    fn caller(name: &'static str, value: &'static [u8]) -> Caller {
        let mut request = Request::new(());
        request
            .headers_mut()
            .insert(name, HeaderValue::from_bytes(value).unwrap());
        with_parts(request.into_parts().0)
    }

    fn with_parts(parts: Parts) -> Caller {
        arrived(parts, ShareGroups::default(), "node").unwrap()
    }

    fn arrived(parts: Parts, groups: ShareGroups, node_id: &str) -> Result<Caller, Status> {
        Caller::new(parts, groups, node_id, &Metrics::new().calls)
    }

    #[test]
    fn request_metadata_goes_along_as_the_client_encoded_it() {
        let caller = caller(REQUEST_METADATA_HEADER, b"EgF4"); // META-01
        let Cause::Client(metadata) = caller.call("").unwrap().cause else {
            panic!("a client's call");
        };
        assert_eq!(metadata.unwrap(), b"\x12\x01x"[..]);
    }

    #[test]
    fn metadata_that_cannot_be_decoded_changes_nothing() {
        // META-02, META-03
        for value in [&b"!"[..], b"\xff\xfe", b""] {
            let call = caller(REQUEST_METADATA_HEADER, value).call("a").unwrap();
            assert_eq!((call.scope.as_str(), call.instance.as_str()), ("a", "a"));
        }
    }

    #[test]
    fn a_share_group_is_the_scope_of_its_instances_and_of_no_other() {
        // INST-09
        let [a, b] = ["a", "b"].map(|name| InstanceName::parse(name).unwrap());
        let groups = ShareGroups::new(BTreeMap::from([(a, Scope::new("g")), (b, Scope::new("g"))]));
        let caller = arrived(Request::new(()).into_parts().0, groups, "node").unwrap();
        let scope = |instance| caller.call(instance).unwrap().scope;
        assert_eq!(
            (scope("a"), scope("b"), scope("c")),
            (Scope::new("g"), Scope::new("g"), Scope::new("c"))
        );
    }

    #[test]
    fn the_deadline_goes_along() {
        let deadline = Instant::now();
        let mut request = Request::new(());
        request.extensions_mut().insert(Deadline(deadline));
        let caller = with_parts(request.into_parts().0);
        assert_eq!(caller.call("").unwrap().deadline, Some(deadline)); // R14
    }

    #[test]
    fn a_call_that_this_node_sent_itself_goes_no_further() {
        // PXY-78
        let sent_by = |via: &'static str| {
            let mut request = Request::new(());
            let headers = request.headers_mut();
            headers.insert(Via::HEADER, HeaderValue::from_static(via));
            arrived(request.into_parts().0, ShareGroups::default(), "me")
        };
        let caller = sent_by("you").unwrap();
        assert_eq!(caller.call("").unwrap().via.and("me"), "you,me");
        let code = sent_by("you,me").unwrap_err().code();
        assert_eq!(code, tonic::Code::FailedPrecondition, "no client repeats it");
    }

    #[test]
    fn a_resource_name_header_has_to_agree() {
        // META-07
        let caller = caller(RESOURCE_NAME_HEADER, b"blobs/x");
        assert!(caller.agrees_on("blobs/x").is_ok());
        assert_eq!(
            caller.agrees_on("blobs/y").unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
    }
}
