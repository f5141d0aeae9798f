//! Black-box checks of a Remote Execution API cache: whatever answers at an address is judged by what it answers.
//!
//! Links the protocol and nothing of the server that is judged: a shared parser would share its bugs. Checks use content of
//! their own (salted), so they need no empty server, disturb no other content and can run side by side.

pub mod check;
pub mod checks;
pub mod deviations;
pub mod report;
pub mod runner;
pub mod target;

pub use check::{Check, Level, Outcome};
pub use runner::run;
pub use target::Target;
