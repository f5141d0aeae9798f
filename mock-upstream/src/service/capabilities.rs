use proto::reapi::capabilities_server::Capabilities;
use proto::reapi::symlink_absolute_path_strategy::Value as SymlinkStrategy;
use proto::reapi::{self, GetCapabilitiesRequest, ServerCapabilities, compressor};
use proto::semver::SemVer;
use tonic::{Request, Response, Status};

use crate::call::CallHandle;
use crate::digest::Function;
use crate::mock::Settings;
use crate::name::check_instance;
use crate::rule::{Act, Announce};
use crate::service::chunks::{AVERAGE_CHUNK_BYTES, LEAST_CHUNK_BYTES};
use crate::service::{Service, wire};
use crate::violation::pick;

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
        script.end().await?;
        let mut capabilities = {
            let settings = self.shared.settings.lock();
            let told = settings.capabilities.clone();
            told.unwrap_or_else(|| announced(&settings))
        };
        if let Some(Act::Capabilities(lie)) = script.lies(None, |act| matches!(act, Act::Capabilities(_))) {
            change(&mut capabilities, lie);
        }
        if let Some(late) = self.shared.bends().iter().find_map(pick!(CapabilitiesLate)) {
            tokio::time::sleep(late).await;
        }
        for bend in self.shared.bends().iter().filter_map(pick!(Capabilities)) {
            bend(&mut capabilities, &mut self.shared.contents.lock());
        }
        Ok(Response::new(capabilities))
    }
}

fn change(capabilities: &mut ServerCapabilities, lie: Announce) {
    if lie.no_cache {
        capabilities.cache_capabilities = None;
        return;
    }
    let cache = capabilities.cache_capabilities.get_or_insert_default();
    if let Some(update_enabled) = lie.update_enabled {
        cache.action_cache_update_capabilities =
            Some(reapi::ActionCacheUpdateCapabilities { update_enabled });
    }
    if let Some(bytes) = lie.max_batch_bytes {
        cache.max_batch_total_size_bytes = bytes;
    }
    if let Some(bytes) = lie.max_blob_bytes {
        cache.max_cas_blob_size_bytes = bytes;
    }
    if let Some(functions) = lie.digest_functions {
        cache.digest_functions = functions;
    }
    if let Some(compressors) = lie.compressors {
        cache.supported_compressors = compressors;
    }
}

fn functions(settings: &Settings) -> Vec<i32> {
    let offered = [Function::Sha256]
        .into_iter()
        .chain(settings.functions.iter().copied());
    offered.map(Function::number).collect()
}

fn compressors(settings: &Settings) -> Vec<i32> {
    if settings.zstd {
        vec![compressor::Value::Zstd as i32]
    } else {
        Vec::new()
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
            digest_functions: functions(settings),
            action_cache_update_capabilities: Some(reapi::ActionCacheUpdateCapabilities {
                update_enabled: settings.update_enabled,
            }),
            max_batch_total_size_bytes: wire(settings.max_batch_bytes),
            symlink_absolute_path_strategy: SymlinkStrategy::Allowed as i32,
            max_cas_blob_size_bytes: wire(settings.max_blob_bytes),
            supported_compressors: compressors(settings),
            supported_batch_update_compressors: compressors(settings),
            split_blob_support: settings.split,
            splice_blob_support: settings.split,
            fast_cdc_2020_params: settings.split.then(|| reapi::FastCdc2020Params {
                avg_chunk_size_bytes: AVERAGE_CHUNK_BYTES as u64,
                ..Default::default()
            }),
            rep_max_cdc_params: settings.split.then_some(reapi::RepMaxCdcParams {
                min_chunk_size_bytes: LEAST_CHUNK_BYTES as u64,
                horizon_size_bytes: 0,
            }),
            ..reapi::CacheCapabilities::default()
        }),
        low_api_version: Some(version(0)),
        high_api_version: Some(version(3)),
        ..ServerCapabilities::default()
    }
}
