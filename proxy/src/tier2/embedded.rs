//! A Tier 2 in this process: a durable directory, for trying gorego out without any other server.

mod files;
mod layout;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use fs_err::{self as fs, File};
use futures::StreamExt as _;
use tokio::time::Instant;
use tonic::Code;

use self::files::{Files, TempFile};
use self::layout::Layout;
use super::health::Service;
use super::{Ack, BlobStream, Offers, RawActionResult, Tier2, Tier2Error, UpstreamStatus};
use crate::blob::{ByteRange, DigestMismatch, Piece, PieceStream, Verified, Verifier};
use crate::call::{ActionKey, BlobKey, Call, InstanceName};
use crate::digest::{ActionDigest, Digest};

/// Bytes per read and per write of a stream: large enough that the hop to a blocking thread does not show.
const CHUNK_BYTES: usize = 256 * 1024;

/// Files of one batch in work at once: enough to share syncs among them, too few to take all blocking threads.
const BATCH_FILES_IN_FLIGHT: usize = 16;

/// Bytes of the CRC32C at the end of an action result, whose key is not its hash and so cannot vouch for it.
const CHECKSUM_BYTES: usize = 4;

/// Blobs and action results as files. Never evicts; what was acknowledged survives kill -9 and power cuts.
///
/// Keys carry the caller's scope. Blobs are hashed when they are read whole, and one that has rotted is removed, so that
/// the next upload of it heals it. Not for production at scale: every small blob costs an inode and two syncs.
#[derive(Clone, Debug)]
pub struct EmbeddedTier2 {
    store: Arc<Store>,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Another process has it. Two writers would remove each other's temporary files.
    #[error("{} is in use by another process", .dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system refuses; the error names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl EmbeddedTier2 {
    /// Opens the store in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// [`EmbeddedError`]: another process uses the directory, or it cannot be used.
    pub async fn open(dir: PathBuf) -> Result<EmbeddedTier2, EmbeddedError> {
        let opened = tokio::task::spawn_blocking(move || Store::open(dir)).await;
        let store = opened.map_err(|error| EmbeddedError::Io(io::Error::other(error)))??;
        Ok(EmbeddedTier2 {
            store: Arc::new(store),
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Tier2Error> + Send + 'static,
    ) -> Result<T, Tier2Error> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(done) => done,
            Err(stopping) => Err(Tier2Error::down(stopping)),
        }
    }
}

#[async_trait]
impl Tier2 for EmbeddedTier2 {
    async fn read(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<BlobStream, Tier2Error> {
        let key = call.blob(digest);
        let (first, reader) = self
            .blocking(move |store| {
                let mut reader = store.reader(&key, range)?;
                Ok((reader.next(store)?, reader))
            })
            .await?;
        let Some(first) = first else {
            return Ok(futures::stream::empty().boxed());
        };
        let this = self.clone();
        let rest = futures::stream::try_unfold(reader, move |mut reader| {
            let this = this.clone();
            async move {
                if reader.rest.is_empty() {
                    return Ok(None);
                }
                let read = move |store: &Store| Ok((reader.next(store)?, reader));
                let (chunk, reader) = this.blocking(read).await?;
                Ok(chunk.map(|chunk| (chunk, reader)))
            }
        });
        Ok(futures::stream::iter([Ok(first)]).chain(rest).boxed())
    }

    async fn write(&self, call: &Call, digest: &Digest, mut body: PieceStream) -> Result<Ack, Tier2Error> {
        let key = call.blob(digest);
        let mut piece = body.next().await.unwrap_or(Err(crate::blob::Aborted));
        let asked_at = Instant::now();
        let begun = {
            let key = key.clone();
            move |store: &Store| match store.has(&key)? {
                true => Ok(None),
                false => store.files.create_temp().map(Some).map_err(failed),
            }
        };
        let Some(mut temp) = self.blocking(begun).await? else {
            return Ok(Ack { sent_at: asked_at });
        };
        let mut buffer = Vec::new();
        let mut buffered_bytes = 0;
        loop {
            match piece.map_err(|_aborted| Tier2Error::Aborted)? {
                Piece::Data(bytes) => {
                    buffered_bytes += bytes.len();
                    buffer.push(bytes);
                    if buffered_bytes >= CHUNK_BYTES {
                        let full = std::mem::take(&mut buffer);
                        buffered_bytes = 0;
                        temp = self.blocking(move |_| append(temp, &full)).await?;
                    }
                }
                Piece::Last(bytes, proof) => {
                    assert_eq!(
                        proof.digest(),
                        digest,
                        "the proof is for the blob that is written"
                    );
                    buffer.push(bytes);
                    let sent_at = Instant::now();
                    self.blocking(move |store| {
                        let temp = append(temp, &buffer)?;
                        store
                            .files
                            .publish(temp, &store.layout.blob(&key))
                            .map_err(failed)
                    })
                    .await?;
                    return Ok(Ack { sent_at });
                }
            }
            piece = body.next().await.unwrap_or(Err(crate::blob::Aborted));
        }
    }

    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        let keys: HashSet<BlobKey> = digests.iter().map(|digest| call.blob(digest)).collect();
        self.blocking(move |store| {
            let mut missing = Vec::new();
            for key in keys {
                if !store.has(&key)? {
                    missing.push(key.digest);
                }
            }
            Ok(missing)
        })
        .await
    }

