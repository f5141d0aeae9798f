//! GetTree.

use proto::reapi::{Directory, DirectoryNode, FileNode, GetTreeRequest};
use tonic::Status;

use super::prelude::*;
use crate::calls::Page;

pub(super) const CHECKS: &[Check] = &[
    check!("TREE-01", whole_tree),
    check!("TREE-02", absent_root),
    check!("TREE-03", missing_descendant),
    check!("TREE-06", page_size),
    check!("TREE-07", negative_page_size),
    check!("TREE-08", token_leads_on),
    check!("TREE-09", last_page_has_no_token),
    check!("TREE-10", all_pages_in_one_stream),
    check!("TREE-11", token_with_another_page_size),
    check!("TREE-12", chain_of_tokens),
    check!("TREE-14", token_of_nobody),
    check!("TREE-15", shared_nodes),
    check!("TREE-16", large_directories, heavy),
    check!("TREE-17", root_is_no_directory),
    check!("TREE-18", descendant_is_no_directory),
    check!("TREE-19", child_without_digest),
    check!("TREE-20", unknown_fields),
    check!("TREE-21", empty_root),
    check!("TREE-24", files_need_not_exist),
];

/// GetTree; without the method there is nothing to judge: it is optional and has no flag.
async fn tree(t: &Target, request: GetTreeRequest) -> Result<Result<Vec<Page>, Status>, Stop> {
    match t.tree(request).await {
        Err(status) if status.code() == Code::Unimplemented => {
            Err(Stop::NotOffered("GetTree is not implemented".into()))
        }
        answer => Ok(answer),
    }
}

async fn pages(t: &Target, root: &Digest, page_size: i32, page_token: &str) -> Result<Vec<Page>, Stop> {
    let request = GetTreeRequest {
        page_size,
        page_token: page_token.into(),
        ..t.tree_request(root)
    };
    tree(t, request).await?.due("GetTree")
}

fn directories(pages: &[Page]) -> Vec<Bytes> {
    let mut all: Vec<Bytes> = pages.iter().flat_map(|(page, _)| page.iter().cloned()).collect();
    all.sort();
    all
}

/// A directory with these children, made unlike all others by a salt.
fn directory(children: &[&Blob]) -> Blob {
    let salt = FileNode {
        name: uuid::Uuid::new_v4().to_string(),
        digest: Some(Blob::of("").digest),
        ..Default::default()
    };
    let directories = children.iter().enumerate().map(|(i, child)| DirectoryNode {
        name: format!("d{i}"),
        digest: Some(child.digest.clone()),
    });
    let message = Directory {
        files: vec![salt],
        directories: directories.collect(),
        ..Default::default()
    };
    Blob::of(message.encode_to_vec())
}

async fn put_all(t: &Target, blobs: &[&Blob]) -> Verdict {
    for blob in blobs {
        t.put(blob).await?;
    }
    Ok(())
}

/// A root with so many leaves, all stored.
async fn broad(t: &Target, leaves: usize) -> Result<(Blob, Vec<Bytes>), Stop> {
    let leaves: Vec<Blob> = (0..leaves).map(|_| directory(&[])).collect();
    let root = directory(&leaves.iter().collect::<Vec<_>>());
    put_all(t, &leaves.iter().chain([&root]).collect::<Vec<_>>()).await?;
    let mut all: Vec<Bytes> = leaves
        .into_iter()
        .map(|leaf| leaf.bytes)
        .chain([root.bytes.clone()])
        .collect();
    all.sort();
    Ok((root, all))
}

fn same(came: &[Bytes], due: &[Bytes]) -> Verdict {
    expect(came == due, || {
        format!("{} directories came, or others, for {}", came.len(), due.len())
    })
}

async fn whole_tree(t: Arc<Target>) -> Verdict {
    let leaf = directory(&[]);
    let middle = directory(&[&leaf]);
    let root = directory(&[&middle, &leaf]);
    put_all(&t, &[&leaf, &middle, &root]).await?;
    let mut due = vec![leaf.bytes, middle.bytes, root.bytes];
    due.sort();
    same(&directories(&pages(&t, &root.digest, 0, "").await?), &due)
}

