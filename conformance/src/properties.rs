//! What holds for all inputs, tried with random ones: sizes and chunkings, ranges, batches, names, trees, clients side by
//! side. A counter-example is made as small as it gets, and told as the calls that show it.

mod blobs;
mod clients;
mod names;
mod trees;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Handle;

use crate::catalogue::{Level, Profile};
use crate::check::{Finding, Outcome, Stop, Verdict};
use crate::runner::PATIENCE;
use crate::target::Target;

/// Steps that are spent on making a counter-example smaller: each is a few calls.
const SHRINKS_MAX: u32 = 200;

/// A claim about all inputs of a kind.
#[derive(Clone, Copy)]
pub struct Property {
    /// Stable for ever, as those of checks.
    pub id: &'static str,
    /// What is claimed.
    pub says: &'static str,
    /// The requirements that it widens to all inputs.
    pub on: &'static str,
    /// The part of the protocol that it is about.
    pub profile: Profile,
    try_all: fn(&Trial<'_>) -> Outcome,
}

impl Property {
    /// How strong it is: each claims what the specification demands.
    pub fn level(&self) -> Level {
        Level::Must
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// A property, and what became of it.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Which one.
    pub property: Property,
    /// Inputs that were to be drawn; a counter-example ends it sooner.
    pub cases: u32,
    /// What they were drawn from.
    pub seed: u64,
    /// Where it does not hold, `sent` of the finding is the input, as small as it got.
    pub outcome: Outcome,
}

/// All there are.
pub fn all() -> Vec<Property> {
    vec![
        Property {
            id: "PROP-01",
            says: "A blob of any size, written in any pieces, is read back.",
            on: "BS-READ-01, BS-WRITE-02, BS-WRITE-06, BS-WRITE-13, BS-WRITE-19",
            profile: Profile::Bytestream,
            try_all: blobs::any_pieces,
        },
        Property {
            id: "PROP-02",
            says: "Any offset and limit give those bytes, or the error that is due.",
            on: "BS-READ-01…09",
            profile: Profile::Bytestream,
            try_all: blobs::any_range,
        },
        Property {
            id: "PROP-03",
            says: "Each entry of any batch gets its own answer, and what was OK is there.",
            on: "CAS-BUB-01, CAS-BUB-04, CAS-BUB-05, CAS-BUB-07, CAS-BUB-13, CAS-BUB-16",
            profile: Profile::Cas,
            try_all: blobs::any_batch,
        },
        Property {
            id: "PROP-04",
            says: "No name but a blob's own gives its bytes, and no name is the server's fault.",
            on: "RN-01, RN-03, RN-11…16",
            profile: Profile::Bytestream,
            try_all: names::any_name,
        },
        Property {
            id: "PROP-05",
            says: "Any tree comes as what can be reached of it, each directory once.",
            on: "TREE-01, TREE-03, TREE-06, TREE-15",
            profile: Profile::Tree,
            try_all: trees::any_tree,
        },
        Property {
            id: "PROP-06",
            says: "Clients that work side by side see each other's blobs whole or not at all.",
            on: "CAS-GEN-01, CAS-GEN-08, CAS-FMB-01, BS-READ-10, BS-WRITE-28",
            profile: Profile::Cas,
            try_all: clients::any_interleaving,
        },
    ]
}

impl Property {
    /// Tries it with `cases` random inputs, the same for the same seed. Blocks: not for a thread that drives futures.
    pub fn tried(&self, runtime: &Handle, target: &Target, cases: u32, seed: u64) -> Tried {
        let outcome = (self.try_all)(&Trial {
            runtime,
            target,
            cases,
            seed,
        });
        Tried {
            property: *self,
            cases,
            seed,
            outcome,
        }
    }
}

/// What a property is tried on.
struct Trial<'a> {
    runtime: &'a Handle,
    target: &'a Target,
    cases: u32,
    seed: u64,
}

impl Trial<'_> {
    /// Draws inputs, and looks whether `claim` holds for each.
    fn draw<S, F>(&self, inputs: &S, claim: impl Fn(Target, S::Value) -> F) -> Outcome
    where
        S: Strategy,
        S::Value: Clone,
        F: Future<Output = Verdict>,
    {
        let config = Config {
            cases: self.cases,
            max_shrink_iters: SHRINKS_MAX,
            failure_persistence: None,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let look = |input: S::Value| {
            let target = self.target.fresh();
            let claim = claim(target.clone(), input);
            let verdict = self.runtime.block_on(async {
                let within = tokio::time::timeout(PATIENCE, claim).await;
                within.unwrap_or_else(|_elapsed| Err(Stop::Broken(format!("no answer within {PATIENCE:?}"))))
            });
            (verdict, target.trace().calls())
        };
        let (held, not_offered) = (Cell::new(false), RefCell::new(None));
        let outcome = runner.run(inputs, |input| match look(input).0 {
            Ok(()) => {
                held.set(true);
                Ok(())
            }
            // What a server does not offer breaks no claim.
            Err(Stop::NotOffered(what)) => {
                not_offered.replace(Some(what));
                Ok(())
            }
            Err(Stop::Failed(finding)) => Err(TestCaseError::fail(finding.to_string())),
            Err(Stop::Broken(what)) => Err(TestCaseError::fail(what)),
        });
        match (outcome, not_offered.take()) {
            (Ok(()), Some(what)) if !held.get() => Outcome::NotOffered(what),
            (Ok(()), _) => Outcome::Passed,
            (Err(TestError::Abort(reason)), _) => Outcome::Broken(reason.to_string().into()),
            (Err(TestError::Fail(reason, input)), _) => {
                let (_, calls) = look(input.clone());
                Outcome::Failed(Finding {
                    sent: format!("{input:?}"),
                    expected: String::new(),
                    came: reason.to_string(),
                    calls,
                })
            }
        }
    }
}
