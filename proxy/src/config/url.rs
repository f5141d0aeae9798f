//! Where a remote Tier 2 is.

use std::fmt;
use std::net::Ipv6Addr;

use figment::value::Value;

use super::field::{Leaf, Unfit};
use super::leaf::unfit;
use super::show;

/// The longest name that DNS can hold.
const HOST_BYTES_MAX: usize = 253;

/// `grpc://host:port`, or `grpcs://host:port` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    tls: bool,
    host: String,
    port: u16,
}

impl UpstreamUrl {
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// A name or an address; an IPv6 address comes without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, as it stands in HTTP/2's `:authority`.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme {
            "grpc" => false,
            "grpcs" => true,
            _ => return None,
        };
        let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':')?;
        let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string(),
            None if is_host_name(host) => host.to_owned(),
            None => return None,
        };
        Some(Self { tls, host, port })
    }
}

fn is_host_name(host: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(known)
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            if self.tls { "grpcs" } else { "grpc" },
            self.authority()
        )
    }
}

impl Leaf for UpstreamUrl {
    fn form() -> String {
        "`grpc://host:port`, or `grpcs://host:port` for TLS".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        match value.as_str() {
            // Whatever stands before an @ may be a password.
            Some(text) if text.contains('@') => Err(Unfit {
                found: "a URL with a user in it".to_owned(),
            }),
            Some(text) => Self::from_text(text).map_or_else(|| unfit(value), Ok),
            None => unfit(value),
        }
    }

    fn render(&self) -> String {
        show::scalar(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_urls_of_a_host_and_a_port_are_read() {
        for (text, read) in [
            ("grpc://localhost:9092", Some("grpc://localhost:9092")),
            (
                "grpcs://cache.example.com:443/",
                Some("grpcs://cache.example.com:443"),
            ),
            ("grpc://[::1]:9092", Some("grpc://[::1]:9092")),
            ("grpc://127.0.0.1:1", Some("grpc://127.0.0.1:1")),
            ("http://localhost:9092", None),
            ("localhost:9092", None),
            ("grpc://localhost", None),
            ("grpc://localhost:0", None),
            ("grpc://localhost:65536", None),
            ("grpc://localhost:+1", None),
            ("grpc://:9092", None),
            ("grpc://::1:9092", None),
            ("grpc://localhost:9092/instance", None),
            ("grpc://user:password@localhost:9092", None),
        ] {
            let url = UpstreamUrl::parse(&Value::from(text)).ok();
            assert_eq!(url.map(|url| url.to_string()).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn a_password_in_a_url_does_not_reach_the_error() {
        let unfit = UpstreamUrl::parse(&Value::from("grpc://user:hunter2@localhost:9092")).unwrap_err();
        assert!(!unfit.found.contains("hunter2"));
    }
}
