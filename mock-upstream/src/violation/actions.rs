//! The action cache.

use std::collections::HashSet;

use prost::Message as _;
use proto::reapi::{self, Action, Directory, GetActionResultRequest, Tree};
use proto::wire::{ActionResult, UpdateActionResultRequest};
use tonic::{Code, Status};

use super::{Bend, Violation, violation};
use crate::contents::Contents;
use crate::digest::Digest;

type Answer = Result<ActionResult, Status>;

/// The result that is stored, whether it may be shown or not.
fn stored(
    asked: &GetActionResultRequest,
    contents: &Contents,
) -> Option<(ActionResult, reapi::ActionResult)> {
    let action = Digest::from_wire(asked.action_digest.as_ref()).ok()?;
    let raw = ActionResult(contents.action(&asked.instance_name, &action)?);
    let parsed = raw.parse().ok()?;
    Some((raw, parsed))
}

/// Shows a hidden result, where it is so.
fn show(
    asked: &GetActionResultRequest,
    answer: &mut Answer,
    contents: &Contents,
    is_meant: impl Fn(&reapi::ActionResult) -> bool,
) {
    if answer
        .as_ref()
        .is_err_and(|status| status.code() == Code::NotFound)
        && let Some((raw, parsed)) = stored(asked, contents)
        && is_meant(&parsed)
    {
        *answer = Ok(raw);
    }
}

/// Changes the result that comes.
fn change(answer: &mut Answer, edit: impl FnOnce(&mut reapi::ActionResult)) {
    if let Ok(result) = answer
        && let Ok(mut parsed) = result.parse()
    {
        let before = parsed.clone();
        edit(&mut parsed);
        if parsed != before {
            *result = ActionResult::from(&parsed);
        }
    }
}

/// Refuses a result that comes, where it is so.
fn hide(answer: &mut Answer, status: Status, is_meant: impl FnOnce(&reapi::ActionResult) -> bool) {
    if answer
        .as_ref()
        .is_ok_and(|result| result.parse().is_ok_and(|result| is_meant(&result)))
    {
        *answer = Err(status);
    }
}

/// The Tree of a result's first directory, if it is here and is one.
fn tree(instance: &str, result: &reapi::ActionResult, contents: &Contents) -> Option<Tree> {
    let directory = result.output_directories.first()?;
    let digest = Digest::from_wire(directory.tree_digest.as_ref()).ok()?;
    Tree::decode(contents.blob(instance, &digest)?).ok()
}

fn files(tree: &Tree) -> usize {
    let directories = tree.root.iter().chain(&tree.children);
    directories.map(|directory| directory.files.len()).sum()
}

fn lacks_a_child(tree: &Tree) -> bool {
    let children: HashSet<String> = tree
        .children
        .iter()
        .map(|child| Digest::of(&child.encode_to_vec()).hash_hex())
        .collect();
    let nodes = |directory: &Directory| directory.directories.clone();
    let named = tree.root.iter().chain(&tree.children).flat_map(nodes);
    named
        .into_iter()
        .any(|node| node.digest.is_some_and(|digest| !children.contains(&digest.hash)))
}

/// The update's result, decoded.
fn update(request: &UpdateActionResultRequest) -> reapi::ActionResult {
    let raw = request.action_result.clone().unwrap_or_default();
    ActionResult(raw).parse().unwrap_or_default()
}

/// The Action that is updated, if it is here and is one with a command.
fn action(request: &UpdateActionResultRequest, contents: &Contents) -> Option<Action> {
    let digest = Digest::from_wire(request.action_digest.as_ref()).ok()?;
    let action = Action::decode(contents.blob(&request.instance_name, &digest)?).ok()?;
    action.command_digest.is_some().then_some(action)
}

fn is_missing(instance: &str, digest: Option<&reapi::Digest>, contents: &Contents) -> bool {
    Digest::from_wire(digest).is_ok_and(|digest| !contents.has(instance, &digest))
}

fn names_missing(request: &UpdateActionResultRequest, contents: &Contents) -> bool {
    let result = update(request);
    let mut files = result.output_files.iter();
    files.any(|file| is_missing(&request.instance_name, file.digest.as_ref(), contents))
}

fn key(digest: Option<&reapi::Digest>) -> String {
    digest.map_or_else(String::new, |digest| digest.hash.clone())
}

