//! buildbox-casd, a REAPI server of another make. Bazel alone refuses it (it does not speak REAPI 2.0); through a node
//! it has to work.

use std::path::Path;

use anyhow::Result;
use tokio::process::Command;

use crate::service::{Service, free_address};

/// What it prints once it accepts calls.
const READY: &str = "Server listening on";

/// A running server.
#[derive(Debug)]
pub struct Casd {
    service: Service,
    url: String,
}

impl Casd {
    /// Starts `program` with its store in `dir`.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn start(program: &Path, dir: &Path) -> Result<Casd> {
        fs_err::create_dir_all(dir)?;
        let address = free_address()?;
        let mut command = Command::new(program);
        command.arg(format!("--bind={address}"));
        command.args([
            "--quota-high=4G",
            "--quota-low=50%",
            "--reserved=0",
            "--log-level=info",
        ]);
        command.arg(dir.join("store"));
        let mut service = Service::start("buildbox-casd", &mut command, &dir.join("log"))?;
        service
            .wait_until(async |service| Ok(service.printed()?.contains(READY)))
            .await?;
        Ok(Casd {
            service,
            url: format!("grpc://{address}"),
        })
    }

    /// What a node's `tier2.url` takes.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it does not end cleanly.
    pub async fn stop(self) -> Result<()> {
        self.service.stop().await
    }
}
