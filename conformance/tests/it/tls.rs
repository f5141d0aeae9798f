//! The flags about the connection: the program itself, against a mock behind TLS with certificates made here.

use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;

use mock_upstream::Mock;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::builder;

/// What the server's certificate is for. Nobody can look the name up, so it has to be said.
const NAME: &str = "cache.example";

/// An authority, a certificate for a server and one for a client, as files.
struct Certificates {
    dir: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Certificates {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        Certificates { dir, authority }
    }

    /// Signed by the authority; as `{file}.pem` and `{file}.key`.
    fn issue(&self, file: &str, names: &[&str], purpose: ExtendedKeyUsagePurpose) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs_err::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
        fs_err::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn flag(&self, flag: &str, file: &str) -> [String; 2] {
        [flag.to_owned(), self.path(file).display().to_string()]
    }
}

/// A mock behind TLS on loopback, as long as the set lives; with `mutual` it wants certificates of its clients.
async fn behind_tls(mock: &Mock, certificates: &Certificates, mutual: bool) -> (String, JoinSet<()>) {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    certificates.issue("server", &[NAME], ExtendedKeyUsagePurpose::ServerAuth);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = if mutual {
        let mut roots = RootCertStore::empty();
        roots.add(certificates.authority.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        config.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let chain = vec![CertificateDer::from_pem_file(certificates.path("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificates.path("server.key")).unwrap();
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];

    let listener = TcpListener::bind("127.0.31.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (acceptor, mock) = (TlsAcceptor::from(Arc::new(config)), mock.clone());
    let mut accepts = JoinSet::new();
    accepts.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // A client that leaves in the handshake is what some tests are about.
            if let Ok(stream) = acceptor.accept(socket).await {
                mock.serve_stream(stream).unwrap();
            }
        }
    });
    (format!("grpcs://{address}"), accepts)
}

async fn run(endpoint: &str, arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reapi-conformance"))
        .args(["--endpoint", endpoint])
        .args(["--strict", "--properties", "2"])
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

fn error(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_right_server_behind_mutual_tls_passes_and_sees_the_headers_on_every_call() {
    let mock = builder()
        .settings(|settings| settings.log_headers = vec!["authorization".into(), "x-suite".into()])
        .start();
    let certificates = Certificates::new();
    let (endpoint, _accepts) = behind_tls(&mock, &certificates, true).await;
    certificates.issue("client", &["client"], ExtendedKeyUsagePurpose::ClientAuth);
    let arguments = [
        certificates.flag("--tls-ca", "ca.pem"),
        certificates.flag("--tls-cert", "client.pem"),
        certificates.flag("--tls-key", "client.key"),
        ["--tls-name".into(), NAME.into()],
        ["--header".into(), "Authorization=Bearer a=b".into()],
        ["--header".into(), "x-suite=1".into()],
    ];
    let output = run(&endpoint, &arguments.concat()).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains(" 0 failed") && text.contains("properties among them: 6"),
        "{text}"
    );

    let calls = mock.calls();
    let due = [("authorization", "Bearer a=b"), ("x-suite", "1")];
    let due = due.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for call in calls.iter() {
        assert_eq!(call.headers, due, "{}", call.method);
    }
    let connections = calls.iter().map(|call| call.connection);
    assert!(
        connections.max() > Some(0),
        "a second connection is of the same kind"
    );
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_by_its_name() {
    let (mock, certificates) = (builder().start(), Certificates::new());
    let (endpoint, _accepts) = behind_tls(&mock, &certificates, false).await;
    let trusted = certificates.flag("--tls-ca", "ca.pem").to_vec();
    let with_name = [trusted.clone(), vec!["--tls-name".into(), "other.example".into()]].concat();
    for (arguments, name) in [(trusted, "127.0.31.1"), (with_name, "other.example")] {
        let error = error(&run(&endpoint, &arguments).await);
        assert!(
            error.contains("certificate not valid for name") && error.contains(name),
            "{error}"
        );
        assert!(error.contains(&endpoint), "{error}");
    }
    assert_eq!(mock.calls().count(), 0);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (mock, certificates, others) = (builder().start(), Certificates::new(), Certificates::new());
    let (endpoint, _accepts) = behind_tls(&mock, &certificates, false).await;
    let arguments = [
        others.flag("--tls-ca", "ca.pem"),
        ["--tls-name".into(), NAME.into()],
    ];
    let error = error(&run(&endpoint, &arguments.concat()).await);
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert_eq!(mock.calls().count(), 0);
}

#[tokio::test]
async fn a_client_without_the_certificate_that_is_wanted_is_told_so() {
    let (mock, certificates) = (builder().start(), Certificates::new());
    let (endpoint, _accepts) = behind_tls(&mock, &certificates, true).await;
    let arguments = [
        certificates.flag("--tls-ca", "ca.pem"),
        ["--tls-name".into(), NAME.into()],
    ];
    let error = error(&run(&endpoint, &arguments.concat()).await);
    assert!(
        error.contains("may want a client's certificate") && error.contains(&endpoint),
        "{error}"
    );
    assert_eq!(mock.calls().count(), 0);
}

#[tokio::test]
async fn a_certificate_that_is_none_is_named() {
    let certificates = Certificates::new();
    fs_err::write(certificates.path("empty.pem"), "nothing").unwrap();
    for file in ["empty.pem", "absent.pem"] {
        let error = error(&run("grpcs://127.0.31.1:1", &certificates.flag("--tls-ca", file)).await);
        assert!(
            error.contains(file) || error.contains("no certificate to trust"),
            "{error}"
        );
    }
}
