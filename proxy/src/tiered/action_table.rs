//! Copies of action results and who is asking for newer ones: what makes a read of a key see every write that ended before
//! it began (R7). Pure: time comes from outside.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::closure::{Flaw, References};
use super::recent::Recent;
use crate::call::{ActionKey, Via};
use crate::tier2::{RawActionResult, Tier2Error};

/// An action result as Tier 2 has it, or had it.
#[derive(Debug)]
pub(super) struct ActionCopy {
    pub(super) result: RawActionResult,
    /// What it refers to, or why it is of no use.
    pub(super) references: Result<References, Flaw>,
    /// When the question was sent that Tier 2 answered with it, or the end of the update that it acknowledged. What Tier 2
    /// was told later is not in it.
    pub(super) dated: Instant,
}

impl ActionCopy {
    fn bytes(&self) -> usize {
        let references = self.references.as_ref().map_or(0, References::bytes);
        self.result.0.len() + references + size_of::<ActionCopy>()
    }
}

/// What Tier 2 said to one question.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// Nothing was written through this node since it was asked.
    Current(Result<Arc<ActionCopy>, Tier2Error>),
    /// Something was: it may be older than what a client has been told.
    Outdated,
}

/// Where an answer arrives; `None` until it does.
pub(super) type Awaited = watch::Receiver<Option<Answer>>;

/// The copies, and the questions that Tier 2 has not answered yet.
pub(super) struct ActionTable {
    lease: Duration,
    copies: Recent<ActionKey, Arc<ActionCopy>>,
    asked: HashMap<ActionKey, Asked>,
    /// Of generations and of questions; each number is given once.
    last_number: u64,
}

/// What is open for one key. Gone with the last question, since then nobody compares generations.
struct Asked {
    /// Another whenever an update is sent or ends.
    generation: u64,
    questions: usize,
    /// The newest question, while it may be joined.
    newest: Option<Newest>,
}

struct Newest {
    number: u64,
    /// The nodes that it came through. One that comes another way does not join it: of two nodes that are upstream of each
    /// other, each would wait for the other.
    via: Via,
    sent: Instant,
    awaited: Awaited,
}

/// A question on its way: what it is compared with when its answer is here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    number: u64,
    generation: u64,
    pub(super) sent: Instant,
}

/// How a client comes to an answer.
pub(super) enum Way {
    /// It waits for a question that is already on its way.
    Join(Awaited),
    /// It asks.
    Ask(Question, watch::Sender<Option<Answer>>),
}

impl ActionTable {
    /// No copies yet. One counts as current for `lease` after its date; all take `bytes_max`.
    pub(super) fn new(lease: Duration, bytes_max: usize) -> ActionTable {
        ActionTable {
            lease,
            copies: Recent::new(bytes_max),
            asked: HashMap::new(),
            last_number: 0,
        }
    }

    /// Our copy, if it is within its lease at `now`. Asked about a moment that is past, it may be a younger one.
    pub(super) fn current(&mut self, key: &ActionKey, now: Instant) -> Option<Arc<ActionCopy>> {
        let copy = self.copies.get(key)?;
        (now.duration_since(copy.dated) < self.lease).then(|| copy.clone())
    }

    /// Joins a question that was sent within the lease, or begins one. Its end is told by [`ActionTable::answered`] or
    /// [`ActionTable::given_up`].
    pub(super) fn ask(&mut self, key: &ActionKey, via: &Via, now: Instant) -> Way {
        self.last_number += 1;
        let number = self.last_number;
        let asked = self.asked.entry(key.clone()).or_insert(Asked {
            generation: number,
            questions: 0,
            newest: None,
        });
        // An answer is as old as its question. With no lease at all none may be shared.
        if let Some(newest) = &asked.newest
            && now.duration_since(newest.sent) < self.lease
            && newest.via == *via
        {
            return Way::Join(newest.awaited.clone());
        }
        let (told, awaited) = watch::channel(None);
        asked.questions += 1;
        asked.newest = Some(Newest {
            number,
            via: via.clone(),
            sent: now,
            awaited,
        });
        let question = Question {
            number,
            generation: asked.generation,
            sent: now,
        };
        Way::Ask(question, told)
    }

    /// Takes Tier 2's answer. It is kept, and may be shared, only if no update was sent or ended meanwhile.
    pub(super) fn answered(
        &mut self,
        key: &ActionKey,
        question: Question,
        answer: Result<Arc<ActionCopy>, Tier2Error>,
    ) -> Answer {
        if !self.given_up(key, question) {
            return Answer::Outdated;
        }
        let is_newer = self
            .copies
            .peek(key)
            .is_none_or(|copy| copy.dated <= question.sent);
        match &answer {
            Ok(copy) if is_newer => self.keep(key, copy.clone()),
            Err(Tier2Error::NotFound) if is_newer => drop(self.copies.remove(key)),
            Ok(_) | Err(_) => {}
        }
        Answer::Current(answer)
    }

    /// A question ended without an answer, or with one. Returns whether its generation is still that of its key.
    pub(super) fn given_up(&mut self, key: &ActionKey, question: Question) -> bool {
        let Some(asked) = self.asked.get_mut(key) else {
            return false;
        };
        let is_current = asked.generation == question.generation;
        if asked
            .newest
            .as_ref()
            .is_some_and(|newest| newest.number == question.number)
        {
            asked.newest = None;
        }
        asked.questions -= 1;
        if asked.questions == 0 {
            self.asked.remove(key);
        }
        is_current
    }

    /// An update of the key is sent, or ended otherwise than with OK: our copy is dropped, and no question that is on its way
    /// may answer anybody who comes from now on.
    pub(super) fn raise(&mut self, key: &ActionKey) {
        self.copies.remove(key);
        self.last_number += 1;
        if let Some(asked) = self.asked.get_mut(key) {
            asked.generation = self.last_number;
            asked.newest = None;
        }
    }

    /// An update of the key ended with OK: what was written is our copy.
    pub(super) fn acknowledged(&mut self, key: &ActionKey, copy: Arc<ActionCopy>) {
        self.raise(key);
        self.keep(key, copy);
    }

    /// A copy proved to be of no use: whoever comes next asks Tier 2. A younger one stays.
    pub(super) fn forget(&mut self, key: &ActionKey, copy: &Arc<ActionCopy>) {
        if self.copies.peek(key).is_some_and(|kept| Arc::ptr_eq(kept, copy)) {
            self.copies.remove(key);
        }
    }

    /// Copies, and the bytes that they take.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.copies.len(), self.copies.bytes())
    }

    fn keep(&mut self, key: &ActionKey, copy: Arc<ActionCopy>) {
        let bytes = copy.bytes();
        self.copies.insert(key.clone(), copy, bytes);
    }
}

#[cfg(test)]
mod tests;
