//! Puts a node together from its configuration. The one place that names concrete stores and says which wraps which.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::call::InstanceName;
use crate::config::{self, Config, Repair, Tier1Write, Tier2Place, Upstream};
use crate::descriptors;
use crate::grpc::listener::{ListenerOptions, Server};
use crate::grpc::{Edge, EdgeOptions};
use crate::http_admin::Admin;
use crate::life::{self, Ended, Running};
use crate::metrics::Metrics;
use crate::readiness::{Phase, Readiness};
use crate::task::TaskGroup;
use crate::tier1::{Disk, SystemDisk, Tier1, Tier1Options};
use crate::tier2::breaker::Breaker;
use crate::tier2::embedded::EmbeddedTier2;
use crate::tier2::health::{Announcer, Outlook, outlook};
use crate::tier2::metered::Metered;
use crate::tier2::remote::{Connect, Endpoint, InstanceMap, NetConnector, RemoteOptions, RemoteTier2};
use crate::tier2::retry::Retried;
use crate::tier2::split::Split;
use crate::tier2::{Losses, Tier2};
use crate::tiered::{
    ActionOptions, Actions, BadBlobs, OutageOptions, Pending, Presence, PresenceOptions, Publish, Reads,
    Signs, Tiered, Touches, WhenDown, WriteOptions, Writes, time_slept,
};

/// What stands below a node: the disk, the way to Tier 2, and what the system allows. A test replaces any.
pub struct Ground {
    /// Where Tier 1 lives.
    pub disk: Arc<dyn Disk>,
    /// Makes connections to a remote Tier 2; `None` for those of the configuration.
    pub connector: Option<Box<dyn Connect>>,
    /// Connections that clients may have at once.
    pub connections_max: usize,
}

impl Default for Ground {
    fn default() -> Ground {
        Ground {
            disk: Arc::new(SystemDisk::new()),
            connector: None,
            connections_max: descriptors::CONNECTIONS_MAX,
        }
    }
}

/// A node, ready to serve whatever byte streams it is given.
pub struct Node {
    /// Attach connections to it, or have it serve a listener.
    pub server: Server<Edge>,
    /// What it counts.
    pub metrics: Metrics,
    /// Whether it wants traffic.
    pub readiness: Readiness,
    /// Its disk.
    pub tier1: Tier1,
    /// What it knows of its Tier 2.
    pub outlook: Outlook,
    /// What has to end when it ends.
    pub running: Running,
}

