//! Opening the directory and finding again what it holds.

use std::io;
use std::sync::Arc;

use super::Tier1Error;
use super::disk::{DiskFile, Listed};
use super::faults::Op;
use super::format;
use super::index::{self, TOLD_AT_ONCE};
use super::layout::{self, FORMAT, Home, Place};
use super::leaving::Leaving;
use super::store::{Lock, Phase, Store};
use crate::digest::Function;

/// Opens the directory, then scans it, a directory of blobs at a time. A broken part of it is skipped.
pub(super) async fn run(store: Arc<Store>) {
    let stop = store.tasks.stopping();
    let opened = match store.blocking(|store| Ok(open(store))).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return turn_off(&store, &error),
        Err(_) => return,
    };
    store.set_phase(Phase::Loading(opened.lock));
    let mut scan = Scan {
        store: Arc::clone(&store),
        clock_ms: opened.clock_ms,
        found: Found::default(),
    };
    let mut steps = vec![Step::Scopes, Step::Staging];
    while let Some(step) = steps.pop() {
        if stop.is_cancelled() {
            return;
        }
        let done = store.blocking(move |_| {
            let next = scan.take(step);
            Ok((scan, next))
        });
        let Ok((back, next)) = done.await else { return };
        scan = back;
        steps.extend(next);
    }
    tell_policy(&store).await;
    let Found {
        blobs,
        dropped,
        foreign,
    } = scan.found;
    tracing::info!(blobs, dropped, foreign, "tier 1 is loaded");
    store.end_loading();
}

fn turn_off(store: &Store, error: &io::Error) {
    let dir = store.layout.dir().display();
    store.faults.count(Op::Open);
    if error.kind() == io::ErrorKind::WouldBlock {
        tracing::error!(%dir, "tier 1 is off: another node uses its directory");
    } else {
        tracing::error!(%dir, %error, "tier 1 is off: its directory cannot be used");
    }
    store.set_phase(Phase::Off);
}

struct Opened {
    lock: Lock,
    /// The file system's clock, by which the times of files are to be read.
    clock_ms: Option<i64>,
}

fn open(store: &Store) -> io::Result<Opened> {
    let (disk, layout) = (&store.disk, &store.layout);
    disk.create_dirs(layout.dir())?;
    let lock = Lock(disk.lock(&layout.lock())?);
    check_format(store)?;
    Ok(Opened {
        lock,
        clock_ms: prepare(store)
            .inspect_err(|error| store.faults.note(Op::Open, &layout.dir().display(), error))
            .ok(),
    })
}

/// Makes what is written to, and asks the file system for the time. That it fails on a disk that is full or read-only does
/// not keep blobs from being read.
fn prepare(store: &Store) -> io::Result<i64> {
    store.disk.create_dirs(&store.layout.staging())?;
    store.disk.create_dirs(&store.layout.cas())?;
    let path = store.staging_path();
    let facts = store.disk.create(&path)?.facts();
    store.disk.remove(&path)?;
    Ok(facts?.used_at_ms)
}

