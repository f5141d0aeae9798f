//! GetTree over directed graphs without cycles.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::any;
use prost::Message as _;
use proto::reapi::{Directory, DirectoryNode, FileNode, GetTreeRequest};
use tonic::Code;

use super::Trial;
use crate::check::{Outcome, Stop, Verdict, expect};
use crate::target::{Blob, Due as _, Target};

/// A directory of the graph.
#[derive(Clone, Debug)]
struct Node {
    /// Its children, as steps back to those that were made before it.
    children: Vec<usize>,
    /// Whether it is left out of the store.
    lost: bool,
}

pub(super) fn any_tree(trial: &Trial<'_>) -> Outcome {
    use proptest::strategy::Strategy as _;
    let node = (vec(1..6_usize, 0..4), proptest::bool::weighted(0.2));
    let node = node.prop_map(|(children, lost)| Node { children, lost });
    trial.draw(
        &(vec(node, 1..14), 0..5_i32, any::<bool>()),
        |t, (nodes, page_size, _)| tree_comes(t, nodes, page_size),
    )
}

async fn tree_comes(t: Target, nodes: Vec<Node>, page_size: i32) -> Verdict {
    let mut made: Vec<(Blob, Vec<usize>, bool)> = Vec::new();
    let last = nodes.len() - 1;
    for (at, node) in nodes.into_iter().enumerate() {
        let children: Vec<usize> = node
            .children
            .into_iter()
            .filter_map(|step| at.checked_sub(step))
            .collect();
        let directories = children.iter().enumerate().map(|(i, child)| DirectoryNode {
            name: format!("d{i}"),
            digest: Some(made[*child].0.digest.clone()),
        });
        let salt = FileNode {
            name: uuid::Uuid::new_v4().to_string(),
            digest: Some(Blob::of("").digest),
            ..FileNode::default()
        };
        let message = Directory {
            files: vec![salt],
            directories: directories.collect(),
            ..Directory::default()
        };
        let blob = Blob::of(message.encode_to_vec());
        // The root is the last, and stays.
        let lost = node.lost && at != last;
        if !lost {
            t.put(&blob).await?;
        }
        made.push((blob, children, lost));
    }
    let mut reached = BTreeSet::new();
    let mut open = vec![last];
    while let Some(at) = open.pop() {
        if !made[at].2 && reached.insert(at) {
            open.extend(&made[at].1);
        }
    }
    let mut due: Vec<Bytes> = reached.into_iter().map(|at| made[at].0.bytes.clone()).collect();
    due.sort();
    let request = GetTreeRequest {
        page_size,
        ..t.tree_request(&made[last].0.digest)
    };
    let pages = match t.tree(request).await {
        Err(status) if status.code() == Code::Unimplemented => {
            return Err(Stop::NotOffered("GetTree is not implemented".into()));
        }
        answer => answer.due("GetTree")?,
    };
    let most = usize::try_from(page_size)
        .ok()
        .filter(|most| *most > 0)
        .unwrap_or(usize::MAX);
    expect(pages.iter().all(|(page, _)| page.len() <= most), || {
        format!("a page of more than {most}")
    })?;
    let mut came: Vec<Bytes> = pages.into_iter().flat_map(|(page, _)| page).collect();
    came.sort();
    expect(came == due, || {
        format!("{} directories, or others, for {}", came.len(), due.len())
    })
}
