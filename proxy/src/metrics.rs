//! Every metric there is: name, unit, help and labels, declared in one place. Handles are passed in; there is no global
//! registry. Labels come from closed sets, never from digests or from what a peer wrote.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Seconds: from a hot read on loopback to the longest commit.
const LATENCY_BUCKETS: [f64; 14] = [
    0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0,
];

/// All metrics of a node. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Calls that clients make.
    pub calls: CallMetrics,
    /// Where reads were answered from.
    pub reads: ReadMetrics,
    /// Action results.
    pub actions: ActionMetrics,
    /// What is known of tier 2's blobs.
    pub presence: PresenceMetrics,
    /// Reads that tier 2 is told of.
    pub touches: TouchMetrics,
    /// Uploads on their way through.
    pub uploads: UploadMetrics,
    /// The disk.
    pub tier1: Tier1Metrics,
    /// The far store.
    pub tier2: Tier2Metrics,
    /// Calls to it that were repeated.
    pub retries: RetryMetrics,
}

/// Calls that clients make of this node.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    /// By `method` (`Service/Method`) and `code` (gRPC's name).
    pub total: IntCounterVec,
    /// By `method`: from the request's headers to the end of the answer.
    pub seconds: HistogramVec,
    /// By `method`.
    pub in_flight: IntGaugeVec,
    /// Bytes of blobs sent to clients.
    pub sent_bytes: IntCounter,
    /// Bytes of blobs received from clients.
    pub received_bytes: IntCounter,
    /// Request metadata that was not sent on to tier 2, by `reason` (`encoding`, `too_large`, `undecodable`).
    pub metadata_dropped: IntCounterVec,
}

/// Where reads were answered from.
#[derive(Clone, Debug)]
pub struct ReadMetrics {
    /// Hits by `tier` (`1`, `2`) and `kind` (`cas`, `ac`).
    pub hits: IntCounterVec,
    /// Misses by `kind`: neither tier had it.
    pub misses: IntCounterVec,
    /// Bytes answered by `tier`.
    pub bytes: IntCounterVec,
    /// Fetches in the air.
    pub flights: IntGauge,
    /// Fetches begun.
    pub flights_started: IntCounter,
    /// Readers that joined a fetch already in the air.
    pub flights_joined: IntCounter,
    /// Readers that fell behind a fetch without a copy on disk and went on from tier 2 on their own.
    pub followers_detached: IntCounter,
    /// Streams from tier 2 that broke and were resumed at their offset.
    pub resumed: IntCounter,
    /// Fetches whose bytes did not fit their digest.
    pub corrupt: IntCounter,
    /// Digests whose copy in tier 2 failed verification twice. Above 0, an operator should look.
    pub bad_blobs: IntGauge,
    /// Fetches that could not be kept on disk, by `reason` (`lagged`, `failed`, `too_large`, `full`).
    pub not_kept: IntCounterVec,
}

/// Action results.
#[derive(Clone, Debug)]
pub struct ActionMetrics {
    /// Answered with our copy: the part of [`ReadMetrics::hits`] that is counted here.
    pub hits_tier1: IntCounter,
    /// Answered with tier 2's word.
    pub hits_tier2: IntCounter,
    /// Those that tier 2 had not, or none that can be used: the same of [`ReadMetrics::misses`].
    pub misses: IntCounter,
    /// Misses though there is a result, by `reason` (`missing`, `bad`, `malformed`, `undecodable`, `too_many`,
    /// `tree_too_large`, `tree_undecodable`, `tree_malformed`, `tree_child_lacking`, `tree_other_root`).
    pub incomplete: IntCounterVec,
    /// Copies in memory.
    pub copies: IntGauge,
    /// Bytes that they take.
    pub copy_bytes: IntGauge,
}

/// What is known of tier 2's blobs.
#[derive(Clone, Debug)]
pub struct PresenceMetrics {
    /// Leases that are remembered.
    pub leases: IntGauge,
    /// Memory that they take.
    pub lease_bytes: IntGauge,
    /// Times that all leases ended, by `reason` (`outage`, `disconnected`, `slept`, `surprises`).
    pub epochs_ended: IntCounterVec,
    /// Blobs asked about that a lease answered.
    pub by_lease: IntCounter,
    /// Blobs asked about of which tier 2 was asked.
    pub asked: IntCounter,
    /// Questions that joined one which waited to be sent.
    pub merged: IntCounter,
    /// Questions repeated for one client, because the shared one failed.
    pub repeated: IntCounter,
}

/// Reads that tier 2 is told of.
#[derive(Clone, Debug)]
pub struct TouchMetrics {
    /// Blobs read from tier 1 that tier 2 was asked about for that.
    pub touched: IntCounter,
    /// Those that it was not asked about for want of room, or because it did not answer.
    pub dropped: IntCounter,
}

