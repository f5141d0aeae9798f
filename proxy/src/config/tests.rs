//! The configuration as a whole; each type's own tests stand beside it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::call::{InstanceName, Scope};
use crate::logs;

/// A configuration file in a directory of its own. Errors name it by its path, which snapshots must not depend on.
struct Written {
    dir: tempfile::TempDir,
}

impl Written {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("gorego.yaml"), text).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("gorego.yaml")
    }

    fn load(&self, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Loaded, String> {
        load_all(Some(&self.path()), env, flags).map_err(|errors| self.without_dir(&errors.to_string()))
    }

    fn without_dir(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn load_all(
    file: Option<&Path>,
    env: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Loaded, ConfigErrors> {
    let env = env
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let flags: Vec<_> = flags
        .iter()
        .map(|(path, text)| (*path, (*text).to_owned()))
        .collect();
    load(file, env, &flags)
}

fn from_env(env: &[(&str, &str)]) -> Result<Config, String> {
    load_all(None, env, &[])
        .map(|loaded| loaded.config)
        .map_err(|errors| errors.to_string())
}

fn from_file(text: &str) -> Result<Config, String> {
    Written::new(text).load(&[], &[]).map(|loaded| loaded.config)
}

/// A value for each field, other than its default, and what must be set beside it to make sense.
fn sample(path: &str) -> (&'static str, &'static [(&'static str, &'static str)]) {
    let remote: &[_] = &[("GOREGO_TIER2_URL", "grpcs://cache:443")];
    match path {
        "listen_addr" => ("127.0.0.2:1234", &[]),
        "http_addr" => ("[::1]:1235", &[]),
        "insecure_listen" => ("true", &[]),
        "tier1.dir" => ("/var/lib/gorego/1", &[]),
        "tier1.max_size" => ("20GiB", &[]),
        "tier1.high_watermark" => ("97", &[]),
        "tier1.low_watermark" => ("80%", &[]),
        "tier1.write" => ("sync", &[]),
        "tier1.max_blob_size" => ("1GiB", &[]),
        "tier2.url" => ("grpc://[::1]:9092", &[]),
        "tier2.dir" => ("/var/lib/gorego/2", &[]),
        "tier2.instance" => ("9092", remote),
        "tier2.instances" => ("{a: b, \"\": main}", remote),
        "tier2.ca_file" => ("/etc/ssl/own.pem", remote),
        "tier2.connections" => ("4", remote),
        "tier2.connect_timeout" => ("500ms", remote),
        "tier2.first_byte_timeout" => ("20s", remote),
        "tier2.stall_timeout" => ("1m", remote),
        "tier2.commit_timeout" => ("2m", &[]),
        "tier2.when_down" => ("bypass", &[]),
        "tier2.max_outage" => ("10m", &[]),
        "instances" => ("{a: team, b: team}", &[]),
        "ac.lease" => ("0s", &[]),
        "ac.memory" => ("1GiB", &[]),
        "cas.lease" => ("0s", &[]),
        "cas.write_lease" => ("1s", &[]),
        "repair" => ("off", &[]),
        "touch.interval" => ("0s", &[]),
        "upload.resume_window" => ("0s", &[]),
        "limits.max_batch_size" => ("1MiB", &[]),
        "limits.max_streams" => ("256", &[]),
        "limits.max_blob_size" => ("5GB", &[]),
        "shutdown.grace" => ("1h30m", &[]),
        "readiness.tier2" => ("0s", &[]),
        "log.level" => ("debug", &[]),
        "log.format" => ("json", &[]),
        other => panic!("{other} has no sample: a new field needs one"),
    }
}

#[test]
fn every_field_can_be_set_from_the_environment() {
    for field in fields() {
        let variable = field.variable();
        let (text, beside) = sample(field.path);
        let without = load_all(None, beside, &[]).unwrap();
        let with = load_all(None, &[beside, &[(&variable, text)]].concat(), &[]);
        let with = with.unwrap_or_else(|errors| panic!("{}: {errors}", field.path));
        let (_, origin) = with.origins().find(|(path, _)| *path == field.path).unwrap();
        assert_eq!(origin, &Origin::Variable(variable), "{}", field.path);
        // A yes that the checks alone ask for.
        if field.path != "insecure_listen" {
            assert_ne!(
                with.config, without.config,
                "{} reaches the configuration",
                field.path
            );
        }
    }
}

#[test]
fn names_of_variables_and_flags_are_unique() {
    let fields = fields();
    let variables: BTreeSet<_> = fields.iter().map(Field::variable).collect();
    let flags: BTreeSet<_> = fields.iter().map(Field::flag).collect();
    assert_eq!((variables.len(), flags.len()), (fields.len(), fields.len()));
}

#[test]
fn later_layers_win_and_each_value_knows_its_layer() {
    let file = Written::new("log:\n  level: warn\n  format: json\ntier1:\n  write: sync\n");
    let env = [
        ("GOREGO_LOG_LEVEL", "debug"),
        ("GOREGO_TIER1_WRITE", "async"),
        ("HOME", "/root"),
    ];
    let loaded = file.load(&env, &[("log.level", "error")]).unwrap();
    assert_eq!(
        loaded.config.log,
        Log {
            level: tracing::Level::ERROR,
            format: logs::Format::Json
        }
    );
    assert_eq!(loaded.config.tier1.write, Tier1Write::Async);
    assert_snapshot!("print_config", file.without_dir(&loaded.to_yaml()));
}

#[test]
fn a_map_of_a_later_layer_replaces_the_earlier_one() {
    let file = Written::new("instances: {a: x, b: x}\n");
    let loaded = file.load(&[("GOREGO_INSTANCES", "{c: y}")], &[]).unwrap();
    let scope = |member| loaded.config.share_groups.scope_of(&name(member));
    assert_ne!(scope("c"), Scope::from(&name("c")));
    assert_eq!(scope("a"), Scope::from(&name("a")));
}

fn name(text: &str) -> InstanceName {
    InstanceName::parse(text).unwrap()
}

#[test]
fn text_in_a_variable_is_never_taken_for_a_number() {
    let env = [
        ("GOREGO_TIER2_URL", "grpc://cache:1"),
        ("GOREGO_TIER2_INSTANCE", "007"),
        ("GOREGO_TIER1_DIR", "true"),
    ];
    let config = from_env(&env).unwrap();
    let Tier2Place::Remote(upstream) = config.tier2.place else {
        panic!("a URL means remote")
    };
    assert_eq!(upstream.instances.upstream_of(&name("any")), &name("007"));
    assert_eq!(config.tier1.dir, Path::new("true"));
}

#[test]
fn the_empty_upstream_instance_differs_from_none() {
    let url = ("GOREGO_TIER2_URL", "grpc://cache:1");
    for (env, sent) in [
        (vec![url], "mine"),
        (vec![url, ("GOREGO_TIER2_INSTANCE", "")], ""),
    ] {
        let Tier2Place::Remote(upstream) = from_env(&env).unwrap().tier2.place else {
            panic!("remote")
        };
        assert_eq!(upstream.instances.upstream_of(&name("mine")), &name(sent));
    }
}

#[test]
fn an_empty_file_and_empty_sections_are_the_defaults() {
    let defaults = from_env(&[]).unwrap();
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "tier1:\nlog:\n  # level: debug\ninstances:\n",
    ] {
        assert_eq!(from_file(text).as_ref(), Ok(&defaults), "{text:?}");
    }
}

#[test]
fn all_faults_of_all_layers_are_reported_at_once() {
    let file = Written::new(
        r#"listen_adr: 127.0.0.1:1
http_addr: localhost
tier1:
  max_size: 10 gigs
  max_sise: 1
  low_watermark: 101
  write: later
  "max_size": 1GiB
tier2: grpc://cache:1
instances:
  a: x
  b: 7
log.level: debug
limits:
  max_batch_size: -1
  max_streams: [1]
shutdown: {grace: 10, quickly: yes}
upload:
  resume_window:
"#,
    );
    let env = [
        ("GOREGO_TEIR2_URL", "grpc://cache:1"),
        ("GOREGO_TIER2_INSTANCES", "{a: b"),
        ("GOREGO_TIER2_URL", "http://cache:1"),
        ("GOREGO_PORT_8980_TCP_ADDR", "10.0.0.1"),
        ("GOREGO_PORT", "tcp://10.0.0.1:8980"),
        ("GOREGO_TIER1_DIR", "a\u{FFFD}b"),
    ];
    let flags = [("log.format", "xml")];
    assert_snapshot!("all_faults", file.load(&env, &flags).unwrap_err());
}

#[test]
fn fields_that_contradict_each_other_are_reported() {
    let file = Written::new(
        r#"listen_addr: 0.0.0.0:8980
http_addr: 0.0.0.0:8980
tier1:
  dir: ./data
  max_size: 1GiB
  max_blob_size: 600MiB
  high_watermark: 80
tier2:
  dir: data/x/../tier2
  instance: main
  ca_file: ca.pem
  stall_timeout: 0s
limits:
  max_batch_size: 4MiB
"#,
    );
    assert_snapshot!("contradictions", file.load(&[], &[]).unwrap_err());
}

#[test]
fn an_embedded_directory_beside_a_url_is_refused() {
    let env = [
        ("GOREGO_TIER2_URL", "grpc://cache:1"),
        ("GOREGO_TIER2_DIR", "/data"),
    ];
    assert_snapshot!(from_env(&env).unwrap_err());
}

#[test]
fn a_share_group_over_two_upstream_instances_is_refused() {
    let group = ("GOREGO_INSTANCES", "{a: team, b: team}");
    let url = ("GOREGO_TIER2_URL", "grpc://cache:1");
    assert_snapshot!(from_env(&[group, url]).unwrap_err());
    from_env(&[group, url, ("GOREGO_TIER2_INSTANCE", "main")]).unwrap();
    from_env(&[group, url, ("GOREGO_TIER2_INSTANCES", "{a: main, b: main}")]).unwrap();
    // Without a URL there is no upstream instance to differ.
    from_env(&[group]).unwrap();
}

#[test]
fn addresses_beyond_loopback_need_an_explicit_yes() {
    let addresses = [
        ("GOREGO_LISTEN_ADDR", "0.0.0.0:1"),
        ("GOREGO_HTTP_ADDR", "[::]:2"),
    ];
    let refused = load_all(None, &addresses, &[]).unwrap_err();
    let paths: Vec<_> = refused
        .faults()
        .iter()
        .map(|fault| fault.path.as_deref().unwrap())
        .collect();
    assert_eq!(paths, ["listen_addr", "http_addr"]);
    let allowed = [&addresses[..], &[("GOREGO_INSECURE_LISTEN", "true")]].concat();
    assert_eq!(
        from_env(&allowed).unwrap().listen_addr,
        "0.0.0.0:1".parse().unwrap()
    );
}

#[test]
fn a_contradiction_is_not_reported_on_top_of_a_bad_value() {
    // The bad watermark is reported; the default that stands in for it is not compared with the other.
    let errors = load_all(
        None,
        &[
            ("GOREGO_TIER1_LOW_WATERMARK", "x"),
            ("GOREGO_TIER1_HIGH_WATERMARK", "50"),
        ],
        &[],
    );
    assert_eq!(errors.unwrap_err().faults().len(), 1);
}

#[test]
fn a_bad_value_in_the_file_is_reported_even_if_the_environment_overrides_it() {
    let file = Written::new("log: {level: loud}\n");
    assert_snapshot!(file.load(&[("GOREGO_LOG_LEVEL", "info")], &[]).unwrap_err());
}

#[test]
fn broken_files_are_reported_with_their_place() {
    for (name, text) in [
        ("syntax", "tier1:\n  dir: [a\nlog: {}\n".as_bytes()),
        ("tab", b"tier1:\n\tdir: a\n"),
        ("not_utf8", b"log: \xff\n"),
        ("list", b"- a\n"),
        ("two_documents", b"log: {}\n---\nlog: {}\n"),
        ("tag", b"log: !json {}\n"),
        ("anchor", b"log: *nowhere\n"),
        ("repeated_section", b"log: {}\ntier1: {}\nlog: {level: warn}\n"),
        ("repeated_key_in_a_map", b"instances:\n  a: x\n  a: y\n"),
        ("merge_key", b"log:\n  <<: {level: warn}\n"),
        (
            "control_characters",
            b"\"a\\e[2Jb\": 1\ntier1: {dir: \"a\\nb\"}\n",
        ),
    ] {
        assert_snapshot!(name, Written::new(text).load(&[], &[]).unwrap_err());
    }
}

#[test]
fn a_missing_file_is_a_fault_and_not_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let errors = load_all(Some(&dir.path().join("absent.yaml")), &[], &[]).unwrap_err();
    assert!(errors.to_string().contains("absent.yaml"), "{errors}");
    assert!(errors.to_string().contains("No such file"), "{errors}");
}

#[test]
fn a_file_beyond_all_reason_is_refused() {
    let errors = Written::new(vec![b'#'; 1024 * 1024 + 1])
        .load(&[], &[])
        .unwrap_err();
    assert!(errors.contains("larger than 1048576 bytes"), "{errors}");
}

#[test]
fn a_thousand_faults_are_counted_and_not_all_shown() {
    let text: String = (0..1000).map(|n| format!("field{n}: 1\n")).collect();
    let errors = from_file(&text).unwrap_err();
    assert!(
        errors.starts_with("the configuration has 1000 faults:"),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1 + 100 + 1);
}

#[test]
fn a_small_tier_1_brings_its_own_limit_for_blobs() {
    let tier1 = from_env(&[("GOREGO_TIER1_MAX_SIZE", "100MiB")]).unwrap().tier1;
    assert_eq!(tier1.max_blob_size, ByteSize(50 << 20));
    assert_eq!(
        (tier1.watermarks.high_bytes(), tier1.watermarks.low_bytes()),
        (95 << 20, 90 << 20)
    );
}

#[test]
fn a_secret_is_shown_nowhere() {
    use super::field::{Leaf, Leaves};
    use figment::value::Value;

    struct One(Option<Field>);
    impl Leaves for One {
        fn leaf<T: Leaf>(&mut self, path: &'static str, default: &'static str, help: &'static str) -> T {
            let check = |value: &Value| T::parse(value).map(drop);
            let (secret, structured) = (T::SECRET, T::STRUCTURED);
            self.0 = Some(Field {
                path,
                default,
                form: T::form(),
                help,
                secret,
                structured,
                check,
            });
            T::parse(&Value::from(default)).unwrap()
        }
    }
    let mut one = One(None);
    let secret: Secret = one.leaf("token", "hunter2", "A token.");
    assert_eq!(secret.expose(), "hunter2");
    assert!(!format!("{secret:?} {}", secret.render()).contains("hunter2"));

    let fields = [one.0.unwrap()];
    let mut faults = Faults::default();
    let env = [("GOREGO_TOKEN".to_owned(), "hunter2\n".to_owned())];
    Layer::from_environment(env.into_iter(), &fields, &mut faults);
    let errors = faults.into_errors().unwrap().to_string();
    assert!(
        errors.contains("GOREGO_TOKEN") && !errors.contains("hunter2"),
        "{errors}"
    );
}

#[test]
fn the_table_of_fields_is_what_the_documentation_shows() {
    let table = fields_as_markdown();
    assert!(
        papers("docs/configuration.md").ends_with(&table),
        "docs/configuration.md must end with\n{table}"
    );
}

#[test]
fn the_example_in_the_readme_is_accepted() {
    let readme = papers("README.md");
    let examples: Vec<_> = readme
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("```")?.0))
        .collect();
    assert!(!examples.is_empty());
    for example in examples {
        from_file(example).unwrap_or_else(|errors| panic!("{errors}\n{example}"));
    }
}

