//! From [`Settings`] to [`Config`]: what no field can know by itself.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::checked::{Ac, Config, Limits, Tier1, Tier2, Tier2Place, Upstream};
use super::fault::{Fault, Faults, Origin};
use super::field::Effective;
use super::instances::{self, Members, SplitGroup, UpstreamInstances};
use super::leaf::Percent;
use super::settings::{AcSettings, LimitsSettings, Settings, Tier1Settings, Tier2Settings};
use super::show;
use super::size::ByteSize;
use crate::call::InstanceName;
use crate::watermarks::Watermarks;

/// Below this the watermarks are too close together for any real blob.
const TIER1_SIZE_MIN: ByteSize = ByteSize(1024 * 1024);

/// Kept by default up to this size: one blob should not push out thousands.
const TIER1_BLOB_SIZE_DEFAULT: ByteSize = ByteSize(2 * 1024 * 1024 * 1024);

/// Less makes clients split their batches into single blobs.
const BATCH_SIZE_MIN: ByteSize = ByteSize(64 * 1024);

/// Clients accept messages of 4 MiB by default, and framing counts (CAP-12): 256 KiB are left for it.
const BATCH_SIZE_MAX: ByteSize = ByteSize((4 * 1024 - 256) * 1024);

/// More than any build's action results take, and a number that fits wherever memory is counted.
const AC_MEMORY_MAX: ByteSize = ByteSize(64 * 1024 * 1024 * 1024);

/// Checks the settings against each other. `None` comes with a fault; faults may also be added to a result.
pub(crate) fn check(settings: Settings, effective: &[Effective], faults: &mut Faults) -> Option<Config> {
    let mut checks = Checks { effective, faults };
    checks.addresses(&settings);
    let limits = checks.limits(&settings.limits);
    checks.directories(&settings);
    let watermarks = checks.watermarks(&settings.tier1);
    let max_blob_size = checks.max_blob_size(&settings.tier1);
    let ac = checks.ac(&settings.ac);
    let tier2 = checks.tier2(settings.tier2, &settings.instances);
    Some(Config {
        listen_addr: settings.listen_addr,
        http_addr: settings.http_addr,
        tier1: Tier1 {
            dir: settings.tier1.dir,
            watermarks: watermarks?,
            write: settings.tier1.write,
            max_blob_size,
        },
        tier2: tier2?,
        share_groups: instances::share_groups(&settings.instances),
        ac,
        cas: settings.cas,
        repair: settings.repair,
        touch: settings.touch,
        upload: settings.upload,
        limits,
        shutdown: settings.shutdown,
        readiness: settings.readiness,
        log: settings.log,
    })
}

struct Checks<'a> {
    effective: &'a [Effective],
    faults: &'a mut Faults,
}

