//! The reviewed table of faults and calls, read from its text.

use std::collections::BTreeMap;

use mock_upstream::{Act, Announce, Farewell, method};
use rand::Rng as _;
use rand::rngs::StdRng;
use tonic::Code;

/// The table that ships with this crate.
const TEXT: &str = include_str!("../../faults.txt");

/// How long a delay is at most: less than any limit on the way.
const DELAY_MS_MAX: u64 = 5_000;

/// A drip takes so many seconds.
const DRIP_SECONDS: u64 = 2;

/// What `+retry` asks clients to wait.
const RETRY_AFTER_MS: u64 = 50;

/// More than a message of a read has.
const EXTRA_BYTES_MAX: u64 = 100_000;

/// Under most blobs that are used here.
const TINY_BYTES: i64 = 100;

/// A call of a client, as a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// A whole blob.
    Read,
    /// A part of a blob.
    Range,
    /// BatchReadBlobs.
    Batch,
    /// FindMissingBlobs.
    Find,
    /// FindMissingBlobs of what Tier 1 holds and Tier 2 has lost.
    Repair,
    /// GetTree.
    Tree,
    /// ByteStream.Write.
    Write,
    /// ByteStream.Write of what Tier 2 called present a while ago.
    Early,
    /// BatchUpdateBlobs.
    Update,
    /// QueryWriteStatus beside the Write that it is about.
    Status,
    /// GetActionResult, the fault in Tier 2's own.
    Get,
    /// GetActionResult, the fault in the look for its outputs.
    Hit,
    /// UpdateActionResult.
    Put,
    /// GetCapabilities.
    Caps,
}

impl Call {
    /// In the order of the columns.
    pub const ALL: [Call; 14] = [
        Call::Read,
        Call::Range,
        Call::Batch,
        Call::Find,
        Call::Repair,
        Call::Tree,
        Call::Write,
        Call::Early,
        Call::Update,
        Call::Status,
        Call::Get,
        Call::Hit,
        Call::Put,
        Call::Caps,
    ];

    /// The heading of its column.
    pub fn name(self) -> &'static str {
        match self {
            Call::Read => "read",
            Call::Range => "range",
            Call::Batch => "batch",
            Call::Find => "find",
            Call::Repair => "repair",
            Call::Tree => "tree",
            Call::Write => "write",
            Call::Early => "early",
            Call::Update => "update",
            Call::Status => "status",
            Call::Get => "get",
            Call::Hit => "hit",
            Call::Put => "put",
            Call::Caps => "caps",
        }
    }

    fn named(name: &str) -> Option<Call> {
        Call::ALL.into_iter().find(|call| call.name() == name)
    }
}

/// Where in a call of Tier 2 the fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Before anything.
    Start,
    /// Amid the bytes.
    Middle,
    /// Before the answer.
    End,
}

/// A row: an act, its variant, its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    name: String,
    act: String,
    variant: String,
    place: Place,
}

/// What a cell says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The fault applies.
    Applies {
        /// If it happens once, the client does not notice it.
        unseen: bool,
    },
    /// It does not, for this reason.
    NotApplicable(String),
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Table {
    /// Methods of Tier 2 to which the faults of a column are done.
    on: BTreeMap<Call, Vec<String>>,
    rows: Vec<(Fault, Vec<Cell>)>,
}

