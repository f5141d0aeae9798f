//! Requests that ask for what there cannot be.

use std::time::Duration;

use mock_upstream::{Digest, Match};
use proto::bytestream::WriteRequest;
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, MIB, Site, idle, noise};

/// The digest of some bytes, with another size.
fn resized(bytes: &[u8], size_bytes: i64) -> Digest {
    Digest::parse(&Digest::of(bytes).hash_hex(), size_bytes).unwrap()
}

async fn one_part(site: &Site, name: &str, offset: i64, data: &bytes::Bytes) -> Code {
    let part = WriteRequest {
        resource_name: name.to_owned(),
        write_offset: offset,
        finish_write: true,
        data: data.clone(),
    };
    code(site.client().write_parts(vec![part]).await)
}

#[tokio::test(start_paused = true)]
async fn a_size_that_no_blob_has_costs_nothing_and_is_the_clients_fault() {
    // P8: declared sizes cost nothing.
    let site = Harness::new().start().await;
    let blob = noise(MIB, 1);
    for size in [i64::MAX, i64::MAX - 1, 1 << 50, 1 << 40] {
        let huge = resized(&blob, size);
        let client = site.client();
        // As much as there is, and the claim that this was all.
        assert_eq!(
            code(client.write_as(&huge, &blob).await),
            Code::InvalidArgument,
            "{size}"
        );
        // Some of it, and silence: room is taken for what came.
        let mut silent = client.upload(&client.upload_name(&huge));
        silent.send(&blob, 0, MIB / 2).await;
        idle().await;
        let staged = site.node.metrics.tier1.staged_bytes.get();
        assert!(staged <= i64::try_from(MIB).unwrap(), "{staged} for {size}");
        assert_eq!(code(client.read(&huge).await), Code::NotFound, "{size}");
        assert_eq!(
            code(client.read_range(&huge, size - 1, 1).await),
            Code::NotFound,
            "{size}"
        );
        assert_eq!(client.missing(&[huge]).await.unwrap(), [huge]);
        let answers = client.batch_read(&[huge]).await;
        assert!(answers.is_err() || answers.unwrap()[0].status.as_ref().unwrap().code != 0);
        silent.hang_up().await;
        assert_eq!(site.mock.counts().blobs, 0);
    }
    site.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn offsets_and_names_that_make_no_sense_reach_no_tier() {
    let site = Harness::new().start().await;
    let blob = noise(1000, 2);
    let digest = site.mock.put_blob("", blob.clone());
    let mark = site.mock.mark();
    let client = site.client();
    for (offset, limit, expected) in [
        (-1, 0, Code::OutOfRange),
        (i64::MIN, 0, Code::OutOfRange),
        (0, -1, Code::InvalidArgument),
        (0, i64::MIN, Code::InvalidArgument),
        (1001, 0, Code::OutOfRange),
        (i64::MAX, i64::MAX, Code::OutOfRange),
    ] {
        let read = client.read_range(&digest, offset, limit).await;
        assert_eq!(code(read), expected, "{offset} {limit}");
    }
    let fresh = noise(1000, 3);
    let hash = Digest::of(&fresh).hash_hex();
    for offset in [-1, i64::MIN, 1, i64::MAX] {
        let name = client.upload_name(&Digest::of(&fresh));
        assert_ne!(one_part(&site, &name, offset, &fresh).await, Code::Ok, "{offset}");
    }
    let uuid = "7f1ab0a5-51ac-4a71-8a47-0d0a8a5e5f5c";
    let long = "x".repeat(100_000);
    for name in [
        String::new(),
        "/".to_owned(),
        long,
        format!("uploads/{uuid}/blobs/{hash}/-1000"),
        format!("uploads/{uuid}/blobs/{hash}/99999999999999999999"),
        format!("uploads/{uuid}/blobs/{hash}/1e3"),
        format!("uploads/{uuid}/blobs/../{hash}/1000"),
        format!("uploads/{uuid}/blobs/{}/1000", &hash[1..]),
        format!("uploads/{uuid}/blobs/{hash}0/1000"),
        format!("uploads/{uuid}/blobs/{hash}"),
        format!("blobs/{hash}/1000"),
        format!("a//uploads/{uuid}/blobs/{hash}/1000"),
        format!("uploads/{uuid}/compressed-blobs/zstd/{hash}/1000"),
        format!("a\u{0}b/uploads/{uuid}/blobs/{hash}/1000"),
    ] {
        let found = one_part(&site, &name, 0, &fresh).await;
        assert!(
            matches!(found, Code::InvalidArgument | Code::Unimplemented),
            "{found:?} for {name:.80}"
        );
    }
    assert_eq!(site.asked_since(mark), []);
    site.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_digest_is_told_of_and_spoils_no_upload_beside_it() {
    // P4, R12
    let site = Harness::new().start().await;
    let (blob, other) = (noise(2 * MIB, 4), noise(2 * MIB, 5));
    let digest = Digest::of(&blob);
    let (wrong, right) = (site.client(), site.client());
    let lies = (0..8).map(|_| wrong.write_as(&digest, &other));
    let (lies, told) = tokio::join!(futures::future::join_all(lies), right.write(&blob));
    assert!(told.is_ok(), "{told:?}");
    // Whoever came late may have been told that the blob is there, which is true.
    for lie in lies {
        assert!(matches!(code(lie), Code::InvalidArgument | Code::Ok));
    }
    assert_eq!(site.mock.blob("", &digest), Some(blob.clone()));
    assert!(site.client().read(&digest).await.unwrap() == blob);
    site.mock.finished(Match::write(&digest), 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    site.nothing_is_left().await;
}
