//! The mock as tests hold it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::reapi::ServerCapabilities;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::connection::{Break, Foreign};
use crate::contents::{Contents, Counts};
use crate::digest::{Digest, Function};
use crate::gate::Gate;
use crate::log::{Calls, Firing, Log, Outcome};
use crate::preset::Preset;
use crate::rule::{Act, After, Match, Rule};
use crate::rules::{RuleSet, RuleStatus};
use crate::serve::Server;
use crate::violation::Violation;

/// With the framing of 4000 small blobs a batch stays under the message limit.
const MAX_BATCH_BYTES: u64 = 3_670_016;

/// What gRPC clients take by default, and what servers take at least.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

const READ_CHUNK_BYTES: usize = 64 * 1024;

/// hyper's own.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// Limits and habits of the mock. May change while it runs; calls under way keep to what they began with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the blobs in one batch; 0 is no limit.
    pub max_batch_bytes: u64,
    /// Of one message, in and out. Connections that are open keep to the limit for incoming ones that they began with.
    pub max_message_bytes: usize,
    /// Of one uploaded blob; 0 is no limit.
    pub max_blob_bytes: u64,
    /// Blob bytes in one message of a Read; the message limit does not cap it.
    pub read_chunk_bytes: usize,
    /// Flow control of incoming bytes, of a stream and of its connection. Open connections keep theirs; under 65,535
    /// HTTP/2 lets no connection go.
    pub window_bytes: u32,
    /// Whether the action cache takes updates, and says so.
    pub update_enabled: bool,
    /// Whether GetActionResult hides results that refer to blobs which are not stored, as it should. Off by default:
    /// many servers do not, and a test may want an action result and nothing else.
    pub require_complete: bool,
    /// Whether zstd is offered, in streams and in batches.
    pub zstd: bool,
    /// Whether SplitBlob and SpliceBlob are offered.
    pub split: bool,
    /// Digest functions that are offered beside SHA256.
    pub functions: Vec<Function>,
    /// Whether the Fetch service of Remote Asset is offered: it knows what was pushed, and nothing else.
    pub fetch: bool,
    /// Whether the Push service of Remote Asset is offered.
    pub push: bool,
    /// Whether calls end when the deadline has passed that their client sent. Off by default: a rule may hold a call for as
    /// long as it likes.
    pub deadlines: bool,
    /// Names of headers that the log keeps, in lower case.
    pub log_headers: Vec<String>,
    /// Announced instead of what follows from the other settings.
    pub capabilities: Option<ServerCapabilities>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_batch_bytes: MAX_BATCH_BYTES,
            max_message_bytes: MAX_MESSAGE_BYTES,
            max_blob_bytes: 0,
            read_chunk_bytes: READ_CHUNK_BYTES,
            window_bytes: WINDOW_BYTES,
            update_enabled: true,
            require_complete: false,
            zstd: false,
            split: false,
            functions: Vec::new(),
            deadlines: false,
            fetch: false,
            push: false,
            log_headers: Vec::new(),
            capabilities: None,
        }
    }
}

/// What calls share. Outlives a suspension.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) contents: Mutex<Contents>,
    pub(crate) settings: Mutex<Settings>,
    /// What it began with.
    first_settings: Settings,
    pub(crate) log: Log,
    pub(crate) rules: RuleSet,
    /// The requirement that is broken, if one is.
    pub(crate) violation: Mutex<Option<&'static Violation>>,
}

/// Begins a [`Mock`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    settings: Settings,
    rules: Vec<Rule>,
    violation: Option<&'static Violation>,
}

impl Builder {
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Builder {
        change(&mut self.settings);
        self
    }

    /// Rules in force from the first call on.
    #[must_use]
    pub fn rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Builder {
        self.rules.extend(rules);
        self
    }

    /// A requirement that is broken from the first call on.
    #[must_use]
    pub fn violates(mut self, violation: &'static Violation) -> Builder {
        self.violation = Some(violation);
        self
    }

    #[must_use]
    pub fn max_batch_bytes(self, bytes: u64) -> Builder {
        self.settings(|settings| settings.max_batch_bytes = bytes)
    }

    #[must_use]
    pub fn read_chunk_bytes(self, bytes: usize) -> Builder {
        self.settings(|settings| settings.read_chunk_bytes = bytes)
    }