    async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        let reads = digests.iter().map(|digest| {
            let key = call.blob(digest);
            self.blocking(move |store| store.blob(&key))
        });
        let reads: Vec<_> = reads.collect();
        futures::stream::iter(reads)
            .buffered(BATCH_FILES_IN_FLIGHT)
            .collect()
            .await
    }

    async fn write_batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>> {
        let sent_at = Instant::now();
        let writes = blobs.into_iter().map(|(proof, bytes)| {
            let key = call.blob(proof.digest());
            self.blocking(move |store| {
                if !store.has(&key)? {
                    store.put(&store.layout.blob(&key), &[bytes])?;
                }
                Ok(Ack { sent_at })
            })
        });
        let writes: Vec<_> = writes.collect();
        futures::stream::iter(writes)
            .buffered(BATCH_FILES_IN_FLIGHT)
            .collect()
            .await
    }

    async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, Tier2Error> {
        let key = call.action(key);
        self.blocking(move |store| store.action(&key)).await
    }

    async fn put_action(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<Ack, Tier2Error> {
        let key = call.action(key);
        let sent_at = Instant::now();
        self.blocking(move |store| {
            let checksum = crc32c::crc32c(&result.0).to_le_bytes();
            let parts = [result.0, Bytes::copy_from_slice(&checksum)];
            store.put(&store.layout.action(&key), &parts)
        })
        .await?;
        Ok(Ack { sent_at })
    }

    async fn probe(&self, _service: Service, _deadline: Instant) -> Result<(), Tier2Error> {
        self.blocking(|store| fs::metadata(store.layout.lock()).map(drop).map_err(failed))
            .await
    }

    fn offers(&self, _instance: &InstanceName) -> Arc<Offers> {
        Arc::default()
    }
}

