//! How long outages last for a client, in real time: printed, never judged.

use std::time::{Duration, Instant};

use mock_upstream::Digest;
use tokio::time::MissedTickBehavior;
use tonic::{Code, Status};

use super::Binary;
use super::start::mock;
use crate::client::Client;

/// The client's pace. Finer than what is measured.
const POLL: Duration = Duration::from_millis(2);

/// Outages that are made when nobody says how many.
const ROUNDS: u64 = 3;

/// A client that asks about a blob that nobody has, another one each time.
struct Poller {
    client: Client,
    asked: u64,
    pace: tokio::time::Interval,
}

impl Poller {
    fn new(client: Client) -> Poller {
        let mut pace = tokio::time::interval(POLL);
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Poller {
            client,
            asked: 0,
            pace,
        }
    }

    /// The answer, and the time that it took.
    async fn poll(&mut self) -> (Result<(), Status>, Duration) {
        self.pace.tick().await;
        self.asked += 1;
        let nobodys = Digest::of(&self.asked.to_le_bytes());
        let asked = Instant::now();
        let answer = self.client.missing(&[nobodys]).await;
        let took = asked.elapsed();
        // Whoever answers tells the truth.
        let answer = answer.map(|missing| assert_eq!(missing, [nobodys]));
        (answer, took)
    }
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{what}: median {median:.1?}, worst {worst:.1?} of {}",
        times.len()
    );
}

#[tokio::test]
async fn after_every_outage_a_client_that_keeps_asking_is_served_again() {
    // P6
    let rounds = std::env::var("RECOVERY_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mock = mock().await;
    let mut node = Binary::over(&mock.url()).start().await;
    let mut poller = Poller::new(node.client().await);
    let (mut failing, mut returning) = (Vec::new(), Vec::new());
    let measuring = async {
        for round in 0..rounds {
            poller.poll().await.0.unwrap();
            mock.suspend().await.unwrap();
            let (noticed, _) = poller.poll().await;
            assert_eq!(noticed.unwrap_err().code(), Code::Unavailable);
            // Of different lengths, so that returns fall into different phases of the node's probes.
            for _ in 0..20 + round * 7 % 130 {
                let (answer, took) = poller.poll().await;
                assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
                failing.push(took);
            }
            let mark = mock.mark();
            mock.resume().await.unwrap();
            let returned = Instant::now();
            while poller.poll().await.0.is_err() {}
            returning.push(returned.elapsed());
            assert!(!mock.calls().since(mark).is_empty(), "Tier 2 itself was asked");
        }
    };
    // Nobody else reads what the node says, and it is not to wait for that.
    let reading = async { while node.next_line().await.is_some() {} };
    tokio::select! {
        () = measuring => {}
        () = reading => panic!("the node ended"),
    }
    show("a call while tier 2 is known to be down", failing);
    show("from tier 2's return to the first success", returning);
}