/// Why the text is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct TableError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Table {
    /// The one that ships with this crate.
    ///
    /// # Errors
    /// If it is none, which a test of this crate rules out.
    pub fn shipped() -> Result<Table, TableError> {
        Table::parse(TEXT)
    }

    /// # Errors
    /// If the text is no table, or a fault cannot be meant.
    pub fn parse(text: &str) -> Result<Table, TableError> {
        let (mut reasons, mut on) = (BTreeMap::new(), BTreeMap::new());
        let mut rows: Vec<(Fault, Vec<Cell>)> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let wrong = |what: String| TableError { line, what };
            let words: Vec<&str> = text.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["reason", letter, reason @ ..] => {
                    reasons.insert((*letter).to_owned(), reason.join(" "));
                }
                ["on", column, methods @ ..] => {
                    let call = Call::named(column).ok_or_else(|| wrong(format!("{column} is no call")))?;
                    if let Some(strange) = methods.iter().find(|on| !method::ALL.contains(*on)) {
                        return Err(wrong(format!("{strange} is no method")));
                    }
                    on.insert(call, methods.iter().map(|&name| name.to_owned()).collect());
                }
                ["fault", columns @ ..] => {
                    if *columns != Call::ALL.map(Call::name) {
                        return Err(wrong(format!("the columns are {:?}", Call::ALL.map(Call::name))));
                    }
                }
                [name, cells @ ..] => {
                    let fault = Fault::parse(name).map_err(wrong)?;
                    if cells.len() != Call::ALL.len() {
                        return Err(wrong(format!("{} cells, not {}", cells.len(), Call::ALL.len())));
                    }
                    if rows.iter().any(|(other, _)| *other == fault) {
                        return Err(wrong(format!("{name} is there already")));
                    }
                    let cell = |letter: &&str| match *letter {
                        "x" => Ok(Cell::Applies { unseen: false }),
                        "u" => Ok(Cell::Applies { unseen: true }),
                        letter => {
                            let reason = reasons.get(letter).cloned();
                            let reason = reason.ok_or_else(|| wrong(format!("{letter} is no reason")))?;
                            Ok(Cell::NotApplicable(reason))
                        }
                    };
                    rows.push((fault, cells.iter().map(cell).collect::<Result<_, _>>()?));
                }
            }
        }
        let missing = Call::ALL.into_iter().find(|call| !on.contains_key(call));
        match missing {
            Some(call) => Err(TableError {
                line: 0,
                what: format!("there is no line `on {}`", call.name()),
            }),
            None => Ok(Table { on, rows }),
        }
    }

    /// Methods of Tier 2 to which the faults of a column are done.
    pub fn methods(&self, call: Call) -> &[String] {
        self.on.get(&call).map_or(&[], Vec::as_slice)
    }

    /// Its rows, each with a cell for each of [`Call::ALL`].
    pub fn rows(&self) -> impl Iterator<Item = (&Fault, impl Iterator<Item = (Call, &Cell)>)> {
        let rows = self.rows.iter();
        rows.map(|(fault, cells)| (fault, Call::ALL.into_iter().zip(cells)))
    }
}

impl Fault {
    fn parse(name: &str) -> Result<Fault, String> {
        let (act, place) = name
            .split_once('@')
            .ok_or_else(|| format!("{name} has no place"))?;
        let place = match place {
            "start" => Place::Start,
            "middle" => Place::Middle,
            "end" => Place::End,
            other => return Err(format!("{other} is none of start, middle, end")),
        };
        let (act, variant) = act.split_once('=').unwrap_or((act, ""));
        let fault = Fault {
            name: name.to_owned(),
            act: act.to_owned(),
            variant: variant.to_owned(),
            place,
        };
        fault.kind()?;
        Ok(fault)
    }

    /// As it is written in the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it happens.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether it is done to connections rather than to calls.
    pub fn is_on_connect(&self) -> bool {
        self.act.starts_with("connect.")
    }

    /// The mock's act, of any parameters.
    fn kind(&self) -> Result<Act, String> {
        let act = self.act_name();
        let strange = || format!("{} is no variant of {act}", self.variant);
        let code = |name: &str| code_named(name).ok_or_else(strange);
        let announced = |announce| Ok(Act::Capabilities(announce));
        match (act, self.variant.as_str()) {
            ("status", variant) => match variant.split_once('+') {
                None => Ok(Act::status(code(variant)?)),
                Some((variant, "retry")) => Ok(Act::status_with_retry(code(variant)?, RETRY_AFTER_MS)),
                Some(_) => Err(strange()),
            },
            ("entry_status", variant) => Ok(Act::EntryStatus { code: code(variant)? }),
            ("go_away", "finish") => Ok(Act::GoAway {
                streams: Farewell::Finish,
            }),
            ("go_away", "answered") => Ok(Act::GoAway {
                streams: Farewell::Answered,
            }),
            ("go_away", "disown") => Ok(Act::GoAway {
                streams: Farewell::Disown,
            }),
            ("capabilities", "closed") => announced(Announce {
                update_enabled: Some(false),
                ..Announce::default()
            }),
            ("capabilities", "tiny-batch") => announced(Announce {
                max_batch_bytes: Some(TINY_BYTES),
                ..Announce::default()
            }),
            ("capabilities", "tiny-blobs") => announced(Announce {
                max_blob_bytes: Some(TINY_BYTES),
                ..Announce::default()
            }),
            ("capabilities", "no-cache") => announced(Announce {
                no_cache: true,
                ..Announce::default()
            }),
            ("go_away" | "capabilities", _) => Err(strange()),
            (act, "") => {
                let found = Act::examples().into_iter().find(|example| example.name() == act);
                found.ok_or_else(|| format!("{act} is no act of the mock"))
            }
            _ => Err(strange()),
        }
    }