impl Checks<'_> {
    /// Adds a fault unless `holds`, at the first of `paths` that somebody wrote. Nothing is said where one of them was already
    /// found faulty: its default stands in for it then.
    fn require(
        &mut self,
        holds: bool,
        paths: &[&str],
        problem: impl Into<String>,
        accepted: impl Into<String>,
    ) {
        if holds || paths.iter().any(|path| self.faults.has(path)) {
            return;
        }
        let mut leaves = paths
            .iter()
            .filter_map(|path| self.effective.iter().find(|leaf| leaf.path == *path));
        let written = leaves.find(|leaf| leaf.origin != Origin::Default);
        let (path, origin) = written.map_or((paths[0], Origin::Default), |leaf| {
            (leaf.path, leaf.origin.clone())
        });
        self.faults
            .add(Fault::new(origin, problem).path(path).accepted(accepted));
    }

    fn addresses(&mut self, settings: &Settings) {
        for (path, address) in [
            ("listen_addr", settings.listen_addr),
            ("http_addr", settings.http_addr),
        ] {
            self.require(
                address.ip().is_loopback() || settings.insecure_listen,
                &[path, "insecure_listen"],
                format!(
                    "`{path}` ({address}) can be reached from other machines, and nobody who connects is authenticated"
                ),
                "a loopback address, or `insecure_listen: true` as an explicit yes",
            );
        }
        let same = settings.listen_addr == settings.http_addr && settings.http_addr.port() != 0;
        self.require(
            !same,
            &["http_addr", "listen_addr"],
            format!("`http_addr` and `listen_addr` are both {}", settings.http_addr),
            "an address for each",
        );
    }

    fn limits(&mut self, limits: &LimitsSettings) -> Limits {
        let size = limits.max_batch_size;
        self.require(
            (BATCH_SIZE_MIN..=BATCH_SIZE_MAX).contains(&size),
            &["limits.max_batch_size"],
            format!("found {size}"),
            format!("a size from {BATCH_SIZE_MIN} to {BATCH_SIZE_MAX}"),
        );
        Limits {
            max_batch_size: size,
            max_streams: limits.max_streams.get(),
            max_blob_size: Some(limits.max_blob_size).filter(|size| size.bytes() > 0),
        }
    }

    fn ac(&mut self, ac: &AcSettings) -> Ac {
        self.require(
            ac.memory <= AC_MEMORY_MAX,
            &["ac.memory"],
            format!("found {}", ac.memory),
            format!("a size of at most {AC_MEMORY_MAX}"),
        );
        Ac {
            lease: ac.lease,
            memory: ac.memory,
        }
    }

    fn directories(&mut self, settings: &Settings) {
        let (tier1, tier2) = (normal(&settings.tier1.dir), normal(&settings.tier2.dir));
        let apart = settings.tier2.url.is_some() || !(tier1.starts_with(&tier2) || tier2.starts_with(&tier1));
        self.require(
            apart,
            &["tier1.dir", "tier2.dir", "tier2.url"],
            "`tier1.dir` and `tier2.dir` are the same, or one is inside the other",
            "two directories, neither inside the other",
        );
    }

    fn watermarks(&mut self, tier1: &Tier1Settings) -> Option<Watermarks> {
        self.require(
            tier1.max_size >= TIER1_SIZE_MIN,
            &["tier1.max_size"],
            format!("found {}", tier1.max_size),
            format!("a size of at least {TIER1_SIZE_MIN}"),
        );
        let bytes = |part: Percent| part.of(tier1.max_size.bytes());
        let watermarks = Watermarks::new(
            tier1.max_size.bytes(),
            bytes(tier1.high_watermark),
            bytes(tier1.low_watermark),
        );
        self.require(
            tier1.low_watermark <= tier1.high_watermark,
            &["tier1.low_watermark", "tier1.high_watermark"],
            format!(
                "`tier1.low_watermark` ({}) is above `tier1.high_watermark` ({})",
                tier1.low_watermark, tier1.high_watermark
            ),
            "a low watermark not above the high one",
        );
        watermarks
    }

    fn max_blob_size(&mut self, tier1: &Tier1Settings) -> ByteSize {
        let half = ByteSize(tier1.max_size.bytes() / 2);
        let size = tier1
            .max_blob_size
            .unwrap_or_else(|| half.min(TIER1_BLOB_SIZE_DEFAULT));
        self.require(
            size <= half,
            &["tier1.max_blob_size", "tier1.max_size"],
            format!(
                "`tier1.max_blob_size` ({size}) is more than half of `tier1.max_size` ({})",
                tier1.max_size
            ),
            "a `tier1.max_blob_size` of at most half, or none",
        );
        size
    }

    fn tier2(&mut self, tier2: Tier2Settings, members: &Members) -> Option<Tier2> {
        for (path, timeout) in [
            ("tier2.connect_timeout", tier2.connect_timeout),
            ("tier2.first_byte_timeout", tier2.first_byte_timeout),
            ("tier2.stall_timeout", tier2.stall_timeout),
            ("tier2.commit_timeout", tier2.commit_timeout),
        ] {
            self.require(
                timeout > Duration::ZERO,
                &[path],
                "found `0s`",
                "a duration above zero",
            );
        }
        self.upstream_only(&tier2);
        let Tier2Settings {
            url,
            dir,
            commit_timeout,
            when_down,
            max_outage,
            ..
        } = tier2;
        let place = match url {
            None => Tier2Place::Embedded { dir },
            Some(url) => {
                let instances = UpstreamInstances::new(tier2.instance, tier2.instances, members);
                let instances = instances.map_err(|split| self.split_group(&split)).ok()?;
                Tier2Place::Remote(Upstream {
                    url,
                    ca_file: tier2.ca_file,
                    connections: usize::try_from(tier2.connections.get()).expect("at most 64"),
                    connect_timeout: tier2.connect_timeout,
                    first_byte_timeout: tier2.first_byte_timeout,
                    stall_timeout: tier2.stall_timeout,
                    instances,
                })
            }
        };
        Some(Tier2 {
            place,
            when_down,
            max_outage,
            commit_timeout,
        })
    }

    /// Fields that would silently do nothing with the Tier 2 that is configured.
    fn upstream_only(&mut self, tier2: &Tier2Settings) {
        let remote = tier2.url.is_some();
        let tls = tier2.url.as_ref().is_some_and(|url| url.tls());
        let needs_url = "set only together with `tier2.url`";
        self.require(
            tls || tier2.ca_file.is_none(),
            &["tier2.ca_file", "tier2.url"],
            "no TLS is spoken with Tier 2",
            "set only together with a `grpcs` URL in `tier2.url`",
        );
        self.require(
            remote || tier2.instance.is_none(),
            &["tier2.instance", "tier2.url"],
            "the embedded Tier 2 is asked under each client's own instance name",
            needs_url,
        );
        self.require(
            remote || tier2.instances.is_empty(),
            &["tier2.instances", "tier2.url"],
            "the embedded Tier 2 is asked under each client's own instance name",
            needs_url,
        );
        let default_dir = Settings::defaults().tier2.dir;
        self.require(
            !remote || tier2.dir == default_dir,
            &["tier2.dir", "tier2.url"],
            "`tier2.dir` is for the embedded Tier 2, and `tier2.url` names a remote one",
            "one of the two",
        );
    }

    fn split_group(&mut self, split: &SplitGroup) {
        let quoted = |names: &[InstanceName; 2]| {
            names
                .each_ref()
                .map(|name| show::quoted(name.as_str()))
                .join(" and ")
        };
        self.require(
            false,
            &["instances", "tier2.instance", "tier2.instances", "tier2.url"],
            format!(
                "{} of group {} are different instances in Tier 2, {}",
                quoted(&split.members),
                show::quoted(split.group.as_str()),
                quoted(&split.upstream),
            ),
            "groups whose members `tier2.instance` or `tier2.instances` map to one name",
        );
    }
}

/// The path without `.` and `..`, as far as that can be told without looking at the disk.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => {
                normal.pop();
            }
            Component::Normal(_) | Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                normal.push(part)
            }
        }
    }
    normal
}
