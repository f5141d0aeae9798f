use bytes::Bytes;
use mock_upstream::{Digest, method};
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, MIB, noise};

fn rotten(blob: &Bytes) -> Bytes {
    let mut bytes = blob.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.into()
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_rotted_in_tier_2_is_never_served_and_only_an_upload_that_was_read_back_heals_it() {
    // P4, R10
    for len in [1000, 3 * MIB] {
        let site = Harness::new().start().await;
        let client = site.client();
        let blob = noise(len, 1);
        let digest = Digest::of(&blob);
        site.mock.plant("", &digest, rotten(&blob));

        assert_ne!(code(client.read(&digest).await), Code::Ok, "{len}");
        site.landed().await;
        assert_eq!(code(client.read(&digest).await), Code::NotFound, "{len}");
        assert_eq!(site.upstream_reads(&digest), 2, "{len}: twice wrong is enough");
        assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
        assert_eq!(site.node.metrics.reads.bad_blobs.get(), 1);
        assert_eq!(site.kept(), 0);

        // Tier 2 acknowledges what it believes to have.
        assert_ne!(code(client.write(&blob).await), Code::Ok, "{len}");
        assert_eq!(site.mock.blob("", &digest), Some(rotten(&blob)));
        assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);

        site.mock.evict("", &digest);
        let mark = site.mock.mark();
        assert_eq!(client.write(&blob).await.unwrap(), digest.size_bytes());
        let calls = site.mock.calls().since(mark).digest(&digest);
        let methods: Vec<_> = calls.iter().map(|call| call.method.as_str()).collect();
        assert_eq!(methods, [method::WRITE, method::READ], "{len}: read back");
        assert_eq!(client.missing(&[digest]).await.unwrap(), []);
        assert!(client.read(&digest).await.unwrap() == blob);
        assert_eq!(site.node.metrics.reads.bad_blobs.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_wrong_transfer_is_mended_unseen() {
    // R10
    let site = Harness::new().start().await;
    let blob = noise(1000, 2);
    let digest = Digest::of(&blob);
    site.mock.plant("", &digest, rotten(&blob));
    let gate = site.mock.hold(
        mock_upstream::Match::read(&digest).nth(2),
        mock_upstream::After::Start,
    );
    let mend = async {
        gate.reached().await;
        site.mock.plant("", &digest, blob.clone());
        // The call that is held has not looked for its blob yet.
        gate.release();
    };
    let client = site.client();
    let (got, ()) = tokio::join!(client.read(&digest), mend);
    assert!(got.unwrap() == blob);
    assert_eq!(site.node.metrics.reads.bad_blobs.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rotten_blob_spoils_no_other_of_its_batch() {
    let site = Harness::new().start().await;
    let (good, bad) = (noise(1000, 3), noise(1000, 4));
    let digests = [site.mock.put_blob("", good.clone()), Digest::of(&bad)];
    site.mock.plant("", &digests[1], rotten(&bad));
    let answers = site.client().batch_read(&digests).await.unwrap();
    assert_eq!(answers[0].data, good);
    assert_eq!(answers[1].data, Bytes::new());
    let status = answers[1].status.clone().unwrap_or_default();
    assert_eq!(Code::from(status.code), Code::NotFound);
}
