use proto::reapi::capabilities_server::Capabilities;
use proto::reapi::symlink_absolute_path_strategy::Value as SymlinkStrategy;
use proto::reapi::{self, GetCapabilitiesRequest, ServerCapabilities, digest_function};
use proto::semver::SemVer;
use tonic::{Request, Response, Status};

use crate::call::CallHandle;
use crate::mock::Settings;
use crate::name::check_instance;
use crate::service::{Service, wire};

#[tonic::async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        let call = CallHandle::of(&request)?;
        let instance = request.into_inner().instance_name;
        let mut script = call.identify(&instance, Vec::new());
        script.start().await?;
        check_instance(&instance)?;
        script.end().await;
        let settings = self.shared.settings.lock();
        Ok(Response::new(
            settings
                .capabilities
                .clone()
                .unwrap_or_else(|| announced(&settings)),
        ))
    }
}

/// What these settings amount to.
fn announced(settings: &Settings) -> ServerCapabilities {
    let version = |minor| SemVer {
        major: 2,
        minor,
        ..SemVer::default()
    };
    ServerCapabilities {
        cache_capabilities: Some(reapi::CacheCapabilities {
            digest_functions: vec![digest_function::Value::Sha256 as i32],
            action_cache_update_capabilities: Some(reapi::ActionCacheUpdateCapabilities {
                update_enabled: settings.update_enabled,
            }),
            max_batch_total_size_bytes: wire(settings.max_batch_bytes),
            symlink_absolute_path_strategy: SymlinkStrategy::Allowed as i32,
            max_cas_blob_size_bytes: wire(settings.max_blob_bytes),
            ..reapi::CacheCapabilities::default()
        }),
        low_api_version: Some(version(0)),
        high_api_version: Some(version(3)),
        ..ServerCapabilities::default()
    }
}
