//! One combination, and how it is named, so that the name repeats it.

use std::time::Duration;

use mock_upstream::Rule;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sha2::{Digest as _, Sha256};

use crate::faults::table::{Call, Cell, Fault, Table};
use crate::site::WhenDown;

/// What Tier 1 holds of what the call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing.
    Cold,
    /// Some of it: half of the blobs, half of an upload, a blob's presence but not its bytes.
    Half,
    /// All of it, and Tier 2 may have gone on since.
    Warm,
}

/// How many ask at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Crowd {
    /// One client.
    One,
    /// Some, each with a connection of its own.
    Herd,
}

/// How often the fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Times {
    /// Once.
    Once,
    /// Twice.
    Twice,
    /// To whatever comes within a second or so: Tier 2 flaps.
    Briefly,
    /// Until it is taken back.
    Lasting,
}

impl State {
    /// All of them.
    pub const ALL: [State; 3] = [State::Cold, State::Half, State::Warm];

    fn name(self) -> &'static str {
        match self {
            State::Cold => "cold",
            State::Half => "half",
            State::Warm => "warm",
        }
    }
}

impl Crowd {
    /// Both.
    pub const ALL: [Crowd; 2] = [Crowd::One, Crowd::Herd];

    fn name(self) -> &'static str {
        match self {
            Crowd::One => "one",
            Crowd::Herd => "herd",
        }
    }
}

impl Times {
    /// All of them.
    pub const ALL: [Times; 4] = [Times::Once, Times::Twice, Times::Briefly, Times::Lasting];

    fn name(self) -> &'static str {
        match self {
            Times::Once => "once",
            Times::Twice => "twice",
            Times::Briefly => "briefly",
            Times::Lasting => "lasting",
        }
    }

    /// The rule with its end. A flap is drawn once and is the same for all rules of a combination.
    pub(super) fn bound(self, rule: Rule, flap: Duration) -> Rule {
        match self {
            Times::Once => rule.times(1),
            Times::Twice => rule.times(2),
            Times::Briefly => rule.lasting(flap),
            Times::Lasting => rule,
        }
    }
}

/// One combination.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the client asks.
    pub call: Call,
    /// What Tier 1 holds.
    pub state: State,
    /// Who asks.
    pub crowd: Crowd,
    /// What Tier 2 does.
    pub fault: Fault,
    /// How often.
    pub times: Times,
    /// Whether the client must not notice.
    pub unseen: bool,
    /// To which methods of Tier 2.
    pub methods: Vec<String>,
    /// What draws the rest.
    pub seed: u64,
}

impl Case {
    /// Names it: `read.cold.herd.reset@middle.once`. With the seed this is all there is to it.
    pub fn id(&self) -> String {
        format!(
            "{}.{}.{}.{}.{}",
            self.call.name(),
            self.state.name(),
            self.crowd.name(),
            self.fault.name(),
            self.times.name()
        )
    }

    /// Whether it is among those that this seed draws: one of the ways in which the fault may repeat itself.
    pub fn is_drawn(&self) -> bool {
        let mut hasher = Sha256::new();
        hasher.update(self.seed.to_le_bytes());
        hasher.update(self.fault.name());
        hasher.update([self.call as u8, self.state as u8, self.crowd as u8]);
        let drawn = usize::from(hasher.finalize()[0]) % Times::ALL.len();
        self.times == Times::ALL[drawn]
    }

    /// How the proxy is told to behave while Tier 2 is down: most are left as they are.
    pub fn when_down(&self) -> WhenDown {
        let mut hasher = Sha256::new();
        hasher.update(b"when_down");
        hasher.update(self.seed.to_le_bytes());
        hasher.update(self.id());
        let drawn = usize::from(hasher.finalize()[0]) % (WhenDown::ALL.len() + 1);
        WhenDown::ALL.get(drawn).copied().unwrap_or_default()
    }

    /// Randomness of its own.
    pub(super) fn random(&self) -> StdRng {
        let mut hasher = Sha256::new();
        hasher.update(self.seed.to_le_bytes());
        hasher.update(self.id());
        StdRng::from_seed(hasher.finalize().into())
    }
}

/// All combinations of a table, in its order.
pub fn cases(table: &Table, seed: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for (fault, cells) in table.rows() {
        for (call, cell) in cells {
            let Cell::Applies { unseen } = cell else { continue };
            for state in State::ALL {
                for crowd in Crowd::ALL {
                    for times in Times::ALL {
                        cases.push(Case {
                            call,
                            state,
                            crowd,
                            fault: fault.clone(),
                            times,
                            unseen: *unseen && times == Times::Once,
                            methods: table.methods(call).to_vec(),
                            seed,
                        });
                    }
                }
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore as _;
    use std::collections::BTreeSet;

    #[test]
    fn a_case_has_a_name_of_its_own_and_draws_by_name_and_seed_alone() {
        let table = Table::shipped().unwrap();
        let first = cases(&table, 1);
        let names: BTreeSet<_> = first.iter().map(Case::id).collect();
        assert_eq!(names.len(), first.len());
        let drawn = |cases: &[Case]| {
            cases
                .iter()
                .map(|case| case.random().next_u64())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(drawn(&first), drawn(&cases(&table, 1)));
        assert!(drawn(&first).is_disjoint(&drawn(&cases(&table, 2))));
    }
}
