//! GetTree.

use bytes::Bytes;
use prost::Message as _;
use proto::reapi::{Directory, GetTreeRequest};
use proto::wire::GetTreeResponse;
use tonic::{Code, Status};

use super::{Bend, Violation, violation};
use crate::contents::Contents;
use crate::digest::Digest;

type Pages = Result<Vec<GetTreeResponse>, Status>;

/// Directories in an answer, decoded.
fn decoded(pages: &Pages) -> Vec<Directory> {
    let pages = pages.iter().flatten();
    pages
        .flat_map(|page| &page.directories)
        .filter_map(|bytes| Directory::decode(bytes.clone()).ok())
        .collect()
}

/// Whether a child of the directories that came is so.
fn child(
    asked: &GetTreeRequest,
    pages: &Pages,
    contents: &Contents,
    is_meant: impl Fn(Option<&Digest>, Option<Bytes>) -> bool,
) -> bool {
    let children = decoded(pages)
        .into_iter()
        .flat_map(|directory| directory.directories);
    children.into_iter().any(|node| {
        let digest = Digest::from_wire(node.digest.as_ref()).ok();
        let bytes = digest.and_then(|digest| contents.blob(&asked.instance_name, &digest));
        is_meant(digest.as_ref(), bytes)
    })
}

pub(super) const VIOLATIONS: &[Violation] = &[
    violation(
        "TREE-01",
        "grandchildren are left out",
        &[Bend::TreeOut(|_, pages, _| {
            if let Ok(pages) = pages
                && let [page] = pages.as_mut_slice()
                && page.directories.len() == 3
            {
                page.directories.pop();
            }
        })],
    ),
    violation(
        "TREE-02",
        "an absent root is an empty tree",
        &[Bend::TreeOut(|_, pages, _| {
            if pages
                .as_ref()
                .is_err_and(|status| status.code() == Code::NotFound)
            {
                *pages = Ok(Vec::new());
            }
        })],
    ),
    violation(
        "TREE-03",
        "a missing descendant fails the call",
        &[Bend::TreeOut(|asked, pages, contents| {
            if child(asked, pages, contents, |digest, bytes| {
                digest.is_some() && bytes.is_none()
            }) {
                *pages = Err(Status::not_found("a child"));
            }
        })],
    ),
    violation(
        "TREE-06",
        "page_size 3 is passed over",
        &[Bend::TreeIn(|request, _| {
            if request.page_size == 3 {
                request.page_size = 0;
            }
            Ok(())
        })],
    ),
    violation(
        "TREE-07",
        "a negative page_size is an internal error",
        &[Bend::TreeIn(|request, _| {
            let negative = request.page_size < 0;
            if negative {
                Err(Status::internal("page_size"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "TREE-08",
        "the token is passed over for pages of the same size",
        &[Bend::TreeIn(|request, _| {
            if request.page_size == 2 {
                request.page_token.clear();
            }
            Ok(())
        })],
    ),
    violation(
        "TREE-09",
        "the last page has a token",
        &[Bend::TreeOut(|asked, pages, _| {
            if let Ok(pages) = pages
                && asked.page_size == 2
                && let Some(last) = pages.last_mut()
            {
                "more".clone_into(&mut last.next_page_token);
            }
        })],
    ),
    violation(
        "TREE-10",
        "a stream has one page, where it holds four directories",
        &[Bend::TreeOut(|asked, pages, _| {
            if let Ok(pages) = pages
                && asked.page_size == 4
            {
                pages.truncate(1);
            }
        })],
    ),
    violation(
        "TREE-11",
        "a token without a page_size is refused",
        &[Bend::TreeIn(|request, _| {
            let other = request.page_size == 0 && request.page_token.contains('/');
            if other {
                Err(Status::invalid_argument("another page_size"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "TREE-12",
        "a token loses a directory where pages hold one",
        &[Bend::TreeOut(|asked, pages, _| {
            if let Ok(pages) = pages
                && asked.page_size == 1
                && !asked.page_token.is_empty()
                && pages.len() > 1
            {
                pages.remove(0);
            }
        })],
    ),
    violation(
        "TREE-14",
        "a token of nobody is passed over",
        &[Bend::TreeIn(|request, _| {
            if !request.page_token.contains('/') {
                request.page_token.clear();
            }
            Ok(())
        })],
    ),
    violation(
        "TREE-15",
        "a directory comes as often as it is referred to",
        &[Bend::TreeOut(|_, pages, _| {
            if let Ok(pages) = pages
                && let Some(page) = pages.first_mut()
                && page.directories.len() == 16
                && let Some(last) = page.directories.last().cloned()
            {
                page.directories.push(last);
            }
        })],
    ),
    violation(
        "TREE-16",
        "pages are as large as page_size allows",
        &[Bend::TreeOut(|asked, pages, _| {
            if let Ok(pages) = pages
                && asked.page_size == 1000
            {
                let directories = pages
                    .iter_mut()
                    .flat_map(|page| std::mem::take(&mut page.directories));
                let directories = directories.collect();
                *pages = vec![GetTreeResponse {
                    directories,
                    ..GetTreeResponse::default()
                }];
            }
        })],
    ),
    violation(
        "TREE-17",
        "a root that is no Directory is an internal error",
        &[Bend::TreeOut(|_, pages, _| {
            if pages
                .as_ref()
                .is_err_and(|status| status.message().contains("is no Directory"))
            {
                *pages = Err(Status::internal("undecodable"));
            }
        })],
    ),
    violation(
        "TREE-18",
        "a descendant that is no Directory is an internal error",
        &[Bend::TreeOut(|asked, pages, contents| {
            if child(asked, pages, contents, |_, bytes| {
                bytes.is_some_and(|b| Directory::decode(b).is_err())
            }) {
                *pages = Err(Status::internal("undecodable"));
            }
        })],
    ),
    violation(
        "TREE-19",
        "a child without a digest is an internal error",
        &[Bend::TreeOut(|asked, pages, contents| {
            if child(asked, pages, contents, |digest, _| digest.is_none()) {
                *pages = Err(Status::internal("no digest"));
            }
        })],
    ),
    violation(
        "TREE-20",
        "directories are decoded and encoded again",
        &[Bend::TreeOut(|_, pages, _| {
            for bytes in pages.iter_mut().flatten().flat_map(|page| &mut page.directories) {
                *bytes = Directory::decode(bytes.clone())
                    .unwrap_or_default()
                    .encode_to_vec()
                    .into();
            }
        })],
    ),
    violation(
        "TREE-21",
        "the empty directory is not found",
        &[Bend::TreeIn(|request, _| {
            let empty = request
                .root_digest
                .as_ref()
                .is_some_and(|digest| digest.size_bytes == 0 && digest.hash.len() == 64);
            if empty {
                Err(Status::not_found("nothing"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "TREE-24",
        "files have to exist",
        &[Bend::TreeOut(|asked, pages, contents| {
            let files = decoded(pages).into_iter().flat_map(|directory| directory.files);
            let lost = files.filter_map(|file| Digest::from_wire(file.digest.as_ref()).ok());
            let lost = lost
                .filter(|digest| !contents.has(&asked.instance_name, digest))
                .count();
            if lost > 0 {
                *pages = Err(Status::not_found("a file"));
            }
        })],
    ),
    violation(
        "ERR-04",
        "a malformed root is a miss",
        &[Bend::TreeIn(|request, _| {
            let odd = request
                .root_digest
                .as_ref()
                .is_some_and(|digest| digest.hash == "xyz");
            if odd {
                Err(Status::not_found("xyz"))
            } else {
                Ok(())
            }
        })],
    ),
];