impl Node {
    /// Builds a node. Asks neither Tier 2 nor the disk to be there: both are found out on the way.
    ///
    /// # Errors
    /// If the embedded Tier 2's directory cannot be used, or the certificates for a remote one cannot be read.
    pub async fn new(config: &Config, ground: Ground) -> anyhow::Result<Node> {
        let metrics = Metrics::new();
        let (commits, flights) = (TaskGroup::new(), TaskGroup::new());
        let (touches, background) = (TaskGroup::new(), TaskGroup::new());
        let node_id = uuid::Uuid::new_v4().simple().to_string();
        let (tier2, outlook, losses) =
            tier2(config, ground.connector, &node_id, &background, &metrics).await?;
        let tier1 = Tier1::open(
            tier1_options(config),
            ground.disk,
            &background,
            metrics.tier1.clone(),
        );

        let (pending, bad) = (
            Arc::new(Pending::new()),
            Arc::new(BadBlobs::new(metrics.reads.bad_blobs.clone())),
        );
        let presence = Presence::new(
            tier2.clone(),
            bad,
            PresenceOptions {
                lease: config.cas.lease,
                write_lease: config.cas.write_lease.min(config.cas.lease),
            },
            Signs::new(outlook.clone(), losses, time_slept),
            &background,
            metrics.presence.clone(),
        );
        let options = WriteOptions {
            publish: match config.tier1.write {
                Tier1Write::Sync => Publish::Sync,
                Tier1Write::Async => Publish::Async,
            },
            resume_window: config.upload.resume_window,
            repair: config.repair == Repair::On,
        };
        let writes = Writes::new(
            tier1.clone(),
            presence.clone(),
            pending.clone(),
            options,
            commits.clone(),
            metrics.uploads.clone(),
        );
        let told = Touches::new(
            config.touch.interval,
            writes.clone(),
            outlook.clone(),
            touches.clone(),
            metrics.touches.clone(),
        );
        let reads = Reads::new(
            tier1.clone(),
            presence,
            pending,
            told,
            flights.clone(),
            metrics.reads.clone(),
        );

        let options = ActionOptions {
            lease: config.ac.lease,
            memory_bytes: usize::try_from(config.ac.memory.bytes()).unwrap_or(usize::MAX),
        };
        let actions = Actions::new(
            reads.clone(),
            writes.clone(),
            &options,
            outlook.clone(),
            metrics.actions.clone(),
        );

        let (phase, phases) = watch::channel(Phase::Serving);
        let when_down = match config.tier2.when_down {
            config::WhenDown::Fail => WhenDown::Fail,
            config::WhenDown::ServeTier1 => WhenDown::ServeTier1,
            config::WhenDown::Bypass => WhenDown::Bypass,
        };
        // In the other modes the node is of use without Tier 2.
        let patience = (when_down == WhenDown::Fail).then_some(config.readiness.tier2);
        let outage = OutageOptions {
            when_down,
            max_outage: config.tier2.max_outage,
        };
        let readiness = Readiness::new(phases, outlook.clone(), patience);
        let options = EdgeOptions {
            batch_bytes_max: config.limits.max_batch_size.bytes(),
            blob_bytes_max: config.limits.max_blob_size.map(|size| size.bytes()),
            groups: config.share_groups.clone(),
            node_id,
        };
        let (edge, serving) = Edge::new(
            options,
            Tiered::new(reads, writes, actions, (outage, outlook.clone()), tier2),
            metrics.calls.clone(),
        )
        .await
        .map_err(anyhow::Error::from_boxed)?;
        follow(&background, readiness.clone(), serving);
        let options = ListenerOptions {
            streams_max: config.limits.max_streams,
            connections_max: ground.connections_max,
            grace: config.shutdown.grace,
        };
        let stop_edge = CancellationToken::new();
        let running = Running {
            phase,
            stop_edge,
            commits,
            flights,
            touches,
            background,
        };
        Ok(Node {
            server: Server::new(edge, options),
            metrics,
            readiness,
            tier1,
            outlook,
            running,
        })
    }
}

/// Tells grpc.health.v1 what the readiness is, whenever it changes.
fn follow(tasks: &TaskGroup, mut readiness: Readiness, health: crate::grpc::Health) {
    let stop = tasks.stopping();
    let follow = async move {
        let mut told = None;
        loop {
            let serving = readiness.now().is_ok();
            // Every word goes out to whoever watches, and probes stir the readiness several times a second.
            if told != Some(serving) {
                health.set_serving(serving).await;
                told = Some(serving);
            }
            readiness.changed().await;
        }
    };
    drop(tasks.spawn(async move { stop.run_until_cancelled(follow).await }));
}

fn tier1_options(config: &Config) -> Tier1Options {
    Tier1Options {
        dir: config.tier1.dir.clone(),
        watermarks: config.tier1.watermarks,
        blob_bytes_max: config.tier1.max_blob_size.bytes(),
    }
}

