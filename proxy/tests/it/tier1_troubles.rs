//! What becomes of Tier 1's files and of the file system that they are on fails no call that Tier 2 can serve.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use mock_upstream::Digest;
use tempfile::TempDir;
use tonic::Code;

use crate::client::{Client, code};
use crate::harness::{Harness, MIB, Site, noise};

/// Bytes of a blob whose file is opened anew for each reader.
const LARGE: usize = 6 * MIB;

type Spoil = fn(&Path);

#[tokio::test(start_paused = true)]
async fn whatever_became_of_a_copys_file_its_readers_get_the_blob() {
    // P4, P5
    let spoils: [(&str, Spoil); 8] = [
        ("vanished", |file| fs_err::remove_file(file).unwrap()),
        ("became a directory", |file| {
            fs_err::remove_file(file).unwrap();
            fs_err::create_dir(file).unwrap();
        }),
        ("became a link to itself", |file| {
            fs_err::remove_file(file).unwrap();
            symlink(file.file_name().unwrap(), file).unwrap();
        }),
        ("became a link to a device", |file| {
            fs_err::remove_file(file).unwrap();
            symlink("/dev/zero", file).unwrap();
        }),
        ("has a flipped bit", |file| {
            change(file, |bytes| bytes[LARGE / 2] ^= 4)
        }),
        ("has no end", |file| {
            change(file, |bytes| bytes.truncate(LARGE / 3))
        }),
        ("has nothing", |file| change(file, Vec::clear)),
        ("is of zeros", |file| change(file, |bytes| bytes.fill(0))),
    ];
    for (number, (what, spoil)) in spoils.into_iter().enumerate() {
        let site = Harness::new().start().await;
        let blob = noise(LARGE, number as u64);
        let digest = site.mock.put_blob("", blob.clone());
        assert!(site.client().read(&digest).await.unwrap() == blob);
        site.landed().await;
        spoil(&site.tier1_file(&digest));
        let (one, two) = (site.client(), site.client());
        let (whole, part) = tokio::join!(one.read(&digest), two.read_range(&digest, 4 * MIB as i64, 0));
        assert!(whole.unwrap() == blob, "{what}");
        assert!(part.unwrap() == blob.slice(4 * MIB..), "{what}");
        site.landed().await;
        assert!(site.upstream_reads(&digest) <= 3, "{what}");
        assert!(site.client().read(&digest).await.unwrap() == blob, "{what}");
        site.nothing_is_left().await;
    }
}

fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs_err::read(file).unwrap();
    change(&mut bytes);
    fs_err::write(file, bytes).unwrap();
}

