use mock_upstream::{Digest, Mock, method};
use prost::Message as _;
use proto::reapi::{Directory, DirectoryNode, FileNode};
use tonic::Code;

use crate::client::code;
use crate::harness::Harness;

fn directory(children: &[(&str, Digest)], file: &str) -> Vec<u8> {
    let directory = Directory {
        directories: children
            .iter()
            .map(|(name, digest)| DirectoryNode {
                name: (*name).to_owned(),
                digest: Some(digest.to_wire()),
            })
            .collect(),
        files: vec![FileNode {
            name: file.to_owned(),
            digest: Some(Digest::of(file.as_bytes()).to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    directory.encode_to_vec()
}

/// Puts `root -> {a -> shared, b -> shared}` into the mock: the directories, the root first.
fn plant(mock: &Mock) -> Vec<(Digest, Vec<u8>)> {
    let put = |bytes: Vec<u8>| (mock.put_blob("", bytes.clone()), bytes);
    let shared = put(directory(&[], "leaf"));
    let a = put(directory(&[("shared", shared.0)], "in a"));
    let b = put(directory(&[("shared", shared.0)], "in b"));
    let root = put(directory(&[("a", a.0), ("b", b.0)], "top"));
    vec![root, a, b, shared]
}

#[tokio::test(start_paused = true)]
async fn a_tree_is_walked_over_both_tiers_and_each_directory_comes_once() {
    // TREE
    let site = Harness::new().start().await;
    let client = site.client();
    let planted = plant(&site.mock);
    // The root and one directory below are in Tier 1, the rest only in Tier 2.
    for (digest, _) in &planted[..2] {
        client.read(digest).await.unwrap();
    }
    site.landed().await;
    let mark = site.mock.mark();
    let expected: Vec<_> = planted.iter().map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(client.tree(&planted[0].0).await.unwrap(), expected);
    for call in site.asked_since(mark) {
        assert_eq!(call.method, method::BATCH_READ);
        let held = &planted[..2];
        assert!(
            !held.iter().any(|(digest, _)| call.digests.contains(digest)),
            "{call:?}"
        );
    }

    site.landed().await;
    let mark = site.mock.mark();
    assert_eq!(client.tree(&planted[0].0).await.unwrap(), expected);
    assert_eq!(site.asked_since(mark), [], "tier 1 has it all");
}

#[tokio::test(start_paused = true)]
async fn a_tree_without_its_root_is_not_found_and_without_tier_2_unavailable() {
    // TREE, P5
    let site = Harness::new().start().await;
    let client = site.client();
    let planted = plant(&site.mock);
    assert_eq!(code(client.tree(&Digest::of(b"no root")).await), Code::NotFound);
    client.read(&planted[0].0).await.unwrap();
    site.landed().await;
    site.mock.suspend().await.unwrap();
    assert_eq!(code(client.tree(&planted[0].0).await), Code::Unavailable);
}
