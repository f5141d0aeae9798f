//! The services: thin, over [`crate::contents`]. Each handler identifies its call, then follows the call's script.

mod action_cache;
mod asset;
mod bytestream;
mod capabilities;
mod cas;
mod chunks;
mod complete;
mod tree;

use std::sync::Arc;

use proto::asset::fetch_server::FetchServer;
use proto::asset::push_server::PushServer;
use proto::bytestream::byte_stream_server::ByteStreamServer;
use proto::reapi::capabilities_server::CapabilitiesServer;
use proto::wire::action_cache_server::ActionCacheServer;
use proto::wire::content_addressable_storage_server::ContentAddressableStorageServer;
use tonic::Status;
use tonic::service::Routes;

use crate::digest::{DigestError, Function};
use crate::mock::Shared;

/// Implements all services.
#[derive(Clone)]
struct Service {
    shared: Arc<Shared>,
}

/// The services as routes, with the message limit in force now.
pub(crate) fn routes(shared: Arc<Shared>) -> Routes {
    let max_message = shared.settings.lock().max_message_bytes;
    let service = Service { shared };
    Routes::new(CapabilitiesServer::new(service.clone()))
        .add_service(
            ContentAddressableStorageServer::new(service.clone()).max_decoding_message_size(max_message),
        )
        .add_service(ActionCacheServer::new(service.clone()).max_decoding_message_size(max_message))
        .add_service(FetchServer::new(service.clone()).max_decoding_message_size(max_message))
        .add_service(PushServer::new(service.clone()).max_decoding_message_size(max_message))
        .add_service(ByteStreamServer::new(service).max_decoding_message_size(max_message))
        .prepare()
}

impl Service {
    /// The function of a request's digests, and how to go on reading them where it is refused later.
    fn function(&self, said: i32) -> (Function, Result<(), DigestError>) {
        match Function::asked(said, &self.shared.settings.lock().functions) {
            Ok(function) => (function, Ok(())),
            Err(error) => (Function::default(), Err(error)),
        }
    }

    /// Whether a name may have this function.
    fn check_function(&self, function: Function) -> Result<(), DigestError> {
        self.function(function.number()).1
    }
}

fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

/// Sizes are signed on the wire.
fn wire(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
