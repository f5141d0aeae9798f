//! How a connection to Tier 2 is made.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A byte stream of any kind.
pub type BoxIo = Box<dyn Io>;

/// Makes connections to one Tier 2: over the network ([`NetConnector`]), or over in-memory pipes in tests.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// Makes one connection. The caller bounds the time; dropping the future gives up.
    async fn connect(&self) -> io::Result<BoxIo>;
}

/// Where a remote Tier 2 is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it is reached by TLS.
    pub tls: bool,
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// `host:port`, with brackets where they are needed.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Connects by TCP, and by TLS if the endpoint says so.
#[derive(Clone)]
pub struct NetConnector {
    endpoint: Endpoint,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl fmt::Debug for NetConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NetConnector").field(&self.endpoint).finish()
    }
}

/// Why TLS cannot be set up. All of it is found out at the start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// A host that no certificate can be for.
    #[error("{0:?} is no host name")]
    HostName(String),
    /// The file cannot be read, or has no certificate that can be used.
    #[error("{}: {problem}", .path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The system trusts nobody.
    #[error("the system has no certificates to trust; name a file of them")]
    NoRoots,
    /// The TLS library refuses.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl NetConnector {
    /// A connector that trusts the certificates in `ca_file`, or the system's. Blocks, to read them.
    ///
    /// # Errors
    /// [`ConnectorError`], only for endpoints with TLS.
    pub fn new(endpoint: Endpoint, ca_file: Option<&Path>) -> Result<NetConnector, ConnectorError> {
        let tls = match endpoint.tls {
            true => Some(tls(&endpoint, ca_file)?),
            false => None,
        };
        Ok(NetConnector { endpoint, tls })
    }
}

fn tls(
    endpoint: &Endpoint,
    ca_file: Option<&Path>,
) -> Result<(TlsConnector, ServerName<'static>), ConnectorError> {
    let host = endpoint.host.clone();
    let name = ServerName::try_from(host.clone()).map_err(|_| ConnectorError::HostName(host))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, ConnectorError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::warn!(%error, "some of the system's certificates cannot be read");
        }
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        return if added == 0 {
            Err(ConnectorError::NoRoots)
        } else {
            Ok(roots)
        };
    };
    let faulty = |problem: String| ConnectorError::CaFile {
        path: path.to_owned(),
        problem,
    };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| faulty(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| faulty(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| faulty(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(faulty("no certificate in it".to_owned()));
    }
    Ok(roots)
}

#[async_trait]
impl Connect for NetConnector {
    async fn connect(&self) -> io::Result<BoxIo> {
        let stream = TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => Ok(Box::new(connector.connect(name.clone(), stream).await?)),
        }
    }
}
