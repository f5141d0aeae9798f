//! A disk in memory that fails on request, for tests.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use super::{Disk, DiskFile, FileFacts, Listed};

/// Unit in which the disk allocates, and in which a power cut loses bytes.
const PAGE_BYTES: usize = 4096;

/// A step that can be made to fail or to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// [`Disk::create`] and [`Disk::create_dirs`].
    Create,
    /// [`Disk::open`].
    Open,
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::read_at`] and [`DiskFile::read_cached_at`].
    Read,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// Both ways to ask for facts.
    Look,
    /// [`Disk::list`].
    List,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct MemoryDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    released: Condvar,
    waiting: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Contents>,
    dirs: BTreeSet<PathBuf>,
    locks: HashSet<PathBuf>,
    faults: HashMap<Step, io::ErrorKind>,
    held: HashSet<Step>,
    free_bytes: Option<u64>,
    steps_left: Option<u64>,
    cold: bool,
    clock_ms: i64,
}

type Contents = Arc<Mutex<Inode>>;

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    used_at_ms: i64,
    synced: bool,
}

impl Default for MemoryDisk {
    fn default() -> MemoryDisk {
        MemoryDisk::new()
    }
}

impl MemoryDisk {
    /// An empty disk without faults or limits.
    pub fn new() -> MemoryDisk {
        MemoryDisk::with(State::default())
    }

    fn with(state: State) -> MemoryDisk {
        MemoryDisk(Arc::new(Shared {
            state: Mutex::new(state),
            released: Condvar::new(),
            waiting: watch::Sender::new(0),
        }))
    }

    /// Makes a step fail with `kind` from here on: `StorageFull` is ENOSPC, `Other` stands for EIO.
    pub fn fail(&self, step: Step, kind: io::ErrorKind) {
        self.0.state.lock().faults.insert(step, kind);
    }

    /// Makes every step that changes anything fail, as on a file system mounted read-only.
    pub fn make_read_only(&self) {
        for step in [Step::Create, Step::Write, Step::Rename, Step::Remove] {
            self.fail(step, io::ErrorKind::ReadOnlyFilesystem);
        }
    }

    /// Ends all faults.
    pub fn heal(&self) {
        let mut state = self.0.state.lock();
        state.faults.clear();
        state.free_bytes = None;
    }

    /// Lets so many more bytes be written before ENOSPC. Removing a file gives its bytes back.
    pub fn limit_free_bytes(&self, bytes: u64) {
        self.0.state.lock().free_bytes = Some(bytes);
    }

    /// Takes everything out of the page cache, so to speak: cached reads find nothing.
    pub fn make_cold(&self) {
        self.0.state.lock().cold = true;
    }

    /// Makes a step wait until [`MemoryDisk::release`]. It holds up the thread that takes it, as a slow disk would; paused
    /// time stands still meanwhile.
    pub fn hold(&self, step: Step) {
        self.0.state.lock().held.insert(step);
    }

    /// Lets a held step go on.
    pub fn release(&self, step: Step) {
        self.0.state.lock().held.remove(&step);
        self.0.released.notify_all();
    }

    /// Resolves once somebody waits at a held step.
    pub async fn somebody_waits(&self) {
        let mut waiting = self.0.waiting.subscribe();
        waiting
            .wait_for(|waiting| *waiting > 0)
            .await
            .expect("the disk is here");
    }

    /// Threads that wait at held steps.
    pub fn waiting(&self) -> usize {
        *self.0.waiting.borrow()
    }

    /// Dies after so many more changes: the one after them is half done if it is a write, and everything fails from there
    /// on. What a kill -9 leaves is then found in [`MemoryDisk::survivor`].
    pub fn die_after(&self, changes: u64) {
        self.0.state.lock().steps_left = Some(changes);
    }

    /// What a process that starts after a kill -9 finds: the same files, no locks, no faults. The old disk lives on apart.
    pub fn survivor(&self) -> MemoryDisk {
        let state = self.0.state.lock();
        let copy = |contents: &Contents| Arc::new(Mutex::new(contents.lock().clone()));
        MemoryDisk::with(State {
            files: state
                .files
                .iter()
                .map(|(path, contents)| (path.clone(), copy(contents)))
                .collect(),
            dirs: state.dirs.clone(),
            clock_ms: state.clock_ms,
            ..State::default()
        })
    }

    /// What a process that starts after a power cut finds. Any file that was not synced may have lost its
    /// name, its end, or pages of it; lost pages are zeros or what another file left there.
    pub fn after_power_cut(&self, seed: u64) -> MemoryDisk {
        let survivor = self.survivor();
        let mut random = StdRng::seed_from_u64(seed);
        let mut state = survivor.0.state.lock();
        let stale: Vec<Vec<u8>> = state
            .files
            .values()
            .map(|contents| contents.lock().bytes.clone())
            .collect();
        state.files.retain(|_, contents| {
            let mut contents = contents.lock();
            if contents.synced {
                return true;
            }
            let bytes = &mut contents.bytes;
            let pages = bytes.len().div_ceil(PAGE_BYTES).max(1);
            let page = random.random_range(0..pages) * PAGE_BYTES;
            let page_end = (page + PAGE_BYTES).min(bytes.len());
            match random.random_range(0..6) {
                0 => return false,
                1 => bytes.truncate(page),
                2 => bytes[page..page_end].fill(0),
                3 => bytes.fill(0),
                4 => {
                    let other = &stale[random.random_range(0..stale.len())];
                    for (at, byte) in bytes[page..page_end].iter_mut().enumerate() {
                        *byte = other.get(at).copied().unwrap_or(0);
                    }
                }
                _ => {}
            }
            true
        });
        drop(state);
        survivor
    }

    /// All files below `dir`, in order.
    pub fn files(&self, dir: &Path) -> Vec<PathBuf> {
        let state = self.0.state.lock();
        state
            .files
            .keys()
            .filter(|path| path.starts_with(dir))
            .cloned()
            .collect()
    }

    /// Length of a file.
    pub fn len_bytes(&self, path: &Path) -> usize {
        self.contents(path).lock().bytes.len()
    }

    /// Sum of what the files below `dir` take.
    pub fn allocated_bytes(&self, dir: &Path) -> u64 {
        let paths = self.files(dir);
        paths
            .iter()
            .map(|path| allocated_bytes(self.len_bytes(path)))
            .sum()
    }

    /// Turns one bit of a file over.
    pub fn flip_bit(&self, path: &Path, offset: usize) {
        self.contents(path).lock().bytes[offset] ^= 1;
    }

    /// Cuts a file's end off.
    pub fn truncate(&self, path: &Path, len: usize) {
        self.contents(path).lock().bytes.truncate(len);
    }

    /// Puts a file there that no node wrote.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.0.state.lock();
        state.make_dirs(path.parent().expect("a file has a directory"));
        let contents = Arc::new(Mutex::new(Inode {
            bytes: bytes.to_vec(),
            used_at_ms: state.clock_ms,
            synced: false,
        }));
        state.files.insert(path.to_owned(), contents);
    }

    /// Takes a file away behind the node's back.
    pub fn lose(&self, path: &Path) {
        self.0.state.lock().files.remove(path).expect("the file is there");
    }

    fn contents(&self, path: &Path) -> Contents {
        self.0.state.lock().files[path].clone()
    }

    /// Takes a step: waits while it is held, fails if it shall, and gives the state to do it on.
    fn step<T>(
        &self,
        step: Step,
        change: bool,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.0.state.lock();
        if state.held.contains(&step) {
            self.0.waiting.send_modify(|waiting| *waiting += 1);
            while state.held.contains(&step) {
                self.0.released.wait(&mut state);
            }
            self.0.waiting.send_modify(|waiting| *waiting -= 1);
        }
        if let Some(kind) = state.faults.get(&step) {
            return Err((*kind).into());
        }
        state.clock_ms += 1;
        match &mut state.steps_left {
            Some(0) => return Err(io::Error::other("the process is dead")),
            Some(left) if change => *left -= 1,
            Some(_) | None => {}
        }
        act(&mut state)
    }
}

impl State {
    fn make_dirs(&mut self, path: &Path) {
        self.dirs.extend(path.ancestors().map(Path::to_owned));
    }

    fn find(&self, path: &Path) -> io::Result<Contents> {
        let found = self.files.get(path);
        found.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if !self.0.state.lock().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(HeldLock(self.clone(), path.to_owned())))
    }

    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        if self.0.state.lock().dirs.contains(path) {
            return Ok(());
        }
        self.step(Step::Create, true, |state| {
            state.make_dirs(path);
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let contents = self.step(Step::Create, true, |state| {
            if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            if state.files.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let contents = Arc::new(Mutex::new(Inode {
                used_at_ms: state.clock_ms,
                ..Inode::default()
            }));
            state.files.insert(path.to_owned(), Arc::clone(&contents));
            Ok(contents)
        })?;
        Ok(Arc::new(MemoryFile(self.clone(), contents)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let contents = self.step(Step::Open, false, |state| state.find(path))?;
        Ok(Arc::new(MemoryFile(self.clone(), contents)))
    }

    fn facts(&self, path: &Path) -> io::Result<FileFacts> {
        self.step(Step::Look, false, |state| Ok(facts(&state.find(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Step::Rename, true, |state| {
            if !to.parent().is_some_and(|dir| state.dirs.contains(dir)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let contents = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.files.insert(to.to_owned(), contents);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Step::Remove, true, |state| {
            let removed = state.files.remove(path).ok_or(io::ErrorKind::NotFound)?;
            if let Some(free_bytes) = &mut state.free_bytes {
                *free_bytes += removed.lock().bytes.len() as u64;
            }
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        self.step(Step::List, false, |state| {
            if !state.dirs.contains(dir) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let listed = |path: &PathBuf, is_dir| {
                (path.parent() == Some(dir)).then(|| Listed {
                    name: path.file_name().expect("a path with a parent").to_owned(),
                    is_dir,
                })
            };
            let files = state.files.keys().filter_map(|path| listed(path, false));
            let dirs = state.dirs.iter().filter_map(|path| listed(path, true));
            Ok(files.chain(dirs).collect())
        })
    }
}

struct HeldLock(MemoryDisk, PathBuf);

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.0.0.state.lock().locks.remove(&self.1);
    }
}

struct MemoryFile(MemoryDisk, Contents);

impl DiskFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let dies = self.0.0.state.lock().steps_left == Some(0);
        let write = |bytes: &[u8]| {
            let mut contents = self.1.lock();
            let start = usize::try_from(offset).expect("files in memory are small");
            let end = start + bytes.len();
            if contents.bytes.len() < end {
                contents.bytes.resize(end, 0);
            }
            contents.bytes[start..end].copy_from_slice(bytes);
        };
        if dies {
            write(&bytes[..bytes.len() / 2]);
        }
        self.0.step(Step::Write, true, |state| {
            if let Some(free_bytes) = &mut state.free_bytes {
                let left = free_bytes.checked_sub(bytes.len() as u64);
                *free_bytes = left.ok_or(io::ErrorKind::StorageFull)?;
            }
            write(bytes);
            let mut contents = self.1.lock();
            (contents.used_at_ms, contents.synced) = (state.clock_ms, false);
            Ok(())
        })
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.0.step(Step::Read, false, |state| {
            let mut contents = self.1.lock();
            contents.used_at_ms = state.clock_ms;
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(contents.bytes.len());
            let end = start.saturating_add(len).min(contents.bytes.len());
            Ok(contents.bytes[start..end].to_vec())
        })
    }

    fn read_cached_at(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        {
            let state = self.0.0.state.lock();
            if state.cold || state.held.contains(&Step::Read) {
                return None;
            }
        }
        self.read_at(offset, len).ok().filter(|bytes| bytes.len() == len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.step(Step::Write, false, |_| {
            self.1.lock().synced = true;
            Ok(())
        })
    }

    fn facts(&self) -> io::Result<FileFacts> {
        self.0.step(Step::Look, false, |_| Ok(facts(&self.1)))
    }
}

fn facts(contents: &Contents) -> FileFacts {
    let contents = contents.lock();
    FileFacts {
        is_file: true,
        len_bytes: contents.bytes.len() as u64,
        allocated_bytes: allocated_bytes(contents.bytes.len()),
        used_at_ms: contents.used_at_ms,
    }
}

fn allocated_bytes(len: usize) -> u64 {
    len.next_multiple_of(PAGE_BYTES) as u64
}
