//! The proxy under judgement, with the Tier 2 that stands behind it.
//!
//! A site is reached as clients reach it: by a connection. That is enough for most of what is asked here. What only its
//! owner can do (let time pass, start it again, harm its disk) are hooks, each of which it may leave out.

mod ask;
mod attached;

use std::time::Duration;

use async_trait::async_trait;
use mock_upstream::Digest;
use serde::Deserialize;
use tonic::transport::Channel;

use crate::target::Target;
use crate::upstream::{Upstream, UpstreamError};

pub use ask::{Answer, Ask, Client, Entry, Seen, fresh_name, upload};
pub use attached::Attached;

/// How long a call may take before it is said to hang: beyond any bound, so that one that overruns its bound is told from
/// one that never ends.
const PATIENCE: Duration = Duration::from_secs(600);

/// What can be done to the copy of a blob on the site's own disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spoil {
    /// One bit of it is another one.
    FlipBit,
    /// Half of it is gone.
    Truncate,
    /// All of it is gone.
    Lose,
}

/// How the site's own disk fails, from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskTrouble {
    /// Writing fails: no space.
    Full,
    /// Writing fails: input/output error.
    WriteFails,
    /// Reading fails: input/output error.
    ReadFails,
    /// Nothing can be changed.
    ReadOnly,
    /// It is well again.
    None,
}

/// What a proxy answers while its Tier 2 is known to be down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenDown {
    /// UNAVAILABLE, whatever Tier 1 has.
    #[default]
    Fail,
    /// What Tier 1 has, and what was known before.
    ServeTier1,
    /// As a cache that has nothing and takes nothing, so that builds go on.
    Bypass,
}

impl WhenDown {
    /// All of them.
    pub const ALL: [WhenDown; 3] = [WhenDown::Fail, WhenDown::ServeTier1, WhenDown::Bypass];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            WhenDown::Fail => "fail",
            WhenDown::ServeTier1 => "serve_tier1",
            WhenDown::Bypass => "bypass",
        }
    }
}

/// The site has no such hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the site has no hook for {0}")]
pub struct NotOffered(pub &'static str);

/// Why something could not be done with a site.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// It is not among what the site can do.
    #[error(transparent)]
    NotOffered(#[from] NotOffered),
    /// The mock behind it is lost.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// A proxy whose Tier 2 is a mock.
#[async_trait]
pub trait Site: Send + Sync {
    /// A connection that nobody else uses; made when it is first used.
    fn channel(&self) -> Channel;

    /// The Tier 2 behind it.
    fn upstream(&self) -> &Upstream;

    /// The same connection, with the instance name and the headers of its clients.
    fn target(&self) -> Target {
        Target::over(self.channel(), "")
    }

    /// Whether it serves an instance name that it has never heard of.
    fn takes_any_instance(&self) -> bool {
        false
    }

    /// What makes contents new to it; `None` if it begins with nothing, and any content is new.
    fn salt(&self) -> Option<u64> {
        None
    }

    /// How long a call, or an event in Tier 2, is waited for.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// How it was told to behave while Tier 2 is down.
    fn when_down(&self) -> WhenDown {
        WhenDown::Fail
    }

    /// Whether its time is the runtime's, which is paused. If so, times are asserted; if not, they are reported.
    fn has_virtual_time(&self) -> bool {
        false
    }

    /// Lets time pass: a hook of sites with virtual time.
    ///
    /// # Errors
    /// If time cannot be hurried.
    async fn pass(&self, time: Duration) -> Result<(), NotOffered> {
        if !self.has_virtual_time() {
            return Err(NotOffered("virtual time"));
        }
        tokio::time::sleep(time).await;
        Ok(())
    }

    /// Returns when all that was begun for calls that were answered is done, such as storing what was fetched.
    ///
    /// # Errors
    /// If nobody can tell.
    async fn settled(&self) -> Result<(), NotOffered> {
        Err(NotOffered("being settled"))
    }

    /// Returns when Tier 1 has a copy of this blob, which was read just now.
    ///
    /// # Errors
    /// If nobody can tell, or there is none.
    async fn kept(&self, _digest: &Digest) -> Result<(), SiteError> {
        Ok(self.settled().await?)
    }

    /// Takes it down in order and starts it again, with the same Tier 1.
    ///
    /// # Errors
    /// If there is no hook for that.
    async fn restart(&self) -> Result<(), NotOffered> {
        Err(NotOffered("a restart"))
    }

    /// Harms Tier 1's copy of a blob, which must be there.
    ///
    /// # Errors
    /// If there is no hook for that.
    async fn spoil(&self, _digest: &Digest, _how: Spoil) -> Result<(), NotOffered> {
        Err(NotOffered("harming a copy in tier 1"))
    }

    /// Makes Tier 1's disk fail.
    ///
    /// # Errors
    /// If there is no hook for that.
    async fn trouble(&self, _trouble: DiskTrouble) -> Result<(), NotOffered> {
        Err(NotOffered("a failing disk"))
    }

    /// A metric, by the name under which operators see it, summed over its labels.
    ///
    /// # Errors
    /// If its metrics are not within reach.
    fn metric(&self, _name: &str) -> Result<f64, NotOffered> {
        Err(NotOffered("metrics"))
    }
}
