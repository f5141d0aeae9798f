//! A proxy at an address, and nothing more known of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mock_upstream::{Digest, method};
use tonic::Code;
use tonic::transport::Channel;

use crate::connect::{Channels, Options};
use crate::site::{Ask, Client, NotOffered, Site, SiteError, WhenDown};
use crate::target::Target;
use crate::upstream::{Upstream, UpstreamError};

/// Real time that may be let pass: longer asks for a site with virtual time.
const PASS_MAX: Duration = Duration::from_secs(7);

/// How long a call may take if nothing else is said: short enough for a run of minutes.
const PATIENCE: Duration = Duration::from_secs(100);

/// How long it may take until a blob that was read is read without Tier 2, and how often that is tried.
const KEPT_WITHIN: Duration = Duration::from_secs(2);
const KEPT_LOOK: Duration = Duration::from_millis(20);

/// Any proxy that runs, with a mock behind it. Of the hooks it has those that time and the mock's log give: whether Tier 1
/// has a copy shows in a read that Tier 2 does not see. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct Attached {
    channels: Channels,
    options: Options,
    instance: String,
    upstream: Upstream,
    when_down: WhenDown,
    any_instance: bool,
    salt: Option<u64>,
    patience: Duration,
    /// It was found to keep nothing of what is read, and is not asked again.
    keeps_nothing: Arc<AtomicBool>,
}

impl Attached {
    /// The proxy at `grpc://host:port`, whose upstream is the mock.
    ///
    /// # Errors
    /// If the address is none.
    pub fn at(address: &str, upstream: impl Into<Upstream>) -> anyhow::Result<Attached> {
        Attached::with(Options::new(address), "", upstream)
    }

    /// The same with all there is to say about the connection, and clients of an instance.
    ///
    /// # Errors
    /// If the address is none, or a certificate cannot be used.
    pub fn with(options: Options, instance: &str, upstream: impl Into<Upstream>) -> anyhow::Result<Attached> {
        Ok(Attached {
            channels: Channels::to(&options)?,
            options,
            instance: instance.to_owned(),
            upstream: upstream.into(),
            when_down: WhenDown::Fail,
            any_instance: false,
            salt: None,
            patience: PATIENCE,
            keeps_nothing: Arc::default(),
        })
    }

    /// One that was told so to behave while Tier 2 is down.
    #[must_use]
    pub fn when_down(self, when_down: WhenDown) -> Attached {
        Attached { when_down, ..self }
    }

    /// One that serves instance names that it has never heard of, or not.
    #[must_use]
    pub fn any_instance(self, any_instance: bool) -> Attached {
        Attached { any_instance, ..self }
    }

    /// One that may remember earlier runs, so that this run needs contents of its own.
    #[must_use]
    pub fn salted(self, salt: u64) -> Attached {
        Attached {
            salt: Some(salt),
            ..self
        }
    }

    /// One whose calls are waited for so long.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Attached {
        Attached { patience, ..self }
    }

    /// Whether a read of the blob is answered without a read of Tier 2.
    async fn has_copy(&self, digest: &Digest) -> Result<bool, UpstreamError> {
        let mark = self.upstream.mark().await?;
        let seen = Client::of(self)
            .ask(self, Ask::read(digest), self.patience())
            .await?;
        let calls = self.upstream.calls_since(mark).await?.digest(digest);
        let reads = calls
            .iter()
            .filter(|call| [method::READ, method::BATCH_READ].contains(&call.method.as_str()));
        Ok(seen.code() == Some(Code::Ok) && reads.count() == 0)
    }
}

#[async_trait]
impl Site for Attached {
    fn channel(&self) -> Channel {
        self.channels.open()
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn target(&self) -> Target {
        let target = Target::over(self.channel(), &self.instance);
        target.with_headers(|headers| headers.clone_from(&self.options.headers))
    }

    fn takes_any_instance(&self) -> bool {
        self.any_instance
    }

    fn salt(&self) -> Option<u64> {
        self.salt
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn when_down(&self) -> WhenDown {
        self.when_down
    }

    async fn pass(&self, time: Duration) -> Result<(), NotOffered> {
        if time > PASS_MAX {
            return Err(NotOffered("virtual time"));
        }
        tokio::time::sleep(time).await;
        Ok(())
    }

    async fn kept(&self, digest: &Digest) -> Result<(), SiteError> {
        let none = NotOffered("a copy in tier 1, for which it would have to keep what is read");
        if self.keeps_nothing.load(Ordering::Relaxed) {
            return Err(none.into());
        }
        for _ in 0..KEPT_WITHIN.as_millis() / KEPT_LOOK.as_millis() {
            if self.has_copy(digest).await? {
                return Ok(());
            }
            tokio::time::sleep(KEPT_LOOK).await;
        }
        self.keeps_nothing.store(true, Ordering::Relaxed);
        Err(none.into())
    }
}
