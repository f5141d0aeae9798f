//! Fetch and Push of Remote Asset. There is no origin: what is fetched was pushed.

use std::time::{Duration, UNIX_EPOCH};

use prost::{Message as _, Name as _};
use prost_types::Timestamp;
use proto::asset::fetch_server::Fetch;
use proto::asset::push_server::Push;
use proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse, PushBlobRequest,
    PushBlobResponse, PushDirectoryRequest, PushDirectoryResponse, Qualifier,
};
use proto::rpc::{self, BadRequest, bad_request::FieldViolation};
use tonic::{Code, Request, Response, Status};

use crate::assets::{Kind, Mapping, Qualifiers, Wanted};
use crate::call::CallHandle;
use crate::digest::Digest;
use crate::name::check_instance;
use crate::service::{Service, invalid};
use crate::violation::pick;

/// Headers for the origin, which clients may repeat, and which tell no content from another.
const HEADERS: [&str; 2] = ["http_header:", "http_header_url:"];

#[tonic::async_trait]
impl Fetch for Service {
    async fn fetch_blob(
        &self,
        request: Request<FetchBlobRequest>,
    ) -> Result<Response<FetchBlobResponse>, Status> {
        let answer = |call, request: FetchBlobRequest| async move {
            let asked = Asked {
                instance: &request.instance_name,
                uris: &request.uris,
                qualifiers: &request.qualifiers,
                oldest: request.oldest_content_accepted,
                function: request.digest_function,
            };
            let fetched = self.fetch(&call, Kind::Blob, &asked).await?;
            Ok(FetchBlobResponse {
                status: Some(fetched.status),
                uri: fetched.uri,
                qualifiers: fetched.qualifiers,
                expires_at: fetched.expires_at,
                blob_digest: fetched.digest,
                digest_function: fetched.digest_function,
            })
        };
        self.shared
            .bent(request, pick!(FetchIn), pick!(FetchOut), answer)
            .await
    }

    async fn fetch_directory(
        &self,
        request: Request<FetchDirectoryRequest>,
    ) -> Result<Response<FetchDirectoryResponse>, Status> {
        let answer = |call, request: FetchDirectoryRequest| async move {
            let asked = Asked {
                instance: &request.instance_name,
                uris: &request.uris,
                qualifiers: &request.qualifiers,
                oldest: request.oldest_content_accepted,
                function: request.digest_function,
            };
            let fetched = self.fetch(&call, Kind::Directory, &asked).await?;
            Ok(FetchDirectoryResponse {
                status: Some(fetched.status),
                uri: fetched.uri,
                qualifiers: fetched.qualifiers,
                expires_at: fetched.expires_at,
                root_directory_digest: fetched.digest,
                digest_function: fetched.digest_function,
            })
        };
        self.shared
            .bent(request, |_| None, pick!(FetchDirectoryOut), answer)
            .await
    }
}

#[tonic::async_trait]
impl Push for Service {
    async fn push_blob(
        &self,
        request: Request<PushBlobRequest>,
    ) -> Result<Response<PushBlobResponse>, Status> {
        let answer = |call, request: PushBlobRequest| async move {
            let pushed = Pushed {
                instance: &request.instance_name,
                uris: &request.uris,
                qualifiers: &request.qualifiers,
                expire_at: request.expire_at,
                digest: request.blob_digest.as_ref(),
                function: request.digest_function,
            };
            self.push(&call, Kind::Blob, &pushed).await?;
            Ok(PushBlobResponse {})
        };
        self.shared
            .bent(request, pick!(PushIn), pick!(PushOut), answer)
            .await
    }

    async fn push_directory(
        &self,
        request: Request<PushDirectoryRequest>,
    ) -> Result<Response<PushDirectoryResponse>, Status> {
        let answer = |call, request: PushDirectoryRequest| async move {
            let pushed = Pushed {
                instance: &request.instance_name,
                uris: &request.uris,
                qualifiers: &request.qualifiers,
                expire_at: request.expire_at,
                digest: request.root_directory_digest.as_ref(),
                function: request.digest_function,
            };
            self.push(&call, Kind::Directory, &pushed).await?;
            Ok(PushDirectoryResponse {})
        };
        self.shared
            .bent(request, pick!(PushDirectoryIn), |_| None, answer)
            .await
    }
}

/// What the two fetches have in common.
struct Asked<'a> {
    instance: &'a str,
    uris: &'a [String],
    qualifiers: &'a [Qualifier],
    oldest: Option<Timestamp>,
    function: i32,
}

/// What both fetches answer.
#[derive(Default)]
struct Fetched {
    status: rpc::Status,
    uri: String,
    qualifiers: Vec<Qualifier>,
    expires_at: Option<Timestamp>,
    digest: Option<proto::reapi::Digest>,
    digest_function: i32,
}

/// What the two pushes have in common.
struct Pushed<'a> {
    instance: &'a str,
    uris: &'a [String],
    qualifiers: &'a [Qualifier],
    expire_at: Option<Timestamp>,
    digest: Option<&'a proto::reapi::Digest>,
    function: i32,
}

