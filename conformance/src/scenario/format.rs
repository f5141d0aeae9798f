//! How a scenario is written.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{After, Digest, Match, Rule};
use prost::Message as _;
use proto::reapi;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use serde::Deserialize;
use serde::de::Error as _;
use toml::{Table, Value};
use tonic::Code;

use crate::oracle::Promise;
use crate::site::{DiskTrouble, Spoil, WhenDown};

/// A scenario that was read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its file's name, which begins with the row of the failure table if it is one.
    pub name: String,
    /// What it shows, as a sentence.
    pub title: String,
    /// What it follows from.
    pub promises: Vec<Promise>,
    /// How the proxy has to be told to behave while Tier 2 is down.
    #[serde(default)]
    pub when_down: WhenDown,
    #[serde(default, rename = "blob")]
    pub(super) blobs: Vec<Blob>,
    #[serde(default, rename = "action")]
    pub(super) actions: Vec<Action>,
    #[serde(rename = "step")]
    pub(super) steps: Vec<Step>,
    /// What makes its contents differ from those of another run.
    #[serde(skip)]
    pub(super) salt: String,
}

/// A blob that the scenario is about; `@name` stands for its digest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Blob {
    pub(super) name: String,
    /// Its length. The bytes are drawn from its name.
    pub(super) bytes: usize,
    /// Whether Tier 2 has it when all begins.
    #[serde(default)]
    pub(super) in_tier2: bool,
}

/// An action with a result that names blobs; `@name` stands for its key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Action {
    pub(super) name: String,
    /// The action whose key it has; its own if nothing is said.
    #[serde(default)]
    pub(super) key: Option<String>,
    #[serde(default)]
    pub(super) outputs: Vec<String>,
    #[serde(default)]
    pub(super) in_tier2: bool,
}

/// One thing that is done, or looked at.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    /// A rule for Tier 2, as the mock writes them.
    Rule(Box<Rule>),
    /// Ends all rules.
    Heal(Yes),
    /// Tier 2 goes away, and comes back.
    Suspend(Yes),
    Resume(Yes),
    /// All connections to Tier 2 are reset.
    ResetConnections(Yes),
    /// What Tier 2 stores, changed behind the proxy.
    Evict(Vec<String>),
    Put(Vec<String>),
    /// Another result under the key of an action.
    PutAction(PutAction),
    /// Other bytes under the digest of a blob.
    Plant(Plant),
    /// Holds calls of Tier 2; a release by name lets them go.
    Hold(Hold),
    Reached(String),
    Release(String),
    /// Makes a call and judges its answer.
    Call(Call),
    /// Makes calls at once, and waits for all.
    Together(Vec<Call>),
    /// Begins calls that go on; they are waited for by name.
    Begin(Begin),
    End(String),
    /// Waits for Tier 2's log.
    Wait(Wait),
    /// Has Tier 1 fetch blobs, and lands them.
    Warm(Vec<String>),
    /// Waits until all that was begun is done.
    Settle(Yes),
    /// Lets time pass.
    PassMs(u64),
    /// Starts the proxy again.
    Restart(Yes),
    /// Harms Tier 1's copy of a blob.
    Spoil(Harm),
    /// Makes Tier 1's disk fail.
    Trouble(DiskTrouble),
    /// Counts from here on.
    Mark(Yes),
    /// Looks at Tier 2.
    Check(Check),
}

/// `true`, where a step has nothing more to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Yes;

