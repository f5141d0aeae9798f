//! A real server as Tier 2 of a node: what a client sees of the node's promises, in good times and in outages.
//!
//! A real server takes no orders, so the trials have three means: what the server answers when it is asked past the node,
//! the server's own life, and the network between them. Which calls Tier 2 received cannot be seen.

mod crash;
mod outage;
mod peace;
mod spoilt;
pub(crate) mod when_down;

use std::fmt;

use anyhow::Result;

use self::when_down::WhenDown;
use crate::rig::Rig;

/// What can happen to Tier 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// SIGKILL, then a start.
    Kill,
    /// SIGTERM, then a start.
    Stop,
    /// Frozen, then let go on.
    Pause,
    /// The network carries nothing, then everything again.
    Silence,
}

/// A thing to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// P1, P2, P3.
    Authority,
    /// P7.
    OneFetch,
    /// P5, and R10's resuming.
    Resets,
    /// P4, P9.
    NodeKilled,
    /// P2, P5, P6, P10 while Tier 2 is killed and started.
    Killed,
    /// The same, ended by SIGTERM.
    Stopped,
    /// The same, frozen.
    Paused,
    /// The same, with a network that carries nothing.
    Unreachable,
    /// As `Killed`, with a node that was told to go on with Tier 1.
    Serving,
    /// The same, told to let builds go on without a cache.
    Bypassed,
    /// P8.
    Bounds,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All claims held. Times and counts, for a person.
    Passed(String),
    /// One did not.
    Failed(String),
    /// It cannot be judged here.
    NotApplicable(&'static str),
}

impl Trial {
    /// All of them, in the order in which they are made.
    pub const ALL: [Trial; 11] = [
        Trial::Authority,
        Trial::OneFetch,
        Trial::Resets,
        Trial::NodeKilled,
        Trial::Killed,
        Trial::Stopped,
        Trial::Paused,
        Trial::Unreachable,
        Trial::Serving,
        Trial::Bypassed,
        Trial::Bounds,
    ];

    /// For the table: what it claims, and the promises that it rests on.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Trial::Authority => "acknowledged and present mean that Tier 2 has it (P1, P2, P3)",
            Trial::OneFetch => "16 readers of a cold blob, one fetch (P7)",
            Trial::Resets => "connections reset amid reads (P4, P5)",
            Trial::NodeKilled => "the node killed and started (P4, P9)",
            Trial::Killed => "Tier 2 killed and started (P1, P2, P5, P6, P10)",
            Trial::Stopped => "Tier 2 stopped and started (same)",
            Trial::Paused => "Tier 2 frozen and released (same)",
            Trial::Unreachable => "the network silent, then back (same)",
            Trial::Serving => "Tier 2 killed and started, `when_down: serve_tier1` (same)",
            Trial::Bypassed => "Tier 2 killed and started, `when_down: bypass` (same)",
            Trial::Bounds => "limits (P8)",
        }
    }

    fn when_down(self) -> WhenDown {
        match self {
            Trial::Serving => WhenDown::ServeTier1,
            Trial::Bypassed => WhenDown::Bypass,
            Trial::Authority
            | Trial::OneFetch
            | Trial::Resets
            | Trial::NodeKilled
            | Trial::Killed
            | Trial::Stopped
            | Trial::Paused
            | Trial::Unreachable
            | Trial::Bounds => WhenDown::Fail,
        }
    }

    /// Makes it. The rig is given back as it was, but for what is stored.
    ///
    /// # Errors
    /// If the rig itself broke: no more trials can be made.
    pub async fn run(self, rig: Rig) -> Result<(Rig, Finding)> {
        let mut rig = rig;
        let found = match self {
            Trial::Authority => peace::authority(&rig).await,
            Trial::OneFetch => peace::one_fetch(&rig).await,
            Trial::Resets => spoilt::resets(&rig).await,
            Trial::NodeKilled => {
                let (after, found) = crash::node_killed(rig).await?;
                rig = after;
                found
            }
            Trial::Killed => outage::trial(&mut rig, Outage::Kill).await,
            Trial::Stopped => outage::trial(&mut rig, Outage::Stop).await,
            Trial::Paused => outage::trial(&mut rig, Outage::Pause).await,
            Trial::Unreachable => outage::trial(&mut rig, Outage::Silence).await,
            Trial::Serving | Trial::Bypassed => {
                rig = rig.tell(self.when_down()).await?;
                let found = outage::trial(&mut rig, Outage::Kill).await;
                rig = rig.tell(WhenDown::Fail).await?;
                found
            }
            Trial::Bounds => {
                let why = "a real server cannot be made to declare sizes or to stall";
                return Ok((rig, Finding::NotApplicable(why)));
            }
        };
        let finding = match found {
            Ok(note) => Finding::Passed(note),
            Err(error) => Finding::Failed(format!("{error:#}")),
        };
        Ok((rig, finding))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Passed(note) if note.is_empty() => f.write_str("passed"),
            Finding::Passed(note) => write!(f, "passed ({note})"),
            Finding::Failed(what) => write!(f, "FAILED: {what}"),
            Finding::NotApplicable(why) => write!(f, "n/a: {why}"),
        }
    }
}
