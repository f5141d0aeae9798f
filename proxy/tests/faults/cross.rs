//! The cross product, on all cores: each combination in a runtime of its own, whose time is paused.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conformance::faults::{self, Case, Outcome, Summary, Table, Verdict};
use conformance::oracle::Oracle;

use crate::site::Nodes;
use crate::{deviations, paused};

/// Combinations that must have counted, or the run showed too little.
const COUNTED_MIN: usize = 1_000;

/// Failures that are printed in full; more of them have the same cause.
const FAILURES_SHOWN: usize = 60;

/// A combination that takes longer in real time has hung where paused time cannot help, and the run ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) seeds: Range<u64>,
    pub(crate) only: Option<String>,
    pub(crate) all: bool,
}

impl Run {
    /// Whether all that was shown was good, and enough was shown.
    pub(crate) fn go(&self) -> bool {
        let table = Table::shipped().unwrap();
        let cases: Vec<Case> = self
            .seeds
            .clone()
            .flat_map(|seed| faults::cases(&table, seed))
            .filter(|case| self.wants(case))
            .collect();
        let began = Instant::now();
        let verdicts = judge_all(&cases);
        let mut summary = Summary::default();
        for (case, verdict) in cases.iter().zip(&verdicts) {
            summary.add(case, verdict);
            if self.only.is_some() {
                println!("{}: {:?}", case.id(), verdict.outcome);
            }
        }
        print!("{}", summary.text());
        println!("seeds {:?}, {:.1} s", self.seeds, began.elapsed().as_secs_f64());
        self.report(&summary)
    }

    fn wants(&self, case: &Case) -> bool {
        match &self.only {
            Some(only) => case.id().contains(only.as_str()),
            None => self.all || case.is_drawn(),
        }
    }

    fn report(&self, summary: &Summary) -> bool {
        let known = deviations::known();
        let (mut failed, mut applied) = (0, BTreeSet::new());
        for (case, what) in summary.broken() {
            let id = case.id();
            let covering = (0..).zip(&known).filter(|(_, known)| known.covers(&id));
            let covering: Vec<usize> = covering.map(|(number, _)| number).collect();
            if covering.is_empty() {
                failed += 1;
            }
            if covering.is_empty() && failed <= FAILURES_SHOWN || self.only.is_some() {
                println!("\nFAILED {id} (when_down: {})", case.when_down().name());
                for line in what {
                    println!("    {line}");
                }
                println!("    again: just faults --seed {} --only {id}", case.seed);
            }
            applied.extend(covering);
        }
        if failed > FAILURES_SHOWN {
            println!("\n{} more failed", failed - FAILURES_SHOWN);
        }
        let mut good = failed == 0;
        if self.only.is_none() {
            println!("{} broken as known", summary.broken().len() - failed);
            for (number, known) in known.iter().enumerate() {
                // A seed need not draw what it is about.
                let held = summary.held().iter().any(|case| known.covers(&case.id()));
                if held && !applied.contains(&number) {
                    println!(
                        "\nFAILED: this deviation no longer applies, take it out: {}",
                        known.line()
                    );
                    good = false;
                }
            }
            if summary.counted() < COUNTED_MIN {
                println!(
                    "\nFAILED: {} combinations counted, {COUNTED_MIN} have to",
                    summary.counted()
                );
                good = false;
            }
        }
        good
    }
}

fn judge_all(cases: &[Case]) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(at) else { return done };
            done.push((at, judge(case)));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<(usize, Verdict)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, verdict)| verdict).collect()
}

fn judge(case: &Case) -> Verdict {
    let run = || {
        let (runtime, began) = (paused(), Instant::now());
        let verdict = runtime.block_on(faults::run(&Nodes::default(), &Oracle::default(), case));
        let verdict = verdict.unwrap();
        runtime.shutdown_background();
        assert!(
            began.elapsed() < PATIENCE,
            "took {:?} of real time",
            began.elapsed()
        );
        verdict
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Verdict {
        outcome: Outcome::Broken(vec![format!("panicked: {}", message(&*panic))]),
        looked: BTreeMap::new(),
        recovery: None,
        wrong_twice: false,
        longest: Duration::ZERO,
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("something")
}
