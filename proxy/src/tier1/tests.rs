//! Tier 1 as a whole, over a disk in memory and over the real one.

mod faults;
mod model;
mod restart;
mod room;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::disk::memory::MemoryDisk;
use super::format::BLOCK_BYTES;
use super::index::Account;
use super::*;
use crate::blob::{ByteRange, Verified};
use crate::call::Scope;
use crate::digest::Function;
use crate::metrics::Metrics;

const DIR: &str = "/tier1";
const MIB: u64 = 1 << 20;

/// A store and what it stands on.
struct Node {
    tier1: Tier1,
    tasks: TaskGroup,
    metrics: Tier1Metrics,
    disk: MemoryDisk,
}

impl Node {
    fn start(disk: &MemoryDisk, max_bytes: u64) -> Node {
        let disk = disk.clone();
        let (tasks, metrics) = (TaskGroup::new(), Metrics::new().tier1);
        let tier1 = Tier1::open(
            options(Path::new(DIR), max_bytes),
            Arc::new(disk.clone()),
            &tasks,
            metrics.clone(),
        );
        Node {
            tier1,
            tasks,
            metrics,
            disk,
        }
    }

    async fn loaded(disk: &MemoryDisk, max_bytes: u64) -> Node {
        let node = Node::start(disk, max_bytes);
        node.tier1.loaded().await;
        node
    }

    /// A node with all the room it may want, and nothing in it.
    async fn new() -> Node {
        Node::loaded(&MemoryDisk::new(), u64::MAX).await
    }

    /// A clean end and another start on the same disk.
    async fn restart(self) -> Node {
        let disk = self.disk.clone();
        self.stop().await;
        Node::loaded(&disk, u64::MAX).await
    }

    async fn stop(self) {
        assert_eq!(self.tasks.stop(Duration::from_secs(60)).await, 0);
    }

    async fn put(&self, key: &BlobKey, bytes: &[u8]) -> Pinned {
        try_put(&self.tier1, key, bytes).await.unwrap()
    }

    fn account(&self) -> Account {
        let index = self.tier1.0.index.lock();
        index.audit();
        index.account()
    }

    /// Waits until nothing is left to remove, and compares the account with the disk.
    async fn check_account(&self) {
        self.tier1.settled().await;
        let account = self.account();
        let (cas, staging) = (Path::new(DIR).join("cas"), Path::new(DIR).join("staging"));
        assert_eq!(account.stored_bytes, self.disk.allocated_bytes(&cas));
        assert_eq!(account.blobs, self.disk.files(&cas).len() as u64);
        assert_eq!(account.leaving_bytes, 0);
        if account.staged_bytes == 0 {
            assert_eq!(self.disk.files(&staging), Vec::<PathBuf>::new());
        }
        assert_eq!(self.metrics.allocated_bytes.get() as u64, account.stored_bytes);
        assert_eq!(self.metrics.staged_bytes.get() as u64, account.staged_bytes);
        assert_eq!(self.metrics.blobs.get() as u64, account.blobs);
    }

    fn path(&self, key: &BlobKey) -> PathBuf {
        let hash = key.digest.hash().to_hex();
        let files = self.disk.files(&Path::new(DIR).join("cas"));
        let named = |path: &PathBuf| path.to_str().unwrap().contains(&hash);
        files.into_iter().find(named).unwrap()
    }

    fn errors(&self, op: &str) -> u64 {
        self.metrics.errors.with_label_values(&[op]).get()
    }
}

fn options(dir: &Path, max_bytes: u64) -> Tier1Options {
    Tier1Options {
        dir: dir.to_owned(),
        watermarks: Watermarks::new(max_bytes, max_bytes / 10 * 9, max_bytes / 10 * 8).unwrap(),
        blob_bytes_max: 64 * MIB,
    }
}

/// Bytes that differ from block to block and from name to name.
fn blob(name: u8, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len)
        .map(|at| u8::try_from((at / 7 + at / BLOCK_BYTES) % 251).unwrap())
        .collect();
    if let Some(first) = bytes.first_mut() {
        *first = name;
    }
    bytes
}

