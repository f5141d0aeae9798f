//! Every fault of Tier 2, met by every call, over a Tier 1 that is cold, half-warm or warm, by one client or a herd.
//!
//! Which fault meets which call is a table that people review: [`Table`], from `faults.txt`. From it, and from a seed that
//! draws sizes, places and how often, [`cases`] makes the combinations; [`run`] carries one out and has the oracle judge
//! it. A combination counts only if the mock's log proves that the fault took effect inside the call under judgement, and
//! if a wrong answer would have broken something that was looked at.

mod case;
mod run;
mod stage;
mod summary;
mod table;

pub use case::{Case, Crowd, State, Times, cases};
pub use run::{Ground, Outcome, Verdict, run};
pub use summary::Summary;
pub use table::{Call, Cell, Fault, Place, Table, TableError};
