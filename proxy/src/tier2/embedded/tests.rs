use std::time::Duration;

use futures::TryStreamExt as _;

use super::*;
use crate::digest::Function;

fn call(scope: &str) -> Call {
    Call::of_node(InstanceName::parse(scope).unwrap())
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::of(Function::Sha256, bytes)
}

fn large() -> Bytes {
    let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 17).map(|i| i.to_le_bytes()[0]).collect();
    bytes.into()
}

async fn open_in(dir: &tempfile::TempDir) -> EmbeddedTier2 {
    EmbeddedTier2::open(dir.path().join("store")).await.unwrap()
}

/// The pieces of a whole upload, `piece_bytes` each.
fn pieces(blob: &Bytes, piece_bytes: usize) -> PieceStream {
    let proof = Verified::of(digest_of(blob), blob).unwrap();
    let mut blob = blob.clone();
    let mut pieces = Vec::new();
    while blob.len() > piece_bytes {
        pieces.push(Ok(Piece::Data(blob.split_to(piece_bytes))));
    }
    pieces.push(Ok(Piece::Last(blob, proof)));
    futures::stream::iter(pieces).boxed()
}

async fn write(store: &EmbeddedTier2, call: &Call, blob: &Bytes) {
    let written = store.write(call, &digest_of(blob), pieces(blob, 16 * 1024)).await;
    written.unwrap();
}

async fn read(
    store: &EmbeddedTier2,
    call: &Call,
    digest: &Digest,
    range: ByteRange,
) -> Result<Vec<u8>, Tier2Error> {
    let chunks: Vec<Bytes> = store.read(call, digest, range).await?.try_collect().await?;
    assert!(
        chunks.iter().all(|chunk| !chunk.is_empty()),
        "chunks are never empty"
    );
    Ok(chunks.concat())
}

/// Files below `dir` that are not the lock.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with("lock") {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (call, blob) = (call("main"), large());
    let digest = digest_of(&blob);
    let key = ActionDigest(digest_of(b"action"));
    let result = RawActionResult(Bytes::from_static(b"\x08\x01"));
    let small = Bytes::from_static(b"small");
    {
        let store = open_in(&dir).await;
        write(&store, &call, &blob).await;
        let proof = Verified::of(digest_of(&small), &small).unwrap();
        let acks = store.write_batch(&call, vec![(proof, small.clone())]).await;
        assert!(matches!(acks[..], [Ok(_)]));
        store.put_action(&call, &key, result.clone()).await.unwrap();
    }
    let store = open_in(&dir).await;
    assert_eq!(
        read(&store, &call, &digest, ByteRange::whole(&digest))
            .await
            .unwrap(),
        blob
    );
    let range = ByteRange::within(&digest, 5, Some(CHUNK_BYTES as u64)).unwrap();
    assert_eq!(
        read(&store, &call, &digest, range).await.unwrap(),
        blob[5..CHUNK_BYTES + 5]
    );
    assert_eq!(store.action(&call, &key).await.unwrap(), result);
    let missing = digest_of(b"never written");
    let found = store
        .read_batch(&call, &[missing, digest_of(&small), digest])
        .await;
    assert!(matches!(&found[0], Err(Tier2Error::NotFound)));
    assert_eq!(found[1].as_ref().unwrap(), &small);
    assert_eq!(found[2].as_ref().unwrap(), &blob);
    let asked = [missing, digest, missing];
    assert_eq!(store.find_missing(&call, &asked).await.unwrap(), [missing]);
}

#[tokio::test]
async fn an_action_result_is_replaced_by_the_last_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (store, call) = (open_in(&dir).await, call(""));
    let key = ActionDigest(digest_of(b"action"));
    assert!(matches!(
        store.action(&call, &key).await,
        Err(Tier2Error::NotFound)
    ));
    for result in [&b"first"[..], b"", b"second"] {
        let result = RawActionResult(Bytes::from_static(result));
        store.put_action(&call, &key, result.clone()).await.unwrap();
        assert_eq!(store.action(&call, &key).await.unwrap(), result);
    }
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, call, blob) = (open_in(&dir).await, call(""), large());
    let digest = digest_of(&blob);
    for ending in [Some(Err(crate::blob::Aborted)), None] {
        let first = futures::stream::iter([Ok(Piece::Data(blob.clone()))]);
        let body = first.chain(futures::stream::iter(ending)).boxed();
        let written = store.write(&call, &digest, body).await;
        assert!(matches!(written, Err(Tier2Error::Aborted)));
    }
    assert_eq!(store.find_missing(&call, &[digest]).await.unwrap(), [digest]);
    assert_eq!(files(dir.path()), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn scopes_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (store, blob) = (open_in(&dir).await, large());
    let digest = digest_of(&blob);
    write(&store, &call("a"), &blob).await;
    assert_eq!(store.find_missing(&call("a"), &[digest]).await.unwrap(), []);
    assert_eq!(store.find_missing(&call("b"), &[digest]).await.unwrap(), [digest]); // PXY-26
}

