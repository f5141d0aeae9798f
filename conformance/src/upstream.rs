//! The Tier 2 behind the proxy under judgement: a mock in this process, or one that is reached through its control port.
//!
//! Scenarios, the fault matrix and the oracle's evidence come through here and know no difference. What is lost with the
//! control port is an error of the run, and no finding about a proxy.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{
    After, Calls, Digest, Firing, Gate, Match, Mock, Remote, RemoteError, RemoteGate, Rule, Snapshot,
};

/// The mock cannot be told, or asked, any more.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Its control port fails.
    #[error(transparent)]
    Control(#[from] RemoteError),
    /// The port that it serves cannot be closed or opened.
    #[error("the mock's own port")]
    Port(#[from] io::Error),
}

type Result<T> = std::result::Result<T, UpstreamError>;

/// A mock, and the instance name under which the proxy reaches it. Clones are handles of the same one.
///
/// Where the mock is in this process no call waits for anything but what it says, so that virtual time stands still.
#[derive(Clone, Debug)]
pub struct Upstream {
    place: Place,
    instance: String,
}

#[derive(Clone, Debug)]
enum Place {
    Here(Mock),
    There(Remote),
}

/// Calls that are held. They go on when it is released.
#[must_use = "its calls are held until they are released"]
#[derive(Debug)]
pub struct Held(Gates);

#[derive(Debug)]
enum Gates {
    Here(Gate),
    There(RemoteGate),
}

impl From<Mock> for Upstream {
    fn from(mock: Mock) -> Upstream {
        Upstream {
            place: Place::Here(mock),
            instance: String::new(),
        }
    }
}

impl Upstream {
    /// A mock elsewhere.
    pub fn there(remote: Remote, instance: &str) -> Upstream {
        Upstream {
            place: Place::There(remote),
            instance: instance.to_owned(),
        }
    }

    /// The mock, if it is in this process.
    pub fn mock(&self) -> Option<&Mock> {
        match &self.place {
            Place::Here(mock) => Some(mock),
            Place::There(_) => None,
        }
    }

    /// The log and the time at one moment.
    ///
    /// # Errors
    /// As all calls here: if the mock is lost.
    pub async fn log(&self) -> Result<Snapshot> {
        match &self.place {
            Place::Here(mock) => Ok(Snapshot {
                next_call: mock.mark(),
                calls: mock.calls(),
                firings: mock.firings(),
                now: mock.now(),
            }),
            Place::There(remote) => Ok(remote.log(0).await?),
        }
    }

    /// Time since the mock began, which is what the log counts in.
    pub async fn now(&self) -> Result<Duration> {
        match &self.place {
            Place::Here(mock) => Ok(mock.now()),
            Place::There(remote) => Ok(remote.log(u64::MAX).await?.now),
        }
    }

    /// Index that the next call will have.
    pub async fn mark(&self) -> Result<u64> {
        match &self.place {
            Place::Here(mock) => Ok(mock.mark()),
            Place::There(remote) => Ok(remote.log(u64::MAX).await?.next_call),
        }
    }

    /// Calls since an index.
    pub async fn calls_since(&self, index: u64) -> Result<Calls> {
        match &self.place {
            Place::Here(mock) => Ok(mock.calls().since(index)),
            Place::There(remote) => Ok(remote.log(index).await?.calls),
        }
    }

    /// What rules did.
    pub async fn firings(&self) -> Result<Vec<Firing>> {
        match &self.place {
            Place::Here(mock) => Ok(mock.firings()),
            Place::There(remote) => Ok(remote.log(u64::MAX).await?.firings),
        }
    }

    /// Waits until the log has so many such calls.
    pub async fn arrived(&self, wanted: &Match, count: usize) -> Result<()> {
        match &self.place {
            Place::Here(mock) => mock.arrived(wanted.clone(), count).await,
            Place::There(remote) => remote.arrived(wanted, count).await?,
        }
        Ok(())
    }

    /// Waits until so many such calls have ended.
    pub async fn finished(&self, wanted: &Match, count: usize) -> Result<()> {
        match &self.place {
            Place::Here(mock) => mock.finished(wanted.clone(), count).await,
            Place::There(remote) => remote.finished(wanted, count).await?,
        }
        Ok(())
    }

    /// Waits until rules of this name took effect so often.
    pub async fn fired(&self, rule: &str, count: usize) -> Result<()> {
        match &self.place {
            Place::Here(mock) => mock.fired(rule, count).await,
            Place::There(remote) => remote.fired(rule, count).await?,
        }
        Ok(())
    }

    /// Puts a rule in force.
    pub async fn add(&self, rule: Rule) -> Result<()> {
        match &self.place {
            Place::Here(mock) => drop(mock.add(rule)),
            Place::There(remote) => remote.add(&rule).await?,
        }
        Ok(())
    }

    /// Ends all rules.
    pub async fn heal(&self) -> Result<()> {
        match &self.place {
            Place::Here(mock) => mock.heal(),
            Place::There(remote) => remote.heal().await?,
        }
        Ok(())
    }

    /// Goes away: the port and all connections are closed.
    pub async fn suspend(&self) -> Result<()> {
        match &self.place {
            Place::Here(mock) => mock.suspend().await?,
            Place::There(remote) => remote.suspend().await?,
        }
        Ok(())
    }

    /// Comes back.
    pub async fn resume(&self) -> Result<()> {
        match &self.place {
            Place::Here(mock) => mock.resume().await?,
            Place::There(remote) => remote.resume().await?,
        }
        Ok(())
    }

    /// Everything as it was at the start: no rules, no contents, an empty log; resumed.
    pub async fn reset(&self) -> Result<()> {
        match &self.place {
            Place::Here(mock) => {
                mock.reset();
                mock.resume().await?;
            }
            Place::There(remote) => remote.reset().await?,
        }
        Ok(())
    }

    /// Resets all connections.
    pub async fn reset_connections(&self) -> Result<()> {
        match &self.place {
            Place::Here(mock) => drop(mock.reset_connections()),
            Place::There(remote) => remote.reset_connections().await?,
        }
        Ok(())
    }

    /// Holds such calls from now on.
    pub async fn hold(&self, wanted: Match, after: After) -> Result<Held> {
        Ok(Held(match &self.place {
            Place::Here(mock) => Gates::Here(mock.hold(wanted, after)),
            Place::There(remote) => Gates::There(remote.hold(wanted, after).await?),
        }))
    }

    /// Stores a blob.
    pub async fn put_blob(&self, bytes: Bytes) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        self.plant(&digest, bytes).await?;
        Ok(digest)
    }

    /// Stores bytes under a digest that they need not fit.
    pub async fn plant(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        match &self.place {
            Place::Here(mock) => mock.plant(&self.instance, digest, bytes),
            Place::There(remote) => remote.plant(&self.instance, digest, bytes).await?,
        }
        Ok(())
    }

    /// Whether it has the blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        match &self.place {
            Place::Here(mock) => Ok(mock.blob(&self.instance, digest).is_some()),
            Place::There(remote) => Ok(remote.has_blob(&self.instance, digest).await?),
        }
    }

    /// Forgets a blob.
    pub async fn evict(&self, digest: &Digest) -> Result<()> {
        match &self.place {
            Place::Here(mock) => drop(mock.evict(&self.instance, digest)),
            Place::There(remote) => drop(remote.evict(&self.instance, digest).await?),
        }
        Ok(())
    }

    /// Stores an encoded action result.
    pub async fn put_action(&self, key: &Digest, result: Bytes) -> Result<()> {
        match &self.place {
            Place::Here(mock) => mock.put_action(&self.instance, key, result),
            Place::There(remote) => remote.put_action(&self.instance, key, result).await?,
        }
        Ok(())
    }

    /// Whether it has a result under this key.
    pub async fn has_action(&self, key: &Digest) -> Result<bool> {
        match &self.place {
            Place::Here(mock) => Ok(mock.action(&self.instance, key).is_some()),
            Place::There(remote) => Ok(remote.has_action(&self.instance, key).await?),
        }
    }
}

impl Held {
    /// Waits until a call is held here, or was.
    ///
    /// # Errors
    /// If the mock is lost.
    pub async fn reached(&self) -> Result<()> {
        match &self.0 {
            Gates::Here(gate) => gate.reached().await,
            Gates::There(gate) => gate.reached().await?,
        }
        Ok(())
    }

    /// Lets all go, those who come later too.
    ///
    /// # Errors
    /// If the mock is lost.
    pub async fn release(&self) -> Result<()> {
        match &self.0 {
            Gates::Here(gate) => gate.release(),
            Gates::There(gate) => gate.release().await?,
        }
        Ok(())
    }
}