/// Uploads on their way through.
#[derive(Clone, Debug)]
pub struct UploadMetrics {
    /// Clients that are uploading.
    pub open: IntGauge,
    /// Uploads to tier 2 begun.
    pub upstream: IntCounter,
    /// Clients that were acknowledged by another client's upload of the same blob.
    pub shared: IntCounter,
    /// Uploads that another client took over from the one that led.
    pub taken_over: IntCounter,
    /// Uploads begun anew because their connection to tier 2 broke.
    pub repeated: IntCounter,
    /// Broken uploads whose bytes are kept for a while.
    pub kept_for_resume: IntGauge,
    /// Blobs acknowledged on tier 2's fresh word, without being sent to it.
    pub early: IntCounter,
    /// Uploads from tier 1 of what tier 2 lost, by `outcome` (`ok`, `failed`, `refused`).
    pub repairs: IntCounterVec,
    /// Bytes of those that tier 2 has again.
    pub repaired_bytes: IntCounter,
    /// Uploads whose clients were silent and that gave their places to others.
    pub gave_way: IntCounter,
}

/// The disk.
#[derive(Clone, Debug)]
pub struct Tier1Metrics {
    /// Blobs that can be read.
    pub blobs: IntGauge,
    /// Bytes that they take on disk, in allocated blocks.
    pub allocated_bytes: IntGauge,
    /// Bytes allocated for files still being written.
    pub staged_bytes: IntGauge,
    /// Bytes that the janitor keeps the blobs under.
    pub max_bytes: IntGauge,
    /// Blobs evicted for room.
    pub evicted: IntCounter,
    /// Bytes evicted for room.
    pub evicted_bytes: IntCounter,
    /// Seconds since the last read of the blob that was evicted last.
    pub evicted_age_seconds: IntGauge,
    /// Blobs dropped because their file was gone, short, torn or rotten.
    pub dropped: IntCounter,
    /// Troubles of the disk by `op` (`open`, `read`, `write`, `publish`, `remove`, `scan`). None of them fails a request.
    pub errors: IntCounterVec,
    /// 1 once the index is loaded.
    pub loaded: IntGauge,
    /// 1 while the disk hangs or fails, and is not asked.
    pub passed_over: IntGauge,
}

/// The far store.
#[derive(Clone, Debug)]
pub struct Tier2Metrics {
    /// Calls by `method` and `outcome` (`ok`, `not_found`, `down`, `answered`, `corrupt`, `short`, `stalled`, `deadline`,
    /// `aborted`).
    pub total: IntCounterVec,
    /// By `method`: to the answer, or to the first bytes of a read.
    pub seconds: HistogramVec,
    /// Bytes of blobs read from it.
    pub read_bytes: IntCounter,
    /// Bytes of blobs written to it.
    pub written_bytes: IntCounter,
    /// Connections that stand.
    pub connections: IntGauge,
    /// Seconds that a connect took, TLS included.
    pub connect_seconds: Histogram,
    /// By `service` (`cas`, `ac`): 1 until a probe goes without an answer, and again from the first that is answered.
    pub up: IntGaugeVec,
}

/// Calls to the far store that were repeated.
#[derive(Clone, Debug)]
pub struct RetryMetrics {
    /// Repeats by `method`.
    pub repeated: IntCounterVec,
    /// Failed calls that were not repeated because too many were.
    pub refused: IntCounter,
}

