//! Rules as they are written: one flat table each, in JSON or TOML.
//!
//! ```toml
//! [[rule]]
//! on = "ByteStream.Read"
//! after_bytes = 65_536
//! act = "reset"
//! times = 1
//! ```

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Function};
use crate::method;
use crate::rule::{Act, After, Chance, Match, Rule, Until};

/// Rules in a file: a list under `rule`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    #[serde(default)]
    pub rule: Vec<Rule>,
}

/// Why a rule cannot be meant.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("on = {0:?} is none of {all}", all = method::ALL.join(", "))]
    Method(String),
    #[error("digest = {0:?} is not hash/size")]
    Digest(String),
    #[error("at is given and after_bytes too")]
    Place,
    #[error("chance = {0} is not between 0 and 1")]
    Chance(f64),
    #[error("seed without chance")]
    Seed,
    #[error("act {act} cannot be done to {method}")]
    Applies { act: &'static str, method: String },
    #[error("nth = 0: the first call is 1")]
    Nth,
    #[error("a rate of 0 is no drip; say hang")]
    Rate,
    #[error("not TOML: {0}")]
    Toml(String),
    #[error("not JSON: {0}")]
    Json(String),
}

impl Rules {
    /// # Errors
    /// If the text is no TOML, or a rule in it cannot be meant.
    pub fn from_toml(text: &str) -> Result<Rules, RuleError> {
        toml::from_str(text).map_err(|error| RuleError::Toml(error.to_string()))
    }

    /// # Errors
    /// If the text is no JSON, or a rule in it cannot be meant.
    pub fn from_json(text: &str) -> Result<Rules, RuleError> {
        serde_json::from_str(text).map_err(|error| RuleError::Json(error.to_string()))
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MatchText {
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nth: Option<u64>,
}

impl TryFrom<MatchText> for Match {
    type Error = RuleError;

    fn try_from(text: MatchText) -> Result<Match, RuleError> {
        if let Some(on) = &text.on
            && !method::ALL.contains(&on.as_str())
        {
            return Err(RuleError::Method(on.clone()));
        }
        if text.nth == Some(0) {
            return Err(RuleError::Nth);
        }
        let digest = text.digest.as_deref().map(parse_digest).transpose()?;
        Ok(Match {
            method: text.on,
            instance: text.instance,
            digest,
            min_bytes: text.min_bytes,
            max_bytes: text.max_bytes,
            nth: text.nth,
        })
    }
}

impl From<Match> for MatchText {
    fn from(wanted: Match) -> MatchText {
        MatchText {
            on: wanted.method,
            instance: wanted.instance,
            digest: wanted.digest.map(|digest| digest.to_string()),
            min_bytes: wanted.min_bytes,
            max_bytes: wanted.max_bytes,
            nth: wanted.nth,
        }
    }
}

pub(crate) fn parse_digest(text: &str) -> Result<Digest, RuleError> {
    let malformed = || RuleError::Digest(text.chars().take(200).collect());
    let said = text.split_once('/');
    let said = said.and_then(|(first, rest)| Some((Function::named(first)?, rest)));
    let (function, rest) = said.unwrap_or((Function::Sha256, text));
    let (hash, size) = rest.split_once('/').ok_or_else(malformed)?;
    let size = size.parse().map_err(|_no_number| malformed())?;
    function.parse(hash, size).map_err(|_no_digest| malformed())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    Start,
    End,
}

/// The place that `at` and `after_bytes` name together.
pub(crate) fn after(at: Option<Place>, after_bytes: Option<u64>) -> Result<After, RuleError> {
    match (at, after_bytes) {
        (None | Some(Place::Start), None) => Ok(After::Start),
        (Some(Place::End), None) => Ok(After::End),
        (None, Some(bytes)) => Ok(After::Bytes(bytes)),
        (Some(_), Some(_)) => Err(RuleError::Place),
    }
}

/// The same the other way round.
pub(crate) fn place(after: After) -> (Option<Place>, Option<u64>) {
    match after {
        After::Start => (None, None),
        After::Bytes(bytes) => (None, Some(bytes)),
        After::End => (Some(Place::End), None),
    }
}

/// The fields of [`MatchText`] again, because serde cannot both flatten and refuse unknown fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nth: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chance: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after_bytes: Option<u64>,
    act: Act,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Until>,
}

impl TryFrom<RuleText> for Rule {
    type Error = RuleError;

