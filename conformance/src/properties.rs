//! What holds for all inputs, tried with random ones: sizes and chunkings, ranges, batches, names, trees, clients side by
//! side. A counter-example is made as small as it gets, and told as the calls that show it.

mod blobs;
mod clients;
mod names;
mod trees;

use std::fmt;
use std::future::Future;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Handle;

use crate::check::{Stop, Verdict};
use crate::target::Target;

/// Steps that are spent on making a counter-example smaller: each is a few calls.
const SHRINKS_MAX: u32 = 200;

/// An input for which a property does not hold.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// The input, as small as it got.
    pub input: String,
    /// What came.
    pub found: String,
    /// The calls that show it.
    pub calls: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}", self.found)?;
        writeln!(f, "  for {}", self.input)?;
        for call in &self.calls {
            writeln!(f, "    {call}")?;
        }
        Ok(())
    }
}

/// A claim about all inputs of a kind.
#[derive(Clone, Copy)]
pub struct Property {
    /// What is claimed.
    pub says: &'static str,
    try_all: fn(&Trial<'_>) -> Result<(), Counterexample>,
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.says)
    }
}

/// All there are.
pub fn all() -> Vec<Property> {
    vec![
        Property {
            says: "A blob of any size, written in any pieces, is read back.",
            try_all: blobs::any_pieces,
        },
        Property {
            says: "Any offset and limit give those bytes, or the error that is due.",
            try_all: blobs::any_range,
        },
        Property {
            says: "Each entry of any batch gets its own answer, and what was OK is there.",
            try_all: blobs::any_batch,
        },
        Property {
            says: "No name but a blob's own gives its bytes, and no name is the server's fault.",
            try_all: names::any_name,
        },
        Property {
            says: "Any tree comes as what can be reached of it, each directory once.",
            try_all: trees::any_tree,
        },
        Property {
            says: "Clients that work side by side see each other's blobs whole or not at all.",
            try_all: clients::any_interleaving,
        },
    ]
}

impl Property {
    /// Tries it with `cases` random inputs, the same for the same seed. Blocks: not for a thread that drives futures.
    ///
    /// # Errors
    /// The smallest counter-example that was found.
    pub fn holds(
        &self,
        runtime: &Handle,
        target: &Target,
        cases: u32,
        seed: u64,
    ) -> Result<(), Counterexample> {
        (self.try_all)(&Trial {
            runtime,
            target,
            cases,
            seed,
        })
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
    fn draw<S, F>(&self, inputs: &S, claim: impl Fn(Target, S::Value) -> F) -> Result<(), Counterexample>
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
            let verdict = self.runtime.block_on(claim(target.clone(), input));
            (verdict, target.trace().calls())
        };
        let outcome = runner.run(inputs, |input| match look(input).0 {
            // What a server does not offer breaks no claim.
            Ok(()) | Err(Stop::NotOffered(_)) => Ok(()),
            Err(Stop::Failed(finding)) => Err(TestCaseError::fail(finding.to_string())),
            Err(Stop::Broken(what)) => Err(TestCaseError::fail(what)),
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(TestError::Abort(reason)) => Err(Counterexample {
                input: "nothing".to_owned(),
                found: reason.to_string(),
                calls: Vec::new(),
            }),
            Err(TestError::Fail(reason, input)) => {
                let (_, calls) = look(input.clone());
                Err(Counterexample {
                    input: format!("{input:?}"),
                    found: reason.to_string(),
                    calls,
                })
            }
        }
    }
}
