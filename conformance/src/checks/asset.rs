//! Remote Asset.

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[check!("ASSET-FETCH-29", unoffered_is_unimplemented)];

async fn unoffered_is_unimplemented(t: Arc<Target>) -> Verdict {
    // No URI: a server with the service refuses this, and has nothing to fetch.
    let answer = t
        .post_message("/build.bazel.remote.asset.v1.Fetch/FetchBlob", &[])
        .await?;
    let code = answer.code();
    let right = [Code::Unimplemented, Code::InvalidArgument].contains(&code);
    expect(right, || format!("a fetch of nothing is {code:?}"))
}
