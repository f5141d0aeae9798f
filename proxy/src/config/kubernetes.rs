//! Variables that Kubernetes injects into every pod of a namespace that has a Service called `gorego` or `gorego-…`.
//! They are nobody's mistake, so they are ignored.

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether the variable is of the kind that Kubernetes makes from a Service.
pub(crate) fn injects(name: &str, value: &str) -> bool {
    let Some(name) = name.strip_prefix("GOREGO_") else {
        return false;
    };
    ["SERVICE_HOST", "SERVICE_PORT"].iter().any(|tail| ends_with_words(name, tail))
        || contains_words(name, "SERVICE_PORT_")
        // `GOREGO_HTTP_PORT=8981` is somebody's guess at a field; Kubernetes gives an address.
        || (ends_with_words(name, "PORT") && is_service_address(value))
        || is_port_detail(name)
}

fn ends_with_words(name: &str, tail: &str) -> bool {
    name.strip_suffix(tail)
        .is_some_and(|head| head.is_empty() || head.ends_with('_'))
}

/// Whether `words` stand in `name` at the start of a word, with something behind them.
fn contains_words(name: &str, words: &str) -> bool {
    name.match_indices(words)
        .any(|(at, _)| (at == 0 || name[..at].ends_with('_')) && name.len() > at + words.len())
}

fn is_service_address(value: &str) -> bool {
    PROTOCOLS
        .iter()
        .any(|protocol| value.starts_with(&format!("{}://", protocol.to_lowercase())))
}

/// `PORT_8980_TCP`, alone or followed by `_ADDR`, `_PORT` or `_PROTO`.
fn is_port_detail(name: &str) -> bool {
    let name = ["_ADDR", "_PORT", "_PROTO"]
        .iter()
        .find_map(|tail| name.strip_suffix(tail))
        .unwrap_or(name);
    let mut words = name.rsplit('_');
    let protocol = words.next().is_some_and(|word| PROTOCOLS.contains(&word));
    let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
    protocol && number && words.next() == Some("PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_made_from_a_service_are_recognised() {
        let address = "tcp://10.0.0.1:8980";
        for name in [
            "GOREGO_PORT",
            "GOREGO_SERVICE_HOST",
            "GOREGO_SERVICE_PORT",
            "GOREGO_SERVICE_PORT_GRPC",
            "GOREGO_PORT_8980_TCP",
            "GOREGO_PORT_8980_TCP_ADDR",
            "GOREGO_PORT_8980_TCP_PORT",
            "GOREGO_PORT_8980_TCP_PROTO",
            "GOREGO_PORT_8980_UDP_ADDR",
            "GOREGO_HEADLESS_PORT",
            "GOREGO_HEADLESS_SERVICE_HOST",
            "GOREGO_HEADLESS_PORT_8981_TCP_ADDR",
        ] {
            assert!(injects(name, address), "{name}");
        }
    }

    #[test]
    fn other_names_are_not_taken_for_a_service() {
        for (name, value) in [
            ("GOREGO_PORT", "8980"),
            ("GOREGO_HTTP_PORT", "8981"),
            ("GOREGO_TEIR2_URL", "tcp://10.0.0.1:8980"),
            ("GOREGO_PORT_8980", "8980"),
            ("GOREGO_PORT_99999_TCP", "tcp://10.0.0.1:99999"),
            ("GOREGO_MYSERVICE_HOST", "10.0.0.1"),
            ("GOREGO_SERVICE_PORT_", "1"),
            ("GOREGO_", ""),
        ] {
            assert!(!injects(name, value), "{name}");
        }
    }

    #[test]
    fn no_field_has_a_name_that_kubernetes_might_inject() {
        for field in super::super::fields() {
            assert!(
                !injects(&field.variable(), "tcp://10.0.0.1:8980"),
                "{}",
                field.path
            );
        }
    }
}
