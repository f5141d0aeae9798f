use proto::reapi::FindMissingBlobsResponse;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    dir: tempfile::TempDir,
}

/// A server on loopback with a certificate for `localhost`.
async fn server() -> Server {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("ca.pem"), cert.pem()).unwrap();
    Server {
        listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        acceptor: TlsAcceptor::from(Arc::new(config)),
        dir,
    }
}

impl Server {
    fn endpoint(&self) -> Endpoint {
        Endpoint {
            tls: true,
            host: "localhost".to_owned(),
            port: self.listener.local_addr().unwrap().port(),
        }
    }

    /// Answers one call; false if the client does not come that far.
    async fn answer_one(&self) -> bool {
        let (stream, _) = self.listener.accept().await.unwrap();
        let Ok(stream) = self.acceptor.accept(stream).await else {
            return false;
        };
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.uri().scheme_str(), Some("https"));
        let response = http::Response::new(());
        let mut reply = respond.send_response(response, false).unwrap();
        use prost::Message as _;
        let empty = FindMissingBlobsResponse::default().encode_to_vec();
        assert!(empty.is_empty());
        reply.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        reply.send_trailers(trailers).unwrap();
        // Drives the connection until the client hangs up.
        assert!(connection.accept().await.is_none_or(|next| next.is_err()));
        true
    }
}

async fn ask(connector: NetConnector, endpoint: Endpoint) -> Result<Vec<Digest>, Tier2Error> {
    let (tasks, metrics, (_announcer, outlook)) = (TaskGroup::new(), Metrics::new(), outlook());
    let tier2 = RemoteTier2::new(
        options(endpoint),
        Box::new(connector),
        outlook,
        &tasks,
        &metrics.tier2,
    )
    .unwrap();
    let found = tier2.find_missing(&call(), &[digest_of(b"a")]).await;
    tasks.stop(Duration::from_secs(10)).await;
    found
}

#[tokio::test]
async fn tls_is_spoken_to_a_server_that_the_ca_file_vouches_for() {
    let server = server().await;
    let ca_file = server.dir.path().join("ca.pem");
    let connector = NetConnector::new(server.endpoint(), Some(&ca_file)).unwrap();
    let (found, served) = tokio::join!(ask(connector, server.endpoint()), server.answer_one());
    assert_eq!((found.unwrap(), served), (vec![], true));
}

#[tokio::test]
async fn tls_is_not_spoken_to_a_stranger() {
    let (server, other) = (server().await, server().await);
    let ca_file = other.dir.path().join("ca.pem");
    let connector = NetConnector::new(server.endpoint(), Some(&ca_file)).unwrap();
    let (found, served) = tokio::join!(ask(connector, server.endpoint()), server.answer_one());
    assert!(matches!(found, Err(Tier2Error::Down(_))), "{found:?}");
    assert!(!served);
}

#[test]
fn a_ca_file_that_is_of_no_use_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = || Endpoint {
        tls: true,
        host: "localhost".to_owned(),
        port: 1,
    };
    let empty = dir.path().join("empty.pem");
    fs_err::write(&empty, "").unwrap();
    for path in [empty, dir.path().join("absent.pem")] {
        let error = NetConnector::new(endpoint(), Some(&path)).unwrap_err();
        assert!(matches!(&error, ConnectorError::CaFile { .. }), "{error}");
        assert!(error.to_string().contains(".pem: "), "{error}");
    }
    let nameless = Endpoint {
        host: "not a name".to_owned(),
        ..endpoint()
    };
    let error = NetConnector::new(nameless, None).unwrap_err();
    assert!(matches!(error, ConnectorError::HostName(_)), "{error}");
}
