use futures::stream::{self, BoxStream};
use proto::reapi::{self, batch_read_blobs_response, batch_update_blobs_response, compressor};
use proto::rpc;
use proto::wire::GetTreeResponse;
use proto::wire::content_addressable_storage_server::ContentAddressableStorage;
use tonic::{Code, Request, Response, Status};

use crate::call::CallHandle;
use crate::codec;
use crate::digest::{Digest, DigestError};
use crate::log::Told;
use crate::name::check_instance;
use crate::rule::Act;
use crate::script::Script;
use crate::service::{Service, invalid, tree};
use crate::violation::pick;

#[tonic::async_trait]
impl ContentAddressableStorage for Service {
    type GetTreeStream = BoxStream<'static, Result<GetTreeResponse, Status>>;

    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        let answer = |call, request| self.answer_find_missing_blobs(call, request);
        self.shared
            .bent(request, pick!(FindIn), pick!(FindOut), answer)
            .await
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let answer = |call, request| self.answer_batch_update_blobs(call, request);
        self.shared
            .bent(request, pick!(UpdateIn), pick!(UpdateOut), answer)
            .await
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let answer = |call, request| self.answer_batch_read_blobs(call, request);
        self.shared
            .bent(request, pick!(BatchReadIn), pick!(BatchReadOut), answer)
            .await
    }

    async fn get_tree(
        &self,
        request: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        let call = CallHandle::of(&request)?;
        let asked = request.into_inner();
        let mut request = asked.clone();
        self.shared.bend_in(&mut request, pick!(TreeIn))?;
        let mut pages = self.answer_get_tree(&call, request).await;
        self.shared.bend_out(&asked, &mut pages, pick!(TreeOut));
        let sent = move |page: GetTreeResponse| {
            call.sent(page.directories.iter().map(bytes::Bytes::len).sum());
            Ok(page)
        };
        Ok(Response::new(Box::pin(stream::iter(
            pages?.into_iter().map(sent),
        ))))
    }

    async fn split_blob(
        &self,
        request: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        let call = CallHandle::of(&request)?;
        let asked = request.into_inner();
        let (function, _) = self.function(asked.digest_function);
        let digests = function
            .from_wire(asked.blob_digest.as_ref())
            .into_iter()
            .collect();
        call.identify(&asked.instance_name, digests).start().await?;
        let mut request = asked.clone();
        self.shared.bend_in(&mut request, pick!(SplitIn))?;
        let mut answer = self.split(&request);
        self.shared.bend_out(&asked, &mut answer, pick!(SplitOut));
        answer.map(Response::new)
    }

    async fn splice_blob(
        &self,
        request: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        let call = CallHandle::of(&request)?;
        let asked = request.into_inner();
        let (function, _) = self.function(asked.digest_function);
        let digests = function
            .from_wire(asked.blob_digest.as_ref())
            .into_iter()
            .collect();
        call.identify(&asked.instance_name, digests).start().await?;
        let mut request = asked.clone();
        self.shared.bend_in(&mut request, pick!(SpliceIn))?;
        let mut answer = self.splice(&request);
        self.shared.bend_out(&asked, &mut answer, pick!(SpliceOut));
        answer.map(Response::new)
    }
}

impl Service {
    async fn answer_get_tree(
        &self,
        call: &CallHandle,
        request: reapi::GetTreeRequest,
    ) -> Result<Vec<GetTreeResponse>, Status> {
        let instance = &request.instance_name;
        let (function, offered) = self.function(request.digest_function);
        let root = function.from_wire(request.root_digest.as_ref());
        let mut script = call.identify(instance, root.iter().copied().collect());
        script.start().await?;
        check_instance(instance)?;
        offered?;
        let root = root?;
        script.end().await?;
        let max_message = self.shared.settings.lock().max_message_bytes;
        let directories = tree::walk(&self.shared.contents.lock(), instance, &root)?;
        if script.lies(Some(&root), |act| *act == Act::SayMissing).is_some() {
            call.tell(&root, Told::Missing);
            return Err(Status::not_found(root.to_string()));
        }
        let mut pages = tree::pages(directories, &root, &request, max_message)?;
        if script.lies(Some(&root), |act| *act == Act::EndEarly).is_some() {
            pages.clear();
        }
        // The bytes of the first Directory stand for all: there is none without it.
        for first in pages
            .iter_mut()
            .take(1)
            .flat_map(|page| page.directories.iter_mut().take(1))
        {
            let length = first.len();
            *first = script.altered(&root, std::mem::take(first), length);
        }
        script.answered();
        Ok(pages)
    }

