//! How the server is reached: address, TLS, headers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
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

/// A connection, whatever it goes over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that is being made.
type Opening = BoxFuture<'static, io::Result<Box<dyn Stream>>>;

/// Opens connections to the server.
#[derive(Clone)]
pub(crate) struct Dial(Arc<dyn Fn() -> Opening + Send + Sync>);

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

impl Dial {
    /// By a function that opens one.
    pub(crate) fn by<F, S>(open: impl Fn() -> F + Send + Sync + 'static) -> Dial
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: Stream + 'static,
    {
        Dial(Arc::new(move || {
            let opened = open();
            async move { Ok(Box::new(opened.await?) as Box<dyn Stream>) }.boxed()
        }))
    }

    /// As the options have it: over TCP, and TLS where the address says so.
    pub(crate) fn to(options: &Options) -> anyhow::Result<Dial> {
        let endpoint = endpoint(options)?;
        let uri = endpoint.uri().clone();
        let with_tls = uri.scheme_str() == Some("https");
        let host = uri.host().context("the address has no host")?.to_owned();
        let port = uri.port_u16().unwrap_or(if with_tls { 443 } else { 80 });
        // An address of IPv6 stands in brackets there, and has none elsewhere.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tcp = move |host: String| async move {
            let socket = TcpStream::connect((host.as_str(), port)).await?;
            socket.set_nodelay(true)?;
            Ok(socket)
        };
        if !with_tls {
            return Ok(Dial::by(move || tcp(host.clone())));
        }
        let name = options.server_name.clone().unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name).context("the name for TLS is none")?;
        let connector = TlsConnector::from(Arc::new(tls(options)?));
        Ok(Dial::by(move || {
            let (connector, name, tcp) = (connector.clone(), name.clone(), tcp(host.clone()));
            async move { connector.connect(name, tcp.await?).await }
        }))
    }

    /// A connection.
    pub(crate) async fn open(&self) -> io::Result<Box<dyn Stream>> {
        (self.0)().await
    }
}

fn endpoint(options: &Options) -> anyhow::Result<Endpoint> {
    let address = options
        .endpoint
        .replacen("grpc://", "http://", 1)
        .replacen("grpcs://", "https://", 1);
    Ok(Endpoint::from_shared(address)?.connect_timeout(CONNECT_PATIENCE))
}

/// A channel over one connection.
pub(crate) async fn channel(options: &Options, dial: &Dial) -> anyhow::Result<Channel> {
    let dial = dial.clone();
    let connect = tower::service_fn(move |_uri| {
        let dial = dial.clone();
        async move { dial.open().await.map(TokioIo::new) }
    });
    Ok(endpoint(options)?.connect_with_connector(connect).await?)
}

/// Channels, each over a connection of its own that is made when it is first used.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    endpoint: Endpoint,
    dial: Dial,
}

impl Channels {
    /// # Errors
    /// If the address is none, or a certificate cannot be used.
    pub(crate) fn to(options: &Options) -> anyhow::Result<Channels> {
        Ok(Channels {
            endpoint: endpoint(options)?,
            dial: Dial::to(options)?,
        })
    }

    /// One more.
    pub(crate) fn open(&self) -> Channel {
        let dial = self.dial.clone();
        let connect = tower::service_fn(move |_uri| {
            let dial = dial.clone();
            async move { dial.open().await.map(TokioIo::new) }
        });
        self.endpoint.connect_with_connector_lazy(connect)
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