fn key_in(scope: &str, bytes: &[u8]) -> BlobKey {
    BlobKey {
        scope: Scope::new(scope),
        digest: Digest::of(Function::Sha256, bytes),
    }
}

fn key(bytes: &[u8]) -> BlobKey {
    key_in("main", bytes)
}

fn proof(bytes: &[u8]) -> Verified {
    Verified::of(Digest::of(Function::Sha256, bytes), bytes).unwrap()
}

async fn try_put(tier1: &Tier1, key: &BlobKey, bytes: &[u8]) -> Result<Pinned, Tier1Error> {
    let mut staged = tier1.stage(key).await?;
    for piece in bytes.chunks(50_000) {
        staged.append(Bytes::copy_from_slice(piece)).await?;
    }
    staged.publish(proof(bytes)).await
}

async fn read_all(pinned: &Pinned, len_max: usize) -> Result<Vec<u8>, Tier1Error> {
    let mut range = ByteRange::whole(&pinned.key().digest);
    let mut bytes = Vec::new();
    while !range.is_empty() {
        let quick = pinned.try_read(range, len_max);
        let slow = pinned.read(range, len_max).await?;
        assert!(quick.is_none_or(|quick| quick == slow));
        assert!(!slow.is_empty() && slow.len() <= len_max);
        bytes.extend_from_slice(&slow);
        range = range.skip(slow.len() as u64);
    }
    Ok(bytes)
}

async fn get(tier1: &Tier1, key: &BlobKey) -> Option<Result<Vec<u8>, Tier1Error>> {
    let pinned = tier1.lookup(key)?;
    Some(read_all(&pinned, 100_000).await)
}

#[tokio::test]
async fn a_published_blob_is_found_and_reads_back_whole_and_in_parts() {
    let node = Node::new().await;
    for len in [0, 1, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 300_000] {
        let bytes = blob(1, len);
        let key = key(&bytes);
        assert!(node.tier1.lookup(&key).is_none());
        let pinned = node.put(&key, &bytes).await;
        assert_eq!(read_all(&pinned, 70_000).await.unwrap(), bytes);
        let found = node.tier1.lookup(&key).unwrap();
        assert_eq!(found.key(), &key);
        assert_eq!(read_all(&found, 1 << 30).await.unwrap(), bytes);
        let (from, to) = (len as u64 / 3, len as u64 / 2);
        let part = ByteRange::within(&key.digest, from, Some(to - from)).unwrap();
        let read = found.read(part, usize::MAX).await.unwrap();
        assert_eq!(read, bytes[len / 3..len / 2]);
    }
    node.check_account().await;
    assert_eq!(node.errors("read") + node.errors("open"), 0);
}

#[tokio::test]
async fn what_is_held_can_be_told_without_reading_it() {
    let node = Node::new().await;
    let (here, gone) = (blob(1, 100), blob(2, 100));
    let digests = [&here, &gone].map(|bytes| key(bytes).digest);
    let scope = key(&here).scope;
    drop(node.put(&key(&here), &here).await);
    let pinned = node.put(&key(&gone), &gone).await;
    assert_eq!(node.tier1.holds(&scope, &digests), [true, true]);
    node.tier1.discard(&pinned);
    assert_eq!(node.tier1.holds(&scope, &digests), [true, false]);
    assert_eq!(node.tier1.holds(&Scope::new("another"), &digests), [false, false]);
}

#[tokio::test]
async fn a_hot_blob_is_read_without_waiting_for_the_disk() {
    let node = Node::new().await;
    let bytes = blob(1, 5000);
    let key = key(&bytes);
    drop(node.put(&key, &bytes).await);
    let whole = ByteRange::whole(&key.digest);
    let first = node.tier1.lookup(&key).unwrap();
    assert_eq!(first.try_read(whole, 9999), None, "its file is not open yet");
    first.read(whole, 9999).await.unwrap();
    let second = node.tier1.lookup(&key).unwrap();
    assert_eq!(second.try_read(whole, 9999).unwrap(), bytes);
    node.disk.make_cold();
    assert_eq!(second.try_read(whole, 9999), None);
    assert_eq!(second.read(whole, 9999).await.unwrap(), bytes);
}

