//! GetTree.

use bytes::Bytes;
use prost::Message;
use proto::reapi;
use tonic::Code;

use super::harness::*;
use crate::tier2::Tier2Error;

/// A directory with these children, and a field that no version of the protocol has yet.
fn directory(name: &str, children: &[&Bytes]) -> Bytes {
    let node = |(number, child): (usize, &&Bytes)| reapi::DirectoryNode {
        name: format!("{name}{number}"),
        digest: Some(digest(child)),
    };
    let directory = reapi::Directory {
        directories: children.iter().enumerate().map(node).collect(),
        ..Default::default()
    };
    let mut encoded = directory.encode_to_vec();
    prost::encoding::bytes::encode(1000, &Bytes::copy_from_slice(name.as_bytes()), &mut encoded);
    encoded.into()
}

fn tree(root: &Bytes) -> reapi::GetTreeRequest {
    reapi::GetTreeRequest {
        root_digest: Some(digest(root)),
        ..Default::default()
    }
}

/// The pages of an answer: digests of the directories, and the token.
async fn pages(
    node: &Node,
    request: reapi::GetTreeRequest,
) -> Result<Vec<(Vec<reapi::Digest>, String)>, Code> {
    let client = proto::wire::content_addressable_storage_client::ContentAddressableStorageClient::new(
        node.channel().await,
    )
    .get_tree(request)
    .await;
    let mut stream = client.map_err(|status| status.code())?.into_inner();
    let mut pages = Vec::new();
    while let Some(page) = stream.message().await.map_err(|status| status.code())? {
        pages.push((
            page.directories.iter().map(|bytes| digest(bytes)).collect(),
            page.next_page_token,
        ));
    }
    Ok(pages)
}

/// A root with two children of which one has a child of its own.
async fn node_with_tree() -> (Node, [Bytes; 4]) {
    let leaf = directory("leaf", &[]);
    let [left, right] = [directory("left", &[&leaf]), directory("right", &[])];
    let root = directory("root", &[&left, &right, &left]);
    let node = Node::new().await;
    for bytes in [&leaf, &left, &right, &root] {
        node.plant(bytes);
    }
    (node, [root, left, right, leaf])
}

#[tokio::test]
async fn a_tree_comes_whole_each_directory_once_and_byte_for_byte() {
    // TREE-01, TREE-10, TREE-15, TREE-20
    let (node, directories) = node_with_tree().await;
    let pages = pages(&node, tree(&directories[0])).await.unwrap();
    let [(found, token)] = &pages[..] else {
        panic!("one page was due: {pages:?}");
    };
    assert_eq!(token, ""); // TREE-09
    let mut expected: Vec<_> = directories.iter().map(|bytes| digest(bytes)).collect();
    let mut found = found.clone();
    expected.sort_by(|a, b| a.hash.cmp(&b.hash));
    found.sort_by(|a, b| a.hash.cmp(&b.hash));
    assert_eq!(found, expected);
}

#[tokio::test]
async fn any_page_can_be_begun_at_with_any_page_size() {
    // TREE-06, TREE-08, TREE-11, TREE-12
    let (node, directories) = node_with_tree().await;
    let request = reapi::GetTreeRequest {
        page_size: 1,
        ..tree(&directories[0])
    };
    let single = pages(&node, request).await.unwrap();
    assert_eq!(single.len(), 4);
    for position in 1..single.len() {
        let request = reapi::GetTreeRequest {
            page_token: single[position - 1].1.clone(),
            ..tree(&directories[0])
        };
        let rest: Vec<_> = pages(&node, request)
            .await
            .unwrap()
            .into_iter()
            .flat_map(|(found, _)| found)
            .collect();
        let expected: Vec<_> = single[position..]
            .iter()
            .flat_map(|(found, _)| found.clone())
            .collect();
        assert_eq!(rest, expected, "from page {position}");
    }
}

#[tokio::test]
async fn what_cannot_be_walked_says_why() {
    let (node, [root, ..]) = node_with_tree().await;
    node.plant(b"\xff no directory");
    let changed = |change: fn(&mut reapi::GetTreeRequest)| {
        let mut request = tree(&root);
        change(&mut request);
        request
    };
    let cases = [
        (
            "no root",
            changed(|request| request.root_digest = None),
            Code::InvalidArgument,
        ),
        ("lost", tree(&Bytes::from_static(b"lost")), Code::NotFound), // TREE-02
        (
            "no directory",
            tree(&Bytes::from_static(b"\xff no directory")),
            Code::InvalidArgument,
        ), // TREE-17
        (
            "negative page",
            changed(|request| request.page_size = -1),
            Code::InvalidArgument,
        ), // TREE-07
        (
            "foreign token",
            changed(|request| request.page_token = "x".into()),
            Code::InvalidArgument,
        ), // TREE-14
    ];
    for (case, request, expected) in cases {
        assert_eq!(pages(&node, request).await.unwrap_err(), expected, "{case}");
    }
    node.tier2.fail_with(Some(Tier2Error::Stalled));
    assert_eq!(
        pages(&node, tree(&Bytes::from_static(b"down")))
            .await
            .unwrap_err(),
        Code::Unavailable
    ); // TREE-04
}
