//! GetActionResult.

use proto::reapi::{Action, Directory, DirectoryNode, FileNode, OutputDirectory, Tree};

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("AC-GET-01", no_entry),
    check!("AC-GET-02", missing_output),
    check!("AC-GET-03", output_appears),
    check!("AC-GET-05", every_kind_of_output),
    check!("AC-GET-06", empty_outputs),
    check!("AC-GET-07", not_understood),
    check!("AC-GET-10", other_size),
    check!("AC-GET-11", nothing_to_inline),
    check!("AC-GET-12", nothing_unasked),
    check!("AC-GET-13", inlining_is_bounded, heavy),
    check!("AC-GET-14", digests_stay),
    check!("AC-GET-15", unknown_paths),
    check!("AC-GET-16", inlined_whole),
    check!("AC-GET-17", without_the_action),
    check!("AC-GET-18", failed_action),
    check!("AC-GET-19", thousand_outputs),
    check!("AC-GET-20", all_hints),
    check!("AC-GET-21", large_tree),
];

/// The key of a fresh action, which is in the CAS as a client has to put it there: a whole one, for some servers read it.
pub(super) async fn action(t: &Target) -> Result<Digest, Stop> {
    whole_action(t, 40).await
}

/// An action that takes `bytes` bytes, at most 127, in the CAS.
pub(super) async fn whole_action(t: &Target, bytes: usize) -> Result<Digest, Stop> {
    let action = Action {
        salt: t.random(bytes - 2).bytes, // behind a tag and a length
        ..Default::default()
    };
    let action = t.blob(action.encode_to_vec());
    t.put(&action).await?;
    Ok(action.digest)
}

pub(super) fn file(path: &str, digest: &Digest) -> OutputFile {
    OutputFile {
        path: path.into(),
        digest: Some(digest.clone()),
        ..Default::default()
    }
}

/// A result with these files.
pub(super) fn with_files(files: Vec<OutputFile>) -> ActionResult {
    ActionResult {
        output_files: files,
        ..Default::default()
    }
}