impl Service {
    /// What was pushed, or in an answer that is OK the status of what cannot be had.
    async fn fetch(&self, call: &CallHandle, kind: Kind, asked: &Asked<'_>) -> Result<Fetched, Status> {
        call.identify(asked.instance, Vec::new()).start().await?;
        let (fetch, push) = {
            let settings = self.shared.settings.lock();
            (settings.fetch, settings.push)
        };
        if !fetch {
            return Err(Status::unimplemented("assets are not fetched here"));
        }
        check_instance(asked.instance)?;
        let (function, offered) = self.function(asked.function);
        offered?;
        let qualifiers = checked(asked.uris, asked.qualifiers)?;
        // Where nothing can be pushed, nothing can have a qualifier.
        if !push && !qualifiers.is_empty() {
            return Err(unsupported(qualifiers.keys()));
        }
        let oldest = asked.oldest.map(since_1970).transpose()?;
        let wanted = Wanted {
            instance: asked.instance,
            kind,
            uris: asked.uris,
            qualifiers: &qualifiers,
            oldest,
        };
        let contents = self.shared.contents.lock();
        let usable = |digest: &Digest| digest.function() == function && contents.has(asked.instance, digest);
        Ok(match contents.assets.fetch(&wanted, now(), usable).cloned() {
            Some(mapping) => Fetched {
                status: rpc::Status::default(),
                uri: mapping.uri,
                qualifiers: listed(mapping.qualifiers),
                expires_at: mapping.expires_at.and_then(timestamp),
                digest: Some(mapping.digest.to_wire()),
                digest_function: mapping.digest.function().number(),
            },
            None => Fetched {
                status: rpc::Status {
                    code: Code::NotFound as i32,
                    message: "nobody pushed it".to_owned(),
                    ..Default::default()
                },
                uri: asked.uris.first().cloned().unwrap_or_default(),
                ..Fetched::default()
            },
        })
    }

    async fn push(&self, call: &CallHandle, kind: Kind, pushed: &Pushed<'_>) -> Result<(), Status> {
        let (function, offered) = self.function(pushed.function);
        let digest = function.from_wire(pushed.digest);
        let mut script = call.identify(pushed.instance, digest.iter().copied().collect());
        script.start().await?;
        if !self.shared.settings.lock().push {
            return Err(Status::unimplemented("assets are not pushed here"));
        }
        check_instance(pushed.instance)?;
        offered?;
        let digest = digest?;
        let qualifiers = checked(pushed.uris, pushed.qualifiers)?;
        let expires_at = pushed.expire_at.map(since_1970).transpose()?;
        let mut contents = self.shared.contents.lock();
        if !contents.has(pushed.instance, &digest) {
            return Err(invalid(format!("{digest} is not in the CAS")));
        }
        for uri in pushed.uris {
            contents.assets.push(Mapping {
                instance: pushed.instance.to_owned(),
                kind,
                uri: uri.clone(),
                qualifiers: qualifiers.clone(),
                digest,
                pushed_at: now(),
                expires_at,
            });
        }
        Ok(())
    }
}

/// The qualifiers that tell content apart, if each stands once, and there is a URI.
fn checked(uris: &[String], qualifiers: &[Qualifier]) -> Result<Qualifiers, Status> {
    if uris.is_empty() || uris.iter().any(String::is_empty) {
        return Err(invalid("a URI is missing"));
    }
    let mut unique = Qualifiers::new();
    let is_header = |name: &str| HEADERS.iter().any(|header| name.starts_with(header));
    for Qualifier { name, value } in qualifiers.iter().filter(|qualifier| !is_header(&qualifier.name)) {
        if unique.insert(name.clone(), value.clone()).is_some() {
            let name: String = name.chars().take(200).collect();
            return Err(invalid(format!("qualifier {name:?} stands twice")));
        }
    }
    Ok(unique)
}

/// A refusal that names each qualifier.
fn unsupported<'a>(names: impl Iterator<Item = &'a String>) -> Status {
    let field_violations = names
        .map(|name| FieldViolation {
            field: "qualifiers.name".to_owned(),
            description: format!("{name:?} not supported"),
        })
        .collect();
    let detail = BadRequest { field_violations };
    let text = "qualifiers are not supported";
    let status = rpc::Status {
        code: Code::InvalidArgument as i32,
        message: text.to_owned(),
        details: vec![prost_types::Any {
            type_url: BadRequest::type_url(),
            value: detail.encode_to_vec(),
        }],
    };
    Status::with_details(Code::InvalidArgument, text, status.encode_to_vec().into())
}

fn listed(qualifiers: Qualifiers) -> Vec<Qualifier> {
    let listed = qualifiers.into_iter();
    listed.map(|(name, value)| Qualifier { name, value }).collect()
}

/// Since 1970. Clients say when a mapping expires in the time of the world, which is not the time of a paused test.
fn now() -> Duration {
    UNIX_EPOCH.elapsed().unwrap_or_default()
}

fn since_1970(time: Timestamp) -> Result<Duration, Status> {
    let (seconds, nanos) = (u64::try_from(time.seconds), u32::try_from(time.nanos));
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _none => Err(invalid("no time since 1970")),
    }
}

fn timestamp(since_1970: Duration) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: i64::try_from(since_1970.as_secs()).ok()?,
        nanos: i32::try_from(since_1970.subsec_nanos()).ok()?,
    })
}