async fn absent_root(t: Arc<Target>) -> Verdict {
    let answer = tree(&t, t.tree_request(&directory(&[]).digest)).await?;
    answer.denied("GetTree of an absent root", &[Code::NotFound])
}

async fn missing_descendant(t: Arc<Target>) -> Verdict {
    let (lost, leaf) = (directory(&[]), directory(&[]));
    let root = directory(&[&lost, &leaf]);
    put_all(&t, &[&leaf, &root]).await?;
    let mut due = vec![leaf.bytes, root.bytes];
    due.sort();
    same(&directories(&pages(&t, &root.digest, 0, "").await?), &due)
}

async fn page_size(t: Arc<Target>) -> Verdict {
    let (root, _) = broad(&t, 7).await?;
    let pages = pages(&t, &root.digest, 3, "").await?;
    let sizes: Vec<usize> = pages.iter().map(|(page, _)| page.len()).collect();
    expect(sizes.iter().all(|size| *size <= 3), || {
        format!("the pages have {sizes:?} directories")
    })
}

async fn negative_page_size(t: Arc<Target>) -> Verdict {
    let (root, all) = broad(&t, 3).await?;
    let request = GetTreeRequest {
        page_size: -1,
        ..t.tree_request(&root.digest)
    };
    match tree(&t, request).await? {
        Ok(pages) => same(&directories(&pages), &all),
        answer => answer.denied("GetTree with page_size -1", INVALID),
    }
}

/// The pages of a broad tree, the first of which has a token.
async fn paged(t: &Target) -> Result<(Blob, Vec<Bytes>, Vec<Page>), Stop> {
    let (root, all) = broad(t, 7).await?;
    let pages = pages(t, &root.digest, 2, "").await?;
    if pages.first().is_none_or(|(_, token)| token.is_empty()) {
        return Err(Stop::NotOffered("the server pages by no token".into()));
    }
    Ok((root, all, pages))
}

/// The first page, with all that its token leads to.
async fn continued(t: &Target, page_size: i32) -> Verdict {
    let (root, all, mut first) = paged(t).await?;
    first.truncate(1);
    let token = first[0].1.clone();
    first.extend(pages(t, &root.digest, page_size, &token).await?);
    same(&directories(&first), &all)
}

async fn token_leads_on(t: Arc<Target>) -> Verdict {
    continued(&t, 2).await
}

async fn last_page_has_no_token(t: Arc<Target>) -> Verdict {
    let (_, _, pages) = paged(&t).await?;
    let tokens: Vec<bool> = pages.iter().map(|(_, token)| !token.is_empty()).collect();
    let right = tokens
        .iter()
        .enumerate()
        .all(|(i, token)| *token == (i + 1 < tokens.len()));
    expect(right, || format!("pages that have a token: {tokens:?}"))
}

async fn all_pages_in_one_stream(t: Arc<Target>) -> Verdict {
    let (root, all) = broad(&t, 9).await?;
    same(&directories(&pages(&t, &root.digest, 4, "").await?), &all)
}

async fn token_with_another_page_size(t: Arc<Target>) -> Verdict {
    continued(&t, 0).await?;
    continued(&t, 5).await
}

async fn chain_of_tokens(t: Arc<Target>) -> Verdict {
    let (root, all) = broad(&t, 5).await?;
    let (mut came, mut token) = (Vec::new(), String::new());
    for _ in 0..all.len() {
        let mut page = pages(&t, &root.digest, 1, &token).await?;
        page.truncate(1);
        let Some((_, next)) = page.first() else { break };
        token.clone_from(next);
        came.append(&mut page);
        if token.is_empty() {
            break;
        }
    }
    same(&directories(&came), &all)
}

async fn token_of_nobody(t: Arc<Target>) -> Verdict {
    let (root, _) = broad(&t, 3).await?;
    let request = GetTreeRequest {
        page_token: "a token of nobody".into(),
        ..t.tree_request(&root.digest)
    };
    tree(&t, request)
        .await?
        .denied("GetTree with a token of nobody", INVALID)
}

