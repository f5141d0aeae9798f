//! What a server says of itself.

use std::sync::Arc;

use proto::reapi::{digest_function, symlink_absolute_path_strategy};
use proto::semver::SemVer;

use crate::check;
use crate::check::{Check, Verdict, expect};
use crate::target::{Target, refused};

pub(super) const CHECKS: &[Check] = &[
    check!("CAP-01", answers),
    check!("CAP-02", fills_cache_capabilities),
    check!("CAP-03", lists_sha256),
    check!("CAP-04", range_holds_2_0),
    check!("CAP-11", batch_limit_is_positive),
    check!("CAP-13", symlink_strategy_is_set),
    check!("CAP-14", identity),
    check!("DIG-19", unknown_is_not_announced),
];

async fn cache(target: &Target) -> Result<proto::reapi::CacheCapabilities, check::Stop> {
    let all = target
        .server_capabilities()
        .await
        .map_err(refused("GetCapabilities"))?;
    all.cache_capabilities
        .ok_or_else(|| check::Stop::Failed("cache_capabilities is absent".into()))
}

async fn answers(target: Arc<Target>) -> Verdict {
    target
        .server_capabilities()
        .await
        .map_err(refused("GetCapabilities"))
        .map(|_| ())
}

async fn fills_cache_capabilities(target: Arc<Target>) -> Verdict {
    cache(&target).await.map(|_| ())
}

async fn lists_sha256(target: Arc<Target>) -> Verdict {
    let functions = cache(&target).await?.digest_functions;
    let sha256 = i32::from(digest_function::Value::Sha256);
    expect(functions.contains(&sha256), || {
        format!("digest_functions is {functions:?}")
    })
}

async fn range_holds_2_0(target: Arc<Target>) -> Verdict {
    let all = target
        .server_capabilities()
        .await
        .map_err(refused("GetCapabilities"))?;
    let number = |version: &SemVer| (version.major, version.minor, version.patch);
    let (low, high) = (
        all.low_api_version.unwrap_or_default(),
        all.high_api_version.unwrap_or_default(),
    );
    expect(number(&low) <= (2, 0, 0) && number(&high) >= (2, 0, 0), || {
        format!("the range is {:?} to {:?}", number(&low), number(&high))
    })
}

async fn batch_limit_is_positive(target: Arc<Target>) -> Verdict {
    let limit = cache(&target).await?.max_batch_total_size_bytes;
    expect(limit > 0, || format!("max_batch_total_size_bytes is {limit}"))
}

async fn symlink_strategy_is_set(target: Arc<Target>) -> Verdict {
    let strategy = cache(&target).await?.symlink_absolute_path_strategy;
    expect(
        strategy != i32::from(symlink_absolute_path_strategy::Value::Unknown),
        || "it is UNKNOWN".into(),
    )
}

async fn identity(target: Arc<Target>) -> Verdict {
    let plain = crate::target::Blob::random(100);
    let name = target.write_name(&plain.digest);
    target
        .write(&name, &plain.bytes, 1024)
        .await
        .map_err(refused("a plain Write"))?;
    let bytes = target
        .read(&target.read_name(&plain.digest), 0, 0)
        .await
        .map_err(refused("a plain Read"))?;
    expect(bytes == plain.bytes, || {
        format!("read {} other bytes", bytes.len())
    })
}

async fn unknown_is_not_announced(target: Arc<Target>) -> Verdict {
    let functions = cache(&target).await?.digest_functions;
    expect(!functions.contains(&0), || {
        format!("digest_functions is {functions:?}")
    })
}
