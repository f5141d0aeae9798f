//! Tier 1 against a map: any steps, in any order, with rot and crashes in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NAMES: u8 = 6;

#[derive(Debug, Clone)]
enum Op {
    /// Stage, append in pieces, publish.
    Put { name: u8, piece: usize },
    /// Stage and append a part, then go away.
    GiveUp { name: u8, part: usize },
    /// Stage and append a part, and stay over what follows.
    Linger { name: u8, part: usize },
    /// Look up and read in pieces.
    Get { name: u8, piece: usize },
    /// Look up, open and keep.
    Pin { name: u8 },
    /// Let go of all that was kept.
    LetGo,
    /// Look up and discard.
    Discard { name: u8 },
    /// Turn a bit over, in the blob or behind it.
    Flip { name: u8, at: usize },
    /// Cut the file's end off.
    Truncate { name: u8, by: usize },
    /// Take the file away.
    Lose { name: u8 },
    /// Kill -9 and start.
    Kill,
    /// Power cut and start.
    PowerCut { seed: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..NAMES;
    let len = 500..90_000_usize;
    prop_oneof![
        6 => (name.clone(), len.clone()).prop_map(|(name, piece)| Op::Put { name, piece }),
        1 => (name.clone(), len.clone()).prop_map(|(name, part)| Op::GiveUp { name, part }),
        1 => (name.clone(), len.clone()).prop_map(|(name, part)| Op::Linger { name, part }),
        6 => (name.clone(), len.clone()).prop_map(|(name, piece)| Op::Get { name, piece }),
        2 => name.clone().prop_map(|name| Op::Pin { name }),
        1 => Just(Op::LetGo),
        1 => name.clone().prop_map(|name| Op::Discard { name }),
        1 => (name.clone(), any::<usize>()).prop_map(|(name, at)| Op::Flip { name, at }),
        1 => (name.clone(), len).prop_map(|(name, by)| Op::Truncate { name, by }),
        1 => name.prop_map(|name| Op::Lose { name }),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(|seed| Op::PowerCut { seed }),
    ]
}

/// What is known of a blob that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It must be found, unless the janitor took it, and read.
    Stored,
    /// Bytes of it were harmed: it may be found, and must not be read.
    Harmed,
    /// A power cut came over it, or its file was harmed but not its bytes, which is noticed unless the file was open: it may
    /// be found, and may be read.
    Doubtful,
}

/// The blob of a name: some shorter than a block, some longer; half of them in another scope.
fn named(name: u8) -> (BlobKey, Vec<u8>) {
    let bytes = blob(name, 1 + 17_000 * usize::from(name));
    let scope = if name.is_multiple_of(2) { "even" } else { "odd" };
    (key_in(scope, &bytes), bytes)
}

/// What is known of a blob whose file is harmed at an offset.
fn harmed_from(name: u8, at: usize) -> Known {
    if at < named(name).1.len() {
        Known::Harmed
    } else {
        Known::Doubtful
    }
}

struct Model {
    node: Node,
    /// Whether an earlier start of the node has evicted anything.
    evicted: bool,
    max_bytes: u64,
    known: BTreeMap<u8, Known>,
    kept: Vec<(u8, Pinned)>,
    lingering: Vec<(u8, Staged)>,
}

impl Model {
    async fn start(max_bytes: u64) -> Model {
        Model {
            node: Node::loaded(&MemoryDisk::new(), max_bytes).await,
            evicted: false,
            max_bytes,
            known: BTreeMap::new(),
            kept: Vec::new(),
            lingering: Vec::new(),
        }
    }

    /// Looks a blob up, and holds the answer against what is known of it.
    fn find(&mut self, name: u8) -> Option<(Pinned, Known)> {
        let found = self.node.tier1.lookup(&named(name).0);
        let Some(found) = found else {
            if self.known.remove(&name) == Some(Known::Stored) {
                let evicted = self.evicted || self.node.metrics.evicted.get() > 0;
                assert!(evicted, "blob {name} is lost");
                let kept = self.kept.iter().any(|(kept, _)| *kept == name);
                assert!(!kept, "blob {name} was evicted though it was pinned");
            }
            return None;
        };
        let known = self.known.get(&name).copied();
        Some((found, known.expect("nobody put it since it was last gone")))
    }

    /// Harms a blob's file, if there is a whole one.
    fn harm(&mut self, name: u8, harm: impl FnOnce(&MemoryDisk, &Path) -> Known) {
        if let Some((_, Known::Stored)) = self.find(name) {
            let known = harm(&self.node.disk, &self.node.path(&named(name).0));
            self.known.insert(name, known);
            self.kept.retain(|(kept, _)| *kept != name);
        }
    }

    fn discard(&mut self, name: u8, found: &Pinned) {
        self.node.tier1.discard(found);
        assert!(self.node.tier1.lookup(&named(name).0).is_none());
        self.known.remove(&name);
        self.kept.retain(|(kept, _)| *kept != name);
    }

