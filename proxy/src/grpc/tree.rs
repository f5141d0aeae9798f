//! GetTree: all pages in one stream, which suits every client (TREE-10).

use futures::StreamExt;
use proto::{reapi, wire};
use tonic::Status;

use super::body::MessageStream;
use super::caller::Caller;
use super::chunk::Chunk;
use super::digests;
use super::services::Services;
use super::status::{invalid, tree_status};
use crate::digest::Digest;
use crate::tiered::{TreeError, TreePage, TreeToken};

/// Answers GetTree. What is wrong with the root is a refusal; what goes wrong later ends the stream.
pub(super) async fn get(
    services: &Services,
    caller: &Caller,
    request: reapi::GetTreeRequest,
) -> Result<MessageStream, Status> {
    let call = caller.call(&request.instance_name)?;
    let function = digests::function(request.digest_function)?;
    let root = digests::required(function, request.root_digest.as_ref(), "root digest")?;
    let page_size = usize::try_from(request.page_size)
        .map_err(|_| invalid(format_args!("the page size {} is negative", request.page_size)))?;
    let from = match request.page_token.as_str() {
        "" => None,
        token => Some(TreeToken::parse(token, &root).map_err(|error| tree_status(&error, root))?),
    };
    let pages = services.tiered.tree(&call, &root, page_size, from);
    let mut messages: MessageStream = Box::pin(pages.map(move |page| message(page, root)));
    let Some(first) = messages.next().await.transpose()? else {
        return Ok(messages);
    };
    Ok(Box::pin(
        futures::stream::once(std::future::ready(Ok(first))).chain(messages),
    ))
}

fn message(page: Result<TreePage, TreeError>, root: Digest) -> Result<Chunk, Status> {
    let page = page.map_err(|error| tree_status(&error, root))?;
    Chunk::message(&wire::GetTreeResponse {
        directories: page.directories,
        next_page_token: page.next.map_or_else(String::new, |token| token.to_string()),
    })
}