/// A file for people, by its path in the repository.
fn papers(path: &str) -> String {
    fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// A text that each field accepts, drawn at random; contradictions between fields are left to the check.
fn accepted(path: &'static str) -> BoxedStrategy<String> {
    let name = "[a-z0-9 :#'\"\\\\{},é\u{2028}-]{1,8}";
    match path {
        "listen_addr" => any::<u16>().prop_map(|port| format!("127.0.0.1:{port}")).boxed(),
        "http_addr" => any::<u16>().prop_map(|port| format!("[::1]:{port}")).boxed(),
        "tier1.dir" | "tier2.dir" | "tier2.ca_file" => {
            name.prop_map(move |name| format!("{path}/{name}")).boxed()
        }
        "tier1.max_size" | "limits.max_blob_size" => {
            (2_u64 << 30..1 << 50).prop_map(|size| size.to_string()).boxed()
        }
        "tier1.low_watermark" => (1_u32..=90).prop_map(|percent| format!("{percent}%")).boxed(),
        "tier1.high_watermark" => (90_u32..=100).prop_map(|percent| percent.to_string()).boxed(),
        "tier2.instance" => name.boxed(),
        "tier2.instances" | "instances" => proptest::collection::btree_map(name, name, 0..4)
            .prop_map(|map| {
                let entries: Vec<_> = map
                    .iter()
                    .map(|(key, value)| format!("{}: {}", show::escaped(key), show::escaped(value)))
                    .collect();
                format!("{{{}}}", entries.join(", "))
            })
            .boxed(),
        "upload.resume_window" | "shutdown.grace" | "readiness.tier2" => {
            (0_u64..9_999_999).prop_map(|ms| format!("{ms}ms")).boxed()
        }
        other => Just(sample(other).0.to_owned()).boxed(),
    }
}

/// Some of the fields, with a text for each, such that none contradicts another.
fn some_fields() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let only_remote = ["tier2.url", "tier2.instance", "tier2.instances", "tier2.ca_file"];
    let only_embedded = ["tier2.dir", "instances"];
    let paths = move |remote: bool| -> Vec<&'static str> {
        let unfit: &[&str] = if remote { &only_embedded } else { &only_remote };
        fields()
            .iter()
            .map(|field| field.path)
            .filter(|path| !unfit.contains(path))
            .collect()
    };
    any::<bool>()
        .prop_flat_map(move |remote| {
            let all = paths(remote);
            let count = all.len();
            proptest::sample::subsequence(all, 0..=count).prop_map(move |drawn| (remote, drawn))
        })
        .prop_flat_map(|(remote, drawn)| {
            let drawn = drawn.into_iter().filter(|path| *path != "tier2.url");
            let mut texts: Vec<_> = drawn
                .map(|path| accepted(path).prop_map(move |text| (path, text)).boxed())
                .collect();
            if remote {
                texts.push(Just(("tier2.url", "grpcs://[::1]:9092".to_owned())).boxed());
            }
            texts
        })
}

proptest! {
    #[test]
    fn a_printed_configuration_is_read_back_as_the_same(flags in some_fields()) {
        let loaded = load(None, std::iter::empty(), &flags);
        let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
        let printed = loaded.to_yaml();
        let again = Written::new(&printed).load(&[], &[]).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
        prop_assert_eq!(&again.config, &loaded.config, "{}", printed);
    }

    #[test]
    fn no_file_makes_the_loader_panic(text in "(tier1|log|instances|[a-z*&!|>{}\\[\\],:#\"'% \n\t~<0-9-]){0,40}") {
        // Found, refused or accepted: all that matters is that it comes back.
        let _ = Written::new(&text).load(&[], &[]);
    }

    #[test]
    fn no_bytes_make_the_loader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Written::new(&bytes).load(&[], &[]);
    }

    #[test]
    fn no_text_in_a_variable_makes_the_loader_panic(index in 0_usize..29, text in any::<String>()) {
        let fields = fields();
        let variable = fields[index % fields.len()].variable();
        let _ = load_all(None, &[(&variable, &text)], &[]);
    }
}
