//! What the command line says about a proxy.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::oracle::{Oracle, Promise, Times};
use crate::site::WhenDown;

/// How soon a first success is expected after a fault, and after a blob that was wrong twice. Far beyond what is promised:
/// time is real here, and a busy machine is not the proxy's fault.
const RECOVERY: Duration = Duration::from_secs(20);
const FORGIVENESS: Duration = Duration::from_secs(40);

/// Combinations of the fault matrix that are tried if nothing else is said.
pub(super) const SAMPLE: usize = 400;

/// Of a call. Longer than a proxy waits for a byte, and for a second one; what waits longer by design is not in the sample.
const LONGEST_CALL_S: u64 = 45;

/// The longest time that is taken for a lease: beyond it nothing is judged differently.
const LEASE_MAX_S: i64 = 365 * 24 * 3600;

/// Flags for judging a caching proxy.
#[derive(Clone, Debug, Args)]
#[group(id = "proxy")]
#[command(next_help_heading = "Judging a proxy")]
pub struct Arguments {
    /// Judges a caching proxy, whose Tier 2 is the mock-upstream with its control port at this URL.
    #[arg(long, value_name = "URL")]
    pub proxy_upstream_control: Option<String>,
    /// What the proxy does not promise: P1 to P10; `completeness` of action results, `mends` (a single fault is hidden),
    /// `choices` (all that the protocol leaves free).
    #[arg(
        long,
        value_name = "WHAT",
        value_delimiter = ',',
        requires = "proxy_upstream_control"
    )]
    pub without: Vec<Waiver>,
    /// What the proxy was told to do while Tier 2 is down: fail, serve_tier1 or bypass.
    #[arg(long, default_value = "fail", value_parser = when_down, requires = "proxy_upstream_control")]
    pub when_down: WhenDown,
    /// Seconds for which the proxy passes on Tier 2's word that a blob is there.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..LEASE_MAX_S as u64), requires = "proxy_upstream_control")]
    pub lease: u64,
    /// The same for uploads that are acknowledged without one of their own.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..LEASE_MAX_S as u64), requires = "proxy_upstream_control")]
    pub write_lease: u64,
    /// Seconds for which the proxy answers with an action result without asking again.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..LEASE_MAX_S as u64), requires = "proxy_upstream_control")]
    pub action_lease: u64,
    /// Seconds that a call may take, whatever Tier 2 does.
    #[arg(long, default_value_t = LONGEST_CALL_S, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..600), requires = "proxy_upstream_control")]
    pub longest_call: u64,
    /// How many combinations of the fault matrix are tried.
    #[arg(long, default_value_t = SAMPLE, value_name = "N", requires = "proxy_upstream_control")]
    pub sample: usize,
    /// Tries only the combinations of the fault matrix whose id contains this, all of them; --seed draws what is in them.
    #[arg(long, value_name = "ID", requires = "proxy_upstream_control")]
    pub only: Option<String>,
}

impl Default for Arguments {
    fn default() -> Arguments {
        let times = Times::default();
        Arguments {
            proxy_upstream_control: None,
            without: Vec::new(),
            when_down: WhenDown::Fail,
            lease: times.lease.as_secs(),
            write_lease: times.write_lease.as_secs(),
            action_lease: times.action_lease.as_secs(),
            longest_call: LONGEST_CALL_S,
            sample: SAMPLE,
            only: None,
        }
    }
}

/// Something that a proxy may leave unpromised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiver {
    /// A promise.
    Promise(Promise),
    /// That all blobs of an action result are looked for.
    Completeness,
    /// That a single fault is hidden from clients.
    Mends,
    /// What the protocol leaves free.
    Choices,
}

impl FromStr for Waiver {
    type Err = String;

    fn from_str(text: &str) -> Result<Waiver, String> {
        let promise = Promise::ALL
            .into_iter()
            .find(|promise| promise.to_string() == text);
        match (promise, text) {
            (Some(promise), _) => Ok(Waiver::Promise(promise)),
            (None, "completeness") => Ok(Waiver::Completeness),
            (None, "mends") => Ok(Waiver::Mends),
            (None, "choices") => Ok(Waiver::Choices),
            (None, other) => Err(format!(
                "{other} is none of P1 to P10, completeness, mends, choices"
            )),
        }
    }
}

fn when_down(text: &str) -> Result<WhenDown, String> {
    let found = WhenDown::ALL.into_iter().find(|mode| mode.name() == text);
    found.ok_or_else(|| {
        format!(
            "{text} is none of {}",
            WhenDown::ALL.map(WhenDown::name).join(", ")
        )
    })
}

impl Arguments {
    /// The judge of a proxy that promises so much.
    pub fn oracle(&self) -> Oracle {
        let waives = |waiver: Waiver| self.without.contains(&waiver);
        let promises = Promise::ALL.into_iter();
        Oracle {
            promises: promises
                .filter(|promise| !waives(Waiver::Promise(*promise)))
                .collect(),
            times: Times {
                lease: Duration::from_secs(self.lease),
                write_lease: Duration::from_secs(self.write_lease),
                action_lease: Duration::from_secs(self.action_lease),
                recovery: RECOVERY,
                forgiveness: FORGIVENESS,
                longest_call: Duration::from_secs(self.longest_call),
            },
            completeness: !waives(Waiver::Completeness),
            when_down: self.when_down,
            mends: !waives(Waiver::Mends),
            choices: !waives(Waiver::Choices),
        }
    }
}
