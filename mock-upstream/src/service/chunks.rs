//! SplitBlob and SpliceBlob. Chunks are cut at equal distances: for FastCDC within the announced bounds, though no
//! content-defined cut; for RepMaxCDC what its horizon of 0 means.

use bytes::{Bytes, BytesMut};
use proto::reapi::{
    SpliceBlobRequest, SpliceBlobResponse, SplitBlobRequest, SplitBlobResponse, chunking_function,
};
use tonic::Status;

use crate::name::check_instance;
use crate::service::cas::check_blob_size;
use crate::service::{Service, invalid};

/// As it is announced: a power of two, as small as clients believe it.
pub(super) const AVERAGE_CHUNK_BYTES: usize = 16 * 1024;

/// Of RepMaxCDC.
pub(super) const LEAST_CHUNK_BYTES: usize = 8 * 1024;

impl Service {
    /// Announced, or unimplemented.
    fn check_split(&self) -> Result<(), Status> {
        match self.shared.settings.lock().split {
            true => Ok(()),
            false => Err(Status::unimplemented("splitting is not offered")),
        }
    }

    pub(super) fn split(&self, request: &SplitBlobRequest) -> Result<SplitBlobResponse, Status> {
        self.check_split()?;
        check_instance(&request.instance_name)?;
        let (function, offered) = self.function(request.digest_function);
        offered?;
        let digest = function.from_wire(request.blob_digest.as_ref())?;
        let mut contents = self.shared.contents.lock();
        let blob = contents.blob(&request.instance_name, &digest);
        let blob = blob.ok_or_else(|| Status::not_found(digest.to_string()))?;
        let mut chunk_digests = Vec::new();
        let wished = chunking_function::Value::try_from(request.chunking_function);
        let by_rep_max = wished == Ok(chunking_function::Value::RepMaxCdc);
        let mut rest = blob;
        while !rest.is_empty() {
            // No chunk of RepMaxCDC is below the least, so the last takes what is left.
            let length = match by_rep_max {
                true if rest.len() < 2 * LEAST_CHUNK_BYTES => rest.len(),
                true => LEAST_CHUNK_BYTES,
                false => rest.len().min(AVERAGE_CHUNK_BYTES),
            };
            let chunk = rest.split_to(length);
            let digest = function.of(&chunk);
            chunk_digests.push(digest.to_wire());
            contents.put(&request.instance_name, digest, chunk);
        }
        Ok(SplitBlobResponse {
            chunk_digests,
            chunking_function: match by_rep_max {
                true => chunking_function::Value::RepMaxCdc as i32,
                false => chunking_function::Value::FastCdc2020 as i32,
            },
        })
    }

    pub(super) fn splice(&self, request: &SpliceBlobRequest) -> Result<SpliceBlobResponse, Status> {
        self.check_split()?;
        check_instance(&request.instance_name)?;
        let (function, offered) = self.function(request.digest_function);
        offered?;
        let digest = function.from_wire(request.blob_digest.as_ref())?;
        check_blob_size(&digest, self.shared.settings.lock().max_blob_bytes)?;
        let chunks = request
            .chunk_digests
            .iter()
            .map(|chunk| function.from_wire(Some(chunk)));
        let chunks = chunks.collect::<Result<Vec<_>, _>>()?;
        let sum = chunks
            .iter()
            .fold(0u64, |sum, chunk| sum.saturating_add(chunk.size_bytes()));
        if sum != digest.size_bytes() {
            return Err(invalid(format!(
                "the chunks have {sum} bytes, and {digest} has another size"
            )));
        }
        let mut contents = self.shared.contents.lock();
        let mut bytes = BytesMut::new();
        for chunk in &chunks {
            let found = contents.blob(&request.instance_name, chunk);
            bytes.extend_from_slice(&found.ok_or_else(|| Status::not_found(chunk.to_string()))?);
        }
        let bytes: Bytes = bytes.freeze();
        if !digest.fits(&bytes) {
            return Err(invalid(format!("the chunks do not make {digest}")));
        }
        contents.put(&request.instance_name, digest, bytes);
        Ok(SpliceBlobResponse {
            blob_digest: request.blob_digest.clone(),
        })
    }
}