#[tokio::test]
async fn staged_bytes_are_read_while_more_arrive_and_after_the_end_of_staging() {
    let node = Node::new().await;
    let bytes = blob(1, 200_000);
    let key = key(&bytes);
    let mut staged = node.tier1.stage(&key).await.unwrap();
    let reader = staged.reader();
    assert_eq!(reader.read(0, 10).await.unwrap(), b"".as_slice());
    for (at, piece) in bytes.chunks(30_000).enumerate() {
        staged.append(Bytes::copy_from_slice(piece)).await.unwrap();
        assert_eq!(reader.watermark(), staged.watermark());
        let (from, len) = (at * 30_000, piece.len());
        let read = reader.clone().read(from as u64, len).await.unwrap();
        assert!(!read.is_empty());
        assert_eq!(read, bytes[from..from + read.len()]);
    }
    assert!(node.tier1.lookup(&key).is_none(), "nothing is visible yet");
    let pinned = staged.publish(proof(&bytes)).await.unwrap();
    node.tier1.discard(&pinned);
    drop(pinned);
    node.check_account().await;
    node.disk.make_cold();
    let mut read = Vec::new();
    while read.len() < bytes.len() {
        read.extend(reader.read(read.len() as u64, usize::MAX).await.unwrap());
    }
    assert_eq!(read, bytes);
    assert_eq!(reader.read(u64::MAX, 1).await.unwrap(), b"".as_slice());
}

#[tokio::test]
async fn a_staged_blob_that_is_dropped_leaves_nothing_but_what_its_readers_hold() {
    let node = Node::new().await;
    let bytes = blob(1, 100_000);
    let mut staged = node.tier1.stage(&key(&bytes)).await.unwrap();
    staged
        .append(Bytes::copy_from_slice(&bytes[..70_000]))
        .await
        .unwrap();
    let reader = staged.reader();
    assert!(node.account().staged_bytes >= 70_000);
    drop(staged);
    node.check_account().await;
    assert_eq!(node.account(), Account::default());
    assert_eq!(reader.read(0, 99_999).await.unwrap(), bytes[..70_000]);
}

#[tokio::test]
async fn scopes_do_not_see_each_others_blobs() {
    let node = Node::new().await;
    let bytes = blob(1, 1000);
    let (ours, theirs) = (key_in("ours", &bytes), key_in("theirs", &bytes));
    drop(node.put(&ours, &bytes).await);
    assert!(node.tier1.lookup(&theirs).is_none());
    let pinned = node.put(&theirs, &bytes).await;
    node.tier1.discard(&pinned);
    assert!(node.tier1.lookup(&theirs).is_none());
    assert_eq!(get(&node.tier1, &ours).await.unwrap().unwrap(), bytes);
}

#[tokio::test]
async fn a_proof_of_another_blob_or_a_part_of_the_blob_publishes_nothing() {
    let node = Node::new().await;
    let (bytes, other) = (blob(1, 1000), blob(2, 1000));
    let key = key(&bytes);

    let mut staged = node.tier1.stage(&key).await.unwrap();
    staged.append(bytes.clone().into()).await.unwrap();
    let refused = staged.publish(proof(&other)).await;
    assert!(matches!(refused, Err(Tier1Error::Damaged)));

    let mut staged = node.tier1.stage(&key).await.unwrap();
    staged.append(Bytes::copy_from_slice(&bytes[1..])).await.unwrap();
    let refused = staged.publish(proof(&bytes)).await;
    assert!(matches!(refused, Err(Tier1Error::Damaged)));

    let mut staged = node.tier1.stage(&key).await.unwrap();
    staged.append(bytes.clone().into()).await.unwrap();
    let refused = staged.append(other.into()).await;
    assert!(matches!(refused, Err(Tier1Error::Damaged)));
    let refused = staged.publish(proof(&bytes)).await;
    assert!(matches!(refused, Err(Tier1Error::Damaged)));

    assert!(node.tier1.lookup(&key).is_none());
    node.check_account().await;
    assert_eq!(node.account(), Account::default());
}

