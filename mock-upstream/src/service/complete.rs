//! Whether every blob that an action result refers to is stored.

use std::collections::{HashMap, HashSet};

use prost::Message;
use proto::reapi::{self, Directory};
use proto::wire;

use crate::contents::Contents;
use crate::digest::{Digest, Function};
use crate::service::tree;

/// A result that cannot be understood, or refers to a Tree that cannot, is not complete.
pub(super) fn is_complete(
    contents: &Contents,
    instance: &str,
    function: Function,
    result: &wire::ActionResult,
) -> bool {
    let has = |digest: Option<&reapi::Digest>| {
        function
            .from_wire(digest)
            .is_ok_and(|digest| contents.has(instance, &digest))
    };
    let Ok(result) = result.parse() else { return false };
    let streams = [&result.stdout_digest, &result.stderr_digest];
    streams.into_iter().flatten().all(|digest| has(Some(digest)))
        && result.output_files.iter().all(|file| has(file.digest.as_ref()))
        && result
            .output_directories
            .iter()
            .all(|directory| directory_is_complete(contents, instance, function, directory))
}

/// The blobs that a result names, and the files that its Trees name as far as these are here.
pub(super) fn outputs(
    contents: &Contents,
    instance: &str,
    function: Function,
    result: &wire::ActionResult,
) -> Vec<Digest> {
    let Ok(result) = result.parse() else {
        return Vec::new();
    };
    let mut named = Vec::new();
    named.extend(result.stdout_digest);
    named.extend(result.stderr_digest);
    named.extend(result.output_files.into_iter().filter_map(|file| file.digest));
    for directory in result.output_directories {
        let tree = function
            .from_wire(directory.tree_digest.as_ref())
            .ok()
            .and_then(|digest| contents.blob(instance, &digest))
            .and_then(|bytes| wire::Tree::decode(bytes).ok())
            .unwrap_or_default();
        for bytes in tree.root.into_iter().chain(tree.children) {
            let files = Directory::decode(bytes).unwrap_or_default().files;
            named.extend(files.into_iter().filter_map(|file| file.digest));
        }
        named.extend(directory.tree_digest);
        named.extend(directory.root_directory_digest);
    }
    named
        .iter()
        .filter_map(|digest| function.from_wire(Some(digest)).ok())
        .collect()
}

fn directory_is_complete(
    contents: &Contents,
    instance: &str,
    function: Function,
    directory: &reapi::OutputDirectory,
) -> bool {
    let tree_digest = function.from_wire(directory.tree_digest.as_ref());
    let tree = tree_digest
        .ok()
        .and_then(|digest| contents.blob(instance, &digest));
    let Some(tree) = tree.and_then(|bytes| wire::Tree::decode(bytes).ok()) else {
        return false;
    };
    let root = tree.root.unwrap_or_default();
    if let Some(named) = &directory.root_directory_digest {
        let Ok(named) = function.from_wire(Some(named)) else {
            return false;
        };
        if !named.fits(&root) || !stored_from(contents, instance, &named) {
            return false;
        }
    }

    // The Tree must hold every child that it refers to, found by the digest of its bytes.
    let children: HashMap<Digest, _> = tree
        .children
        .into_iter()
        .map(|child| (function.of(&child), child))
        .collect();
    let mut reached = HashSet::new();
    let mut open = vec![root];
    while let Some(bytes) = open.pop() {
        let Ok(directory) = Directory::decode(bytes) else {
            return false;
        };
        if !files_are_stored(contents, instance, function, &directory) {
            return false;
        }
        for node in &directory.directories {
            let Ok(digest) = function.from_wire(node.digest.as_ref()) else {
                return false;
            };
            if reached.insert(digest) {
                match children.get(&digest) {
                    Some(child) => open.push(child.clone()),
                    None if digest.is_empty() => {}
                    None => return false,
                }
            }
        }
    }
    true
}

/// Whether all Directories below, this one included, are blobs of their own.
fn stored_from(contents: &Contents, instance: &str, root: &Digest) -> bool {
    let Ok(found) = tree::walk(contents, instance, root) else {
        return false;
    };
    found.into_iter().all(|bytes| {
        Directory::decode(bytes).is_ok_and(|directory| {
            directory.directories.iter().all(|node| {
                root.function()
                    .from_wire(node.digest.as_ref())
                    .is_ok_and(|digest| contents.has(instance, &digest))
            })
        })
    })
}

fn files_are_stored(contents: &Contents, instance: &str, function: Function, directory: &Directory) -> bool {
    directory.files.iter().all(|file| {
        function
            .from_wire(file.digest.as_ref())
            .is_ok_and(|digest| contents.has(instance, &digest))
    })
}
