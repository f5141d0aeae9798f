//! What Tier 2 allows, per instance: asked for on first use, kept fresh in the background.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use proto::reapi::capabilities_client::CapabilitiesClient;
use proto::reapi::{GetCapabilitiesRequest, ServerCapabilities};
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Code;

use super::connection::Patience;
use super::pool::Class;
use super::{MESSAGE_BYTES_MAX, Remote, ask, batch};
use crate::call::{Call, InstanceName};
use crate::digest::Function;
use crate::tier2::health::Service;
use crate::tier2::{Offers, Tier2Error};

/// Age at which an answer is asked for again.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// Pause after a failure. What is not known yet is wanted soon.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Instances that are asked for. Clients can name as many as they like; the rest is answered with what is assumed of any.
const INSTANCES_MAX: usize = 256;

/// Questions in the air at once.
const ASKED_AT_ONCE: usize = 4;

/// Bytes of one message that every gRPC server takes by default; a server that states no limit still has this one.
const BATCH_MESSAGE_BYTES: u64 = 4 * 1024 * 1024;

/// Room in that message for what is not a blob: names, and what the framing of blobs is underestimated by.
const BATCH_HEADROOM_BYTES: u64 = 16 * 1024;

/// The last known good answers.
#[derive(Debug)]
pub(super) struct Capabilities {
    known: Mutex<HashMap<InstanceName, Known>>,
    wanted: Notify,
    assumed: Arc<Offers>,
}

#[derive(Debug)]
struct Known {
    offers: Arc<Offers>,
    due: Instant,
}

impl Default for Capabilities {
    fn default() -> Capabilities {
        let assumed = Offers {
            batch_bytes_max: Some(batch_limit(0)),
            ..Offers::default()
        };
        Capabilities {
            known: Mutex::default(),
            wanted: Notify::new(),
            assumed: Arc::new(assumed),
        }
    }
}

impl Capabilities {
    /// What is known of an upstream instance. Never waits.
    pub(super) fn offers(&self, upstream: &InstanceName) -> Arc<Offers> {
        let mut known = self.known.lock();
        if let Some(known) = known.get(upstream) {
            return known.offers.clone();
        }
        if known.len() < INSTANCES_MAX {
            let new = Known {
                offers: self.assumed.clone(),
                due: Instant::now(),
            };
            known.insert(upstream.clone(), new);
            self.wanted.notify_one();
        }
        self.assumed.clone()
    }

    fn due(&self) -> (Vec<InstanceName>, Option<Instant>) {
        let (known, now) = (self.known.lock(), Instant::now());
        let due = known.iter().filter(|(_, known)| known.due <= now);
        let later = known.values().map(|known| known.due).filter(|due| *due > now);
        (due.map(|(name, _)| name.clone()).collect(), later.min())
    }

    fn learn(&self, upstream: &InstanceName, answer: Result<ServerCapabilities, Tier2Error>) {
        let mut known = self.known.lock();
        let Some(known) = known.get_mut(upstream) else {
            return;
        };
        match answer {
            Ok(answer) => {
                let offers = offers(&answer);
                if *known.offers != offers {
                    tracing::info!(instance = %upstream, ?offers, "tier 2's capabilities");
                    known.offers = Arc::new(offers);
                }
                known.due = Instant::now() + REFRESH_INTERVAL;
            }
            Err(Tier2Error::Answered(status)) if status.code != Code::Unavailable => {
                tracing::warn!(instance = %upstream, %status, "tier 2 does not tell its capabilities");
                known.due = Instant::now() + REFRESH_INTERVAL;
            }
            Err(error) => {
                tracing::debug!(instance = %upstream, %error, "tier 2's capabilities are not known");
                known.due = Instant::now() + RETRY_INTERVAL;
            }
        }
    }
}

/// Runs until dropped.
pub(super) async fn keep_fresh(remote: Arc<Remote>) {
    loop {
        let (due, later) = remote.capabilities.due();
        if due.is_empty() {
            let wanted = remote.capabilities.wanted.notified();
            match later {
                // Either way the table is looked at again.
                Some(at) => drop(tokio::time::timeout_at(at, wanted).await),
                None => wanted.await,
            }
            continue;
        }
        let remote = &remote;
        futures::stream::iter(due)
            .for_each_concurrent(ASKED_AT_ONCE, |upstream| async move {
                let answer = fetch(remote, &upstream).await;
                if answer.is_ok() {
                    remote.lacks_nothing();
                }
                remote.capabilities.learn(&upstream, answer);
            })
            .await;
    }
}