    async fn start_again(&mut self, disk: MemoryDisk) {
        self.kept.clear();
        self.lingering.clear();
        self.evicted |= self.node.metrics.evicted.get() > 0;
        self.node = Node::loaded(&disk, self.max_bytes).await;
        // What the marks have no room for leaves at once.
        self.node.tier1.settled().await;
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Put { name, piece } => self.put(name, piece).await,
            Op::GiveUp { name, part } => drop(self.stage_part(name, part).await),
            Op::Linger { name, part } => {
                let staged = self.stage_part(name, part).await;
                self.lingering.extend(staged.map(|staged| (name, staged)));
            }
            Op::Get { name, piece } => {
                let Some((found, known)) = self.find(name) else {
                    return;
                };
                match (read_all(&found, piece).await, known) {
                    (Ok(read), Known::Stored | Known::Doubtful) => assert_eq!(read, named(name).1),
                    (Ok(_), Known::Harmed) => panic!("blob {name} was harmed, and was read"),
                    (Err(error), Known::Stored) => panic!("blob {name} was whole: {error}"),
                    (Err(error), Known::Harmed | Known::Doubtful) => {
                        let told = matches!(error, Tier1Error::Damaged | Tier1Error::Gone);
                        assert!(told, "{error}");
                        self.discard(name, &found);
                    }
                }
            }
            Op::Pin { name } => {
                if let Some((found, Known::Stored)) = self.find(name) {
                    assert_eq!(read_all(&found, 90_000).await.unwrap(), named(name).1);
                    self.kept.push((name, found));
                }
            }
            Op::LetGo => {
                self.kept.clear();
                self.lingering.clear();
            }
            Op::Discard { name } => {
                if let Some((found, _)) = self.find(name) {
                    self.discard(name, &found);
                }
            }
            Op::Flip { name, at } => self.harm(name, |disk, path| {
                let at = at % disk.len_bytes(path);
                disk.flip_bit(path, at);
                harmed_from(name, at)
            }),
            Op::Truncate { name, by } => self.harm(name, |disk, path| {
                let len = disk.len_bytes(path).saturating_sub(by);
                disk.truncate(path, len);
                harmed_from(name, len)
            }),
            Op::Lose { name } => self.harm(name, |disk, path| {
                disk.lose(path);
                Known::Doubtful
            }),
            Op::Kill => {
                let disk = self.node.disk.survivor();
                self.start_again(disk).await;
            }
            Op::PowerCut { seed } => {
                let disk = self.node.disk.after_power_cut(seed);
                self.start_again(disk).await;
                for known in self.known.values_mut() {
                    if *known == Known::Stored {
                        *known = Known::Doubtful;
                    }
                }
            }
        }
    }

    async fn put(&mut self, name: u8, piece: usize) {
        let (key, bytes) = named(name);
        let put = async {
            let mut staged = self.node.tier1.stage(&key).await?;
            for piece in bytes.chunks(piece) {
                staged.append(Bytes::copy_from_slice(piece)).await?;
            }
            staged.publish(proof(&bytes)).await
        };
        match put.await {
            Ok(pinned) => {
                assert_eq!(read_all(&pinned, 65_537).await.unwrap(), bytes);
                self.known.insert(name, Known::Stored);
                // Pins of the copy that was replaced hold nothing any longer.
                self.kept.retain(|(kept, _)| *kept != name);
            }
            Err(error) => assert!(matches!(error, Tier1Error::Full), "{error}"),
        }
    }

    async fn stage_part(&self, name: u8, part: usize) -> Option<Staged> {
        let (key, bytes) = named(name);
        let mut staged = self.node.tier1.stage(&key).await.ok()?;
        let part = &bytes[..part.min(bytes.len())];
        staged.append(Bytes::copy_from_slice(part)).await.ok()?;
        Some(staged)
    }

    /// What holds after every step.
    async fn check(&self) {
        self.node.tier1.settled().await;
        let account = self.node.account();
        assert!(account.used_bytes() <= self.max_bytes, "{account:?}");
        for (name, kept) in &self.kept {
            assert_eq!(read_all(kept, 90_000).await.unwrap(), named(*name).1);
        }
        for (name, staged) in &self.lingering {
            let read = staged.reader().read(0, usize::MAX).await.unwrap();
            assert_eq!(read, named(*name).1[..read.len()]);
        }
        // What was cut or lost behind its back, the node learns when it reads.
        if self.known.values().all(|known| *known == Known::Stored) {
            self.node.check_account().await;
        }
    }
}

fn run(max_bytes: u64, ops: Vec<Op>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut model = Model::start(max_bytes).await;
        for op in ops {
            model.apply(op).await;
            model.check().await;
        }
    });
}

proptest! {
    /// Never a wrong byte, never half a blob, and the account is the sum of what is there.
    #[test]
    fn tier1_is_a_map_that_may_forget(ops in prop::collection::vec(op(), 1..40)) {
        run(1 << 30, ops);
    }

    #[test]
    fn tier1_is_a_map_that_may_forget_while_it_is_full(ops in prop::collection::vec(op(), 1..40)) {
        run(250_000, ops);
    }
}
