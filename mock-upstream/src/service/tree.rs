//! GetTree: a walk in breadth over distinct Directories, cut into pages.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use prost::Message;
use proto::reapi::{Directory, GetTreeRequest};
use proto::wire::GetTreeResponse;
use tonic::Status;

use crate::contents::Contents;
use crate::digest::Digest;
use crate::service::invalid;

/// Key and length prefix of one Directory in a page, and the page's token, never take more.
const FRAMING_BYTES: usize = 16;
const TOKEN_BYTES: usize = 128;

/// The root and every Directory under it that is here and is one, each once. The order depends on the contents alone, so
/// that a place in it can serve as a page token.
pub(super) fn walk(contents: &Contents, instance: &str, root: &Digest) -> Result<Vec<Bytes>, Status> {
    let root_bytes = contents
        .blob(instance, root)
        .ok_or_else(|| Status::not_found(root.to_string()))?;
    let root_directory = Directory::decode(root_bytes.clone());
    let root_directory = root_directory.map_err(|_| invalid(format!("{root} is no Directory")))?;

    let mut found = vec![root_bytes];
    let mut seen = HashSet::from([*root]);
    let mut parents = VecDeque::from([root_directory]);
    while let Some(parent) = parents.pop_front() {
        for node in parent.directories {
            // What is malformed, missing or no Directory is left out, with all that only it leads to.
            let Ok(digest) = root.function().from_wire(node.digest.as_ref()) else {
                continue;
            };
            if !seen.insert(digest) {
                continue;
            }
            let Some(bytes) = contents.blob(instance, &digest) else {
                continue;
            };
            let Ok(directory) = Directory::decode(bytes.clone()) else {
                continue;
            };
            found.push(bytes);
            parents.push_back(directory);
        }
    }
    Ok(found)
}

pub(super) fn pages(
    directories: Vec<Bytes>,
    root: &Digest,
    request: &GetTreeRequest,
    max_message: usize,
) -> Result<Vec<GetTreeResponse>, Status> {
    let page_size = match request.page_size {
        0 => usize::MAX,
        size => usize::try_from(size).map_err(|_| invalid("page_size is negative"))?,
    };
    let start = place(&request.page_token, root, directories.len())?;
    let mut pages: Vec<GetTreeResponse> = Vec::new();
    let mut page = GetTreeResponse::default();
    let mut page_bytes = TOKEN_BYTES;
    for (place, bytes) in (start..).zip(directories.into_iter().skip(start)) {
        let bytes_here = bytes.len() + FRAMING_BYTES;
        if TOKEN_BYTES + bytes_here > max_message {
            return Err(Status::resource_exhausted(
                "a Directory is larger than a message may be",
            ));
        }
        if page.directories.len() >= page_size || page_bytes + bytes_here > max_message {
            page.next_page_token = format!("{root}/{place}");
            pages.push(std::mem::take(&mut page));
            page_bytes = TOKEN_BYTES;
        }
        page.directories.push(bytes);
        page_bytes += bytes_here;
    }
    pages.push(page);
    Ok(pages)
}

/// A token is the root's digest and a place in the order of the walk.
fn place(token: &str, root: &Digest, count: usize) -> Result<usize, Status> {
    if token.is_empty() {
        return Ok(0);
    }
    let place = token
        .strip_prefix(&format!("{root}/"))
        .and_then(|place| place.parse::<usize>().ok());
    place
        .filter(|place| (1..count).contains(place))
        .ok_or_else(|| invalid("page_token is none of this tree"))
}
