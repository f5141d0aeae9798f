//! Whole nodes, put together as the binary does it, over pipes and disks in memory.

use std::io;
use std::sync::OnceLock;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use mock_upstream::{Match, Mock, method};
use proto::bytestream::byte_stream_client::ByteStreamClient;
use proto::bytestream::{ReadRequest, WriteRequest};
use proto::reapi::capabilities_client::CapabilitiesClient;
use proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use proto::reapi::{FindMissingBlobsRequest, GetCapabilitiesRequest};
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::digest::{Digest, Function};
use crate::tier1::disk::memory::MemoryDisk;
use crate::tier2::remote::BoxIo;

/// Connects to a node that is named later.
#[derive(Clone, Default)]
struct To(Arc<OnceLock<Server<Edge>>>);

impl To {
    fn pipe(&self) -> tokio::io::DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.0.get().expect("the node is up").attach(far);
        near
    }

    async fn channel(&self) -> Channel {
        let mut io = Some(TokioIo::new(self.pipe()));
        let connector = tower::service_fn(move |_: http::Uri| {
            std::future::ready(io.take().ok_or_else(|| io::Error::other("only one connection")))
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://node");
        endpoint.connect_with_connector(connector).await.unwrap()
    }
}

#[async_trait]
impl Connect for To {
    async fn connect(&self) -> io::Result<BoxIo> {
        match self.0.get() {
            Some(_) => Ok(Box::new(self.pipe())),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

struct Pipes(Mock);

#[async_trait]
impl Connect for Pipes {
    async fn connect(&self) -> io::Result<BoxIo> {
        Ok(Box::new(self.0.connect()?))
    }
}

/// A node whose Tier 2 is whatever `upstream` leads to.
async fn node(upstream: impl Connect) -> (Node, To) {
    let flags = [("tier2.url", "grpc://tier2:1".to_owned())];
    let config = config::load(None, std::iter::empty(), &flags).unwrap().config;
    let ground = Ground {
        disk: Arc::new(MemoryDisk::new()),
        connector: Some(Box::new(upstream)),
        ..Ground::default()
    };
    let node = Node::new(&config, ground).await.unwrap();
    let here = To::default();
    assert!(here.0.set(node.server.clone()).is_ok());
    (node, here)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) {
    assert_eq!(answer.unwrap_err().code(), Code::FailedPrecondition);
}

/// Every kind of call that goes on to Tier 2 comes back at once.
async fn is_noticed(client: &To) {
    let begun = Instant::now();
    let digest = Digest::of(Function::Sha256, b"hello");
    let mut byte_stream = ByteStreamClient::new(client.channel().await);
    let read = ReadRequest {
        resource_name: format!("blobs/{digest}"),
        ..Default::default()
    };
    refused(byte_stream.read(read).await);
    let write = WriteRequest {
        resource_name: format!("uploads/u/blobs/{digest}"),
        write_offset: 0,
        finish_write: true,
        data: b"hello"[..].into(),
    };
    refused(byte_stream.write(futures::stream::iter([write])).await);
    let mut cas = ContentAddressableStorageClient::new(client.channel().await);
    let find = FindMissingBlobsRequest {
        blob_digests: vec![proto::reapi::Digest {
            hash: digest.hash().to_hex(),
            size_bytes: 5,
        }],
        ..Default::default()
    };
    refused(cas.find_missing_blobs(find).await);
    assert_eq!(
        begun.elapsed().as_secs(),
        0,
        "virtual time: nobody waited for himself"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_its_own_tier_2_says_so_at_once() {
    // PXY-78
    let itself = To::default();
    let (_node, here) = node(itself.clone()).await;
    assert!(itself.0.set(here.0.get().unwrap().clone()).is_ok());
    is_noticed(&here).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_in_a_ring_say_so_at_once() {
    // PXY-78
    let first = To::default();
    let (_third_node, third) = node(first.clone()).await;
    let (_second_node, second) = node(third.clone()).await;
    let (_first_node, here) = node(second.clone()).await;
    assert!(first.0.set(here.0.get().unwrap().clone()).is_ok());
    for client in [&here, &second, &third] {
        is_noticed(client).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_tier_2_allows_is_known_before_the_first_client_asks() {
    // CAP-08, PXY-13, PXY-22
    let mock = Mock::builder().update_enabled(false).start();
    let (_node, here) = node(Pipes(mock.clone())).await;
    let asked = mock.finished(Match::method(method::CAPABILITIES), 1);
    tokio::time::timeout(std::time::Duration::from_secs(1), asked)
        .await
        .expect("the node asked by itself");
    // The answer is on its way through a pipe: a few turns of this thread.
    let mut client = CapabilitiesClient::new(here.channel().await);
    let answer = client.get_capabilities(GetCapabilitiesRequest::default()).await;
    let cache = answer.unwrap().into_inner().cache_capabilities.unwrap();
    assert!(!cache.action_cache_update_capabilities.unwrap().update_enabled);
    assert_eq!(mock.calls().method(method::CAPABILITIES).count(), 1);
}
