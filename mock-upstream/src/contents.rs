//! What the mock stores: blobs and action results by instance, and uploads that are not complete.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use crate::assets::Assets;
use crate::digest::Digest;

/// Broken uploads stay for a resume; of more than these the oldest goes. Far above what one test leaves behind.
const UPLOADS_MAX: usize = 1024;

/// How much is stored, over all instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blobs that were put or uploaded. The empty blob, always present, counts only if it was.
    pub blobs: usize,
    pub blob_bytes: u64,
    pub actions: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Contents {
    instances: BTreeMap<String, Instance>,
    pub(crate) assets: Assets,
    /// By whole resource name: one uuid may serve several blobs.
    uploads: HashMap<String, Upload>,
    /// What violations remember.
    pub(crate) marks: HashSet<String>,
    /// How often a violation has had its turn.
    pub(crate) turns: u64,
}

#[derive(Debug, Default)]
struct Instance {
    blobs: BTreeMap<Digest, Bytes>,
    actions: BTreeMap<Digest, Bytes>,
}

#[derive(Debug)]
struct Upload {
    data: Vec<u8>,
    /// Index of the call that feeds it: the newest one for this name.
    owner: u64,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("write_offset {found} is neither 0 nor {committed}, where this upload stands")]
    Offset { found: i64, committed: u64 },
    #[error("more bytes than the {0} that the name declares")]
    TooLong(u64),
    #[error("the bytes do not have digest {0}")]
    Mismatch(Digest),
    #[error("a newer stream took this upload over")]
    TakenOver,
}

impl Contents {
    pub(crate) fn blob(&self, instance: &str, digest: &Digest) -> Option<Bytes> {
        let stored = self.instances.get(instance).and_then(|i| i.blobs.get(digest));
        match stored {
            None if digest.is_empty() => Some(Bytes::new()),
            found => found.cloned(),
        }
    }

    pub(crate) fn has(&self, instance: &str, digest: &Digest) -> bool {
        digest.is_empty()
            || self
                .instances
                .get(instance)
                .is_some_and(|i| i.blobs.contains_key(digest))
    }

    /// Stores bytes under a digest; whether they fit is the caller's business.
    pub(crate) fn put(&mut self, instance: &str, digest: Digest, bytes: Bytes) {
        self.instance(instance).blobs.insert(digest, bytes);
    }

    pub(crate) fn evict(&mut self, instance: &str, digest: &Digest) -> bool {
        self.instance(instance).blobs.remove(digest).is_some()
    }

    pub(crate) fn blobs(&self, instance: &str) -> Vec<Digest> {
        let stored = self.instances.get(instance);
        stored.map_or_else(Vec::new, |i| i.blobs.keys().copied().collect())
    }

    /// Bytes of another blob: of the same length if there is one, else of the next; none if there is no other.
    pub(crate) fn another(&self, instance: &str, digest: &Digest) -> Bytes {
        let Some(stored) = self.instances.get(instance) else {
            return Bytes::new();
        };
        let others = || stored.blobs.iter().filter(|(other, _)| *other != digest);
        let alike = others().find(|(other, _)| other.size_bytes() == digest.size_bytes());
        alike
            .or_else(|| others().next())
            .map_or_else(Bytes::new, |(_, bytes)| bytes.clone())
    }

    pub(crate) fn action(&self, instance: &str, digest: &Digest) -> Option<Bytes> {
        self.instances.get(instance)?.actions.get(digest).cloned()
    }

    pub(crate) fn put_action(&mut self, instance: &str, digest: Digest, raw: Bytes) {
        self.instance(instance).actions.insert(digest, raw);
    }

    pub(crate) fn evict_action(&mut self, instance: &str, digest: &Digest) -> bool {
        self.instance(instance).actions.remove(digest).is_some()
    }

    pub(crate) fn actions(&self, instance: &str) -> Vec<Digest> {
        let stored = self.instances.get(instance);
        stored.map_or_else(Vec::new, |i| i.actions.keys().copied().collect())
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for instance in self.instances.values() {
            counts.blobs += instance.blobs.len();
            counts.blob_bytes += instance.blobs.values().map(|b| b.len() as u64).sum::<u64>();
            counts.actions += instance.actions.len();
        }
        counts
    }

