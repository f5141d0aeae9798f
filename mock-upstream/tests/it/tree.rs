use bytes::Bytes;
use mock_upstream::{Digest, Mock};
use prost::Message;
use proto::reapi::{Directory, DirectoryNode, GetTreeRequest};
use proto::wire::GetTreeResponse;
use tonic::{Code, Status};

use crate::client::{Client, code};

/// Puts a Directory over these children, with a field from the future, so that decoding it would lose something.
fn directory(mock: &Mock, name: &str, children: &[Digest]) -> Digest {
    let node = |digest: &Digest| DirectoryNode {
        name: name.into(),
        digest: Some(digest.to_wire()),
    };
    let directories = children.iter().map(node).collect();
    let mut bytes = Directory {
        directories,
        ..Directory::default()
    }
    .encode_to_vec();
    bytes.extend_from_slice(b"\xc2\x3e");
    bytes.push(u8::try_from(name.len()).unwrap());
    bytes.extend_from_slice(name.as_bytes());
    mock.put_blob("", bytes)
}

async fn tree(
    client: &mut Client,
    root: &Digest,
    page_size: i32,
    token: &str,
) -> Result<Vec<GetTreeResponse>, Status> {
    let request = GetTreeRequest {
        root_digest: Some(root.to_wire()),
        page_size,
        page_token: token.into(),
        ..GetTreeRequest::default()
    };
    let mut messages = client.cas.get_tree(request).await?.into_inner();
    let mut pages = Vec::new();
    while let Some(page) = messages.message().await? {
        pages.push(page);
    }
    Ok(pages)
}

fn digests(pages: &[GetTreeResponse]) -> Vec<Digest> {
    pages
        .iter()
        .flat_map(|page| &page.directories)
        .map(|bytes: &Bytes| Digest::of(bytes))
        .collect()
}

#[tokio::test]
async fn a_tree_has_every_directory_once_byte_for_byte() {
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    // TREE-15: two references to the same child on each of 30 levels.
    let mut root = directory(&mock, "leaf", &[]);
    for level in 0..30 {
        root = directory(&mock, &level.to_string(), &[root, root]);
    }
    let found = digests(&tree(&mut client, &root, 0, "").await.unwrap());
    assert_eq!(found.len(), 31);
    assert_eq!(found[0], root);
    let mut sorted = found;
    sorted.sort();
    assert_eq!(sorted, mock.blobs("")); // TREE-20
}

#[tokio::test]
async fn pages_come_in_one_stream_and_each_token_leads_to_the_rest() {
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let leaves: Vec<_> = (0..6).map(|n| directory(&mock, &n.to_string(), &[])).collect();
    let root = directory(&mock, "root", &leaves);
    let all = digests(&tree(&mut client, &root, 0, "").await.unwrap());
    let pages = tree(&mut client, &root, 3, "").await.unwrap();
    let sizes: Vec<_> = pages.iter().map(|page| page.directories.len()).collect();
    assert_eq!(sizes, [3, 3, 1]); // TREE-06, TREE-10
    assert_eq!(digests(&pages), all);
    let tokens: Vec<_> = pages.iter().map(|page| page.next_page_token.is_empty()).collect();
    assert_eq!(tokens, [false, false, true]); // TREE-09
    let rest = tree(&mut client, &root, 0, &pages[0].next_page_token)
        .await
        .unwrap(); // TREE-11
    assert_eq!(digests(&rest), all[3..]); // TREE-08
    for (root, page_size, token) in [
        (root, -1, String::new()),    // TREE-07
        (root, 0, "nonsense".into()), // TREE-14
        (root, 0, format!("{root}/7")),
        (leaves[0], 0, pages[0].next_page_token.clone()),
    ] {
        assert_eq!(
            code(tree(&mut client, &root, page_size, &token).await),
            Code::InvalidArgument,
            "{token}"
        );
    }
    mock.configure(|settings| settings.max_message_bytes = 700);
    let pages = tree(&mut client, &root, 0, "").await.unwrap();
    assert!(
        pages.len() > 1 && pages.iter().all(|page| page.encoded_len() <= 700),
        "TREE-16"
    );
    assert_eq!(digests(&pages), all);
    mock.configure(|settings| settings.max_message_bytes = 200);
    assert_eq!(
        code(tree(&mut client, &root, 0, "").await),
        Code::ResourceExhausted,
        "TREE-16"
    );
}

#[tokio::test]
async fn what_is_missing_or_no_directory_is_left_out() {
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let below = directory(&mock, "below", &[]);
    let lost = directory(&mock, "lost", &[below]);
    let garbage = mock.put_blob("", b"\xff\xff".as_slice());
    let kept = directory(&mock, "kept", &[]);
    let root = directory(&mock, "root", &[lost, garbage, kept]);
    mock.evict("", &lost);
    // TREE-03, TREE-18
    assert_eq!(
        digests(&tree(&mut client, &root, 0, "").await.unwrap()),
        [root, kept]
    );
    assert_eq!(code(tree(&mut client, &lost, 0, "").await), Code::NotFound); // TREE-02
    assert_eq!(
        code(tree(&mut client, &garbage, 0, "").await),
        Code::InvalidArgument
    ); // TREE-17
    let empty = tree(&mut client, &Digest::of(b""), 0, "").await.unwrap();
    assert_eq!(digests(&empty), [Digest::of(b"")]); // TREE-21
}
