//! Questions about presence that go to Tier 2 together (R5). What may share a call, and when one is sent, is decided in
//! [`line`]; here are the calls.

mod line;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::line::{Full, GroupId, Kind, Line};
use super::CallError;
use super::leases::Leases;
use crate::call::Call;
use crate::digest::Digest;
use crate::metrics::PresenceMetrics;
use crate::task::TaskGroup;
use crate::tier2::{Tier2, Tier2Error};

/// Calls in the air at once. Each carries up to [`line::DIGESTS_MAX`] digests; a Tier 2 that is slower than these is not
/// made faster by more.
const CALLS_MAX: usize = 16;

/// How long a question waits for others while a call like it is in the air: less than a round trip takes.
const GATHER: Duration = Duration::from_millis(2);

/// How long Tier 2 may take for a call that several share. Their own deadlines are theirs; this is so that none of them
/// decides for the others.
const SHARED_CALL_PATIENCE: Duration = Duration::from_secs(20);

/// What became of a call, for all who wait for it.
#[derive(Clone)]
struct Outcome {
    missing: Result<Arc<HashSet<Digest>>, Tier2Error>,
    /// Several have asked.
    is_shared: bool,
}

/// A part of a question, and what will become of the call that it goes with.
type Part = (Vec<Digest>, watch::Receiver<Option<Outcome>>);

/// Merges questions. Calls are tasks of the node: who hangs up disturbs nobody.
pub(super) struct Merge(Arc<Shared>);

struct Shared {
    tier2: Arc<dyn Tier2>,
    leases: Arc<Leases>,
    line: Mutex<Line<Waiting>>,
    calls: Semaphore,
    tasks: TaskGroup,
    metrics: PresenceMetrics,
}

/// What goes along with a group that waits.
struct Waiting {
    /// The call of the one who came first.
    call: Call,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Merge {
    /// Merges what goes to `tier2`, which keeps `leases` true.
    pub(super) fn new(
        tier2: Arc<dyn Tier2>,
        leases: Arc<Leases>,
        tasks: TaskGroup,
        metrics: PresenceMetrics,
    ) -> Merge {
        Merge(Arc::new(Shared {
            tier2,
            leases,
            line: Mutex::default(),
            calls: Semaphore::new(CALLS_MAX),
            tasks,
            metrics,
        }))
    }

    /// Asks Tier 2, together with others who ask at the same time. `digests` are of one digest function, each once. Evidence
    /// that comes meanwhile and was sent after `not_before` is as good as an answer.
    ///
    /// # Errors
    /// What Tier 2 says to this caller: a call that failed for all of them, and not for want of an answer, is repeated for
    /// each. [`CallError::Overloaded`] if too many questions wait; [`CallError::DeadlineExceeded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn missing(
        &self,
        call: &Call,
        digests: &[Digest],
        not_before: Instant,
    ) -> Result<HashSet<Digest>, CallError> {
        let ask = self.ask(call, digests, not_before);
        match call.deadline {
            Some(deadline) => timeout_at(deadline, ask)
                .await
                .unwrap_or(Err(CallError::DeadlineExceeded)),
            None => ask.await,
        }
    }

    async fn ask(
        &self,
        call: &Call,
        digests: &[Digest],
        not_before: Instant,
    ) -> Result<HashSet<Digest>, CallError> {
        let mut missing = HashSet::new();
        for (part, mut outcome) in self.take_places(call, digests, not_before)? {
            let outcome = match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone(),
                Err(_dropped) => None,
            };
            let Some(Outcome {
                missing: found,
                is_shared,
            }) = outcome
            else {
                return Err(CallError::ShuttingDown);
            };
            match found {
                Ok(found) => missing.extend(part.into_iter().filter(|digest| found.contains(digest))),
                // Another's fault, perhaps: what Tier 2 says to this caller is what counts.
                Err(error) if is_shared && error.may_be_the_callers_own() => {
                    self.0.metrics.repeated.inc();
                    let _permit = self.0.calls.acquire().await;
                    missing.extend(self.0.tier2.find_missing(call, &part).await?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(missing)
    }

    /// Finds a group for each of the digests. Those in which this caller is the first become tasks.
    fn take_places(
        &self,
        call: &Call,
        digests: &[Digest],
        not_before: Instant,
    ) -> Result<Vec<Part>, CallError> {
        let Some(function) = digests.first().map(Digest::function) else {
            return Ok(Vec::new());
        };
        let kind = Kind {
            scope: call.scope.clone(),
            function,
            via: call.via.clone(),
        };
        let new = || Waiting {
            call: call.clone(),
            outcome: watch::channel(None).0,
        };
        let mut places = Vec::new();
        let mut begun = Vec::new();
        {
            let mut line = self.0.line.lock();
            let taken = line.join(&kind, digests, not_before, new);
            for place in taken.map_err(|Full| CallError::Overloaded("too many questions about blobs wait"))? {
                match place.go {
                    Some(go) => begun.push((place.group, go)),
                    None => self.0.metrics.merged.inc(),
                }
                if let Some(waiting) = line.waiting(place.group) {
                    places.push((place.digests, waiting.outcome.subscribe()));
                }
            }
        }
        // Outside the line: a runtime that goes down drops the task at once, and the task's end takes the line.
        for (group, go) in begun {
            drop(self.0.tasks.spawn(self.0.clone().send(group, go)));
        }
        Ok(places)
    }
}

impl Shared {
    /// Sends a group when its time has come.
    async fn send(self: Arc<Shared>, id: GroupId, go: Arc<Notify>) {
        tokio::select! {
            () = sleep(GATHER) => {}
            () = go.notified() => {}
        }
        let Ok(_permit) = self.calls.acquire().await else {
            return;
        };
        let Some(group) = self.line.lock().depart(id) else {
            return;
        };
        let _landing = Landing {
            shared: &self,
            kind: group.kind,
        };
        let Waiting { call, outcome } = group.waiting;
        if outcome.is_closed() {
            return;
        }
        let digests = self.unknown(&call, group.digests, group.not_before);
        let is_shared = group.askers > 1;
        let missing = if digests.is_empty() {
            Ok(Vec::new())
        } else if is_shared {
            let call = call.for_node();
            let ask = self.tier2.find_missing(&call, &digests);
            timeout(SHARED_CALL_PATIENCE, ask)
                .await
                .unwrap_or(Err(Tier2Error::Stalled))
        } else {
            self.tier2.find_missing(&call, &digests).await
        };
        outcome.send_replace(Some(Outcome {
            missing: missing.map(|missing| Arc::new(missing.into_iter().collect())),
            is_shared,
        }));
    }

    /// Those of which nothing was heard while they waited that answers all who ask.
    fn unknown(&self, call: &Call, digests: BTreeSet<Digest>, not_before: Instant) -> Vec<Digest> {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let evidence = self.leases.evidence_for(&call.scope, &digests);
        let is_unknown = |evidence: &Option<Instant>| evidence.is_none_or(|sent_at| sent_at <= not_before);
        let pairs = digests.into_iter().zip(evidence);
        pairs
            .filter(|(_, evidence)| is_unknown(evidence))
            .map(|(digest, _)| digest)
            .collect()
    }
}

/// The end of a group's call: the next like it may go.
struct Landing<'a> {
    shared: &'a Shared,
    kind: Kind,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.shared.line.lock().land(&self.kind);
    }
}
