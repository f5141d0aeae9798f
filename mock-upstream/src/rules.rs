//! The rules in force, and which of them a call meets.
//!
//! [`Progress::meet`] decides, and is pure: a rule, how far it has come, a call and the time in; the decision out. What
//! was decided is carried out by [`crate::script`].

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::gate::{Barrier, Gate};
use crate::log::Call;
use crate::rule::{Act, After, Chance, Match, Rule, Until};

/// Rules kept; of more the oldest go. Every call looks at every rule.
const RULES_MAX: usize = 10_000;

/// How far a rule has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Calls that matched, but for `nth` and chance.
    seen: u64,
    /// Calls that it met.
    met: u64,
    /// Calls that matched `until`.
    endings: u64,
    ended: bool,
}

/// A rule in force, or one that has run out and was not cleared yet.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleStatus {
    pub id: u64,
    pub rule: Rule,
    /// Calls that matched it, but for `nth` and chance.
    pub seen: u64,
    /// Calls that it was meant for. That it took effect is said in the log only.
    pub met: u64,
    pub ended: bool,
}

impl Progress {
    /// Whether the call meets the rule. `blocked`: it already met one that it does not go on after.
    pub(crate) fn meet(&mut self, rule: &Rule, call: &Call, age: Duration, blocked: bool) -> bool {
        self.ended |= match &rule.until {
            None => false,
            Some(Until::Calls(calls)) => self.seen >= *calls,
            Some(Until::Ms(ms)) => age >= Duration::from_millis(*ms),
            Some(Until::Call(ending)) if ending.fits(call) => {
                self.endings += 1;
                ending.nth.is_none_or(|nth| nth == self.endings)
            }
            Some(Until::Call(_)) => false,
        };
        self.ended |= rule.times.is_some_and(|times| self.met >= times);
        if self.ended || !rule.act.applies_to(&call.method) || !rule.wanted.fits(call) {
            return false;
        }
        self.seen += 1;
        let meant = rule.wanted.nth.is_none_or(|nth| nth == self.seen)
            && rule.chance.is_none_or(|chance| chance.hits(self.seen))
            && !(blocked && rule.act.ends_call());
        self.met += u64::from(meant);
        meant
    }

    /// Whether it is in force for somebody who makes no call.
    fn is_live(&self, rule: &Rule, age: Duration) -> bool {
        let over = match &rule.until {
            Some(Until::Calls(calls)) => self.seen >= *calls,
            Some(Until::Ms(ms)) => age >= Duration::from_millis(*ms),
            Some(Until::Call(_)) | None => false,
        };
        !self.ended && !over && rule.times.is_none_or(|times| self.met < times)
    }
}

impl Chance {
    /// Whether the n-th call is hit: the same for the same seed and n, and as good as independent between them.
    fn hits(self, n: u64) -> bool {
        /// Doubles hold integers of so many bits.
        const BITS: u32 = 53;
        let drawn = mix(mix(self.seed) ^ n) >> (u64::BITS - BITS);
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let part = drawn as f64 / (1u64 << BITS) as f64;
        part < self.of
    }
}

/// The finisher of SplitMix64: every bit of the result depends on every bit of `n`.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// What a call is to meet, and where.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) after: After,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Hold(Barrier),
    Fault(Fault),
}

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) rule: u64,
    pub(crate) name: String,
    pub(crate) act: Act,
    /// The one blob that the rule is about.
    pub(crate) target: Option<Digest>,
    /// The rule was cleared: whoever waits because of it goes on.
    pub(crate) cleared: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct RuleSet {
    entries: Mutex<Entries>,
    /// Told when rules come and go, so that the listener looks again.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Entries {
    next_id: u64,
    gates: Vec<Held>,
    rules: Vec<Entry>,
}

#[derive(Debug)]
struct Held {
    wanted: Match,
    seen: u64,
    after: After,
    barrier: Barrier,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    rule: Rule,
    progress: Progress,
    set: Instant,
    cleared: CancellationToken,
}

