//! FindMissingBlobs.

use std::sync::Arc;

use proto::reapi;
use tonic::Code;

use crate::check;
use crate::check::{Check, Verdict, expect};
use crate::target::{Blob, Target, refused, refused_with};

pub(super) const CHECKS: &[Check] = &[
    check!("CAS-FMB-01", lists_exactly_the_absent),
    check!("CAS-FMB-03", duplicates_are_legal),
    check!("CAS-FMB-04", empty_list),
    check!("CAS-FMB-07", empty_blob_is_present),
    check!("CAS-FMB-10", malformed_digest),
    check!("CAS-FMB-11", other_size_is_missing),
    check!("CAS-FMB-12", large_question),
];

async fn lists_exactly_the_absent(target: Arc<Target>) -> Verdict {
    let (there, absent) = (Blob::random(1000), Blob::random(1000));
    target.put(&there).await?;
    let missing = target
        .missing(vec![there.digest, absent.digest.clone()])
        .await
        .map_err(refused("FindMissingBlobs"))?;
    expect(missing == [absent.digest], || format!("listed {missing:?}"))
}

async fn duplicates_are_legal(target: Arc<Target>) -> Verdict {
    let absent = Blob::random(10).digest;
    let missing = target
        .missing(vec![absent.clone(), absent.clone()])
        .await
        .map_err(refused("FindMissingBlobs"))?;
    expect(
        !missing.is_empty() && missing.iter().all(|digest| *digest == absent),
        || format!("listed {missing:?}"),
    )
}

async fn empty_list(target: Arc<Target>) -> Verdict {
    let missing = target
        .missing(Vec::new())
        .await
        .map_err(refused("FindMissingBlobs of nothing"))?;
    expect(missing.is_empty(), || format!("listed {missing:?}"))
}

async fn empty_blob_is_present(target: Arc<Target>) -> Verdict {
    let missing = target
        .missing(vec![Blob::of("").digest])
        .await
        .map_err(refused("FindMissingBlobs"))?;
    expect(missing.is_empty(), || format!("listed {missing:?}"))
}

async fn malformed_digest(target: Arc<Target>) -> Verdict {
    let good = Blob::random(10).digest;
    let bad = [
        reapi::Digest {
            hash: good.hash.to_uppercase(),
            size_bytes: 10,
        },
        reapi::Digest {
            hash: "abc".into(),
            size_bytes: 10,
        },
        reapi::Digest {
            hash: String::new(),
            size_bytes: 0,
        },
        reapi::Digest {
            hash: good.hash.clone(),
            size_bytes: -1,
        },
    ];
    for digest in bad.into_iter().filter(|digest| *digest != good) {
        let step = format!("FindMissingBlobs of {digest:?}");
        refused_with(
            &step,
            target.missing(vec![good.clone(), digest]).await,
            &[Code::InvalidArgument],
        )?;
    }
    Ok(())
}

async fn other_size_is_missing(target: Arc<Target>) -> Verdict {
    let there = Blob::random(1000);
    target.put(&there).await?;
    let other = reapi::Digest {
        size_bytes: 999,
        ..there.digest
    };
    let missing = target
        .missing(vec![other.clone()])
        .await
        .map_err(refused("FindMissingBlobs"))?;
    expect(missing == [other], || format!("listed {missing:?}"))
}

async fn large_question(target: Arc<Target>) -> Verdict {
    let asked: Vec<_> = (0..15_000).map(|_| Blob::random(8).digest).collect();
    let missing = target
        .missing(asked.clone())
        .await
        .map_err(refused("FindMissingBlobs"))?;
    let listed: std::collections::BTreeSet<_> = missing.iter().map(|digest| &digest.hash).collect();
    expect(asked.iter().all(|digest| listed.contains(&digest.hash)), || {
        format!("listed {}", missing.len())
    })
}
