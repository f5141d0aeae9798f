//! GetTree.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use proto::reapi::{self, Directory, DirectoryNode};
use tonic::{Code, Status};

use crate::check;
use crate::check::{Check, Stop, Verdict, expect};
use crate::target::{Blob, Target, refused_with};

pub(super) const CHECKS: &[Check] = &[
    check!("TREE-01", whole_tree),
    check!("TREE-02", absent_root),
    check!("TREE-03", missing_descendant),
    check!("TREE-06", page_size),
    check!("TREE-15", shared_nodes),
    check!("TREE-20", unknown_fields),
];

/// The pages of a tree.
async fn pages(target: &Target, root: &reapi::Digest, page_size: i32) -> Result<Vec<Vec<Bytes>>, Status> {
    let request = reapi::GetTreeRequest {
        page_size,
        ..target.tree_request(root)
    };
    let pages = target.tree(request).await?;
    Ok(pages.into_iter().map(|(directories, _)| directories).collect())
}

/// Where the method is not implemented nothing is judged: it is optional and has no flag.
fn offered(status: Status) -> Stop {
    if status.code() == Code::Unimplemented {
        return Stop::NotOffered("GetTree is not implemented".into());
    }
    Stop::Failed(
        format!(
            "GetTree: expected OK, came {:?}: {}",
            status.code(),
            status.message()
        )
        .into(),
    )
}

/// A directory with these children, made unlike all others by a salt.
fn directory(children: &[&Blob]) -> Blob {
    let salt = reapi::FileNode {
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

async fn put_all(target: &Target, blobs: &[&Blob]) -> Verdict {
    for blob in blobs {
        target.put(blob).await?;
    }
    Ok(())
}

fn sorted(mut directories: Vec<Bytes>) -> Vec<Bytes> {
    directories.sort();
    directories
}

async fn whole_tree(target: Arc<Target>) -> Verdict {
    let leaf = directory(&[]);
    let middle = directory(&[&leaf]);
    let root = directory(&[&middle, &leaf]);
    put_all(&target, &[&leaf, &middle, &root]).await?;
    let came = sorted(pages(&target, &root.digest, 0).await.map_err(offered)?.concat());
    expect(came == sorted(vec![leaf.bytes, middle.bytes, root.bytes]), || {
        format!("{} came", came.len())
    })
}

async fn absent_root(target: Arc<Target>) -> Verdict {
    let answer = pages(&target, &directory(&[]).digest, 0).await;
    if matches!(&answer, Err(status) if status.code() == Code::Unimplemented) {
        return Err(Stop::NotOffered("GetTree is not implemented".into()));
    }
    refused_with("GetTree of an absent root", answer, &[Code::NotFound])
}

async fn missing_descendant(target: Arc<Target>) -> Verdict {
    let (lost, leaf) = (directory(&[]), directory(&[]));
    let root = directory(&[&lost, &leaf]);
    put_all(&target, &[&leaf, &root]).await?;
    let came = sorted(pages(&target, &root.digest, 0).await.map_err(offered)?.concat());
    expect(came == sorted(vec![leaf.bytes, root.bytes]), || {
        format!("{} came", came.len())
    })
}

async fn page_size(target: Arc<Target>) -> Verdict {
    let leaves: Vec<Blob> = (0..7).map(|_| directory(&[])).collect();
    let root = directory(&leaves.iter().collect::<Vec<_>>());
    put_all(&target, &leaves.iter().chain([&root]).collect::<Vec<_>>()).await?;
    let pages = pages(&target, &root.digest, 3).await.map_err(offered)?;
    let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
    expect(
        sizes.iter().all(|size| *size <= 3) && sizes.iter().sum::<usize>() == 8,
        || format!("the pages have {sizes:?} directories"),
    )
}

async fn shared_nodes(target: Arc<Target>) -> Verdict {
    let mut top = directory(&[]);
    target.put(&top).await?;
    for _ in 0..15 {
        top = directory(&[&top, &top]);
        target.put(&top).await?;
    }
    let came = pages(&target, &top.digest, 0)
        .await
        .map_err(offered)?
        .concat()
        .len();
    expect(came == 16, || {
        format!("{came} directories came for 16 different ones")
    })
}

async fn unknown_fields(target: Arc<Target>) -> Verdict {
    let mut bytes = directory(&[]).bytes.to_vec();
    // Field 1000, length-delimited, one byte: what a client of next year may send.
    bytes.extend_from_slice(&[0xc2, 0x3e, 0x01, 0x2a]);
    let root = Blob::of(bytes);
    target.put(&root).await?;
    let came = pages(&target, &root.digest, 0).await.map_err(offered)?.concat();
    expect(came == [root.bytes], || {
        "the directory came in other bytes".into()
    })
}