impl<'de> Deserialize<'de> for Yes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Yes, D::Error> {
        if bool::deserialize(deserializer)? {
            Ok(Yes)
        } else {
            Err(D::Error::custom("only true can be said here"))
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plant {
    pub(super) blob: String,
    /// Length of the bytes that are there instead.
    pub(super) bytes: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutAction {
    pub(super) key: String,
    pub(super) result: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hold {
    pub(super) name: String,
    pub(super) calls: Match,
    /// `None` is the start.
    #[serde(default)]
    pub(super) after_bytes: Option<u64>,
}

impl Hold {
    pub(super) fn after(&self) -> After {
        self.after_bytes.map_or(After::Start, After::Bytes)
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Do {
    Read,
    /// Reads until so many bytes came, and hangs up.
    Peek,
    BatchRead,
    FindMissing,
    Write,
    BatchUpdate,
    GetAction,
    UpdateAction,
    Capabilities,
}

/// A call, by one client or by some.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    #[serde(rename = "do")]
    pub(super) what: Do,
    #[serde(default)]
    pub(super) blob: Option<String>,
    #[serde(default)]
    pub(super) blobs: Vec<String>,
    #[serde(default)]
    pub(super) action: Option<String>,
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(default)]
    pub(super) limit: u64,
    /// How many a peek waits for.
    #[serde(default)]
    pub(super) bytes: u64,
    /// Clients that do so at once, each with a connection of its own.
    #[serde(default = "one")]
    pub(super) clients: usize,
    /// Codes, one of which each of them has to get; OK if nothing is said.
    #[serde(default)]
    pub(super) expect: Vec<CodeName>,
    /// Codes of the entries of a batch, in the order asked for.
    #[serde(default)]
    pub(super) entries: Vec<CodeName>,
    /// Blobs that have to be called missing; all others present.
    #[serde(default)]
    pub(super) missing: Option<Vec<String>>,
    /// The action whose result has to come.
    #[serde(default)]
    pub(super) result: Option<String>,
    /// How long it may take, where time is virtual.
    #[serde(default)]
    pub(super) within_ms: Option<u64>,
    /// Asks again until it is OK, for so long at most.
    #[serde(default)]
    pub(super) until_ok_ms: Option<u64>,
}

fn one() -> usize {
    1
}

impl Call {
    pub(super) fn within(&self) -> Option<Duration> {
        self.within_ms.map(Duration::from_millis)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    pub(super) name: String,
    pub(super) call: Call,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    pub(super) calls: Match,
    #[serde(default = "one")]
    pub(super) count: usize,
    /// Until they have ended, rather than arrived.
    #[serde(default)]
    pub(super) ended: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Harm {
    pub(super) blob: String,
    pub(super) how: Spoil,
}

/// What is true of Tier 2, or of a metric.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Check {
    /// Calls since the mark, with `is` or `at_most`.
    pub(super) calls: Option<Match>,
    pub(super) is: Option<f64>,
    pub(super) at_most: Option<f64>,
    /// Blobs that Tier 2 has, or has not.
    pub(super) holds: Vec<String>,
    pub(super) lacks: Vec<String>,
    /// A metric, where its site has metrics.
    pub(super) metric: Option<String>,
}

/// A code as gRPC writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CodeName(pub(super) Code);

impl<'de> Deserialize<'de> for CodeName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<CodeName, D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = |text: &str| text.replace('_', "").to_lowercase();
        let found = (0..=16)
            .map(Code::from)
            .find(|code| plain(&format!("{code:?}")) == plain(&text));
        let found = found.map(CodeName);
        found.ok_or_else(|| D::Error::custom(format!("{text:?} is no gRPC code")))
    }
}

/// Why a text is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is no TOML, or does not say what a scenario says.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// `@name` for what the scenario does not have.
    #[error("@{0} is neither a blob nor an action of the scenario")]
    Unknown(String),
}

impl Scenario {
    /// Reads a scenario. `@name` stands for the digest of a blob, or the key of an action, wherever there is a string.
    ///
    /// # Errors
    /// If the text is none.
    pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        Scenario::salted(text, "")
    }

    /// The same with contents that depend on `salt`: for a proxy that may remember earlier runs.
    ///
    /// # Errors
    /// If the text is none.
    pub fn salted(text: &str, salt: &str) -> Result<Scenario, ScenarioError> {
        let mut table: Table = toml::from_str(text)?;
        let names = names(&table, salt);
        for (_, value) in &mut table {
            replace(value, &names)?;
        }
        Ok(Scenario {
            salt: salt.to_owned(),
            ..table.try_into()?
        })
    }
}

/// Digests by name.
fn names(table: &Table, salt: &str) -> BTreeMap<String, String> {
    let list = |key: &str| {
        table
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let name = |value: &Value| {
        value
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut names = BTreeMap::new();
    for blob in list("blob") {
        let len = blob.get("bytes").and_then(Value::as_integer).unwrap_or_default();
        let bytes = content(salt, &name(&blob), usize::try_from(len).unwrap_or_default());
        names.insert(name(&blob), Digest::of(&bytes).to_string());
    }
    for action in list("action") {
        names.insert(name(&action), action_key(salt, &name(&action)).to_string());
    }
    names
}

fn replace(value: &mut Value, names: &BTreeMap<String, String>) -> Result<(), ScenarioError> {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix('@') {
                let digest = names.get(name);
                *text = digest
                    .ok_or_else(|| ScenarioError::Unknown(name.to_owned()))?
                    .clone();
            }
        }
        Value::Array(values) => values.iter_mut().try_for_each(|value| replace(value, names))?,
        Value::Table(table) => table
            .iter_mut()
            .try_for_each(|(_, value)| replace(value, names))?,
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
    Ok(())
}

/// Bytes without a pattern, the same for the same salt, name and length.
pub(super) fn content(salt: &str, name: &str, len: usize) -> Bytes {
    let seed = salt.bytes().chain(name.bytes()).fold(0u64, |seed, byte| {
        seed.wrapping_mul(257).wrapping_add(u64::from(byte))
    });
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes.into()
}

pub(super) fn action_key(salt: &str, name: &str) -> Digest {
    Digest::of(format!("action {salt}{name}").as_bytes())
}

/// Outputs of an action with these contents.
pub(crate) fn output_files(contents: &[Digest]) -> Vec<reapi::OutputFile> {
    let file = |(number, digest): (usize, &Digest)| reapi::OutputFile {
        path: format!("out/{number}"),
        digest: Some(digest.to_wire()),
        ..reapi::OutputFile::default()
    };
    contents.iter().enumerate().map(file).collect()
}

/// An encoded result that names these blobs.
pub(super) fn result_of(name: &str, outputs: &[Digest]) -> Bytes {
    let result = reapi::ActionResult {
        output_files: output_files(outputs),
        stdout_raw: name.to_owned().into_bytes().into(),
        ..reapi::ActionResult::default()
    };
    result.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_scenario_is_refused_with_its_reason() {
        let head = "name = \"n\"\ntitle = \"t\"\npromises = [\"P1\"]\n";
        let error = |text: &str| Scenario::parse(&format!("{head}{text}")).unwrap_err().to_string();
        assert!(error("[[step]]\ncall = { do = \"raed\" }").contains("unknown variant `raed`"));
        assert!(error("[[step]]\nrule = { act = \"hnag\" }").contains("unknown variant `hnag`"));
        assert!(error("[[step]]\nrule = { digest = \"@a\", act = \"hang\" }").contains("@a is neither"));
        assert!(error("[[step]]\nheal = false").contains("only true"));
        assert!(error("[[step]]\ncall = { do = \"read\", expect = [\"FINE\"] }").contains("is no gRPC code"));
    }
}