/// A file system in memory, with few bytes. It goes with this.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// `None`, and a line that says so, where this process may not mount.
    fn mount(test: &str) -> Option<SmallDisk> {
        let disk = SmallDisk {
            dir: tempfile::tempdir().unwrap(),
        };
        let mounted = mount(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"], disk.path());
        if !mounted {
            eprintln!("not run: {test}: this process may not mount a file system");
        }
        mounted.then_some(disk)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn remount(&self, option: &str) {
        assert!(mount(&["-o", &format!("remount,{option}")], self.path()));
    }

    async fn site(&self) -> Site {
        let dir: PathBuf = self.path().join("tier1");
        Harness::new().set("tier1.dir", dir.display()).start().await
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may have files open.
        let _unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn mount(arguments: &[&str], path: &Path) -> bool {
    let mounted = Command::new("mount").args(arguments).arg(path).output();
    mounted.is_ok_and(|mounted| mounted.status.success())
}

/// Reads what is cold and writes what is new, larger and smaller than the disk.
async fn is_served(site: &Site, client: &Client, seed: u64) {
    for (number, len) in [1000, MIB, 20 * MIB].into_iter().enumerate() {
        let seed = seed + 10 * number as u64;
        let (cold, fresh) = (noise(len, seed), noise(len, seed + 1));
        let digest = site.mock.put_blob("", cold.clone());
        assert!(client.read(&digest).await.unwrap() == cold, "P5: {len}");
        assert_eq!(code(client.write(&fresh).await), Code::Ok, "{len}");
        assert_eq!(site.mock.blob("", &Digest::of(&fresh)), Some(fresh), "P1");
    }
    let small = noise(3000, seed + 5);
    assert_eq!(
        client.batch_write(std::slice::from_ref(&small)).await.unwrap(),
        [Code::Ok]
    );
    let digest = Digest::of(&small);
    assert!(client.batch_read(&[digest]).await.unwrap()[0].data == small);
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_fails_no_call() {
    // P5: 8 MiB, of which the node believes that they are 10 GiB.
    let Some(disk) = SmallDisk::mount("a disk that is full") else {
        return;
    };
    let site = disk.site().await;
    for seed in [100, 200, 300] {
        is_served(&site, &site.client(), seed).await;
    }
    site.landed().await;
    let write_errors = site.node.metrics.tier1.errors.with_label_values(&["write"]).get();
    assert!(write_errors > 0, "it was full");
    site.nothing_is_left().await;
}

/// Directories in which nothing can be made, renamed or removed. They are as before when this is dropped.
struct Immutable(Vec<PathBuf>);

impl Immutable {
    fn set(flag: &str, dir: &Path) -> bool {
        let set = Command::new("chattr").arg(flag).arg(dir).output();
        set.is_ok_and(|set| set.status.success())
    }

    /// All directories of a tree. `None`, and a line that says so, where this process may not do that.
    fn below(test: &str, dir: &Path) -> Option<Immutable> {
        let mut dirs = vec![dir.to_owned()];
        let mut at = 0;
        while let Some(dir) = dirs.get(at) {
            let entries = fs_err::read_dir(dir).unwrap();
            let inner = entries.map(|entry| entry.unwrap().path());
            let inner: Vec<_> = inner.filter(|path| path.is_dir()).collect();
            dirs.extend(inner);
            at += 1;
        }
        let all_set = dirs.iter().all(|dir| Immutable::set("+i", dir));
        let immutable = Immutable(dirs);
        if !all_set {
            eprintln!("not run: {test}: this process may not make a directory immutable");
        }
        all_set.then_some(immutable)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        for dir in &self.0 {
            Immutable::set("-i", dir);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_on_which_nothing_can_be_changed_any_more_fails_no_call_and_serves_what_it_has() {
    // P5: no file can be made, renamed or removed, as on a disk that became read-only.
    let site = Harness::new().start().await;
    let kept = noise(LARGE, 1);
    let digest = site.mock.put_blob("", kept.clone());
    assert!(site.client().read(&digest).await.unwrap() == kept);
    site.landed().await;
    let Some(immutable) = Immutable::below("a disk on which nothing can be changed", &site.tier1_dir())
    else {
        return;
    };
    is_served(&site, &site.client(), 100).await;
    assert!(site.client().read(&digest).await.unwrap() == kept);
    assert_eq!(site.upstream_reads(&digest), 1, "it is read from the disk");
    assert_eq!(site.kept(), 1);
    drop(immutable);
    let later = noise(1000, 2);
    let digest = site.mock.put_blob("", later.clone());
    assert!(site.client().read(&digest).await.unwrap() == later);
    site.landed().await;
    assert_eq!(site.kept(), 2, "it is written to again");
    site.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_be_used_from_the_start_fails_no_call() {
    // P5: a file where the directory should be; and a file system without a byte to spare.
    let site = {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("tier1"), b"").unwrap();
        let site = Harness::new().set("tier1.dir", dir.path().join("tier1").display());
        site.start().await
    };
    is_served(&site, &site.client(), 100).await;
    assert_eq!(site.kept(), 0);
    let Some(disk) = SmallDisk::mount("a disk that is read-only from the start") else {
        return;
    };
    disk.remount("ro");
    let site = disk.site().await;
    is_served(&site, &site.client(), 200).await;
    assert_eq!(site.kept(), 0);
}