    #[must_use]
    pub fn update_enabled(self, enabled: bool) -> Builder {
        self.settings(|settings| settings.update_enabled = enabled)
    }

    /// Without a socket: reached by [`Mock::serve_stream`], [`Mock::connect`] and [`Mock::channel`].
    pub fn start(self) -> Mock {
        let rules = RuleSet::default();
        for rule in self.rules {
            rules.add(rule);
        }
        let shared = Shared {
            contents: Mutex::default(),
            settings: Mutex::new(self.settings.clone()),
            first_settings: self.settings,
            log: Log::new(),
            rules,
            violation: Mutex::new(self.violation),
        };
        Mock {
            owner: Arc::new(Owner {
                server: Arc::new(Server::new(Arc::new(shared))),
            }),
        }
    }

    /// Listens on `address` (`127.0.0.1:0` for a free port), as well as what [`Builder::start`] offers.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start_tcp(self, address: &str) -> io::Result<Mock> {
        let address = address
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mock = self.start();
        mock.owner.server.listen(address).await?;
        Ok(mock)
    }
}

/// An in-memory REAPI server under control. Clones are handles of the same one; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Mock {
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner {
    server: Arc<Server>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.server.cut();
    }
}

impl Mock {
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn shared(&self) -> &Shared {
        self.owner.server.shared()
    }

    // Serving.

    /// Where it listens, also while suspended.
    ///
    /// # Panics
    /// If it was started without a socket.
    pub fn addr(&self) -> SocketAddr {
        self.owner
            .server
            .address()
            .expect("this mock was started without a socket")
    }

    /// As [`Mock::addr`], if it was started with a socket.
    pub fn listens_on(&self) -> Option<SocketAddr> {
        self.owner.server.address()
    }

    /// `grpc://` and the address.
    ///
    /// # Panics
    /// As [`Mock::addr`].
    pub fn url(&self) -> String {
        format!("grpc://{}", self.addr())
    }

