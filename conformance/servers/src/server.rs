//! A running server of any make, as a process or in a container, with what can happen to one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use conformance::Target;
use tokio::time::{Instant, interval, timeout};

#[cfg(feature = "containers")]
use crate::container::{Container, Image};
use crate::make::Make;
use crate::process::{LOOK_EVERY, START_MAX, Service, free_address, last_lines};

/// One question to a server that may not listen yet, or be frozen.
const ASK_MAX: Duration = Duration::from_secs(2);

/// A server at an address that it keeps for as long as it lives. Dropped, it is killed; a container is removed.
#[derive(Debug)]
pub struct Server {
    make: Make,
    address: SocketAddr,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Process {
        program: PathBuf,
        dir: PathBuf,
        /// None while it is down.
        service: Option<Box<Service>>,
    },
    #[cfg(feature = "containers")]
    Container { container: Box<Container>, dir: PathBuf },
}

impl Server {
    /// Starts `program` with all that it stores and prints in `dir`, and returns when it answers.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn process(make: Make, program: &Path, dir: &Path) -> Result<Server> {
        fs_err::create_dir_all(dir)?;
        let mut server = Server {
            make,
            address: free_address()?,
            body: Body::Process {
                program: program.to_owned(),
                dir: dir.to_owned(),
                service: None,
            },
        };
        server.start().await?;
        Ok(server)
    }

    /// Starts a container and returns when the server in it answers. `dir` takes its log, at the end.
    ///
    /// # Errors
    /// If it does not get ready.
    #[cfg(feature = "containers")]
    pub async fn container(image: &Image, dir: &Path) -> Result<Server> {
        fs_err::create_dir_all(dir)?;
        let address = free_address()?;
        let container = image.start(address).await?;
        let mut server = Server {
            make: image.make(),
            address,
            body: Body::Container {
                container: Box::new(container),
                dir: dir.to_owned(),
            },
        };
        server.wait_ready().await?;
        Ok(server)
    }

    /// What it is.
    #[must_use]
    pub fn make(&self) -> Make {
        self.make
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a node's `tier2.url` takes.
    #[must_use]
    pub fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    /// Starts it again after [`Server::kill`] or [`Server::stop`], at the same address and with what it had stored, and
    /// returns when it answers.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn start(&mut self) -> Result<()> {
        match &mut self.body {
            Body::Process {
                program,
                dir,
                service,
            } => {
                ensure!(service.is_none(), "{} runs already", self.make);
                let mut command = self.make.command(program, self.address, dir)?;
                *service = Some(Box::new(Service::start(
                    self.make.name(),
                    &mut command,
                    &dir.join("log"),
                )?));
            }
            #[cfg(feature = "containers")]
            Body::Container { container, .. } => container.start().await?,
        }
        self.wait_ready().await
    }

    /// Starts it again, whether it is at its end, has ended by itself or does nothing of the kind.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn revive(&mut self) -> Result<()> {
        if self.is_running().await?
            && let Err(error) = self.kill().await
        {
            // It may have ended in between.
            ensure!(
                !self.is_running().await?,
                "{} cannot be ended: {error:#}",
                self.make
            );
        }
        if let Body::Process { service, .. } = &mut self.body {
            *service = None;
        }
        self.start().await
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        match &mut self.body {
            Body::Process { service, .. } => running(self.make, service.take())?.kill().await,
            #[cfg(feature = "containers")]
            Body::Container { container, .. } => container.kill().await,
        }
    }

    /// SIGTERM. How it ends is its own affair.
    ///
    /// # Errors
    /// If it does not run, or not end.
    pub async fn stop(&mut self) -> Result<()> {
        match &mut self.body {
            Body::Process { service, .. } => {
                running(self.make, service.take())?.terminate().await?;
                Ok(())
            }
            #[cfg(feature = "containers")]
            Body::Container { container, .. } => container.stop().await,
        }
    }

    /// Freezes it: its connections stay, and it says nothing.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn pause(&mut self) -> Result<()> {
        match &mut self.body {
            Body::Process { service, .. } => running(self.make, service.as_ref())?.pause().await,
            #[cfg(feature = "containers")]
            Body::Container { container, .. } => container.pause().await,
        }
    }

    /// Lets it go on after [`Server::pause`].
    ///
    /// # Errors
    /// If it does not run.
    pub async fn resume(&mut self) -> Result<()> {
        match &mut self.body {
            Body::Process { service, .. } => running(self.make, service.as_ref())?.resume(),
            #[cfg(feature = "containers")]
            Body::Container { container, .. } => container.resume().await,
        }
    }

    /// Returns when it answers GetCapabilities: an open port proves nothing, since an engine's may be open before the
    /// server listens.
    ///
    /// # Errors
    /// If it ends instead, or does not answer within a minute.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let until = Instant::now() + START_MAX;
        let mut looks = interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            if let Ok(Ok(())) = timeout(ASK_MAX, self.answers()).await {
                return Ok(());
            }
            if !self.is_running().await? {
                bail!(
                    "{} ended instead of getting ready:\n{}",
                    self.make,
                    last_lines(&self.printed().await?)
                );
            }
            ensure!(
                Instant::now() < until,
                "{} was not ready after {START_MAX:?}:\n{}",
                self.make,
                last_lines(&self.printed().await?)
            );
        }
    }

    async fn answers(&self) -> Result<()> {
        let target = Target::connect(&self.url(), "").await?;
        target.server_capabilities().await?;
        Ok(())
    }

    async fn is_running(&mut self) -> Result<bool> {
        match &mut self.body {
            Body::Process { service, .. } => match service {
                Some(service) => service.is_running(),
                None => Ok(false),
            },
            #[cfg(feature = "containers")]
            Body::Container { container, .. } => container.is_running().await,
        }
    }

    /// Everything it has printed so far.
    ///
    /// # Errors
    /// If that cannot be had.
    pub async fn printed(&self) -> Result<String> {
        match &self.body {
            Body::Process { dir, .. } => {
                Ok(String::from_utf8_lossy(&fs_err::read(dir.join("log"))?).into_owned())
            }
            #[cfg(feature = "containers")]
            Body::Container { container, .. } => container.printed().await,
        }
    }

    /// Ends it. What it printed stays in its directory.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn end(mut self) -> Result<()> {
        match self.body {
            Body::Process { ref mut service, .. } => match service.take() {
                Some(mut service) => service.terminate().await.map(drop),
                None => Ok(()),
            },
            #[cfg(feature = "containers")]
            Body::Container { container, dir } => {
                fs_err::write(dir.join("log"), container.printed().await?)?;
                container.remove().await
            }
        }
    }
}

fn running<T>(make: Make, service: Option<T>) -> Result<T> {
    service.with_context(|| format!("{make} does not run"))
}
