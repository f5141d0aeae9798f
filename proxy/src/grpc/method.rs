//! The methods of this node: a closed list, from which dispatch and metric labels are made.

/// A method that this node answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    GetCapabilities,
    FindMissingBlobs,
    BatchUpdateBlobs,
    BatchReadBlobs,
    GetTree,
    GetActionResult,
    UpdateActionResult,
    Read,
    Write,
    QueryWriteStatus,
}

/// The label of every call to a method that is not in the list: what a peer wrote never becomes a label.
const OTHER: &str = "other";

impl Method {
    /// The method behind a request's path.
    pub(super) fn of(path: &str) -> Option<Method> {
        Some(match path {
            "/google.bytestream.ByteStream/Read" => Method::Read,
            "/google.bytestream.ByteStream/Write" => Method::Write,
            "/google.bytestream.ByteStream/QueryWriteStatus" => Method::QueryWriteStatus,
            "/build.bazel.remote.execution.v2.ActionCache/GetActionResult" => Method::GetActionResult,
            "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult" => Method::UpdateActionResult,
            "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities" => Method::GetCapabilities,
            "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs" => {
                Method::FindMissingBlobs
            }
            "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs" => {
                Method::BatchUpdateBlobs
            }
            "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs" => {
                Method::BatchReadBlobs
            }
            "/build.bazel.remote.execution.v2.ContentAddressableStorage/GetTree" => Method::GetTree,
            _ => return None,
        })
    }

    /// The metric label of a call to `path`.
    pub(super) fn label(path: &str) -> &'static str {
        match Method::of(path) {
            Some(Method::GetCapabilities) => "Capabilities/GetCapabilities",
            Some(Method::FindMissingBlobs) => "ContentAddressableStorage/FindMissingBlobs",
            Some(Method::BatchUpdateBlobs) => "ContentAddressableStorage/BatchUpdateBlobs",
            Some(Method::BatchReadBlobs) => "ContentAddressableStorage/BatchReadBlobs",
            Some(Method::GetTree) => "ContentAddressableStorage/GetTree",
            Some(Method::GetActionResult) => "ActionCache/GetActionResult",
            Some(Method::UpdateActionResult) => "ActionCache/UpdateActionResult",
            Some(Method::Read) => "ByteStream/Read",
            Some(Method::Write) => "ByteStream/Write",
            Some(Method::QueryWriteStatus) => "ByteStream/QueryWriteStatus",
            None => match path {
                "/grpc.health.v1.Health/Check" => "Health/Check",
                "/grpc.health.v1.Health/Watch" => "Health/Watch",
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => {
                    "ServerReflection/ServerReflectionInfo"
                }
                _ => OTHER,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_served_is_other() {
        assert_eq!(
            Method::label("/google.bytestream.ByteStream/Read"),
            "ByteStream/Read"
        );
        for path in ["", "/", "/google.bytestream.ByteStream/read", "/x/\n"] {
            assert_eq!(Method::label(path), "other", "{path:?}");
        }
    }
}
