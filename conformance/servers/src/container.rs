//! A server in a container of its own, by testcontainers: on a port that stays the same over stops and starts, and
//! removed at the end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use testcontainers::bollard::body_try_stream;
use testcontainers::bollard::models::PortBinding;
use testcontainers::bollard::query_parameters::{
    CreateImageOptionsBuilder, KillContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
};
use testcontainers::core::IntoContainerPort as _;
use testcontainers::core::client::docker_client_instance;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _, bollard::Docker};
use tokio::time::{interval, timeout};
use tokio_util::io::ReaderStream;

use crate::make::{CONTAINER_PORT, Make};
use crate::process::LOOK_EVERY;
use crate::rootfs::{self, Rootfs};

/// On every container of ours; its value is the process that made it.
const LABEL: &str = "gorego.conformance.process";
/// In the name of every image of ours; the tag is the process that made it.
const REPOSITORY: &str = "gorego-conformance";
/// An engine that runs answers at once.
const PING_MAX: Duration = Duration::from_secs(5);
/// For tens of megabytes over a slow line; where there is no way, the refusal comes at once.
const PULL_MAX: Duration = Duration::from_secs(90);
/// A server has so long from SIGTERM to SIGKILL.
const STOP_SECONDS: i32 = 10;

/// A Docker engine that answers.
#[derive(Clone, Debug)]
pub struct Engine(Docker);

/// What a container is made of.
#[derive(Clone, Debug)]
pub struct Image {
    make: Make,
    name: String,
    tag: String,
    /// None where the image has one.
    entrypoint: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    engine: Engine,
}

/// A container, running or not.
#[derive(Debug)]
pub struct Container {
    container: ContainerAsync<GenericImage>,
    engine: Engine,
}

impl Engine {
    /// The engine of this machine, with what killed runs left behind removed.
    ///
    /// # Errors
    /// If none answers.
    pub async fn find() -> Result<Engine> {
        let docker = docker_client_instance().await.context("no Docker engine")?;
        let answer = timeout(PING_MAX, docker.ping()).await;
        answer
            .context("the Docker engine does not answer")?
            .context("no Docker engine answers")?;
        let engine = Engine(docker);
        engine
            .sweep(|owner| !Path::new("/proc").join(owner).exists())
            .await?;
        Ok(engine)
    }

    /// Removes containers and images that this process made.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn clean_up(&self) -> Result<()> {
        let own = process::id().to_string();
        self.sweep(|owner| owner == own).await
    }

    async fn sweep(&self, whose: impl Fn(&str) -> bool) -> Result<()> {
        let labelled = HashMap::from([("label", vec![LABEL])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&labelled)
            .build();
        for container in self.0.list_containers(Some(options)).await? {
            let owner = container.labels.as_ref().and_then(|labels| labels.get(LABEL));
            if let (Some(id), Some(_)) = (&container.id, owner.filter(|owner| whose(owner))) {
                let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                self.0.remove_container(id, Some(options)).await?;
            }
        }
        let named = HashMap::from([("reference", vec![format!("{REPOSITORY}/*")])]);
        let options = ListImagesOptionsBuilder::new().filters(&named).build();
        for image in self.0.list_images(Some(options)).await? {
            for name in &image.repo_tags {
                if name.rsplit_once(':').is_some_and(|(_, owner)| whose(owner)) {
                    let options = RemoveImageOptionsBuilder::new().force(true).build();
                    self.0.remove_image(name, Some(options), None).await?;
                }
            }
        }
        Ok(())
    }

    /// An image that a server's makers publish.
    ///
    /// # Errors
    /// If it is not on this machine and cannot be pulled.
    pub async fn pulled(&self, make: Make, (name, tag): (&str, &str)) -> Result<Image> {
        if self.0.inspect_image(&format!("{name}:{tag}")).await.is_err() {
            let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
            let pull = async {
                let mut progress = self.0.create_image(Some(options), None, None);
                while let Some(step) = progress.next().await {
                    step?;
                }
                anyhow::Ok(())
            };
            let pulled = timeout(PULL_MAX, pull)
                .await
                .map_err(anyhow::Error::from)
                .flatten();
            pulled.with_context(|| format!("the image {name}:{tag} cannot be pulled"))?;
        }
        Ok(Image {
            make,
            name: name.to_owned(),
            tag: tag.to_owned(),
            entrypoint: None,
            arguments: rootfs::arguments(make),
            environment: Vec::new(),
            engine: self.clone(),
        })
    }

    /// An image made of `program` as it was installed on this machine.
    ///
    /// # Errors
    /// If it cannot be found out what the program needs, or the engine refuses.
    pub async fn image_of(&self, make: Make, program: &Path) -> Result<Image> {
        let rootfs = Rootfs::of(make, program).await?;
        let (name, tag) = (format!("{REPOSITORY}/{make}"), process::id().to_string());
        let stage = tempfile::tempdir()?;
        let mut tar = rootfs.tar(stage.path())?;
        let bytes = tar.stdout.take().context("tar's output")?;
        let options = CreateImageOptionsBuilder::new();
        let options = options.from_src("-").repo(&name).tag(&tag).build();
        let body = body_try_stream(ReaderStream::new(bytes));
        let mut progress = self.0.create_image(Some(options), Some(body), None);
        while let Some(step) = progress.next().await {
            step.with_context(|| format!("making an image of {}", program.display()))?;
        }
        let ended = tar.wait().await?;
        ensure!(ended.success(), "tar ended with {ended}");
        Ok(Image {
            make,
            name,
            tag,
            entrypoint: Some(rootfs.entrypoint),
            arguments: rootfs.arguments,
            environment: rootfs.environment,
            engine: self.clone(),
        })
    }
}