#[tokio::test]
async fn an_append_given_up_midway_spoils_the_staged_blob() {
    let node = Node::new().await;
    let bytes = blob(1, 1000);
    let mut staged = node.tier1.stage(&key(&bytes)).await.unwrap();
    node.disk.hold(disk::memory::Step::Write);
    tokio::select! {
        _ = staged.append(bytes.clone().into()) => panic!("the disk is held"),
        () = node.disk.somebody_waits() => {}
    }
    node.disk.release(disk::memory::Step::Write);
    let refused = staged.append(bytes.clone().into()).await;
    assert!(matches!(refused, Err(Tier1Error::Damaged)));
    let refused = staged.publish(proof(&bytes)).await;
    assert!(matches!(refused, Err(Tier1Error::Damaged)));
    node.check_account().await;
}

#[tokio::test]
async fn a_publish_goes_on_when_its_caller_leaves() {
    let node = Node::new().await;
    let bytes = blob(1, 1000);
    let key = key(&bytes);
    let mut staged = node.tier1.stage(&key).await.unwrap();
    staged.append(bytes.clone().into()).await.unwrap();
    node.disk.hold(disk::memory::Step::Rename);
    tokio::select! {
        _ = staged.publish(proof(&bytes)) => panic!("the disk is held"),
        () = node.disk.somebody_waits() => {}
    }
    node.disk.release(disk::memory::Step::Rename);
    let (tier1, tasks) = (node.tier1.clone(), node.tasks.clone());
    node.stop().await;
    assert!(tasks.is_empty());
    assert_eq!(get(&tier1, &key).await.unwrap().unwrap(), bytes);
}

#[tokio::test]
async fn the_same_blob_published_twice_is_on_the_account_once() {
    let node = Node::new().await;
    let bytes = blob(1, 10_000);
    let key = key(&bytes);
    let first = node.put(&key, &bytes).await;
    let second = node.put(&key, &bytes).await;
    assert_eq!(read_all(&first, 9999).await.unwrap(), bytes);
    node.tier1.discard(&first); // Names the copy that was replaced.
    assert_eq!(get(&node.tier1, &key).await.unwrap().unwrap(), bytes);
    drop((first, second));
    node.check_account().await;
    assert_eq!(node.account().blobs, 1);
    assert_eq!(node.metrics.dropped.get(), 0);
}

#[tokio::test]
async fn blobs_of_unwelcome_length_are_not_staged() {
    let node = Node::loaded(&MemoryDisk::new(), MIB).await;
    let of_length = |size_bytes: u64| {
        let hash = key(b"x").digest.hash().to_hex();
        Digest::parse(Function::Sha256, &hash, i64::try_from(size_bytes).unwrap()).unwrap()
    };
    assert!(node.tier1.keeps(&of_length(1)));
    assert!(
        !node.tier1.keeps(&of_length(MIB * 9 / 10)),
        "all else would have to go"
    );
    let huge = BlobKey {
        scope: Scope::new("main"),
        digest: of_length(i64::MAX as u64),
    };
    assert!(!node.tier1.keeps(&huge.digest));
    assert!(matches!(node.tier1.stage(&huge).await, Err(Tier1Error::Full)));
    assert_eq!(node.account(), Account::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_put_read_and_discard_one_blob_and_none_sees_wrong_bytes() {
    let node = Node::new().await;
    let bytes = Arc::new(blob(1, 100_000));
    let key = key(&bytes);
    let workers = TaskGroup::new();
    let work: Vec<_> = (0..8)
        .map(|_| {
            let (tier1, key, bytes) = (node.tier1.clone(), key.clone(), Arc::clone(&bytes));
            workers.spawn(async move {
                for _ in 0..25 {
                    let pinned = try_put(&tier1, &key, &bytes).await.unwrap();
                    assert_eq!(read_all(&pinned, 99_999).await.unwrap(), *bytes);
                    if let Some(found) = tier1.lookup(&key) {
                        // Between lookup and open it may have been discarded by another.
                        match read_all(&found, 99_999).await {
                            Ok(read) => assert_eq!(read, *bytes),
                            Err(error) => assert!(matches!(error, Tier1Error::Gone), "{error}"),
                        }
                        tier1.discard(&found);
                    }
                }
            })
        })
        .collect();
    for worker in work {
        worker.await.unwrap();
    }
    node.check_account().await;
}