async fn fetch(remote: &Remote, upstream: &InstanceName) -> Result<ServerCapabilities, Tier2Error> {
    let call = Call::of_node(upstream.clone());
    // Not kept from a Tier 2 that is down: it has a pace of its own.
    let patience = Patience {
        only_while_up: None,
        ..remote.times.answer(Service::Cas)
    };
    ask(&call, || async {
        let lane = remote.pool.lane(Class::Small);
        let mut client = CapabilitiesClient::with_origin(lane, remote.origin.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let message = GetCapabilitiesRequest {
            instance_name: upstream.as_str().to_owned(),
        };
        client
            .get_capabilities(remote.request(&call, patience, message))
            .await
    })
    .await
}

/// What an answer means for us.
fn offers(answer: &ServerCapabilities) -> Offers {
    let Some(cache) = &answer.cache_capabilities else {
        return Offers {
            batch_bytes_max: Some(batch_limit(0)),
            ..Offers::default()
        };
    };
    let listed = |function: &Function| {
        // An empty list is older than the field.
        cache.digest_functions.is_empty() || cache.digest_functions.contains(&batch::wire_function(*function))
    };
    Offers {
        functions: Function::ALL.into_iter().filter(listed).collect(),
        update_enabled: cache
            .action_cache_update_capabilities
            .as_ref()
            .is_some_and(|updates| updates.update_enabled),
        batch_bytes_max: Some(batch_limit(cache.max_batch_total_size_bytes)),
        blob_bytes_max: positive(cache.max_cas_blob_size_bytes),
    }
}

/// The limit that Tier 2 states, but never more than fits into a message.
fn batch_limit(stated: i64) -> u64 {
    let message = BATCH_MESSAGE_BYTES - BATCH_HEADROOM_BYTES;
    positive(stated).map_or(message, |stated| stated.min(message))
}

/// Zero means "no limit stated"; below it means nothing.
fn positive(stated: i64) -> Option<u64> {
    u64::try_from(stated).ok().filter(|stated| *stated > 0)
}

#[cfg(test)]
mod tests {
    use proto::reapi::{ActionCacheUpdateCapabilities, CacheCapabilities};

    use super::*;

    fn answer(cache: CacheCapabilities) -> ServerCapabilities {
        ServerCapabilities {
            cache_capabilities: Some(cache),
            ..ServerCapabilities::default()
        }
    }

    #[test]
    fn a_server_that_states_nothing_has_the_limit_of_a_message() {
        let limit = Some(BATCH_MESSAGE_BYTES - BATCH_HEADROOM_BYTES);
        assert_eq!(offers(&ServerCapabilities::default()).batch_bytes_max, limit);
        let found = offers(&answer(CacheCapabilities::default()));
        assert_eq!((found.batch_bytes_max, found.blob_bytes_max), (limit, None)); // PXY-15
        assert_eq!(found.functions, Function::ALL);
        assert!(!found.update_enabled); // PXY-13
    }

    #[test]
    fn stated_limits_count_where_they_are_smaller() {
        let found = offers(&answer(CacheCapabilities {
            digest_functions: vec![batch::wire_function(Function::Sha256), 9],
            action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities { update_enabled: true }),
            max_batch_total_size_bytes: 1000,
            max_cas_blob_size_bytes: 2000,
            ..CacheCapabilities::default()
        }));
        let expected = Offers {
            functions: vec![Function::Sha256],
            update_enabled: true,
            batch_bytes_max: Some(1000),
            blob_bytes_max: Some(2000),
        };
        assert_eq!(found, expected); // PXY-12, PXY-17
        assert_eq!(batch_limit(i64::MAX), batch_limit(0));
        assert_eq!(batch_limit(-1), batch_limit(0));
    }

    #[test]
    fn functions_that_tier_2_does_not_list_are_not_offered() {
        let found = offers(&answer(CacheCapabilities {
            digest_functions: vec![9],
            ..CacheCapabilities::default()
        }));
        assert_eq!(found.functions, []);
    }

    #[test]
    fn instances_that_clients_make_up_are_bounded() {
        let capabilities = Capabilities::default();
        for number in 0..INSTANCES_MAX + 10 {
            capabilities.offers(&InstanceName::parse(&number.to_string()).unwrap());
        }
        assert_eq!(capabilities.known.lock().len(), INSTANCES_MAX);
    }
}
