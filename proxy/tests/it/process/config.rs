use super::{Binary, names_in, output};

/// Unknown and a near miss; a bad size; a bad address; watermarks the wrong way round.
const FAULTY: &str = "
listen_adr: 127.0.0.1:1
tier1:
  max_size: 10 gigs
  high_watermark: 50%
  low_watermark: 60%
http_addr: localhost
";

#[tokio::test]
async fn a_wrong_configuration_ends_with_64_and_all_faults_before_anything_is_touched() {
    for command in ["serve", "check-config", "print-config"] {
        let binary = Binary::new().set("GOREGO_TIER2_ULR", "grpc://127.0.0.1:1");
        fs_err::write(binary.path("faulty.yaml"), FAULTY).unwrap();
        let (code, out, err) = output(binary.command(&[command, "--config", "faulty.yaml"])).await;
        assert_eq!((code, out.as_str()), (Some(64), ""), "{command}");
        for named in [
            "faulty.yaml:2:1",
            "`listen_addr`",
            "faulty.yaml:4:13",
            "10GiB",
            "low_watermark",
            "faulty.yaml:7:12",
            "GOREGO_TIER2_ULR",
            "GOREGO_TIER2_URL",
        ] {
            assert!(err.contains(named), "{command}: no {named} in\n{err}");
        }
        assert_eq!(names_in(binary.dir.path()), ["faulty.yaml"], "{command}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_not_looked_at_while_the_configuration_is_wrong() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let binary = Binary::new()
        .set("GOREGO_LISTEN_ADDR", &address)
        .set("GOREGO_LOG_LEVEL", "loud");
    let (code, _, err) = output(binary.command(&["serve"])).await;
    assert_eq!(code, Some(64), "{err}");
    assert!(
        err.contains("GOREGO_LOG_LEVEL") && !err.contains("listen_addr"),
        "{err}"
    );
}

#[tokio::test]
async fn a_right_configuration_is_called_valid_and_touches_nothing() {
    let binary = Binary::new();
    let (code, out, err) = output(binary.command(&["check-config"])).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, "the configuration is valid\n");
    assert_eq!(names_in(binary.dir.path()), [""; 0]);
}

#[tokio::test]
async fn the_printed_configuration_says_where_values_came_from_and_is_one_itself() {
    let binary = Binary::new().set("GOREGO_TIER1_MAX_SIZE", "5GiB");
    fs_err::write(binary.path("c.yaml"), "tier1:\n  write: sync\n").unwrap();
    let arguments = ["print-config", "--config", "c.yaml", "--log-level", "debug"];
    let (code, printed, err) = output(binary.command(&arguments)).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let line = |field: &str| printed.lines().find(|line| line.contains(field)).unwrap();
    assert!(line("max_size").contains("5GiB") && line("max_size").contains("GOREGO_TIER1_MAX_SIZE"));
    assert!(line("write:").contains("sync") && line("write:").contains("c.yaml:2:10"));
    assert!(line("level").contains("debug") && line("level").contains("--log-level"));
    assert!(line("stall_timeout").contains("default"));

    let again = Binary::new();
    fs_err::write(again.path("printed.yaml"), &printed).unwrap();
    let (code, _, err) = output(again.command(&["check-config", "--config", "printed.yaml"])).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
}