/// Refuses a directory that another version wrote, and marks one that none did.
fn check_format(store: &Store) -> io::Result<()> {
    let path = store.layout.format();
    match store.disk.open(&path) {
        Ok(file) => {
            let found = file.read_at(0, FORMAT.len() + 1)?;
            // A mark that a power cut tore is no other version's.
            let torn = FORMAT.starts_with(&found) || found.iter().all(|byte| *byte == 0);
            if found == FORMAT {
                return Ok(());
            } else if !torn {
                return Err(io::Error::other("it was written by another version of gorego"));
            }
            store.disk.remove(&path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The one file that is synced: it says how to read the others.
    let mark = |file: Arc<dyn DiskFile>| file.write_at(FORMAT, 0).and_then(|()| file.sync());
    if let Err(error) = store.disk.create(&path).and_then(mark) {
        store.faults.note(Op::Open, &path.display(), &error);
    }
    Ok(())
}

/// One directory to look through.
enum Step {
    Staging,
    Scopes,
    Functions(Arc<Home>),
    Prefixes(Arc<Home>, Function),
    Blobs(Arc<Home>, Function, String),
}

#[derive(Debug, Default)]
struct Found {
    blobs: u64,
    dropped: u64,
    foreign: u64,
}

struct Scan {
    store: Arc<Store>,
    clock_ms: Option<i64>,
    found: Found,
}

impl Scan {
    /// Looks through one directory; returns those within it. Blocks.
    fn take(&mut self, step: Step) -> Vec<Step> {
        let store = Arc::clone(&self.store);
        let mut dir = store.layout.cas();
        match step {
            Step::Staging => {
                for listed in self.list(&store.layout.staging()) {
                    self.sweep(&listed);
                }
                Vec::new()
            }
            Step::Scopes => self.dirs(&dir, |name| {
                let home = Home::parse(name)?;
                Some(Step::Functions(Arc::new(home)))
            }),
            Step::Functions(home) => {
                dir.push(home.segment());
                self.dirs(&dir, |name| {
                    let function = layout::parse_function(name)?;
                    Some(Step::Prefixes(Arc::clone(&home), function))
                })
            }
            Step::Prefixes(home, function) => {
                dir.extend([home.segment(), function.name()]);
                self.dirs(&dir, |name| {
                    let is_prefix = name.len() == 2;
                    is_prefix.then(|| Step::Blobs(Arc::clone(&home), function, name.to_owned()))
                })
            }
            Step::Blobs(home, function, prefix) => {
                dir.extend([home.segment(), function.name(), &prefix]);
                for listed in self.list(&dir) {
                    let name = listed.name.to_str().filter(|_| !listed.is_dir);
                    match name.and_then(|name| layout::parse_blob(function, &prefix, name)) {
                        Some(digest) => self.blob(Place {
                            home: Arc::clone(&home),
                            digest,
                        }),
                        None => self.foreign(&dir, &listed),
                    }
                }
                Vec::new()
            }
        }
    }

    fn list(&self, dir: &std::path::Path) -> Vec<Listed> {
        match self.store.disk.list(dir) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.store.faults.note(Op::Scan, &dir.display(), &error);
                Vec::new()
            }
        }
    }

    fn dirs(&mut self, dir: &std::path::Path, step: impl Fn(&str) -> Option<Step>) -> Vec<Step> {
        let mut steps = Vec::new();
        for listed in self.list(dir) {
            match listed.name.to_str().filter(|_| listed.is_dir).and_then(&step) {
                Some(step) => steps.push(step),
                None => self.foreign(dir, &listed),
            }
        }
        steps
    }

    /// Something that this program did not put there is left alone: it may be somebody's.
    fn foreign(&mut self, dir: &std::path::Path, listed: &Listed) {
        self.found.foreign += 1;
        let path = dir.join(&listed.name);
        self.store
            .faults
            .note(Op::Scan, &path.display(), &"it is no file of tier 1's");
    }

    /// Removes what a dead process was writing.
    fn sweep(&mut self, listed: &Listed) {
        let own = listed
            .name
            .to_str()
            .is_some_and(|name| self.store.is_own_staging(name));
        if !own && !listed.is_dir {
            self.store.leave(Leaving::Staging {
                path: self.store.layout.staging().join(&listed.name),
                file: None,
                staged_bytes: 0,
            });
        }
    }

    /// Enters a blob, or drops a file whose length shows that it is none. Under the path's lock: so a publish or a removal
    /// of the same blob comes before or after this as a whole, and the account has it once.
    fn blob(&mut self, place: Place) {
        let store = Arc::clone(&self.store);
        let on_path = store.lock_path(&place.digest);
        if store.index.lock().contains(&place) {
            return;
        }
        let facts = match store.disk.facts(&store.layout.blob(&place)) {
            Ok(facts) => facts,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return store.faults.note(Op::Scan, &place.digest, &error),
        };
        let last_read_ms = self
            .clock_ms
            .map_or(facts.used_at_ms, |now| facts.used_at_ms.saturating_sub(now))
            .min(0);
        let whole = facts.is_file && facts.len_bytes == format::file_bytes(&place.digest);
        let mut index = store.index.lock();
        let (id, _) = index.insert(index::entry(place.clone(), facts.allocated_bytes, last_read_ms));
        if whole {
            self.found.blobs += 1;
            return;
        }
        let removed = index.remove(id);
        drop(index);
        drop(on_path);
        self.found.dropped += 1;
        store.metrics.dropped.inc();
        store.faults.note(Op::Scan, &place.digest, &Tier1Error::Damaged);
        if let Some(entry) = removed {
            store.leave(Leaving::Blob(entry));
        }
    }
}

/// Tells the policy of all blobs in the order of their last use, which is known once all are found. In steps, so that no
/// request waits long for the index; those that come meanwhile are told last.
async fn tell_policy(store: &Arc<Store>) {
    let mut last = false;
    while !last {
        let entries = store.blocking(|store| {
            let mut entries = store.index.lock().untold();
            entries.sort_unstable();
            Ok(entries)
        });
        let Ok(entries) = entries.await else { return };
        let mut chunks = entries.chunks(TOLD_AT_ONCE).peekable();
        if chunks.peek().is_none() {
            last = store.index.lock().tell(&[], true);
        }
        while let Some(chunk) = chunks.next() {
            last = store.index.lock().tell(chunk, chunks.peek().is_none());
            tokio::task::yield_now().await;
        }
    }
}