/// Tier 2 with its wrappers: batches are cut first, and each call that then goes out passes the breaker, is metered, and
/// repeated if an accident befell it.
async fn tier2(
    config: &Config,
    connector: Option<Box<dyn Connect>>,
    node_id: &str,
    tasks: &TaskGroup,
    metrics: &Metrics,
) -> anyhow::Result<(Arc<dyn Tier2>, Outlook, Losses)> {
    let (announcer, outlook) = outlook();
    match &config.tier2.place {
        Tier2Place::Embedded { dir } => {
            let shown = dir.display();
            let embedded = EmbeddedTier2::open(dir.clone())
                .await
                .with_context(|| format!("the embedded tier 2 cannot use {shown}"))?;
            tracing::warn!(
                dir = %shown,
                "no tier2.url: using the embedded tier 2, which lives in this process and never evicts"
            );
            let losses = Losses::default();
            let (tier2, outlook) = wrapped(embedded, (announcer, outlook), &losses, tasks, metrics);
            Ok((tier2, outlook, losses))
        }
        Tier2Place::Remote(upstream) => {
            let options = remote_options(config, upstream, node_id);
            let connector = match connector {
                Some(connector) => connector,
                None => Box::new(
                    NetConnector::new(options.endpoint.clone(), upstream.ca_file.as_deref())
                        .context("tier2.url cannot be used")?,
                ),
            };
            tracing::info!(url = %upstream.url, "using a remote tier 2");
            let remote = RemoteTier2::new(options, connector, outlook.clone(), tasks, &metrics.tier2)
                .context("tier2.url cannot be used")?;
            let losses = remote.losses();
            let (tier2, outlook) = wrapped(remote, (announcer, outlook), &losses, tasks, metrics);
            // Asked for here, its capabilities are known before the first client asks, and builds keep what they are told;
            // and that it is not there at all, if it is not.
            let _assumed = tier2.offers(&InstanceName::default());
            Ok((tier2, outlook, losses))
        }
    }
}

fn wrapped(
    store: impl Tier2,
    (announcer, outlook): (Announcer, Outlook),
    losses: &Losses,
    tasks: &TaskGroup,
    metrics: &Metrics,
) -> (Arc<dyn Tier2>, Outlook) {
    let metered = Metered::new(store, metrics.tier2.clone());
    let breaker = Breaker::new(
        metered,
        (announcer, outlook.clone()),
        losses,
        tasks,
        &metrics.tier2.up,
    );
    let retried = Retried::new(breaker, outlook.clone(), metrics.retries.clone());
    (Arc::new(Split::new(retried)), outlook)
}

fn remote_options(config: &Config, upstream: &Upstream, node_id: &str) -> RemoteOptions {
    let instances = upstream.instances.clone();
    RemoteOptions {
        endpoint: Endpoint {
            tls: upstream.url.tls(),
            host: upstream.url.host().to_owned(),
            port: upstream.url.port(),
        },
        instances: InstanceMap::new(move |client| instances.upstream_of(client).clone()),
        connections: upstream.connections,
        connect_timeout: upstream.connect_timeout,
        first_byte_timeout: upstream.first_byte_timeout,
        stall_timeout: upstream.stall_timeout,
        commit_timeout: config.tier2.commit_timeout,
        node_id: node_id.to_owned(),
    }
}

/// Runs a node on the addresses of its configuration until a signal ends it.
///
/// # Errors
/// If it cannot start: a port is taken, or as [`Node::new`].
pub async fn serve(config: Config) -> anyhow::Result<Ended> {
    // Ports first: whoever connects now waits for milliseconds, instead of being refused.
    let listener = bind(config.listen_addr, "listen_addr").await?;
    let admin_listener = bind(config.http_addr, "http_addr").await?;
    let addresses = (listener.local_addr()?, admin_listener.local_addr()?);
    let ground = Ground {
        connections_max: descriptors::connections(),
        ..Ground::default()
    };
    let node = Node::new(&config, ground).await?;
    let mut signals = life::signals(&node.running.background)?;
    let admin = Admin {
        metrics: node.metrics.clone(),
        readiness: node.readiness.clone(),
    };
    let pages = admin.serve(admin_listener, node.running.background.stopping());
    drop(node.running.background.spawn(pages));
    tracing::info!(grpc = %addresses.0, http = %addresses.1, "listening");
    let stop = node.running.stop_edge.clone();
    let edge = async { node.server.serve(listener, stop).await.cut };
    Ok(life::run(node.running, edge, &mut signals, config.shutdown.grace).await)
}

async fn bind(address: SocketAddr, field: &'static str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{field}: {address}"))
}

#[cfg(test)]
mod tests;