#[tokio::test]
async fn concurrent_writers_of_one_blob_all_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, call, blob) = (open_in(&dir).await, call(""), large());
    let writers = (0..8).map(|_| write(&store, &call, &blob));
    futures::future::join_all(writers).await;
    let digest = digest_of(&blob);
    assert_eq!(
        read(&store, &call, &digest, ByteRange::whole(&digest))
            .await
            .unwrap(),
        blob
    );
    assert_eq!(files(dir.path()).len(), 1);
}

#[tokio::test]
async fn a_blob_that_is_there_is_acknowledged_before_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (store, call, blob) = (open_in(&dir).await, call(""), large());
    write(&store, &call, &blob).await;
    let endless = futures::stream::iter([Ok(Piece::Data(blob.slice(..1)))])
        .chain(futures::stream::pending())
        .boxed();
    store.write(&call, &digest_of(&blob), endless).await.unwrap(); // BS-WRITE-14
}

#[tokio::test]
async fn a_start_removes_what_a_crash_left_half_written() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_in(&dir).await);
    let torn = dir.path().join("store/tmp/0");
    fs::write(&torn, b"half a bl").unwrap();
    let store = open_in(&dir).await;
    assert!(!torn.exists());
    let blob = large();
    write(&store, &call(""), &blob).await;
    assert_eq!(files(dir.path()).len(), 1);
}

#[tokio::test]
async fn a_second_process_is_told_that_the_directory_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_in(&dir).await;
    let second = EmbeddedTier2::open(dir.path().join("store")).await.unwrap_err();
    assert!(matches!(&second, EmbeddedError::Locked { .. }), "{second}");
    assert!(
        second.to_string().ends_with("store is in use by another process"),
        "{second}"
    );
    drop(store);
    open_in(&dir).await;
}

#[tokio::test]
async fn a_rotten_blob_is_not_served_and_heals_by_the_next_upload() {
    let dir = tempfile::tempdir().unwrap();
    let (store, call, blob) = (open_in(&dir).await, call(""), large());
    let digest = digest_of(&blob);
    write(&store, &call, &blob).await;
    let file = files(dir.path()).remove(0);
    let mut rotten = fs::read(&file).unwrap();
    rotten[CHUNK_BYTES] ^= 1;
    fs::write(&file, &rotten).unwrap();

    let mut stream = store
        .read(&call, &digest, ByteRange::whole(&digest))
        .await
        .unwrap();
    let mut served = 0;
    let end = loop {
        match stream.next().await {
            Some(Ok(chunk)) => served += chunk.len(),
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(Tier2Error::Corrupt(_)))), "{end:?}");
    assert!(served < blob.len(), "the last piece stays back");
    assert_eq!(store.find_missing(&call, &[digest]).await.unwrap(), [digest]);
    write(&store, &call, &blob).await;
    assert_eq!(
        read(&store, &call, &digest, ByteRange::whole(&digest))
            .await
            .unwrap(),
        blob
    );
}

#[tokio::test]
async fn a_truncated_blob_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, call, blob) = (open_in(&dir).await, call(""), large());
    let digest = digest_of(&blob);
    write(&store, &call, &blob).await;
    fs::write(files(dir.path()).remove(0), &blob[..9]).unwrap();
    assert_eq!(store.find_missing(&call, &[digest]).await.unwrap(), [digest]);
    let found = read(&store, &call, &digest, ByteRange::whole(&digest)).await;
    assert!(matches!(found, Err(Tier2Error::NotFound)), "{found:?}");
}

#[tokio::test]
async fn a_rotten_action_result_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let (store, call) = (open_in(&dir).await, call(""));
    let key = ActionDigest(digest_of(b"action"));
    let result = RawActionResult(Bytes::from_static(b"result"));
    store.put_action(&call, &key, result).await.unwrap();
    let file = files(dir.path()).remove(0);
    for rotten in [&b""[..], b"res", b"rosult\0\0\0\0"] {
        fs::write(&file, rotten).unwrap();
        assert!(matches!(
            store.action(&call, &key).await,
            Err(Tier2Error::NotFound)
        ));
    }
}

#[tokio::test]
async fn probe_tells_whether_the_directory_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_in(&dir).await;
    let deadline = Instant::now() + Duration::from_secs(1);
    store.probe(Service::Cas, deadline).await.unwrap();
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    assert!(matches!(
        store.probe(Service::Cas, deadline).await,
        Err(Tier2Error::Down(_))
    ));
}
