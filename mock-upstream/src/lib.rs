//! A REAPI server in memory, for tests of whoever calls one: it does as it should, says what it was asked, and stops
//! where it is told.
//!
//! - [`Mock::calls`]: the log of calls, in order of arrival, with how each ended. [`Mock::arrived`] and
//!   [`Mock::finished`] wait for it to say something.
//! - [`Mock::hold`]: gates, that hold a call at its start, after some bytes, or before its end.
//! - [`Control`]: all of this over HTTP; [`Remote`] is its client. [`Forwarder`]: a bad network, for any server.
//! - [`Mock::suspend`], [`Mock::resume`]: sockets closed and opened again, contents kept.
//! - [`Mock::put_blob`] and its neighbours: what is stored, to see and to change. [`Mock::plant`] stores wrong bytes.
//! - [`Mock::add`]: a [`Rule`], that makes the mock fail its clients in one way: [`Act`]. [`Mock::preset`] has whole
//!   characters. What they did is in [`Call::fired`].
//! - [`Builder::violates`]: a server that breaks one requirement, for those who judge servers: [`Violation`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use mock_upstream::{Match, Mock, After};
//!
//! let mock = Mock::builder().start_tcp("127.0.0.1:0").await.unwrap();
//! let digest = mock.put_blob("", "content");
//! let gate = mock.hold(Match::read(&digest), After::Bytes(3));
//! // A client reads the blob; then:
//! // gate.reached().await;
//! gate.release();
//! assert_eq!(mock.calls().method("ByteStream.Read").digest(&digest).count(), 0);
//! mock.stop().await;
//! # }
//! ```

mod alter;
mod assets;
mod call;
mod codec;
mod connection;
mod contents;
mod control;
mod digest;
mod forward;
mod frames;
mod gate;
mod log;
pub mod method;
mod mock;
mod name;
mod preset;
mod remote;
mod rule;
mod rules;
mod script;
mod serve;
mod service;
mod violation;
mod written;

pub use contents::Counts;
pub use control::Control;
pub use digest::{Digest, DigestError, Function};
pub use forward::{Carried, Forwarder, Link};
pub use gate::Gate;
pub use log::{Call, Calls, Firing, Outcome, Told};
pub use mock::{Builder, Mock, Settings};
pub use preset::{Preset, UnknownPreset};
pub use remote::{Remote, RemoteError, RemoteGate};
pub use rule::{Act, After, Announce, Farewell, Match, Rule, RuleError, Rules, Until};
pub use rules::RuleStatus;
pub use violation::Violation;
pub use written::Snapshot;