impl Metrics {
    /// Fresh metrics, all zero.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let make = Make(&registry);
        let hits = make.counters(
            "gorego_hits_total",
            "Reads answered, by tier and kind.",
            &["tier", "kind"],
        );
        let repairs = make.counters(
            "gorego_repairs_total",
            "Uploads from tier 1 of blobs that tier 2 lost, by outcome.",
            &["outcome"],
        );
        // Shown before the first: to an operator, no repair is news as well.
        for outcome in ["ok", "failed", "refused"] {
            repairs.with_label_values(&[outcome]);
        }
        let misses = make.counters("gorego_misses_total", "Reads that neither tier had.", &["kind"]);
        Metrics {
            calls: CallMetrics {
                total: make.counters(
                    "gorego_calls_total",
                    "Calls that clients made.",
                    &["method", "code"],
                ),
                seconds: make.histograms("gorego_call_seconds", "Time to the end of a call.", &["method"]),
                in_flight: make.gauges("gorego_calls_in_flight", "Calls being answered.", &["method"]),
                sent_bytes: make.counter("gorego_blob_sent_bytes_total", "Bytes of blobs sent to clients."),
                received_bytes: make.counter(
                    "gorego_blob_received_bytes_total",
                    "Bytes of blobs received from clients.",
                ),
                metadata_dropped: make.counters(
                    "gorego_request_metadata_dropped_total",
                    "Request metadata not sent on to tier 2, by reason.",
                    &["reason"],
                ),
            },
            actions: ActionMetrics {
                hits_tier1: hits.with_label_values(&["1", "ac"]),
                hits_tier2: hits.with_label_values(&["2", "ac"]),
                misses: misses.with_label_values(&["ac"]),
                incomplete: make.counters(
                    "gorego_action_results_incomplete_total",
                    "Action results that were no hit, by reason.",
                    &["reason"],
                ),
                copies: make.gauge("gorego_action_results", "Copies of action results in memory."),
                copy_bytes: make.gauge("gorego_action_result_bytes", "Memory that the copies take."),
            },
            reads: ReadMetrics {
                hits,
                misses,
                bytes: make.counters("gorego_read_bytes_total", "Bytes answered, by tier.", &["tier"]),
                flights: make.gauge("gorego_flights", "Fetches from tier 2 in the air."),
                flights_started: make.counter("gorego_flights_started_total", "Fetches from tier 2 begun."),
                flights_joined: make.counter(
                    "gorego_flights_joined_total",
                    "Readers that joined a fetch already in the air.",
                ),
                followers_detached: make.counter(
                    "gorego_followers_detached_total",
                    "Readers that fell behind a fetch and went on from tier 2 on their own.",
                ),
                resumed: make.counter(
                    "gorego_fetches_resumed_total",
                    "Broken streams resumed at their offset.",
                ),
                corrupt: make.counter(
                    "gorego_fetches_corrupt_total",
                    "Fetches whose bytes did not fit their digest.",
                ),
                bad_blobs: make.gauge("gorego_bad_blobs", "Digests whose copy in tier 2 is bad."),
                not_kept: make.counters(
                    "gorego_fetches_not_kept_total",
                    "Fetches that tier 1 did not keep, by reason.",
                    &["reason"],
                ),
            },
            presence: PresenceMetrics {
                leases: make.gauge(
                    "gorego_leases",
                    "Blobs that tier 2 said it has, as far as that is remembered.",
                ),
                lease_bytes: make.gauge("gorego_lease_bytes", "Memory that leases take."),
                epochs_ended: make.counters(
                    "gorego_lease_epochs_ended_total",
                    "Times that all leases ended, by reason.",
                    &["reason"],
                ),
                by_lease: make.counter(
                    "gorego_presence_by_lease_total",
                    "Blobs whose presence a lease answered.",
                ),
                asked: make.counter(
                    "gorego_presence_asked_total",
                    "Blobs whose presence tier 2 was asked about.",
                ),
                merged: make.counter(
                    "gorego_presence_merged_total",
                    "Questions about presence that joined another.",
                ),
                repeated: make.counter(
                    "gorego_presence_repeated_total",
                    "Questions about presence repeated for one client.",
                ),
            },
            touches: TouchMetrics {
                touched: make.counter(
                    "gorego_touches_total",
                    "Blobs read from tier 1 that tier 2 was asked about for that.",
                ),
                dropped: make.counter(
                    "gorego_touches_dropped_total",
                    "Blobs read from tier 1 that tier 2 could not be told of.",
                ),
            },
            uploads: UploadMetrics {
                open: make.gauge("gorego_uploads_open", "Clients that are uploading."),
                upstream: make.counter("gorego_uploads_upstream_total", "Uploads to tier 2 begun."),
                shared: make.counter(
                    "gorego_uploads_shared_total",
                    "Clients acknowledged by another client's upload.",
                ),
                taken_over: make.counter(
                    "gorego_uploads_taken_over_total",
                    "Uploads continued by another client.",
                ),
                repeated: make.counter(
                    "gorego_uploads_repeated_total",
                    "Uploads begun anew because their connection to tier 2 broke.",
                ),
                kept_for_resume: make.gauge(
                    "gorego_uploads_kept_for_resume",
                    "Broken uploads whose bytes are kept for a while.",
                ),
                early: make.counter(
                    "gorego_uploads_early_total",
                    "Blobs acknowledged on tier 2's fresh word that it has them.",
                ),
                repairs,
                repaired_bytes: make.counter(
                    "gorego_repaired_bytes_total",
                    "Bytes of blobs that tier 2 has again.",
                ),
                gave_way: make.counter(
                    "gorego_uploads_gave_way_total",
                    "Silent uploads that gave their places to others.",
                ),
            },
            tier1: Tier1Metrics {
                blobs: make.gauge("gorego_tier1_blobs", "Blobs on disk that can be read."),
                allocated_bytes: make.gauge("gorego_tier1_allocated_bytes", "Disk that the blobs take."),
                staged_bytes: make.gauge("gorego_tier1_staged_bytes", "Disk that files being written take."),
                max_bytes: make.gauge("gorego_tier1_max_bytes", "Disk that the blobs may take."),
                evicted: make.counter("gorego_tier1_evicted_total", "Blobs evicted for room."),
                evicted_bytes: make.counter("gorego_tier1_evicted_bytes_total", "Disk freed by eviction."),
                evicted_age_seconds: make.gauge(
                    "gorego_tier1_evicted_age_seconds",
                    "Time between the last read of the blob evicted last and its eviction.",
                ),
                dropped: make.counter(
                    "gorego_tier1_dropped_total",
                    "Blobs dropped for a missing or damaged file.",
                ),
                errors: make.counters(
                    "gorego_tier1_errors_total",
                    "Troubles of the disk, by step.",
                    &["op"],
                ),
                loaded: make.gauge("gorego_tier1_loaded", "1 once the index is loaded."),
                passed_over: make.gauge(
                    "gorego_tier1_passed_over",
                    "1 while the disk hangs or fails, and is not asked.",
                ),
            },
            tier2: Tier2Metrics {
                total: make.counters(
                    "gorego_tier2_calls_total",
                    "Calls to tier 2.",
                    &["method", "outcome"],
                ),
                seconds: make.histograms(
                    "gorego_tier2_call_seconds",
                    "Time to tier 2's answer.",
                    &["method"],
                ),
                read_bytes: make.counter(
                    "gorego_tier2_read_bytes_total",
                    "Bytes of blobs read from tier 2.",
                ),
                written_bytes: make.counter(
                    "gorego_tier2_written_bytes_total",
                    "Bytes of blobs written to tier 2.",
                ),
                connections: make.gauge("gorego_tier2_connections", "Connections to tier 2 that stand."),
                connect_seconds: make.histogram("gorego_tier2_connect_seconds", "Time to connect to tier 2."),
                up: make.gauges(
                    "gorego_tier2_up",
                    "1 while tier 2 answers, by service.",
                    &["service"],
                ),
            },
            retries: RetryMetrics {
                repeated: make.counters(
                    "gorego_tier2_retries_total",
                    "Calls to tier 2 that were repeated.",
                    &["method"],
                ),
                refused: make.counter(
                    "gorego_tier2_retries_refused_total",
                    "Failed calls that were not repeated because too many were.",
                ),
            },
            registry,
        }
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If a metric cannot be written as text, which none of those above can bring about.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Makes metrics and registers them. Names and labels are constants of this file, so that a fault in them shows in the
/// first test that makes a [`Metrics`].
struct Make<'a>(&'a Registry);

