//! How the server is reached: address, TLS, headers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

/// A server that does not accept a connection within this time is not there.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// All there is to say about a connection.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `grpc://host:port` or `http://…`; with TLS `grpcs://…` or `https://…`.
    pub endpoint: String,
    /// Certificates to trust, PEM; without it the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate has to be for; without it the host's.
    pub server_name: Option<String>,
    /// Sent with every call.
    pub headers: MetadataMap,
}

impl Options {
    /// An address and nothing else.
    pub fn new(endpoint: &str) -> Options {
        Options {
            endpoint: endpoint.to_owned(),
            ..Options::default()
        }
    }
}

/// A channel over one connection.
pub(crate) async fn channel(options: &Options) -> anyhow::Result<Channel> {
    let dialer = Dialer::new(options)?;
    Ok(match dialer.tls {
        None => dialer.endpoint.connect().await?,
        Some(tls) => {
            let connect = tower::service_fn(move |_uri| tls.clone().connect());
            dialer.endpoint.connect_with_connector(connect).await?
        }
    })
}

/// Makes connections, each when it is first used.
#[derive(Clone)]
pub(crate) struct Dialer {
    endpoint: Endpoint,
    tls: Option<Tls>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.endpoint)
    }
}

#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Dialer {
    /// # Errors
    /// If the address is none, or a certificate cannot be used.
    pub(crate) fn new(options: &Options) -> anyhow::Result<Dialer> {
        let address = options
            .endpoint
            .replacen("grpc://", "http://", 1)
            .replacen("grpcs://", "https://", 1);
        let endpoint = Endpoint::from_shared(address)?.connect_timeout(CONNECT_PATIENCE);
        let uri = endpoint.uri().clone();
        let tls = if uri.scheme_str() == Some("https") {
            let host = uri.host().context("the address has no host")?.to_owned();
            let name = options.server_name.clone().unwrap_or_else(|| host.clone());
            Some(Tls {
                connector: TlsConnector::from(Arc::new(tls(options)?)),
                port: uri.port_u16().unwrap_or(443),
                name: ServerName::try_from(name).context("the name for TLS is none")?,
                host,
            })
        } else {
            None
        };
        Ok(Dialer { endpoint, tls })
    }

    /// A channel over a connection of its own.
    pub(crate) fn lazily(&self) -> Channel {
        match self.tls.clone() {
            None => self.endpoint.connect_lazy(),
            Some(tls) => {
                let connect = tower::service_fn(move |_uri| tls.clone().connect());
                self.endpoint.connect_with_connector_lazy(connect)
            }
        }
    }
}

impl Tls {
    async fn connect(self) -> std::io::Result<TokioIo<TlsStream<TcpStream>>> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        socket.set_nodelay(true)?;
        let stream = self.connector.connect(self.name, socket).await?;
        Ok(TokioIo::new(stream))
    }
}

fn tls(options: &Options) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(options.ca_file.as_deref())?);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
            builder.with_client_auth_cert(certificates(certificate)?, key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn roots(ca_file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .with_context(|| path.display().to_string())?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    anyhow::ensure!(!roots.is_empty(), "no certificate to trust: name a file of them");
    Ok(roots)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    read().with_context(|| path.display().to_string())
}
