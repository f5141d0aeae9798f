//! Who calls, and how long they wait: what the services need of a request's headers.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use proto::REQUEST_METADATA_HEADER;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::deadline::Deadline;
use super::status::invalid;
use crate::call::{Call, Cause, InstanceName, Scope};

/// The header in which a client may repeat the resource name of a ByteStream call (META-07).
const RESOURCE_NAME_HEADER: &str = "build.bazel.remote.execution.v2.resource-name";

/// Which instances share: instance to share group. An instance that is not in it shares with nobody.
#[derive(Debug, Clone, Default)]
pub struct ShareGroups(Arc<HashMap<InstanceName, Scope>>);

impl ShareGroups {
    /// The groups of a configuration.
    pub fn new(groups: HashMap<InstanceName, Scope>) -> ShareGroups {
        ShareGroups(Arc::new(groups))
    }

    fn scope(&self, instance: &InstanceName) -> Scope {
        self.0
            .get(instance)
            .cloned()
            .unwrap_or_else(|| Scope::from(instance))
    }
}

/// One client call, before it is known which instance it is about.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    deadline: Option<Deadline>,
    request_metadata: Option<Bytes>,
    resource_name: Option<Bytes>,
    groups: ShareGroups,
}

impl Caller {
    /// Reads the headers. What is malformed in metadata is left out and changes nothing (META-03).
    pub(super) fn new(parts: Parts, groups: ShareGroups) -> Caller {
        let metadata = MetadataMap::from_headers(parts.headers);
        let request_metadata = metadata
            .get_bin(REQUEST_METADATA_HEADER)
            .and_then(|value| value.to_bytes().ok());
        let resource_name = metadata
            .get(RESOURCE_NAME_HEADER)
            .map(|value| Bytes::copy_from_slice(value.as_bytes()));
        Caller {
            deadline: parts.extensions.get::<Deadline>().copied(),
            request_metadata,
            resource_name,
            groups,
        }
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
            scope: self.groups.scope(&instance),
            instance,
            deadline: self.deadline.map(|deadline| deadline.0),
            cause: Cause::Client(self.request_metadata.clone()),
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
    use http::{HeaderValue, Request};
    use tokio::time::Instant;

    use super::*;

    fn caller(name: &'static str, value: &'static [u8]) -> Caller {
        let mut request = Request::new(());
        request
            .headers_mut()
            .insert(name, HeaderValue::from_bytes(value).unwrap());
        Caller::new(request.into_parts().0, ShareGroups::default())
    }

    #[test]
    fn request_metadata_goes_along_as_the_client_encoded_it() {
        let caller = caller(REQUEST_METADATA_HEADER, b"AAEC"); // META-01
        let Cause::Client(metadata) = caller.call("").unwrap().cause else {
            panic!("a client's call");
        };
        assert_eq!(metadata.unwrap(), b"\0\x01\x02"[..]);
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
        let groups = ShareGroups::new(HashMap::from([(a, Scope::new("g")), (b, Scope::new("g"))]));
        let caller = Caller::new(Request::new(()).into_parts().0, groups);
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
        let caller = Caller::new(request.into_parts().0, ShareGroups::default());
        assert_eq!(caller.call("").unwrap().deadline, Some(deadline)); // R14
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