impl Make<'_> {
    fn register<M: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        match made.and_then(|metric| self.0.register(Box::new(metric.clone())).map(|()| metric)) {
            Ok(metric) => metric,
            Err(error) => panic!("metrics are declared wrongly: {error}"),
        }
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
        self.register(Histogram::with_opts(options))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
        self.register(HistogramVec::new(options, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_declared_once_and_rendered() {
        let metrics = Metrics::new();
        metrics
            .calls
            .total
            .with_label_values(&["ByteStream/Read", "OK"])
            .inc();
        let text = metrics.render().unwrap();
        assert!(
            text.contains(r#"gorego_calls_total{code="OK",method="ByteStream/Read"} 1"#),
            "{text}"
        );
        assert!(
            text.contains("# HELP gorego_tier1_allocated_bytes Disk that the blobs take."),
            "{text}"
        );
    }

    #[test]
    fn names_types_and_help_are_what_dashboards_know() {
        let metrics = Metrics::new();
        // Families with labels show once something was counted in them.
        metrics.calls.total.with_label_values(&["Health/Check", "OK"]);
        metrics.calls.seconds.with_label_values(&["Health/Check"]);
        metrics.calls.in_flight.with_label_values(&["Health/Check"]);
        metrics.calls.metadata_dropped.with_label_values(&["too_large"]);
        metrics.reads.bytes.with_label_values(&["1"]);
        metrics.reads.not_kept.with_label_values(&["full"]);
        metrics.actions.incomplete.with_label_values(&["missing"]);
        metrics.uploads.repairs.with_label_values(&["ok"]);
        metrics.presence.epochs_ended.with_label_values(&["outage"]);
        metrics.tier1.errors.with_label_values(&["read"]);
        metrics.tier2.total.with_label_values(&["read", "ok"]);
        metrics.tier2.seconds.with_label_values(&["read"]);
        metrics.tier2.up.with_label_values(&["cas"]);
        metrics.retries.repeated.with_label_values(&["read"]);
        let text = metrics.render().unwrap();
        let described: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
        insta::assert_snapshot!(described.join("\n"));
    }

    #[test]
    fn a_fresh_node_has_counted_nothing() {
        let text = Metrics::new().render().unwrap();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(samples.len() > 20);
        for sample in samples {
            assert!(sample.ends_with(" 0"), "{sample}");
        }
    }
}