/// The directory. All methods block.
#[derive(Debug)]
struct Store {
    layout: Layout,
    files: Files,
    /// Held while the store lives; the system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl Store {
    fn open(dir: PathBuf) -> Result<Store, EmbeddedError> {
        fs::create_dir_all(&dir)?;
        let layout = Layout::new(dir);
        let lock = File::create(layout.lock())?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(EmbeddedError::Locked {
                    dir: layout.root().to_owned(),
                });
            }
            Err(errno) => return Err(EmbeddedError::Io(errno.into())),
        }
        let files = Files::open(layout.root(), layout.temp_dir())?;
        Ok(Store {
            layout,
            files,
            _lock: lock,
        })
    }

    fn has(&self, key: &BlobKey) -> Result<bool, Tier2Error> {
        match fs::metadata(self.layout.blob(key)) {
            Ok(metadata) => Ok(metadata.len() == key.digest.size_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    fn put(&self, path: &Path, parts: &[Bytes]) -> Result<(), Tier2Error> {
        let temp = self.files.create_temp().map_err(failed)?;
        let temp = append(temp, parts)?;
        self.files.publish(temp, path).map_err(failed)
    }

    fn reader(&self, key: &BlobKey, range: ByteRange) -> Result<Reader, Tier2Error> {
        let path = self.layout.blob(key);
        let file = open(&path)?;
        let whole = range == ByteRange::whole(&key.digest);
        let reader = Reader {
            file,
            path,
            rest: range,
            verifier: whole.then(|| Verifier::new(key.digest)),
        };
        let found_bytes = reader.file.metadata().map_err(failed)?.len();
        if found_bytes != key.digest.size_bytes() {
            reader.remove_rotten("a blob of the wrong length was removed");
            return Err(Tier2Error::NotFound);
        }
        Ok(reader)
    }

    fn blob(&self, key: &BlobKey) -> Result<Bytes, Tier2Error> {
        let mut reader = self.reader(key, ByteRange::whole(&key.digest))?;
        let mut blob = BytesMut::new();
        while let Some(chunk) = reader.next(self)? {
            if blob.is_empty() && reader.rest.is_empty() {
                return Ok(chunk);
            }
            blob.put(chunk);
        }
        Ok(blob.freeze())
    }

    fn action(&self, key: &ActionKey) -> Result<RawActionResult, Tier2Error> {
        let path = self.layout.action(key);
        let stored = match fs::read(&path) {
            Ok(stored) => Bytes::from(stored),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Tier2Error::NotFound),
            Err(error) => return Err(failed(error)),
        };
        let len = stored.len().saturating_sub(CHECKSUM_BYTES);
        let result = stored.slice(..len);
        if stored.slice(len..)[..] != crc32c::crc32c(&result).to_le_bytes() {
            tracing::error!(path = %path.display(), "an action result has rotted and is not served");
            return Err(Tier2Error::NotFound);
        }
        Ok(RawActionResult(result))
    }
}

/// Reads a blob piece by piece, and hashes it where it is read whole.
#[derive(Debug)]
struct Reader {
    file: File,
    path: PathBuf,
    rest: ByteRange,
    verifier: Option<Verifier>,
}

impl Reader {
    /// The next piece; the last one only if the hash is right. Blocks.
    fn next(&mut self, _store: &Store) -> Result<Option<Bytes>, Tier2Error> {
        let len = self.rest.len().min(CHUNK_BYTES as u64);
        if len == 0 {
            return Ok(None);
        }
        let mut chunk = BytesMut::zeroed(usize::try_from(len).unwrap_or(CHUNK_BYTES));
        match self.file.file().read_exact_at(&mut chunk, self.rest.start()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Tier2Error::Short),
            Err(error) => return Err(failed(error)),
        }
        self.rest = self.rest.skip(len);
        if let Err(mismatch) = self.check(&chunk) {
            self.remove_rotten("a blob has rotted and was removed");
            return Err(Tier2Error::Corrupt(mismatch));
        }
        Ok(Some(chunk.freeze()))
    }

    fn check(&mut self, chunk: &[u8]) -> Result<(), DigestMismatch> {
        let Some(verifier) = &mut self.verifier else {
            return Ok(());
        };
        verifier.update(chunk)?;
        if self.rest.is_empty()
            && let Some(verifier) = self.verifier.take()
        {
            let _proof = verifier.finish()?;
        }
        Ok(())
    }

    /// Removes the file that was read, but not a newer one that has taken its name.
    fn remove_rotten(&self, event: &'static str) {
        let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let same = self.file.metadata().ok().map(inode) == fs::metadata(&self.path).ok().map(inode);
        let removed = if same { fs::remove_file(&self.path) } else { Ok(()) };
        tracing::error!(path = %self.path.display(), error = removed.err().map(tracing::field::display), "{event}");
    }
}

fn open(path: &Path) -> Result<File, Tier2Error> {
    File::open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Tier2Error::NotFound
        } else {
            failed(error)
        }
    })
}

fn append(mut temp: TempFile, parts: &[Bytes]) -> Result<TempFile, Tier2Error> {
    for bytes in parts {
        temp.append(bytes).map_err(failed)?;
    }
    Ok(temp)
}

/// What a client can do about it: nothing while the disk is full, try again otherwise.
fn failed(error: io::Error) -> Tier2Error {
    tracing::error!(%error, "the embedded tier 2 cannot use its disk");
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        return Tier2Error::Answered(UpstreamStatus {
            code: Code::ResourceExhausted,
            message: "the disk of the embedded tier 2 is full".to_owned(),
            details: Bytes::new(),
        });
    }
    Tier2Error::down(error)
}