    /// Serves one connection over any pair of streams. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `ConnectionRefused` while suspended.
    pub fn serve_stream<I>(&self, io: I) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.owner.server.serve_stream(Foreign(io))
    }

    /// Opens a connection through memory. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `ConnectionRefused` while suspended.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        self.owner.server.connect()
    }

    /// A client's channel through memory, connected when first used and again when it broke.
    pub fn channel(&self) -> Channel {
        let server = Arc::clone(&self.owner.server);
        Endpoint::from_static("http://mock-upstream").connect_with_connector_lazy(tower::service_fn(
            move |_uri| {
                let io = server.connect();
                std::future::ready(io.map(TokioIo::new))
            },
        ))
    }

    /// Closes the listening socket and all connections; what is stored stays. Done when no call is left running and
    /// connecting is refused.
    ///
    /// # Errors
    /// If the port could not be kept for [`Mock::resume`]; all is closed then too.
    pub async fn suspend(&self) -> io::Result<()> {
        self.owner.server.suspend().await
    }

    /// Accepts connections again, on the same port. Done when connecting works.
    ///
    /// # Errors
    /// If listening fails.
    pub async fn resume(&self) -> io::Result<()> {
        self.owner.server.resume().await
    }

    /// Ends it, and waits until everything has ended.
    pub async fn stop(self) {
        self.owner.server.stop().await;
    }

    /// Changes settings while it runs.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared().settings.lock());
    }

    pub fn settings(&self) -> Settings {
        self.shared().settings.lock().clone()
    }

    /// Everything as it was at the start: no rules, no contents, first settings, and a log of nothing but the calls that
    /// are open. Gates stay, and so does a suspension.
    pub fn reset(&self) {
        self.heal();
        self.clear();
        self.clear_log();
        let first = self.shared().first_settings.clone();
        self.configure(|settings| *settings = first);
    }

    // What calls there were.

    /// The log as it stands.
    pub fn calls(&self) -> Calls {
        self.shared().log.snapshot()
    }

    /// Index that the next call will have: for [`Calls::since`].
    pub fn mark(&self) -> u64 {
        self.shared().log.next_index()
    }

    /// Time since it began, which is what the log counts in.
    pub fn now(&self) -> Duration {
        self.shared().log.now()
    }

    /// Waits until the log has `count` such calls.
    pub async fn arrived(&self, wanted: Match, count: usize) {
        self.shared().log.wait(&wanted, count, |_| true).await;
    }

    /// Waits until `count` such calls have ended, in whichever way.
    pub async fn finished(&self, wanted: Match, count: usize) {
        self.shared()
            .log
            .wait(&wanted, count, |call| call.outcome != Outcome::Open)
            .await;
    }

    // What happens to calls.

    /// Holds calls that arrive from here on.
    pub fn hold(&self, wanted: Match, after: After) -> Gate {
        self.shared().rules.hold(wanted, after)
    }

    /// Puts a rule in force, and returns its id.
    pub fn add(&self, rule: Rule) -> u64 {
        self.shared().rules.add(rule)
    }

    /// Puts all rules of a preset in force, and returns their ids.
    pub fn preset(&self, preset: Preset, seed: u64) -> Vec<u64> {
        preset
            .rules(seed)
            .into_iter()
            .map(|rule| self.add(rule))
            .collect()
    }

    /// Ends a rule; calls that hang because of it go on. Whether there was one.
    pub fn remove(&self, rule: u64) -> bool {
        self.shared().rules.remove(rule)
    }

    /// Ends all rules; calls that hang because of them go on. Gates stay.
    pub fn heal(&self) {
        self.shared().rules.clear();
    }

    /// All rules that were not taken back, in the order of their making.
    pub fn rules(&self) -> Vec<RuleStatus> {
        self.shared().rules.list()
    }

    /// Waits until the listening socket is closed, or open, as the rules with [`Act::Refuse`] want it.
    pub async fn settled(&self) {
        self.owner.server.settled().await;
    }

    /// What rules did, in the order of its doing.
    pub fn firings(&self) -> Vec<Firing> {
        self.shared().log.firings()
    }

    /// Waits until rules of this name have taken effect so many times.
    pub async fn fired(&self, rule: &str, count: usize) {
        self.shared().log.wait_fired(rule, count).await;
    }

    /// Ends all open connections by a TCP reset, and returns how many there were. New ones are welcome.
    pub fn reset_connections(&self) -> usize {
        self.owner.server.break_connections(Break::Reset)
    }

    /// Answers the next `times` such calls with `code`, before they have any effect.
    pub fn fail(&self, wanted: Match, code: Code, times: u64) {
        self.add(Rule::new(wanted, Act::status(code)).times(times));
    }

    /// Forgets the calls that have ended, and the firings.
    pub fn clear_log(&self) {
        self.shared().log.clear();
    }

    // What is stored.

    pub fn put_blob(&self, instance: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.shared().contents.lock().put(instance, digest, bytes);
        digest
    }

    /// Stores bytes that need not fit the digest, and are served all the same.
    pub fn plant(&self, instance: &str, digest: &Digest, bytes: impl Into<Bytes>) {
        self.shared().contents.lock().put(instance, *digest, bytes.into());
    }

    /// The stored bytes; the empty blob is always there.
    pub fn blob(&self, instance: &str, digest: &Digest) -> Option<Bytes> {
        self.shared().contents.lock().blob(instance, digest)
    }

    /// Whether the blob was there.
    pub fn evict(&self, instance: &str, digest: &Digest) -> bool {
        self.shared().contents.lock().evict(instance, digest)
    }

    /// All blobs of an instance, in the order of their hashes.
    pub fn blobs(&self, instance: &str) -> Vec<Digest> {
        self.shared().contents.lock().blobs(instance)
    }

    /// Stores an encoded action result, whatever the bytes are.
    pub fn put_action(&self, instance: &str, action: &Digest, raw: impl Into<Bytes>) {
        self.shared()
            .contents
            .lock()
            .put_action(instance, *action, raw.into());
    }

    /// The action result as the bytes it came in.
    pub fn action(&self, instance: &str, action: &Digest) -> Option<Bytes> {
        self.shared().contents.lock().action(instance, action)
    }

    /// Whether the result was there.
    pub fn evict_action(&self, instance: &str, action: &Digest) -> bool {
        self.shared().contents.lock().evict_action(instance, action)
    }

    /// Keys of all action results of an instance.
    pub fn actions(&self, instance: &str) -> Vec<Digest> {
        self.shared().contents.lock().actions(instance)
    }

    /// How much is stored.
    pub fn counts(&self) -> Counts {
        self.shared().contents.lock().counts()
    }

    /// Forgets blobs, results and unfinished uploads; the log stays.
    pub fn clear(&self) {
        *self.shared().contents.lock() = Contents::default();
    }
}
