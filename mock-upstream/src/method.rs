//! Names of the methods, as they stand in rules and in the log.

pub const READ: &str = "ByteStream.Read";
pub const WRITE: &str = "ByteStream.Write";
pub const QUERY_WRITE_STATUS: &str = "ByteStream.QueryWriteStatus";
pub const FIND_MISSING: &str = "ContentAddressableStorage.FindMissingBlobs";
pub const BATCH_UPDATE: &str = "ContentAddressableStorage.BatchUpdateBlobs";
pub const BATCH_READ: &str = "ContentAddressableStorage.BatchReadBlobs";
pub const GET_TREE: &str = "ContentAddressableStorage.GetTree";
pub const GET_ACTION: &str = "ActionCache.GetActionResult";
pub const UPDATE_ACTION: &str = "ActionCache.UpdateActionResult";
pub const CAPABILITIES: &str = "Capabilities.GetCapabilities";

/// Rules do not know these two; what is done to every call is done to them.
pub const SPLIT: &str = "ContentAddressableStorage.SplitBlob";
pub const SPLICE: &str = "ContentAddressableStorage.SpliceBlob";

/// Nor these, of Remote Asset.
pub const FETCH_BLOB: &str = "Fetch.FetchBlob";
pub const FETCH_DIRECTORY: &str = "Fetch.FetchDirectory";
pub const PUSH_BLOB: &str = "Push.PushBlob";
pub const PUSH_DIRECTORY: &str = "Push.PushDirectory";

/// No method: a connection that has just been accepted, before a byte of it is read. Only rules know it.
pub const CONNECT: &str = "connect";

/// Every name that a rule may be on.
pub const ALL: [&str; 11] = [
    READ,
    WRITE,
    QUERY_WRITE_STATUS,
    FIND_MISSING,
    BATCH_UPDATE,
    BATCH_READ,
    GET_TREE,
    GET_ACTION,
    UPDATE_ACTION,
    CAPABILITIES,
    CONNECT,
];