async fn shared_nodes(t: Arc<Target>) -> Verdict {
    let mut top = directory(&[]);
    t.put(&top).await?;
    for _ in 0..15 {
        top = directory(&[&top, &top]);
        t.put(&top).await?;
    }
    let came = directories(&pages(&t, &top.digest, 0, "").await?).len();
    expect(came == 16, || {
        format!("{came} directories came for 16 different ones")
    })
}

async fn large_directories(t: Arc<Target>) -> Verdict {
    let large = || {
        let files = (0..1500).map(|i| FileNode {
            name: format!("{i}-{}", "n".repeat(900)),
            digest: Some(Blob::of("").digest),
            ..Default::default()
        });
        let salt = FileNode {
            name: uuid::Uuid::new_v4().to_string(),
            ..Default::default()
        };
        let files = files.chain([salt]).collect();
        let message = Directory {
            files,
            ..Default::default()
        };
        Blob::of(message.encode_to_vec())
    };
    let leaves: Vec<Blob> = (0..4).map(|_| large()).collect();
    let root = directory(&leaves.iter().collect::<Vec<_>>());
    put_all(&t, &leaves.iter().chain([&root]).collect::<Vec<_>>()).await?;
    let came = directories(&pages(&t, &root.digest, 1000, "").await?).len();
    expect_eq("GetTree of directories of 1.5 MB", &came, &5)
}

async fn root_is_no_directory(t: Arc<Target>) -> Verdict {
    let root = Blob::of([b"\xff\xff\xff\xff", &uuid::Uuid::new_v4().as_bytes()[..]].concat());
    t.put(&root).await?;
    let codes = &[Code::InvalidArgument, Code::FailedPrecondition];
    tree(&t, t.tree_request(&root.digest))
        .await?
        .denied("GetTree of a root that is no Directory", codes)
}

async fn descendant_is_no_directory(t: Arc<Target>) -> Verdict {
    let odd = Blob::of([b"\xff\xff\xff\xff", &uuid::Uuid::new_v4().as_bytes()[..]].concat());
    let root = directory(&[&odd]);
    put_all(&t, &[&odd, &root]).await?;
    same(
        &directories(&pages(&t, &root.digest, 0, "").await?),
        &[root.bytes],
    )
}

async fn child_without_digest(t: Arc<Target>) -> Verdict {
    let mut message = Directory::decode(directory(&[]).bytes).unwrap_or_default();
    message.directories = vec![
        DirectoryNode {
            name: "none".into(),
            digest: None,
        },
        DirectoryNode {
            name: "odd".into(),
            digest: Some(Digest {
                hash: "odd".into(),
                size_bytes: 3,
            }),
        },
    ];
    let root = Blob::of(message.encode_to_vec());
    t.put(&root).await?;
    same(
        &directories(&pages(&t, &root.digest, 0, "").await?),
        &[root.bytes],
    )
}

async fn unknown_fields(t: Arc<Target>) -> Verdict {
    let mut bytes = directory(&[]).bytes.to_vec();
    // Field 1000, length-delimited, one byte: what a client of next year may send.
    bytes.extend_from_slice(&[0xc2, 0x3e, 0x01, 0x2a]);
    let root = Blob::of(bytes);
    t.put(&root).await?;
    same(
        &directories(&pages(&t, &root.digest, 0, "").await?),
        &[root.bytes],
    )
}

async fn empty_root(t: Arc<Target>) -> Verdict {
    let came = directories(&pages(&t, &Blob::of("").digest, 0, "").await?);
    expect(came.iter().all(Bytes::is_empty) && came.len() <= 1, || {
        format!("{} directories came", came.len())
    })
}

async fn files_need_not_exist(t: Arc<Target>) -> Verdict {
    let mut message = Directory::decode(directory(&[]).bytes).unwrap_or_default();
    message.files[0].digest = Some(Blob::random(50).digest);
    let root = Blob::of(message.encode_to_vec());
    t.put(&root).await?;
    same(
        &directories(&pages(&t, &root.digest, 0, "").await?),
        &[root.bytes],
    )
}
