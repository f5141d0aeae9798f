use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::advance;

use super::*;
use crate::call::BlobKey;
use crate::digest::Function;
use crate::metrics::Metrics;
use crate::task::TaskGroup;
use crate::tiered::leases::Signs;

/// A Tier 2 whose every answer is given by the test, in the order that it likes.
struct Scripted(mpsc::Sender<Question>);

struct Question {
    method: &'static str,
    digests: Vec<Digest>,
    answer: tokio::sync::oneshot::Sender<Result<Vec<Digest>, Tier2Error>>,
}

impl Scripted {
    async fn ask(&self, method: &'static str, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        let (answer, told) = tokio::sync::oneshot::channel();
        let question = Question {
            method,
            digests: digests.to_vec(),
            answer,
        };
        assert!(self.0.send(question).await.is_ok(), "the test takes questions");
        told.await.expect("the test answers")
    }
}

fn ack() -> Ack {
    Ack {
        sent_at: Instant::now(),
    }
}

#[async_trait]
impl Tier2 for Scripted {
    async fn read(&self, _: &Call, digest: &Digest, _: ByteRange) -> Result<BlobStream, Tier2Error> {
        let missing = self.ask("read", std::slice::from_ref(digest)).await?;
        if missing.is_empty() {
            Ok(futures::stream::iter([Ok(Bytes::from_static(b"hello"))]).boxed())
        } else {
            Err(Tier2Error::NotFound)
        }
    }

    /// The last piece is sent at once; the answer takes its time.
    async fn write(&self, _: &Call, digest: &Digest, _: PieceStream) -> Result<Ack, Tier2Error> {
        let ack = ack();
        self.ask("write", std::slice::from_ref(digest)).await?;
        Ok(ack)
    }

    async fn find_missing(&self, _: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        self.ask("find_missing", digests).await
    }

    async fn read_batch(&self, _: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        let missing = self.ask("read_batch", digests).await;
        let answer = |digest| match &missing {
            Ok(missing) if missing.contains(digest) => Err(Tier2Error::NotFound),
            Ok(_) => Ok(Bytes::from_static(b"hello")),
            Err(error) => Err(error.clone()),
        };
        digests.iter().map(answer).collect()
    }

    async fn write_batch(&self, _: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>> {
        let digests: Vec<Digest> = blobs.iter().map(|(proof, _)| *proof.digest()).collect();
        let ack = ack();
        let answer = self.ask("write_batch", &digests).await;
        digests.iter().map(|_| answer.clone().map(|_| ack)).collect()
    }

    async fn action(&self, _: &Call, _: &ActionDigest) -> Result<RawActionResult, Tier2Error> {
        Err(Tier2Error::NotFound)
    }

    async fn put_action(&self, _: &Call, _: &ActionDigest, _: RawActionResult) -> Result<Ack, Tier2Error> {
        Ok(ack())
    }

    async fn probe(&self, _: Service, _: Instant) -> Result<(), Tier2Error> {
        Ok(())
    }

    fn offers(&self, _: &InstanceName) -> Arc<Offers> {
        Arc::default()
    }
}

struct Rig {
    witness: Arc<Witness>,
    leases: Arc<Leases>,
    questions: mpsc::Receiver<Question>,
    tasks: TaskGroup,
}

fn rig() -> Rig {
    let (sender, questions) = mpsc::channel(16);
    let metrics = Metrics::new().presence;
    let leases = Arc::new(Leases::new(Duration::from_secs(300), Signs::none(), metrics));
    Rig {
        witness: Arc::new(Witness::new(Arc::new(Scripted(sender)), leases.clone())),
        leases,
        questions,
        tasks: TaskGroup::new(),
    }
}

fn call() -> Call {
    Call::of_node(InstanceName::parse("main").unwrap())
}

fn digest(text: &str) -> Digest {
    Digest::of(Function::Sha256, text.as_bytes())
}

fn key(text: &str) -> BlobKey {
    call().blob(&digest(text))
}

/// A call on its way.
type Asking<T> = JoinHandle<Result<T, Tier2Error>>;

impl Rig {
    /// Starts a question and waits until Tier 2 has it.
    async fn find(&mut self, text: &'static str) -> (Asking<Vec<Digest>>, Question) {
        let witness = self.witness.clone();
        let asking = self
            .tasks
            .spawn(async move { witness.find_missing(&call(), &[digest(text)]).await });
        (asking, self.question().await)
    }

