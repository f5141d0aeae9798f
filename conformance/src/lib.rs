//! Black-box checks of a Remote Execution API cache: whatever answers at an address is judged by what it answers.
//!
//! Links the protocol and nothing of the server that is judged: a shared parser would share its bugs. Checks use content of
//! their own (salted), so they need no empty server, disturb no other content and can run side by side.

mod calls;
pub mod catalogue;
pub mod check;
pub mod checks;
mod codec;
pub mod connect;
pub mod deviations;
pub mod faults;
pub mod function;
pub mod oracle;
pub mod properties;
pub mod proxy;
pub mod raw;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod site;
pub mod target;
mod trace;
pub mod upstream;

pub use catalogue::{Level, Profile};
pub use check::{Check, Outcome};
pub use runner::{run, run_and_tell};
pub use target::Target;
pub use upstream::Upstream;