    async fn answer_find_missing_blobs(
        &self,
        call: CallHandle,
        request: reapi::FindMissingBlobsRequest,
    ) -> Result<reapi::FindMissingBlobsResponse, Status> {
        let instance = request.instance_name;
        let (function, offered) = self.function(request.digest_function);
        let parse = |digest| function.from_wire(Some(digest));
        let digests: Vec<_> = request.blob_digests.iter().map(parse).collect();
        let mut script = call.identify(&instance, well_formed(&digests));
        script.start().await?;
        check_instance(&instance)?;
        offered?;
        let digests = digests.into_iter().collect::<Result<Vec<_>, _>>()?;
        script.end().await?;
        let present: Vec<bool> = {
            let contents = self.shared.contents.lock();
            digests
                .iter()
                .map(|digest| contents.has(&instance, digest))
                .collect()
        };
        let missing = digests.iter().zip(present).filter_map(|(digest, present)| {
            let missing = if present {
                script.lies(Some(digest), |act| *act == Act::SayMissing).is_some()
            } else {
                let hides = |act: &Act| matches!(act, Act::SayPresent | Act::EndEarly);
                script.lies(Some(digest), hides).is_none()
            };
            call.tell(digest, if missing { Told::Missing } else { Told::Present });
            missing.then(|| digest.to_wire())
        });
        let missing_blob_digests = missing.collect();
        script.answered();
        Ok(reapi::FindMissingBlobsResponse { missing_blob_digests })
    }

    async fn answer_batch_update_blobs(
        &self,
        call: CallHandle,
        request: reapi::BatchUpdateBlobsRequest,
    ) -> Result<reapi::BatchUpdateBlobsResponse, Status> {
        let instance = request.instance_name;
        let (function, offered) = self.function(request.digest_function);
        let digests: Vec<_> = request
            .requests
            .iter()
            .map(|entry| function.from_wire(entry.digest.as_ref()))
            .collect();
        let total: usize = request.requests.iter().map(|entry| entry.data.len()).sum();
        let mut script = call.identify(&instance, well_formed(&digests));
        call.received(total);
        script.start().await?;
        check_instance(&instance)?;
        offered?;
        if request.requests.iter().any(|entry| entry.digest.is_none()) {
            return Err(DigestError::Absent.into());
        }
        self.check_batch(total as u64)?;
        script.end().await?;

        let (max_blob, zstd) = {
            let settings = self.shared.settings.lock();
            (settings.max_blob_bytes, settings.zstd)
        };
        let mut responses = Vec::with_capacity(digests.len());
        for (entry, digest) in request.requests.into_iter().zip(digests) {
            let about = digest.as_ref().ok().copied();
            let stored = digest.map_err(Status::from).and_then(|digest| {
                let data = if entry.compressor == compressor::Value::Identity as i32 {
                    entry.data
                } else if entry.compressor == compressor::Value::Zstd as i32 && zstd {
                    check_blob_size(&digest, max_blob)?;
                    codec::decode(&entry.data, digest.size_bytes()).map_err(invalid)?
                } else {
                    return Err(invalid("this compressor is not offered"));
                };
                check_blob_size(&digest, max_blob)?;
                if !digest.fits(&data) {
                    return Err(invalid(format!("the bytes do not have digest {digest}")));
                }
                scripted(&script, &digest)?;
                let mut contents = self.shared.contents.lock();
                let dropped = || script.lies(Some(&digest), |act| *act == Act::Drop).is_some();
                if !contents.has(&instance, &digest) && !dropped() {
                    contents.put(&instance, digest, data);
                }
                Ok(())
            });
            if let Some(digest) = about {
                let failed = |status: &Status| Told::Failed(status.code());
                call.tell(&digest, stored.as_ref().err().map_or(Told::Present, failed));
            }
            responses.push(batch_update_blobs_response::Response {
                digest: entry.digest,
                status: Some(entry_status(stored.err())),
            });
        }
        script.answered();
        Ok(reapi::BatchUpdateBlobsResponse { responses })
    }