    async fn write(&mut self, text: &'static str) -> (Asking<Ack>, Question) {
        let witness = self.witness.clone();
        let body: PieceStream = futures::stream::empty().boxed();
        let asking = self
            .tasks
            .spawn(async move { witness.write(&call(), &digest(text), body).await });
        (asking, self.question().await)
    }

    /// The next question that Tier 2 has. A millisecond passes, so that dates differ.
    async fn question(&mut self) -> Question {
        let question = self.questions.recv().await.unwrap();
        advance(Duration::from_millis(1)).await;
        question
    }

    fn is_leased(&self, text: &str) -> bool {
        self.leases.evidence(&key(text)).is_some()
    }

    fn asks_nothing_more(&mut self) -> bool {
        self.questions.recv().now_or_never().is_none()
    }
}

async fn answer<T>(asking: Asking<T>) -> Result<T, Tier2Error> {
    let answer = asking.await.unwrap();
    advance(Duration::from_millis(1)).await;
    answer
}

fn say(question: Question, missing: &[&str]) {
    let missing = missing.iter().map(|text| digest(text)).collect();
    question.answer.send(Ok(missing)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn r3_missing_that_was_overtaken_by_an_acknowledgement_is_asked_again_once() {
    let mut rig = rig();
    let (find, asked) = rig.find("a").await;
    let (write, written) = rig.write("a").await;
    say(written, &[]);
    assert!(answer(write).await.is_ok());
    say(asked, &["a"]);
    let again = rig.question().await;
    say(again, &[]);
    assert_eq!(answer(find).await.unwrap(), [], "it was stored meanwhile");
    assert!(rig.is_leased("a"));
}

#[tokio::test(start_paused = true)]
async fn r3_missing_that_arrives_before_the_acknowledgement_is_the_answer() {
    let mut rig = rig();
    let (find, asked) = rig.find("a").await;
    let (write, written) = rig.write("a").await;
    say(asked, &["a"]);
    assert_eq!(answer(find).await.unwrap(), [digest("a")]);
    say(written, &[]);
    assert!(answer(write).await.is_ok());
    assert!(!rig.is_leased("a"), "nobody knows which was first");
    assert!(rig.asks_nothing_more());
}

#[tokio::test(start_paused = true)]
async fn r3_missing_that_is_said_again_after_the_acknowledgement_is_believed() {
    let mut rig = rig();
    let (find, asked) = rig.find("a").await;
    let (write, written) = rig.write("a").await;
    say(written, &[]);
    assert!(answer(write).await.is_ok());
    say(asked, &["a"]);
    let again = rig.question().await;
    say(again, &["a"]);
    assert_eq!(answer(find).await.unwrap(), [digest("a")]);
    assert!(!rig.is_leased("a"));
    assert!(rig.asks_nothing_more());
}

#[tokio::test(start_paused = true)]
async fn r3_present_that_was_overtaken_by_an_absence_is_asked_again_and_gives_no_lease_by_itself() {
    for is_there_after_all in [true, false] {
        let mut rig = rig();
        let (early, asked_early) = rig.find("a").await;
        let (late, asked_late) = rig.find("a").await;
        say(asked_late, &["a"]);
        assert_eq!(answer(late).await.unwrap(), [digest("a")]);
        say(asked_early, &[]);
        let again = rig.question().await;
        assert!(!rig.is_leased("a"));
        say(again, if is_there_after_all { &[] } else { &["a"] });
        let missing = answer(early).await.unwrap();
        assert_eq!(missing.is_empty(), is_there_after_all);
        assert_eq!(rig.is_leased("a"), is_there_after_all);
    }
}

#[tokio::test(start_paused = true)]
async fn r3_present_that_arrives_first_is_ended_by_the_absence() {
    let mut rig = rig();
    let (early, asked_early) = rig.find("a").await;
    let (late, asked_late) = rig.find("a").await;
    say(asked_early, &[]);
    assert_eq!(answer(early).await.unwrap(), []);
    assert!(rig.is_leased("a"));
    say(asked_late, &["a"]);
    assert_eq!(answer(late).await.unwrap(), [digest("a")]);
    assert!(!rig.is_leased("a"));
}

#[tokio::test(start_paused = true)]
async fn r3_a_presence_that_is_contradicted_twice_is_none() {
    let mut rig = rig();
    let (first, asked_first) = rig.find("a").await;
    let (other, asked_other) = rig.find("a").await;
    say(asked_other, &["a"]);
    answer(other).await.unwrap();
    say(asked_first, &[]);
    let again = rig.question().await;
    let (other, asked_other) = rig.find("a").await;
    say(asked_other, &["a"]);
    answer(other).await.unwrap();
    say(again, &[]);
    assert_eq!(answer(first).await.unwrap(), [digest("a")]);
    assert!(!rig.is_leased("a") && rig.asks_nothing_more());
}

#[tokio::test(start_paused = true)]
async fn r3_a_read_that_finds_nothing_is_repeated_once_if_an_acknowledgement_overtook_it() {
    let mut rig = rig();
    for batch in [false, true] {
        let witness = rig.witness.clone();
        let read = rig.tasks.spawn(async move {
            let digest = digest("a");
            if batch {
                let answers = witness.read_batch(&call(), &[digest]).await;
                answers.into_iter().next().unwrap().map(drop)
            } else {
                witness
                    .read(&call(), &digest, ByteRange::whole(&digest))
                    .await
                    .map(drop)
            }
        });
        let question = rig.question().await;
        let (write, written) = rig.write("a").await;
        say(written, &[]);
        answer(write).await.unwrap();
        say(question, &["a"]);
        let again = rig.question().await;
        assert_eq!(again.digests, [digest("a")]);
        say(again, &[]);
        assert!(answer(read).await.is_ok(), "batch: {batch}");
        rig.leases.unknown(&key("a"));
    }
}

#[tokio::test(start_paused = true)]
async fn row_6_a_not_found_of_any_call_ends_the_lease_at_once() {
    for method in ["read", "read_batch", "find_missing"] {
        let mut rig = rig();
        assert_eq!(rig.leases.present(&key("a"), Instant::now()), Heard::Stands);
        advance(Duration::from_millis(1)).await;
        let witness = rig.witness.clone();
        let ask = async {
            let digest = digest("a");
            match method {
                "read" => drop(witness.read(&call(), &digest, ByteRange::whole(&digest)).await),
                "read_batch" => drop(witness.read_batch(&call(), &[digest]).await),
                _ => drop(witness.find_missing(&call(), &[digest]).await),
            }
        };
        let say_so = async {
            let question = rig.questions.recv().await.unwrap();
            assert_eq!(question.method, method);
            say(question, &["a"]);
        };
        tokio::join!(ask, say_so);
        assert!(rig.leases.evidence(&key("a")).is_none(), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn r3_a_write_gives_a_lease_dated_when_its_last_piece_was_sent() {
    let mut rig = rig();
    advance(Duration::from_millis(1)).await;
    let sent_at = Instant::now();
    let (write, written) = rig.write("a").await;
    advance(Duration::from_secs(10)).await;
    say(written, &[]);
    answer(write).await.unwrap();
    assert_eq!(rig.leases.evidence(&key("a")), Some(sent_at));
}

#[tokio::test(start_paused = true)]
async fn r4_a_write_of_unknown_outcome_ends_its_own_lease_and_one_that_was_given_up_does_not() {
    for (error, ends) in [(Tier2Error::Stalled, true), (Tier2Error::Aborted, false)] {
        let mut rig = rig();
        for name in ["a", "b"] {
            assert_eq!(rig.leases.present(&key(name), Instant::now()), Heard::Stands);
        }
        let (write, written) = rig.write("a").await;
        written.answer.send(Err(error)).unwrap();
        assert!(answer(write).await.is_err());
        assert_eq!((rig.is_leased("a"), rig.is_leased("b")), (!ends, true));
    }
}