impl Image {
    /// What it is a container of.
    #[must_use]
    pub fn make(&self) -> Make {
        self.make
    }

    /// Of one that its makers publish, the version.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Starts a container that can be reached at `address`, and there alone.
    ///
    /// # Errors
    /// If the engine cannot start it.
    pub async fn start(&self, address: SocketAddr) -> Result<Container> {
        let image = GenericImage::new(self.name.clone(), self.tag.clone());
        let mut image = image.with_exposed_port(CONTAINER_PORT.tcp());
        if let Some(entrypoint) = &self.entrypoint {
            image = image.with_entrypoint(entrypoint);
        }
        let mut request = image
            .with_cmd(self.arguments.clone())
            .with_label(LABEL, process::id().to_string())
            .with_host_config_modifier(move |config| {
                let binding = PortBinding {
                    host_ip: Some(address.ip().to_string()),
                    host_port: Some(address.port().to_string()),
                };
                let port = format!("{CONTAINER_PORT}/tcp");
                config.port_bindings = Some(HashMap::from([(port, Some(vec![binding]))]));
                config.publish_all_ports = Some(false);
            });
        for (name, value) in &self.environment {
            request = request.with_env_var(*name, value.clone());
        }
        let started = request.start().await;
        Ok(Container {
            container: started.with_context(|| format!("starting a container of {}", self.make))?,
            engine: self.engine.clone(),
        })
    }
}

impl Container {
    /// Starts it again, with what it had stored.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn start(&self) -> Result<()> {
        Ok(self.container.start().await?)
    }

    /// SIGTERM, and SIGKILL after a while.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn stop(&self) -> Result<()> {
        Ok(self.container.stop_with_timeout(Some(STOP_SECONDS)).await?)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn kill(&self) -> Result<()> {
        let options = Some(KillContainerOptions {
            signal: "SIGKILL".to_owned(),
        });
        self.engine.0.kill_container(self.container.id(), options).await?;
        // The engine answers before the end.
        let mut looks = interval(LOOK_EVERY);
        while self.container.is_running().await? {
            looks.tick().await;
        }
        Ok(())
    }

    /// Freezes its processes.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn pause(&self) -> Result<()> {
        Ok(self.container.pause().await?)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn resume(&self) -> Result<()> {
        Ok(self.container.unpause().await?)
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// If the engine does not know.
    pub async fn is_running(&self) -> Result<bool> {
        Ok(self.container.is_running().await?)
    }

    /// Everything it has printed so far.
    ///
    /// # Errors
    /// If the engine does not have it.
    pub async fn printed(&self) -> Result<String> {
        let (out, err) = (
            self.container.stdout_to_vec().await?,
            self.container.stderr_to_vec().await?,
        );
        Ok(String::from_utf8_lossy(&out).into_owned() + &String::from_utf8_lossy(&err))
    }

    /// Ends and removes it.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn remove(self) -> Result<()> {
        Ok(self.container.rm().await?)
    }
}