pub(super) const VIOLATIONS: &[Violation] = &[
    violation(
        "INST-08",
        "action results are found in every instance",
        &[Bend::GetOut(|asked, answer, contents| {
            if answer
                .as_ref()
                .is_err_and(|status| status.code() == Code::NotFound)
                && let Ok(action) = Digest::from_wire(asked.action_digest.as_ref())
            {
                let others = contents
                    .names()
                    .into_iter()
                    .filter(|name| *name != asked.instance_name);
                let found = others.filter_map(|name| contents.action(&name, &action)).next();
                if let Some(found) = found {
                    *answer = Ok(ActionResult(found));
                }
            }
        })],
    ),
    violation(
        "DIG-01",
        "an upper-case hash is found",
        &[Bend::GetIn(|request, _| {
            if let Some(digest) = &mut request.action_digest {
                digest.hash.make_ascii_lowercase();
            }
            Ok(())
        })],
    ),
    violation(
        "DIG-06",
        "an empty hash is the empty blob's",
        &[Bend::PutIn(|request, _| {
            if let Some(digest) = &mut request.action_digest
                && digest.hash.is_empty()
            {
                *digest = Digest::of(b"").to_wire();
            }
            Ok(())
        })],
    ),
    violation(
        "DIG-13",
        "results stored with a function are not found without",
        &[Bend::PutIn(|request, _| {
            if request.digest_function == 1 {
                request.instance_name = format!("{}sha256", request.instance_name);
            }
            Ok(())
        })],
    ),
    violation(
        "DIG-16",
        "a hash that does not go with its function is a miss",
        &[Bend::GetOut(|asked, answer, _| {
            if asked.digest_function == 1
                && asked
                    .action_digest
                    .as_ref()
                    .is_some_and(|digest| digest.hash.len() == 40)
            {
                *answer = Err(Status::not_found("40 digits"));
            }
        })],
    ),
    violation(
        "CAS-GEN-03",
        "a result with an empty stdout is incomplete",
        &[Bend::GetOut(|_, answer, _| {
            hide(answer, Status::not_found("stdout"), |result| {
                result.exit_code == 6
                    && result
                        .stdout_digest
                        .as_ref()
                        .is_some_and(|digest| digest.size_bytes == 0)
            });
        })],
    ),
    violation(
        "ERR-07",
        "the same result again is ALREADY_EXISTS",
        &[Bend::PutIn(|request, contents| {
            let action = Digest::from_wire(request.action_digest.as_ref());
            let stored = action
                .ok()
                .and_then(|action| contents.action(&request.instance_name, &action));
            if stored.is_some() && stored == request.action_result {
                return Err(Status::already_exists("it is here"));
            }
            Ok(())
        })],
    ),
    // GetActionResult.
    violation(
        "AC-GET-01",
        "an action never updated has an empty result",
        &[Bend::GetOut(|asked, answer, contents| {
            let fresh = asked
                .action_digest
                .as_ref()
                .is_some_and(|digest| digest.size_bytes == 40);
            if answer
                .as_ref()
                .is_err_and(|status| status.code() == Code::NotFound)
                && fresh
                && stored(asked, contents).is_none()
            {
                *answer = Ok(ActionResult::default());
            }
        })],
    ),
    violation(
        "AC-GET-02",
        "a result with a missing output file is a hit",
        &[Bend::GetOut(|asked, answer, contents| {
            show(asked, answer, contents, |result| !result.output_files.is_empty());
        })],
    ),
    violation(
        "AC-GET-03",
        "a miss is remembered",
        &[Bend::GetOut(|asked, answer, contents| {
            let key = key(asked.action_digest.as_ref());
            if answer.is_err() {
                contents.marks.insert(key);
            } else if contents.marks.contains(&key) {
                *answer = Err(Status::not_found("as before"));
            }
        })],
    ),
    violation(
        "AC-GET-05",
        "files in Trees are not looked at",
        &[Bend::GetOut(|asked, answer, contents| {
            show(asked, answer, contents, |result| {
                tree(&asked.instance_name, result, contents)
                    .is_some_and(|tree| files(&tree) == 1 && !lacks_a_child(&tree))
                    && result.output_directories[0].root_directory_digest.is_none()
            });
        })],
    ),
    violation(
        "AC-GET-06",
        "an empty output file is missing",
        &[Bend::GetOut(|_, answer, _| {
            hide(answer, Status::not_found("a file"), |result| {
                let mut files = result.output_files.iter();
                files.any(|file| file.digest.as_ref().is_some_and(|digest| digest.size_bytes == 0))
            });
        })],
    ),
    violation(
        "AC-GET-07",
        "a Tree that cannot be decoded is complete",
        &[Bend::GetOut(|asked, answer, contents| {
            show(asked, answer, contents, |result| {
                let named = result
                    .output_directories
                    .first()
                    .and_then(|directory| directory.tree_digest.as_ref());
                named.is_some_and(|digest| !is_missing(&asked.instance_name, Some(digest), contents))
                    && tree(&asked.instance_name, result, contents).is_none()
            });
        })],
    ),
    violation(
        "AC-GET-10",
        "actions are found by hash, whatever the size",
        &[Bend::GetIn(|request, _| {
            if let Some(digest) = &mut request.action_digest
                && digest.size_bytes == 41
            {
                digest.size_bytes = 40;
            }
            Ok(())
        })],
    ),
    violation(
        "AC-GET-11",
        "inlining a stdout that is none is refused",
        &[Bend::GetOut(|asked, answer, _| {
            if asked.inline_stdout {
                hide(answer, Status::invalid_argument("no stdout"), |result| {
                    result.stdout_digest.is_none()
                });
            }
        })],
    ),
    violation(
        "AC-GET-12",
        "stdout is inlined unasked",
        &[Bend::GetOut(|asked, answer, contents| {
            if !asked.inline_stdout {
                change(answer, |result| {
                    let digest = Digest::from_wire(result.stdout_digest.as_ref());
                    let bytes = digest
                        .ok()
                        .and_then(|digest| contents.blob(&asked.instance_name, &digest));
                    let bytes = bytes.filter(|bytes| bytes.len() == 100);
                    result.stdout_raw = bytes.unwrap_or_default();
                });
            }
        })],
    ),
    violation(
        "AC-GET-13",
        "all that is asked for is inlined, however large",
        &[Bend::GetOut(|asked, answer, contents| {
            change(answer, |result| {
                for file in result
                    .output_files
                    .iter_mut()
                    .filter(|file| asked.inline_output_files.contains(&file.path))
                {
                    let digest = Digest::from_wire(file.digest.as_ref());
                    let bytes = digest
                        .ok()
                        .and_then(|digest| contents.blob(&asked.instance_name, &digest));
                    file.contents = bytes.unwrap_or_default();
                }
            });
        })],
    ),
    violation(
        "AC-GET-14",
        "the digest goes when stdout is inlined",
        &[Bend::GetOut(|asked, answer, _| {
            if asked.inline_stdout && asked.inline_output_files.is_empty() {
                change(answer, |result| result.stdout_digest = None);
            }
        })],
    ),
    violation(
        "AC-GET-15",
        "wrong bytes are inlined",
        &[Bend::GetOut(|asked, answer, _| {
            change(answer, |result| {
                for file in result
                    .output_files
                    .iter_mut()
                    .filter(|file| asked.inline_output_files.contains(&file.path))
                {
                    file.contents = bytes::Bytes::from_static(b"wrong");
                }
            });
        })],
    ),
    violation(
        "AC-GET-16",
        "stdout is inlined up to 64 KiB",
        &[Bend::GetOut(|asked, answer, contents| {
            if asked.inline_stdout {
                change(answer, |result| {
                    let digest = Digest::from_wire(result.stdout_digest.as_ref());
                    let bytes = digest
                        .ok()
                        .and_then(|digest| contents.blob(&asked.instance_name, &digest));
                    result.stdout_raw = bytes.unwrap_or_default();
                    result.stdout_raw.truncate(65_536);
                });
            }
        })],
    ),
    violation(
        "AC-GET-17",
        "a result is hidden where its action is absent",
        &[Bend::GetOut(|asked, answer, contents| {
            if is_missing(&asked.instance_name, asked.action_digest.as_ref(), contents) {
                hide(answer, Status::not_found("the action"), |result| {
                    result.exit_code == 7
                });
            }
        })],
    ),
    violation(
        "AC-GET-18",
        "a failed action's result is hidden",
        &[Bend::GetOut(|_, answer, _| {
            hide(answer, Status::not_found("it failed"), |result| {
                result.exit_code == 1
            });
        })],
    ),
    violation(
        "AC-GET-19",
        "a result with more than 500 outputs is too large",
        &[Bend::GetOut(|_, answer, _| {
            hide(answer, Status::resource_exhausted("too many"), |result| {
                result.output_files.len() > 500
            });
        })],
    ),
    violation(
        "AC-GET-20",
        "one hint to inline at a time",
        &[Bend::GetIn(|request, _| {
            let all = request.inline_stdout && request.inline_stderr;
            if all {
                Err(Status::invalid_argument("one at a time"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "AC-GET-21",
        "of a large Tree the first thousand files are checked",
        &[Bend::GetOut(|asked, answer, contents| {
            show(asked, answer, contents, |result| {
                tree(&asked.instance_name, result, contents).is_some_and(|tree| files(&tree) > 1000)
            });
        })],
    ),
    // UpdateActionResult.
    violation(
        "INST-10",
        "updates are refused in instances that enable them, but for the unnamed one",
        &[Bend::PutIn(|request, _| match request.instance_name.is_empty() {
            true => Ok(()),
            false => Err(Status::permission_denied("not here")),
        })],
    ),
    violation(
        "AC-UPD-01",
        "the first result stays",
        &[Bend::PutIn(|request, contents| {
            let action = Digest::from_wire(request.action_digest.as_ref());
            let stored = action
                .ok()
                .and_then(|action| contents.action(&request.instance_name, &action));
            if let Some(stored) = stored.filter(|_| update(request).exit_code == 22) {
                request.action_result = Some(stored);
            }
            Ok(())
        })],
    ),
    violation(
        "AC-UPD-03",
        "the input root has to exist",
        &[Bend::PutIn(|request, contents| {
            let action = action(request, contents);
            let root = action
                .as_ref()
                .and_then(|action| action.input_root_digest.as_ref());
            if root.is_some_and(|root| is_missing(&request.instance_name, Some(root), contents)) {
                return Err(Status::failed_precondition("the input root"));
            }
            Ok(())
        })],
    ),
    violation(
        "AC-UPD-04",
        "the action has to exist",
        &[Bend::PutIn(|request, contents| {
            let of_34 = request
                .action_digest
                .as_ref()
                .is_some_and(|digest| digest.size_bytes == 34);
            if of_34 && is_missing(&request.instance_name, request.action_digest.as_ref(), contents) {
                return Err(Status::failed_precondition("the action"));
            }
            Ok(())
        })],
    ),
    violation(
        "AC-UPD-05",
        "an absent result is an empty one",
        &[Bend::PutIn(|request, _| {
            request.action_result.get_or_insert_default();
            Ok(())
        })],
    ),
    violation(
        "AC-UPD-06",
        "a missing output is INVALID_ARGUMENT",
        &[Bend::PutIn(|request, contents| {
            let missing = names_missing(request, contents);
            if missing {
                Err(Status::invalid_argument("an output is missing"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "RN-18",
        "a missing output is FAILED_PRECONDITION, and is not named",
        &[Bend::PutIn(|request, contents| {
            let missing = names_missing(request, contents);
            if missing {
                Err(Status::failed_precondition("an output is missing"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "AC-UPD-10",
        "after four updates a result stays",
        &[Bend::PutIn(|request, contents| {
            if (31..37).contains(&update(request).exit_code) {
                contents.turns += 1;
            }
            let action = Digest::from_wire(request.action_digest.as_ref());
            let stored = action
                .ok()
                .and_then(|action| contents.action(&request.instance_name, &action));
            if let Some(stored) = stored.filter(|_| contents.turns > 4) {
                request.action_result = Some(stored);
            }
            Ok(())
        })],
    ),
    violation(
        "AC-UPD-11",
        "the tenth reader sees a torn result",
        &[Bend::GetOut(|_, answer, contents| {
            change(answer, |result| {
                if result.output_files.len() >= 20 && result.exit_code > 0 {
                    contents.turns += 1;
                    if contents.turns == 10 {
                        result.output_files.pop();
                    }
                }
            });
        })],
    ),
    violation(
        "AC-UPD-12",
        "a priority is refused",
        &[Bend::PutIn(|request, _| {
            let priority = request.results_cache_policy.is_some();
            if priority {
                Err(Status::invalid_argument("no priorities"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "AC-UPD-13",
        "inlined bytes are refused",
        &[Bend::PutIn(|request, _| {
            let inlined = !update(request).stdout_raw.is_empty();
            if inlined {
                Err(Status::invalid_argument("inlined bytes"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "AC-UPD-14",
        "a result that cannot be returned is accepted",
        &[Bend::PutOut(|asked, answer, _| {
            let large = asked
                .action_result
                .as_ref()
                .is_some_and(|raw| raw.len() > 4_000_000);
            if answer.is_err() && large {
                *answer = Ok(ActionResult::default());
            }
        })],
    ),
    violation(
        "AC-UPD-15",
        "a result without anything is refused",
        &[Bend::PutIn(|request, _| {
            let of_45 = request
                .action_digest
                .as_ref()
                .is_some_and(|digest| digest.size_bytes == 45);
            let empty = request.action_result.as_ref().is_some_and(|raw| raw.is_empty());
            if of_45 && empty {
                Err(Status::invalid_argument("no outputs"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "AC-UPD-16",
        "an update is answered with nothing",
        &[Bend::PutOut(|_, answer, _| {
            if let Ok(result) = answer {
                *result = ActionResult::default();
            }
        })],
    ),
    violation(
        "AC-UPD-17",
        "the result of an action that is not to be cached is refused",
        &[Bend::PutIn(|request, contents| {
            let forbidden = action(request, contents).is_some_and(|action| action.do_not_cache);
            if forbidden {
                Err(Status::failed_precondition("do_not_cache"))
            } else {
                Ok(())
            }
        })],
    ),
    // Contents.
    violation(
        "AC-RES-01",
        "execution metadata is lost",
        &[Bend::GetOut(|_, answer, _| {
            change(answer, |result| result.execution_metadata = None)
        })],
    ),
    violation(
        "AC-RES-02",
        "results are decoded and encoded again",
        &[Bend::GetOut(|_, answer, _| {
            if let Ok(result) = answer
                && let Ok(parsed) = result.parse()
            {
                *result = ActionResult::from(&parsed);
            }
        })],
    ),
    violation(
        "AC-RES-03",
        "outputs of the same content are merged",
        &[Bend::GetOut(|_, answer, _| {
            change(answer, |result| {
                if result.output_files.len() == 3 {
                    result.output_files.dedup_by(|a, b| a.digest == b.digest);
                }
            });
        })],
    ),
    violation(
        "AC-RES-04",
        "a directory has to have a path",
        &[Bend::PutIn(|request, _| {
            let unnamed = update(request)
                .output_directories
                .iter()
                .any(|directory| directory.path.is_empty());
            if unnamed {
                Err(Status::invalid_argument("no path"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "AC-RES-05",
        "children of a Tree are taken for missing",
        &[Bend::GetOut(|asked, answer, contents| {
            hide(answer, Status::not_found("a child"), |result| {
                !result
                    .output_directories
                    .iter()
                    .any(|directory| directory.is_topologically_sorted)
                    && tree(&asked.instance_name, result, contents)
                        .is_some_and(|tree| !tree.children.is_empty())
            });
        })],
    ),
    violation(
        "AC-RES-06",
        "a Tree that lacks a child is complete",
        &[Bend::GetOut(|asked, answer, contents| {
            show(asked, answer, contents, |result| {
                tree(&asked.instance_name, result, contents).is_some_and(|tree| lacks_a_child(&tree))
            });
        })],
    ),
    violation(
        "AC-RES-07",
        "it is forgotten that a Tree is sorted",
        &[Bend::GetOut(|_, answer, _| {
            change(answer, |result| {
                for directory in &mut result.output_directories {
                    directory.is_topologically_sorted = false;
                }
            });
        })],
    ),
    violation(
        "AC-RES-08",
        "a root that is not the Tree's is a hit",
        &[Bend::GetOut(|asked, answer, contents| {
            show(asked, answer, contents, |result| {
                result
                    .output_directories
                    .iter()
                    .any(|directory| directory.root_directory_digest.is_some())
            });
        })],
    ),
    violation(
        "AC-RES-09",
        "older lists of symlinks are emptied",
        &[Bend::GetOut(|_, answer, _| {
            change(answer, |result| result.output_file_symlinks.clear())
        })],
    ),
    violation(
        "AC-RES-10",
        "outputs are not executable",
        &[Bend::GetOut(|_, answer, _| {
            change(answer, |result| {
                for file in &mut result.output_files {
                    file.is_executable = false;
                }
            });
        })],
    ),
    violation(
        "AC-RES-11",
        "a result with stderr alone is incomplete",
        &[Bend::GetOut(|_, answer, _| {
            hide(answer, Status::not_found("stdout"), |result| {
                result.stdout_digest.is_none() && result.stderr_digest.is_some()
            });
        })],
    ),
];