    /// Blobs of that hash, whatever their size.
    pub(crate) fn by_hash(&self, instance: &str, hash: &str) -> Option<Bytes> {
        let mut stored = self.instances.get(instance)?.blobs.iter();
        stored
            .find(|(digest, _)| digest.hash_hex() == hash)
            .map(|(_, bytes)| bytes.clone())
    }

    /// Instances that hold something.
    pub(crate) fn names(&self) -> Vec<String> {
        self.instances.keys().cloned().collect()
    }

    /// Bytes of unfinished uploads whose name is so.
    pub(crate) fn unfinished(&self, is_meant: impl Fn(&str) -> bool) -> Option<u64> {
        let mut uploads = self.uploads.iter().filter(|(name, _)| is_meant(name));
        uploads.next().map(|(_, upload)| upload.data.len() as u64)
    }

    fn instance(&mut self, name: &str) -> &mut Instance {
        if !self.instances.contains_key(name) {
            self.instances.insert(name.to_owned(), Instance::default());
        }
        self.instances.entry(name.to_owned()).or_default()
    }

    /// Where a Write of this name may start, other than at 0.
    ///
    /// Always below the size: an upload that stood at its end would have nothing left to send, and no way to finish.
    pub(crate) fn committed(&self, name: &str, digest: &Digest) -> u64 {
        let held = self
            .uploads
            .get(name)
            .map_or(0, |upload| upload.data.len() as u64);
        held.min(digest.size_bytes().saturating_sub(1))
    }

    /// Begins an upload, or takes over the one that there is.
    pub(crate) fn begin(
        &mut self,
        name: &str,
        digest: &Digest,
        offset: i64,
        owner: u64,
    ) -> Result<(), UploadError> {
        let committed = self.committed(name, digest);
        let start = match u64::try_from(offset) {
            Ok(start) if start == 0 || start == committed => start,
            Ok(_) | Err(_) => {
                return Err(UploadError::Offset {
                    found: offset,
                    committed,
                });
            }
        };
        if self.uploads.len() >= UPLOADS_MAX && !self.uploads.contains_key(name) {
            let oldest = self.uploads.iter().min_by_key(|(_, upload)| upload.owner);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.uploads.remove(&oldest);
            }
        }
        let upload = self.uploads.entry(name.to_owned()).or_insert(Upload {
            data: Vec::new(),
            owner,
        });
        upload.data.truncate(usize::try_from(start).unwrap_or(usize::MAX));
        upload.owner = owner;
        Ok(())
    }

    pub(crate) fn append(
        &mut self,
        name: &str,
        digest: &Digest,
        owner: u64,
        data: &[u8],
    ) -> Result<(), UploadError> {
        let upload = self.owned(name, owner)?;
        if (upload.data.len() + data.len()) as u64 > digest.size_bytes() {
            self.uploads.remove(name);
            return Err(UploadError::TooLong(digest.size_bytes()));
        }
        upload.data.extend_from_slice(data);
        Ok(())
    }

    /// Makes the upload a blob, if the bytes are right; if not, nothing of it stays.
    pub(crate) fn commit(
        &mut self,
        name: &str,
        instance: &str,
        digest: Digest,
        owner: u64,
    ) -> Result<(), UploadError> {
        self.owned(name, owner)?;
        let data = self
            .uploads
            .remove(name)
            .map(|upload| upload.data)
            .unwrap_or_default();
        if !digest.fits(&data) {
            return Err(UploadError::Mismatch(digest));
        }
        self.put(instance, digest, data.into());
        Ok(())
    }

    /// Gives up an upload whose client broke the rules.
    pub(crate) fn abandon(&mut self, name: &str, owner: u64) {
        if self.owned(name, owner).is_ok() {
            self.uploads.remove(name);
        }
    }

    fn owned(&mut self, name: &str, owner: u64) -> Result<&mut Upload, UploadError> {
        let upload = self.uploads.get_mut(name);
        upload
            .filter(|upload| upload.owner == owner)
            .ok_or(UploadError::TakenOver)
    }
}

impl From<UploadError> for tonic::Status {
    fn from(error: UploadError) -> tonic::Status {
        let text = error.to_string();
        match error {
            UploadError::Offset { .. } | UploadError::TooLong(_) | UploadError::Mismatch(_) => {
                tonic::Status::invalid_argument(text)
            }
            UploadError::TakenOver => tonic::Status::aborted(text),
        }
    }
}