    /// The mock's act, with its parameters drawn for a blob of this size.
    pub(super) fn act(&self, random: &mut StdRng, size: u64) -> Act {
        match self.act_name() {
            "delay" => Act::Delay {
                ms: random.random_range(1..=DELAY_MS_MAX),
            },
            "drip" => Act::Drip {
                bytes_per_second: (size / DRIP_SECONDS).max(1),
            },
            "extra_bytes" => Act::ExtraBytes {
                count: random.random_range(1..=EXTRA_BYTES_MAX),
            },
            "committed_size" => {
                let size = i64::try_from(size).unwrap_or(i64::MAX);
                let sizes = [0, 1, size - 1, size + 1, i64::MAX];
                Act::CommittedSize {
                    size: sizes[random.random_range(0..sizes.len())],
                }
            }
            // A table with a fault that cannot be meant was refused.
            _ => self.kind().unwrap_or(Act::Hang),
        }
    }

    /// The name of its act in the mock.
    pub fn act_name(&self) -> &str {
        self.act.strip_prefix("connect.").unwrap_or(&self.act)
    }
}

fn code_named(name: &str) -> Option<Code> {
    let plain = |text: &str| text.replace('_', "").to_lowercase();
    (0..=16)
        .map(Code::from)
        .find(|code| plain(&format!("{code:?}")) == plain(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn shipped() -> Table {
        Table::shipped().unwrap()
    }

    #[test]
    fn every_act_of_the_mock_has_a_row_and_no_row_has_another() {
        let rows = shipped();
        let named: BTreeSet<_> = rows
            .rows()
            .map(|(fault, _)| fault.act_name().to_owned())
            .collect();
        let acts: BTreeSet<_> = Act::examples().iter().map(|act| act.name().to_owned()).collect();
        assert_eq!(named, acts);
    }

    #[test]
    fn every_method_of_tier_2_meets_faults_but_those_that_a_write_status_stands_for() {
        let table = shipped();
        let met: BTreeSet<_> = Call::ALL
            .into_iter()
            .flat_map(|call| table.methods(call).to_vec())
            .collect();
        let unmet: Vec<_> = method::ALL
            .into_iter()
            .filter(|name| !met.contains(*name))
            .collect();
        assert_eq!(unmet, [method::QUERY_WRITE_STATUS, method::CONNECT]);
    }

    #[test]
    fn a_fault_that_applies_can_be_done_to_one_of_its_methods() {
        let table = shipped();
        for (fault, cells) in table.rows() {
            for (call, cell) in cells {
                let act = fault.kind().unwrap();
                let connect = [method::CONNECT.to_owned()];
                let methods = if fault.is_on_connect() {
                    &connect
                } else {
                    table.methods(call)
                };
                let can = methods.iter().any(|name| act.applies_to(name));
                let does = matches!(cell, Cell::Applies { .. });
                assert!(can || !does, "{} cannot be done to {}", fault.name(), call.name());
            }
        }
    }

    #[test]
    fn what_is_no_table_is_refused_with_its_line() {
        let error = |text: &str| Table::parse(text).unwrap_err().to_string();
        assert!(error("x").starts_with("line 1: x has no place"));
        assert!(error("\nhnag@start x").starts_with("line 2: hnag is no act"));
        assert!(error("status=BUSY@start x").contains("BUSY is no variant of status"));
        assert!(error("hang@start x").contains("1 cells, not 14"));
        assert!(error("hang@start q q q q q q q q q q q q q q").contains("q is no reason"));
        assert!(error("on read Read").contains("Read is no method"));
        assert!(error("").contains("no line `on read`"));
    }
}