/// A result with one directory.
pub(super) fn with_tree(tree: &Digest) -> ActionResult {
    ActionResult {
        output_directories: vec![OutputDirectory {
            path: "dir".into(),
            tree_digest: Some(tree.clone()),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(super) fn directory_of(files: &[Digest]) -> Directory {
    let files = files.iter().enumerate().map(|(i, digest)| FileNode {
        name: format!("f{i}"),
        digest: Some(digest.clone()),
        ..Default::default()
    });
    Directory {
        files: files.collect(),
        ..Default::default()
    }
}

/// A Tree whose root has one child directory.
pub(super) fn nested(child: &Directory, with_child: bool) -> Blob {
    let node = DirectoryNode {
        name: "child".into(),
        digest: Some(Blob::of(child.encode_to_vec()).digest),
    };
    let root = Directory {
        directories: vec![node],
        ..Default::default()
    };
    let tree = Tree {
        root: Some(root),
        children: if with_child {
            vec![child.clone()]
        } else {
            Vec::new()
        },
    };
    Blob::of(tree.encode_to_vec())
}

/// Stores a result, and demands that it is no hit; a server may refuse it when it is written.
pub(super) async fn is_no_hit(t: &Target, result: &ActionResult, why: &str) -> Verdict {
    let action = action(t).await?;
    let request = t.put_action_request(&action, result.encode_to_vec());
    if let Err(status) = t.put_action(request).await {
        let came = format!("{why} is refused when it is written: {:?}", status.code());
        return Err(Stop::NotOffered(came));
    }
    let answer = t.action(t.action_request(&action)).await;
    answer.denied(&format!("GetActionResult, where {why}"), &[Code::NotFound])
}

/// Stores a result, and returns what is read back.
pub(super) async fn round_trip(t: &Target, result: &ActionResult) -> Result<ActionResult, Stop> {
    let action = action(t).await?;
    t.store_result(&action, result).await?;
    t.result_of(&action).await
}

async fn no_entry(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    t.action(t.action_request(&action))
        .await
        .denied("GetActionResult", &[Code::NotFound])
}

async fn missing_output(t: Arc<Target>) -> Verdict {
    let result = with_files(vec![file("out", &t.random(50).digest)]);
    is_no_hit(&t, &result, "an output file is missing").await
}

async fn output_appears(t: Arc<Target>) -> Verdict {
    let (action, output) = (action(&t).await?, t.random(60));
    let result = with_files(vec![file("out", &output.digest)]);
    let request = t.put_action_request(&action, result.encode_to_vec());
    if t.put_action(request).await.is_err() {
        return Err(Stop::NotOffered(
            "results with missing outputs are refused".into(),
        ));
    }
    // A miss, as another check demands.
    let _ = t.action(t.action_request(&action)).await;
    t.put(&output).await?;
    t.result_of(&action).await.map(|_| ())
}

async fn every_kind_of_output(t: Arc<Target>) -> Verdict {
    let absent = || t.random(50).digest;
    let stdout = ActionResult {
        stdout_digest: Some(absent()),
        ..Default::default()
    };
    is_no_hit(&t, &stdout, "stdout is missing").await?;
    let stderr = ActionResult {
        stderr_digest: Some(absent()),
        ..Default::default()
    };
    is_no_hit(&t, &stderr, "stderr is missing").await?;
    is_no_hit(&t, &with_tree(&absent()), "a Tree is missing").await?;
    for child in [false, true] {
        let files = directory_of(&[absent()]);
        let tree = if child {
            nested(&files, true)
        } else {
            let tree = Tree {
                root: Some(files),
                children: Vec::new(),
            };
            t.blob(tree.encode_to_vec())
        };
        t.put(&tree).await?;
        is_no_hit(&t, &with_tree(&tree.digest), "a file of a Tree is missing").await?;
    }
    Ok(())
}

async fn empty_outputs(t: Arc<Target>) -> Verdict {
    let came = round_trip(&t, &with_files(vec![file("empty", &t.blob("").digest)])).await?;
    expect_eq("a result with an empty output", &came.output_files.len(), &1)
}

async fn not_understood(t: Arc<Target>) -> Verdict {
    let tree = t.blob([b"\xff\xff\xff\xff", &uuid::Uuid::new_v4().as_bytes()[..]].concat());
    t.put(&tree).await?;
    is_no_hit(&t, &with_tree(&tree.digest), "a Tree cannot be decoded").await
}

async fn other_size(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    t.store_result(&action, &ActionResult::default()).await?;
    let other = Digest {
        size_bytes: action.size_bytes + 1,
        ..action
    };
    let codes = &[Code::NotFound, Code::InvalidArgument];
    t.action(t.action_request(&other))
        .await
        .denied("GetActionResult of another size", codes)
}

async fn nothing_to_inline(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    t.store_result(&action, &ActionResult::default()).await?;
    let request = reapi::GetActionResultRequest {
        inline_stdout: true,
        ..t.action_request(&action)
    };
    t.action(request)
        .await
        .due("GetActionResult with inline_stdout, where there is none")
        .map(|_| ())
}

/// A result with stdout, and what GetActionResult says of it.
async fn with_stdout(t: &Target, len: usize, inline_stdout: bool) -> Result<(Blob, ActionResult), Stop> {
    let (action, stdout) = (action(t).await?, t.stored(len).await?);
    let result = ActionResult {
        stdout_digest: Some(stdout.digest.clone()),
        ..Default::default()
    };
    t.store_result(&action, &result).await?;
    let request = reapi::GetActionResultRequest {
        inline_stdout,
        ..t.action_request(&action)
    };
    let came = t.action(request).await.due("GetActionResult")?;
    Ok((stdout, crate::calls::decoded(came)?))
}

async fn nothing_unasked(t: Arc<Target>) -> Verdict {
    let (_, came) = with_stdout(&t, 100, false).await?;
    expect(came.stdout_raw.is_empty(), || {
        format!("{} bytes are inlined", came.stdout_raw.len())
    })
}

async fn inlining_is_bounded(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    let mut files = Vec::new();
    for i in 0..3 {
        files.push(file(&format!("f{i}"), &t.stored(1_900_000).await?.digest));
    }
    t.store_result(&action, &with_files(files)).await?;
    let request = reapi::GetActionResultRequest {
        inline_output_files: vec!["f0".into(), "f1".into(), "f2".into()],
        ..t.action_request(&action)
    };
    t.action(request)
        .await
        .due("GetActionResult that inlines 5.7 MB")
        .map(|_| ())
}

async fn digests_stay(t: Arc<Target>) -> Verdict {
    let (stdout, came) = with_stdout(&t, 120, true).await?;
    expect_eq(
        "stdout_digest where stdout may be inlined",
        &came.stdout_digest,
        &Some(stdout.digest),
    )
}

async fn unknown_paths(t: Arc<Target>) -> Verdict {
    let (action, output) = (action(&t).await?, t.stored(200).await?);
    t.store_result(&action, &with_files(vec![file("out", &output.digest)]))
        .await?;
    let request = reapi::GetActionResultRequest {
        inline_output_files: vec!["out".into(), "no/such/path".into()],
        ..t.action_request(&action)
    };
    let came = crate::calls::decoded(t.action(request).await.due("GetActionResult")?)?;
    let right = |file: &OutputFile| file.contents.is_empty() || file.contents == output.bytes;
    expect(
        came.output_files.len() == 1 && came.output_files.iter().all(right),
        || "other bytes are inlined".into(),
    )
}

async fn inlined_whole(t: Arc<Target>) -> Verdict {
    let (stdout, came) = with_stdout(&t, 150_000, true).await?;
    let right = came.stdout_raw.is_empty() || came.stdout_raw == stdout.bytes;
    expect(right, || {
        format!("{} of 150000 bytes are inlined", came.stdout_raw.len())
    })
}

async fn without_the_action(t: Arc<Target>) -> Verdict {
    let action = t.random(33).digest;
    let result = ActionResult {
        exit_code: 7,
        ..Default::default()
    };
    let request = t.put_action_request(&action, result.encode_to_vec());
    if t.put_action(request).await.is_err() {
        return Err(Stop::NotOffered("results of absent actions are refused".into()));
    }
    expect_eq(
        "GetActionResult of an absent action",
        &t.result_of(&action).await?.exit_code,
        &7,
    )
}

async fn failed_action(t: Arc<Target>) -> Verdict {
    let result = ActionResult {
        exit_code: 1,
        ..Default::default()
    };
    expect_eq("exit_code", &round_trip(&t, &result).await?.exit_code, &1)
}

async fn thousand_outputs(t: Arc<Target>) -> Verdict {
    let blobs: Vec<Blob> = (0..1000).map(|_| t.random(20)).collect();
    for part in blobs.chunks(500) {
        t.update(part.iter().map(Blob::entry).collect())
            .await
            .due("BatchUpdateBlobs")?;
    }
    let files = blobs
        .iter()
        .enumerate()
        .map(|(i, blob)| file(&format!("f{i}"), &blob.digest));
    let came = round_trip(&t, &with_files(files.collect())).await?;
    expect_eq("outputs that came", &came.output_files.len(), &1000)
}

async fn all_hints(t: Arc<Target>) -> Verdict {
    let (action, output) = (action(&t).await?, t.stored(80).await?);
    let result = ActionResult {
        stdout_digest: Some(output.digest.clone()),
        stderr_digest: Some(output.digest.clone()),
        ..with_files(vec![file(".recorded_inputs", &output.digest)])
    };
    t.store_result(&action, &result).await?;
    let request = reapi::GetActionResultRequest {
        inline_stdout: true,
        inline_stderr: true,
        inline_output_files: vec![".recorded_inputs".into()],
        ..t.action_request(&action)
    };
    t.action(request)
        .await
        .due("GetActionResult with all three hints")
        .map(|_| ())
}

async fn large_tree(t: Arc<Target>) -> Verdict {
    let here = t.stored(10).await?;
    let mut files = vec![here.digest; 1500];
    files.push(t.random(10).digest);
    let tree = Tree {
        root: Some(directory_of(&files)),
        children: Vec::new(),
    };
    let tree = t.blob(tree.encode_to_vec());
    t.put(&tree).await?;
    is_no_hit(
        &t,
        &with_tree(&tree.digest),
        "the last of 1501 files of a Tree is missing",
    )
    .await
}