    async fn answer_batch_read_blobs(
        &self,
        call: CallHandle,
        request: reapi::BatchReadBlobsRequest,
    ) -> Result<reapi::BatchReadBlobsResponse, Status> {
        let instance = request.instance_name;
        let (function, offered) = self.function(request.digest_function);
        let parse = |digest| function.from_wire(Some(digest));
        let digests: Vec<_> = request.digests.iter().map(parse).collect();
        let known = well_formed(&digests);
        let total = known
            .iter()
            .fold(0u64, |sum, digest| sum.saturating_add(digest.size_bytes()));
        let mut script = call.identify(&instance, known);
        script.start().await?;
        check_instance(&instance)?;
        offered?;
        self.check_batch(total)?;
        script.end().await?;

        let asks_for_zstd = request
            .acceptable_compressors
            .contains(&(compressor::Value::Zstd as i32));
        let zstd = asks_for_zstd && self.shared.settings.lock().zstd;
        let mut responses = Vec::with_capacity(digests.len());
        for (asked, digest) in request.digests.into_iter().zip(digests) {
            let about = digest.as_ref().ok().copied();
            let found = digest.map_err(Status::from).and_then(|digest| {
                let blob = self.shared.contents.lock().blob(&instance, &digest);
                let hidden = || {
                    script
                        .lies(Some(&digest), |act| *act == Act::SayMissing)
                        .is_some()
                };
                let blob = blob.filter(|_| !hidden());
                let blob = blob.ok_or_else(|| Status::not_found(digest.to_string()))?;
                scripted(&script, &digest)?;
                let length = blob.len();
                Ok(script.altered(&digest, blob, length))
            });
            if let Some(digest) = about {
                call.tell(&digest, told_of(&found));
            }
            let (data, error) = match found {
                Ok(data) => (data, None),
                Err(status) => (bytes::Bytes::new(), Some(status)),
            };
            let (data, compressor) = if zstd && error.is_none() {
                (codec::encode(&data), compressor::Value::Zstd)
            } else {
                (data, compressor::Value::Identity)
            };
            call.sent(data.len());
            responses.push(batch_read_blobs_response::Response {
                digest: Some(asked),
                data,
                compressor: compressor as i32,
                status: Some(entry_status(error)),
            });
        }
        script.answered();
        Ok(reapi::BatchReadBlobsResponse { responses })
    }

    fn check_batch(&self, total: u64) -> Result<(), Status> {
        let max = self.shared.settings.lock().max_batch_bytes;
        if max != 0 && total > max {
            return Err(invalid(format!(
                "a batch of {total} bytes is over the limit of {max}"
            )));
        }
        Ok(())
    }
}

/// What the entry of a batch of reads says about its blob.
fn told_of(found: &Result<bytes::Bytes, Status>) -> Told {
    match found {
        Ok(_) => Told::Present,
        Err(status) if status.code() == Code::NotFound => Told::Missing,
        Err(status) => Told::Failed(status.code()),
    }
}

/// The code that a rule wants for this entry of a batch.
fn scripted(script: &Script, digest: &Digest) -> Result<(), Status> {
    match script.lies(Some(digest), |act| matches!(act, Act::EntryStatus { .. })) {
        Some(Act::EntryStatus { code }) => Err(Status::new(code, "scripted failure")),
        Some(_) | None => Ok(()),
    }
}

/// Refuses blobs over the limit from their declared size; 0 is no limit.
pub(super) fn check_blob_size(digest: &Digest, max: u64) -> Result<(), Status> {
    if max != 0 && digest.size_bytes() > max {
        return Err(invalid(format!("blob {digest} is over the limit of {max} bytes")));
    }
    Ok(())
}

fn well_formed(digests: &[Result<Digest, DigestError>]) -> Vec<Digest> {
    digests.iter().flatten().copied().collect()
}

fn entry_status(error: Option<Status>) -> rpc::Status {
    error.map_or_else(rpc::Status::default, |status| rpc::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        ..rpc::Status::default()
    })
}
