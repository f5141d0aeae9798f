//! Clients of one blob in any interleaving: whoever sent right bytes to their end is told OK once Tier 2 has them, whoever
//! sent wrong ones is told so, and nothing is left over.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Finish,
    HangUp,
    Spoil,
}

#[derive(Debug, Clone)]
struct Client {
    /// Bytes of each chunk, in turn, until the blob is through.
    cut: Vec<usize>,
    ending: Ending,
    /// Part of the blob, in percent, after which a client hangs up.
    hang_up_percent: usize,
    /// Pauses between chunks in ms, in turn: some are long enough to count as a stall.
    pauses: Vec<u64>,
}

fn client() -> impl Strategy<Value = Client> {
    let ending = prop_oneof![3 => Just(Ending::Finish), 1 => Just(Ending::HangUp), 1 => Just(Ending::Spoil)];
    let pause = prop_oneof![4 => Just(0_u64), 1 => 1..50_u64, 1 => Just(6_000_u64)];
    (
        prop::collection::vec(1_000..150_000_usize, 1..6),
        ending,
        0..100_usize,
        prop::collection::vec(pause, 1..4),
    )
        .prop_map(|(cut, ending, hang_up_percent, pauses)| Client {
            cut,
            ending,
            hang_up_percent,
            pauses,
        })
}

impl Client {
    async fn run(&self, node: &Node, blob: &Blob, name: String) -> Option<Result<(), CallError>> {
        let sent = match self.ending {
            Ending::Spoil => blob.spoilt().bytes,
            Ending::Finish | Ending::HangUp => blob.bytes.clone(),
        };
        let end = match self.ending {
            Ending::HangUp => sent.len() * self.hang_up_percent / 100,
            Ending::Finish | Ending::Spoil => sent.len(),
        };
        let mut upload = node.begin(blob, &name).await;
        let (mut at, mut turn) = (0, 0);
        while at < end {
            let to = end.min(at + self.cut[turn % self.cut.len()]);
            tokio::time::sleep(Duration::from_millis(self.pauses[turn % self.pauses.len()])).await;
            match upload.push(sent.slice(at..to)).await {
                Ok(Pushed::Taken) => {}
                Ok(Pushed::Acknowledged) => return Some(Ok(())),
                Err(error) => return Some(Err(error)),
            }
            (at, turn) = (to, turn + 1);
        }
        match self.ending {
            Ending::HangUp => None,
            Ending::Finish | Ending::Spoil => Some(upload.finish().await),
        }
    }
}

async fn check(len: usize, clients: &[Client], files: bool) {
    let node = if files { Node::new() } else { Node::without_files() };
    let blob = Blob::of_len(len);
    let runs = clients
        .iter()
        .enumerate()
        .map(|(number, client)| client.run(&node, &blob, format!("name {number}")));
    let outcomes = futures::future::join_all(runs).await;
    for (client, outcome) in clients.iter().zip(&outcomes) {
        match (client.ending, outcome) {
            // One that spoils its blob may be acknowledged with another's before its last byte gives it away.
            (_, Some(Ok(()))) => assert!(node.in_tier2(&blob)),
            (Ending::HangUp, None) | (Ending::Spoil, Some(Err(CallError::BadUpload(_)))) => {}
            // Without a file there is nothing to begin again with: a client that stalled, was passed, and needed again
            // after the other failed, has to send anew.
            (_, Some(Err(CallError::Tier2(Tier2Error::Aborted)))) if !files => {}
            (ending, outcome) => panic!("{ending:?} ended with {outcome:?}"),
        }
    }
    node.settles().await;
    let found = node.tier2.blob(&blob.key());
    assert!(
        found.is_none_or(|bytes| bytes == blob.bytes),
        "wrong bytes reached tier 2"
    );
    assert!(node.tier1.lookup(&blob.key()).is_none() || node.in_tier1(&blob).await);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_client_gets_its_own_due(
        len in 1..1_500_000_usize,
        clients in prop::collection::vec(client(), 1..5),
        files in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(len, &clients, files));
    }
}
