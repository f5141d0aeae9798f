//! Reading a blob that Tier 1 holds.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Tier1Error;
use super::disk::DiskFile;
use super::faults::Op;
use super::format::{self, Span};
use super::layout::{Place, ScopeTag};
use super::policy::EntryId;
use super::store::Store;
use crate::blob::ByteRange;
use crate::call::BlobKey;

/// Blocks of the largest blob whose file stays open between reads: bounds the checksums held with it to 256 bytes. A larger
/// blob is read in many steps, and opening it is one of them.
const KEPT_OPEN_BLOCKS_MAX: usize = 64;

/// A copy that is kept from eviction while this, or a clone of it, lives. It stays readable when it is discarded or
/// replaced meanwhile, once its file was opened.
#[derive(Clone)]
pub struct Pinned(Arc<Pin>);

struct Pin {
    store: Arc<Store>,
    key: BlobKey,
    place: Place,
    id: EntryId,
    open: OnceLock<Arc<OpenBlob>>,
}

impl Pinned {
    pub(super) fn lookup(store: &Arc<Store>, key: &BlobKey) -> Option<Pinned> {
        let scope = ScopeTag::of(&key.scope);
        let found = store.index.lock().pin(&scope, &key.digest, store.now_ms());
        let (id, place, open) = found?;
        Some(Pinned::new(store, key.clone(), place, id, open))
    }

    /// Takes over a pin that the index has counted.
    pub(super) fn new(
        store: &Arc<Store>,
        key: BlobKey,
        place: Place,
        id: EntryId,
        open: Option<Arc<OpenBlob>>,
    ) -> Pinned {
        Pinned(Arc::new(Pin {
            store: Arc::clone(store),
            key,
            place,
            id,
            open: open.map(OnceLock::from).unwrap_or_default(),
        }))
    }

    pub(super) fn entry(&self) -> EntryId {
        self.0.id
    }

    /// The blob's name.
    pub fn key(&self) -> &BlobKey {
        &self.0.key
    }

    /// As [`Pinned::read`], if that takes no waiting for the disk: the file is open and the bytes are in the page cache.
    /// `None`: use [`Pinned::read`], also to learn what is wrong.
    pub fn try_read(&self, range: ByteRange, len_max: usize) -> Option<Bytes> {
        let open = self.0.open.get()?;
        let span = self.span(range, len_max);
        if span.is_empty() {
            return Some(Bytes::new());
        }
        let read = open.file.read_cached_at(span.start(), span.len())?;
        span.check(read, span.blocks_of(&open.blocks))
    }

    /// Reads the first bytes of `range`: at most `len_max`, at least one if neither is nothing. Every block's checksum is
    /// checked before it leaves.
    ///
    /// # Errors
    /// [`Tier1Error::Damaged`], [`Tier1Error::Gone`]: discard the copy and fetch again. [`Tier1Error::Io`]: the disk cannot
    /// read it; the same is wise. [`Tier1Error::Slow`]: keep the copy, and go on with Tier 2.
    pub async fn read(&self, range: ByteRange, len_max: usize) -> Result<Bytes, Tier1Error> {
        let span = self.span(range, len_max);
        let pin = Arc::clone(&self.0);
        self.0.store.read_in_time(move |_| pin.read(span)).await
    }

    fn span(&self, range: ByteRange, len_max: usize) -> Span {
        Span::new(
            range.start(),
            range.end(),
            len_max,
            self.0.key.digest.size_bytes(),
        )
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({:?})", self.0.key)
    }
}

impl Pin {
    fn read(&self, span: Span) -> Result<Bytes, Tier1Error> {
        let open = match self.open.get() {
            Some(open) => open,
            None => {
                let opened = Arc::new(OpenBlob::open(&self.store, &self.place)?);
                if opened.blocks.len() <= KEPT_OPEN_BLOCKS_MAX {
                    drop(self.store.keep_open(self.id, &opened));
                }
                self.open.get_or_init(|| opened)
            }
        };
        if span.is_empty() {
            return Ok(Bytes::new());
        }
        let read = open
            .file
            .read_at(span.start(), span.len())
            .map_err(|error| self.store.trouble(Op::Read, &self.place, error))?;
        span.check(read, span.blocks_of(&open.blocks))
            .ok_or_else(|| damaged(&self.store, Op::Read, &self.place))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut index = self.store.index.lock();
        let last = index.unpin(self.id);
        let account = index.account();
        drop(index);
        if last {
            // The janitor may have looked for something to evict, and found that everything was being read.
            self.store.call_janitor_if_high(account);
        }
    }
}

/// A blob's file with the checksums of its blocks.
pub(super) struct OpenBlob {
    file: Arc<dyn DiskFile>,
    blocks: Vec<u32>,
}

impl OpenBlob {
    /// A file that was written with these checksums.
    pub(super) fn new(file: Arc<dyn DiskFile>, blocks: Vec<u32>) -> OpenBlob {
        OpenBlob { file, blocks }
    }

    /// Opens the file and checks all of it but the blob. Blocks.
    fn open(store: &Store, place: &Place) -> Result<OpenBlob, Tier1Error> {
        let trouble = |error: io::Error| {
            if error.kind() == io::ErrorKind::NotFound {
                store.faults.note(Op::Open, &place.digest, &error);
                return Tier1Error::Gone;
            }
            store.trouble(Op::Open, place, error)
        };
        let digest = &place.digest;
        let file = store.disk.open(&store.layout.blob(place)).map_err(trouble)?;
        let facts = file.facts().map_err(trouble)?;
        if !facts.is_file || facts.len_bytes != format::file_bytes(digest) || !format::can_hold(digest) {
            return Err(damaged(store, Op::Open, place));
        }
        let trailer = file
            .read_at(digest.size_bytes(), format::trailer_bytes(digest))
            .map_err(trouble)?;
        let blocks = format::parse_trailer(&trailer, &place.home.tag(), digest)
            .ok_or_else(|| damaged(store, Op::Open, place))?;
        Ok(OpenBlob { file, blocks })
    }
}

fn damaged(store: &Store, op: Op, place: &Place) -> Tier1Error {
    store.faults.note(op, &place.digest, &Tier1Error::Damaged);
    Tier1Error::Damaged
}