impl Default for RuleSet {
    fn default() -> RuleSet {
        RuleSet {
            entries: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl RuleSet {
    pub(crate) fn hold(&self, wanted: Match, after: After) -> Gate {
        let (gate, barrier) = Gate::new();
        self.entries.lock().gates.push(Held {
            wanted,
            seen: 0,
            after,
            barrier,
        });
        gate
    }

    /// Puts a rule in force, and returns its id.
    pub(crate) fn add(&self, rule: Rule) -> u64 {
        let id = {
            let mut entries = self.entries.lock();
            if entries.rules.len() >= RULES_MAX {
                entries.rules.remove(0);
            }
            entries.next_id += 1;
            let id = entries.next_id;
            entries.rules.push(Entry {
                id,
                rule,
                progress: Progress::default(),
                set: Instant::now(),
                cleared: CancellationToken::new(),
            });
            id
        };
        self.changed.send_replace(());
        id
    }

    /// Whether there was such a rule.
    pub(crate) fn remove(&self, id: u64) -> bool {
        let removed = self.retain(|entry| entry.id != id);
        removed > 0
    }

    /// Ends all but the gates.
    pub(crate) fn clear(&self) {
        self.retain(|_| false);
    }

    fn retain(&self, keep: impl Fn(&Entry) -> bool) -> usize {
        let removed: Vec<Entry> = self
            .entries
            .lock()
            .rules
            .extract_if(.., |entry| !keep(entry))
            .collect();
        for entry in &removed {
            entry.cleared.cancel();
        }
        self.changed.send_replace(());
        removed.len()
    }

    pub(crate) fn list(&self) -> Vec<RuleStatus> {
        let entries = self.entries.lock();
        let status = |entry: &Entry| RuleStatus {
            id: entry.id,
            rule: entry.rule.clone(),
            seen: entry.progress.seen,
            met: entry.progress.met,
            ended: !entry.progress.is_live(&entry.rule, entry.set.elapsed()),
        };
        entries.rules.iter().map(status).collect()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What is to happen to a call that has just become known.
    pub(crate) fn plan(&self, call: &Call) -> Vec<Planned> {
        let mut entries = self.entries.lock();
        let mut planned = entries.gates_for(call);
        let mut blocked = false;
        for entry in &mut entries.rules {
            let age = entry.set.elapsed();
            if entry.progress.meet(&entry.rule, call, age, blocked) {
                blocked |= entry.rule.act.ends_call() && entry.rule.after == After::Start;
                planned.push(Planned {
                    after: entry.rule.after,
                    what: What::Fault(entry.fault()),
                });
            }
        }
        planned
    }

    /// The rule by which no connection is accepted, and when it ends by itself.
    pub(crate) fn refusal(&self) -> Option<(Fault, Option<Instant>)> {
        let entries = self.entries.lock();
        let refuses = |entry: &&Entry| {
            entry.rule.act == Act::Refuse && entry.progress.is_live(&entry.rule, entry.set.elapsed())
        };
        entries.rules.iter().find(refuses).map(|entry| {
            let end = match entry.rule.until {
                Some(Until::Ms(ms)) => entry.set.checked_add(Duration::from_millis(ms)),
                Some(Until::Calls(_) | Until::Call(_)) | None => None,
            };
            (entry.fault(), end)
        })
    }
}

impl Entries {
    /// Gates come first: a test that holds a call decides when its faults begin.
    fn gates_for(&mut self, call: &Call) -> Vec<Planned> {
        self.gates.retain(|held| !held.barrier.is_open());
        let mut planned = Vec::new();
        for held in self.gates.iter_mut().filter(|held| held.wanted.fits(call)) {
            held.seen += 1;
            if held.wanted.nth.is_none_or(|nth| nth == held.seen) {
                planned.push(Planned {
                    after: held.after,
                    what: What::Hold(held.barrier.clone()),
                });
            }
        }
        planned
    }
}

impl Entry {
    fn fault(&self) -> Fault {
        Fault {
            rule: self.id,
            name: self.rule.name.clone(),
            act: self.rule.act.clone(),
            target: self.rule.wanted.digest,
            cleared: self.cleared.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method;

    const NO_TIME: Duration = Duration::ZERO;

    fn call(method: &str, digests: Vec<Digest>) -> Call {
        Call {
            digests,
            ..Call::blank(0, method.to_owned(), 0)
        }
    }

    /// Which of the calls, counted from 1, meet the rule.
    fn met(rule: &Rule, calls: &[Call]) -> Vec<usize> {
        let mut progress = Progress::default();
        let meets = |call: &Call| progress.meet(rule, call, NO_TIME, false);
        let met: Vec<bool> = calls.iter().map(meets).collect();
        (1..).zip(met).filter(|(_, met)| *met).map(|(n, _)| n).collect()
    }

    #[test]
    fn times_nth_and_until_bound_a_rule() {
        let reads = vec![call(method::READ, Vec::new()); 5];
        let hang = || Rule::new(Match::any(), Act::Hang);
        assert_eq!(met(&hang(), &reads), [1, 2, 3, 4, 5]);
        assert_eq!(met(&hang().times(2), &reads), [1, 2]);
        assert_eq!(met(&hang().until(Until::Calls(3)), &reads), [1, 2, 3]);
        let third = Rule::new(Match::any().nth(3), Act::Hang);
        assert_eq!(met(&third, &reads), [3]);
        let until_second = Until::Call(Match::method(method::READ).nth(2));
        assert_eq!(met(&hang().until(until_second), &reads), [1]);
        let mut progress = Progress::default();
        let brief = hang().lasting(Duration::from_millis(10));
        assert!(progress.meet(&brief, &reads[0], Duration::from_millis(9), false));
        assert!(!progress.meet(&brief, &reads[0], Duration::from_millis(10), false));
        assert!(
            !progress.meet(&brief, &reads[0], NO_TIME, false),
            "the end is final"
        );
    }

    #[test]
    fn method_instance_digest_and_size_narrow_a_rule() {
        let (small, large) = (Digest::of(b"a"), Digest::of(b"large"));
        let calls = [
            call(method::READ, vec![small]),
            call(method::WRITE, vec![large]),
            call(method::BATCH_READ, vec![small, large]),
            Call {
                instance: "a".into(),
                ..call(method::READ, vec![large])
            },
        ];
        let met = |wanted: Match| met(&Rule::new(wanted, Act::Hang), &calls);
        assert_eq!(met(Match::method(method::READ)), [1, 4]);
        assert_eq!(met(Match::any().digest(&small)), [1, 3]);
        assert_eq!(met(Match::any().min_bytes(5)), [2, 3, 4]);
        assert_eq!(met(Match::any().min_bytes(5).max_bytes(5)), [2, 4]);
        assert_eq!(met(Match::any().instance("a")), [4]);
        assert_eq!(met(Match::any().instance("")), [1, 2, 3]);
    }

    #[test]
    fn calls_that_an_act_cannot_be_done_to_are_not_counted() {
        let calls = [call(method::WRITE, Vec::new()), call(method::READ, Vec::new())];
        assert_eq!(met(&Rule::new(Match::any().nth(1), Act::FlipByte), &calls), [2]);
    }

    #[test]
    fn chance_depends_on_seed_and_number_alone_and_is_as_large_as_it_says() {
        let reads = vec![call(method::READ, Vec::new()); 10_000];
        let rule = |seed| Rule::new(Match::any(), Act::Hang).chance(0.3, seed);
        let hits = met(&rule(7), &reads);
        assert_eq!(hits, met(&rule(7), &reads));
        assert_ne!(hits, met(&rule(8), &reads));
        assert!((2_800..3_200).contains(&hits.len()), "{}", hits.len());
        assert_eq!(met(&rule(7).chance(0.0, 7), &reads), Vec::<usize>::new());
        assert_eq!(met(&rule(7).chance(1.0, 7), &reads).len(), reads.len());
    }

    #[test]
    fn of_two_ends_of_a_call_the_first_counts_and_the_second_is_spared() {
        let rules = RuleSet::default();
        rules.add(Rule::new(Match::any(), Act::status(tonic::Code::Internal)).times(1));
        rules.add(Rule::new(Match::any(), Act::Reset).times(1));
        let acts = || {
            let planned = rules.plan(&call(method::READ, Vec::new()));
            let names = planned.into_iter().map(|planned| match planned.what {
                What::Fault(fault) => fault.name,
                What::Hold(_) => "hold".into(),
            });
            names.collect::<Vec<_>>()
        };
        assert_eq!(
            (acts(), acts(), acts()),
            (vec!["status".into()], vec!["reset".into()], vec![])
        );
        let met: Vec<_> = rules
            .list()
            .iter()
            .map(|status| (status.met, status.ended))
            .collect();
        assert_eq!(met, [(1, true), (1, true)]);
    }
}
