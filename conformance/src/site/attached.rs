//! A proxy at an address, and nothing more known of it.

use anyhow::Context as _;
use async_trait::async_trait;
use mock_upstream::Mock;
use tonic::transport::{Channel, Endpoint};

use crate::site::Site;

/// Any proxy that runs, with a mock behind it that runs in this process. It has no hooks.
#[derive(Debug)]
pub struct Attached {
    endpoint: Endpoint,
    mock: Mock,
}

impl Attached {
    /// The proxy at `grpc://host:port`, whose upstream is the mock.
    ///
    /// # Errors
    /// If the address is none.
    pub fn at(address: &str, mock: Mock) -> anyhow::Result<Attached> {
        let url = address.replacen("grpc://", "http://", 1);
        let endpoint = Endpoint::from_shared(url).context("the proxy's address")?;
        Ok(Attached { endpoint, mock })
    }
}

#[async_trait]
impl Site for Attached {
    fn channel(&self) -> Channel {
        self.endpoint.connect_lazy()
    }

    fn mock(&self) -> &Mock {
        &self.mock
    }
}