    fn try_from(text: RuleText) -> Result<Rule, RuleError> {
        let after = after(text.at, text.after_bytes)?;
        let chance = match (text.chance, text.seed) {
            (None, None) => None,
            (None, Some(_)) => return Err(RuleError::Seed),
            (Some(of), _) if !(0.0..=1.0).contains(&of) => return Err(RuleError::Chance(of)),
            (Some(of), seed) => Some(Chance {
                of,
                seed: seed.unwrap_or(0),
            }),
        };
        if let Some(on) = &text.on
            && method::ALL.contains(&on.as_str())
            && !text.act.applies_to(on)
        {
            let act = text.act.name();
            let method = on.clone();
            return Err(RuleError::Applies { act, method });
        }
        if text.act == (Act::Drip { bytes_per_second: 0 }) {
            return Err(RuleError::Rate);
        }
        let wanted = Match::try_from(MatchText {
            on: text.on,
            instance: text.instance,
            digest: text.digest,
            min_bytes: text.min_bytes,
            max_bytes: text.max_bytes,
            nth: text.nth,
        })?;
        Ok(Rule {
            name: text.name.unwrap_or_else(|| text.act.name().to_owned()),
            wanted,
            after,
            act: text.act,
            chance,
            times: text.times,
            until: text.until,
        })
    }
}

impl From<Rule> for RuleText {
    fn from(rule: Rule) -> RuleText {
        let wanted = MatchText::from(rule.wanted);
        let (at, after_bytes) = place(rule.after);
        RuleText {
            name: Some(rule.name),
            on: wanted.on,
            instance: wanted.instance,
            digest: wanted.digest,
            min_bytes: wanted.min_bytes,
            max_bytes: wanted.max_bytes,
            nth: wanted.nth,
            chance: rule.chance.map(|chance| chance.of),
            seed: rule.chance.map(|chance| chance.seed),
            at,
            after_bytes,
            act: rule.act,
            times: rule.times,
            until: rule.until,
        }
    }
}

/// Codes by the names that gRPC gives them.
pub(crate) mod code_name {
    use serde::{Deserialize, Deserializer, Serializer};
    use tonic::Code;

    pub(crate) const NAMES: [(&str, Code); 17] = [
        ("OK", Code::Ok),
        ("CANCELLED", Code::Cancelled),
        ("UNKNOWN", Code::Unknown),
        ("INVALID_ARGUMENT", Code::InvalidArgument),
        ("DEADLINE_EXCEEDED", Code::DeadlineExceeded),
        ("NOT_FOUND", Code::NotFound),
        ("ALREADY_EXISTS", Code::AlreadyExists),
        ("PERMISSION_DENIED", Code::PermissionDenied),
        ("RESOURCE_EXHAUSTED", Code::ResourceExhausted),
        ("FAILED_PRECONDITION", Code::FailedPrecondition),
        ("ABORTED", Code::Aborted),
        ("OUT_OF_RANGE", Code::OutOfRange),
        ("UNIMPLEMENTED", Code::Unimplemented),
        ("INTERNAL", Code::Internal),
        ("UNAVAILABLE", Code::Unavailable),
        ("DATA_LOSS", Code::DataLoss),
        ("UNAUTHENTICATED", Code::Unauthenticated),
    ];

    pub(crate) fn name(code: Code) -> &'static str {
        let found = NAMES.iter().find(|(_, named)| *named == code);
        found.map_or("UNKNOWN", |(name, _)| name)
    }

    pub(crate) fn serialize<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name(*code))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        let text = String::deserialize(deserializer)?;
        let found = NAMES.iter().find(|(name, _)| *name == text);
        let found = found.map(|(_, code)| *code);
        found.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no gRPC code")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn a_rule_reads_as_it_is_built() {
        let digest = Digest::of(b"content");
        let text = format!(
            r#"
            [[rule]]
            on = "ByteStream.Read"
            after_bytes = 65_536
            act = "reset"
            times = 1

            [[rule]]
            name = "busy"
            instance = "a/b"
            digest = "{digest}"
            min_bytes = 1
            max_bytes = 9
            nth = 2
            chance = 0.5
            seed = 7
            at = "end"
            act = {{ status = {{ code = "RESOURCE_EXHAUSTED", message = "later", retry_after_ms = 50 }} }}
            until = {{ call = {{ on = "ActionCache.GetActionResult" }} }}
            "#
        );
        let busy = Act::Status {
            code: Code::ResourceExhausted,
            message: "later".into(),
            retry_after_ms: Some(50),
        };
        let wanted = Match::any().instance("a/b").digest(&digest);
        let built = [
            Rule::new(Match::method(method::READ), Act::Reset)
                .after(After::Bytes(65_536))
                .times(1),
            Rule::new(wanted.min_bytes(1).max_bytes(9).nth(2), busy)
                .named("busy")
                .chance(0.5, 7)
                .after(After::End)
                .until(Until::Call(Match::method(method::GET_ACTION))),
        ];
        let read = Rules::from_toml(&text).unwrap();
        assert_eq!(read.rule, built);
        let json = serde_json::to_string(&read).unwrap();
        assert_eq!(Rules::from_json(&json).unwrap(), read);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_reason() {
        refused(r#"{"on": "Read", "act": "hang"}"#, "is none of ByteStream.Read");
        refused(r#"{"act": "hnag"}"#, "unknown variant `hnag`");
        refused(r#"{"act": "hang", "tims": 1}"#, "unknown field `tims`");
        refused(r#"{"act": {"status": {"code": "BUSY"}}}"#, "is no gRPC code");
        refused(r#"{"act": "hang", "chance": 2}"#, "is not between 0 and 1");
        refused(r#"{"act": "hang", "seed": 2}"#, "seed without chance");
        refused(r#"{"act": "hang", "at": "end", "after_bytes": 2}"#, "at is given");
        refused(r#"{"act": "hang", "digest": "abc"}"#, "is not hash/size");
        refused(r#"{"act": "hang", "nth": 0}"#, "the first call is 1");
        refused(r#"{"act": {"drip": {"bytes_per_second": 0}}}"#, "say hang");
        refused(
            r#"{"on": "ByteStream.Write", "act": "flip_byte"}"#,
            "cannot be done to ByteStream.Write",
        );
    }

    #[track_caller]
    fn refused(rule: &str, reason: &str) {
        let error = Rules::from_json(&format!(r#"{{"rule": [{rule}]}}"#)).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}
