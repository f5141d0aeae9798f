//! A REAPI server in memory, for tests of whoever calls one: it does as it should, says what it was asked, and stops
//! where it is told.
//!
//! - [`Mock::calls`]: the log of calls, in order of arrival, with how each ended. [`Mock::arrived`] and
//!   [`Mock::finished`] wait for it to say something.
//! - [`Mock::hold`]: gates, that hold a call at its start, after some bytes, or before its end.
//! - [`Mock::suspend`], [`Mock::resume`]: sockets closed and opened again, contents kept.
//! - [`Mock::put_blob`] and its neighbours: what is stored, to see and to change. [`Mock::plant`] stores wrong bytes.
//! - [`Mock::fail`]: a code as the answer to the next calls.
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

mod call;
mod contents;
mod digest;
mod log;
mod mock;
mod name;
mod rules;
mod serve;
mod service;

pub use contents::Counts;
pub use digest::{Digest, DigestError};
pub use log::{Call, Calls, Outcome};
pub use mock::{Builder, Mock, Settings};
pub use rules::{After, Gate, Match, method};
