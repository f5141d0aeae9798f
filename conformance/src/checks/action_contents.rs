//! What is in an action result, and that it stays so.

use proto::reapi::{ExecutedActionMetadata, OutputDirectory, OutputSymlink, Tree};

use super::action_read::{action, directory_of, file, is_no_hit, nested, round_trip, with_files, with_tree};
use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("AC-RES-01", every_field),
    check!("AC-RES-02", unknown_fields),
    check!("AC-RES-03", lists_lose_nothing),
    check!("AC-RES-04", whole_working_directory),
    check!("AC-RES-05", nested_tree),
    check!("AC-RES-06", tree_without_a_child),
    check!("AC-RES-07", sorted_tree),
    check!("AC-RES-08", other_root),
    check!("AC-RES-09", symlink_lists),
    check!("AC-RES-10", as_bazel_writes),
    check!("AC-RES-11", absent_stream),
];

fn link(path: &str) -> OutputSymlink {
    OutputSymlink {
        path: path.into(),
        target: "target".into(),
        ..Default::default()
    }
}

async fn every_field(t: Arc<Target>) -> Verdict {
    let blob = t.stored(50).await?;
    let mut tagged = file("file", &blob.digest);
    tagged.node_properties = Some(reapi::NodeProperties {
        unix_mode: Some(0o644),
        ..Default::default()
    });
    let result = ActionResult {
        exit_code: 3,
        stdout_digest: Some(blob.digest.clone()),
        stderr_digest: Some(blob.digest.clone()),
        execution_metadata: Some(ExecutedActionMetadata {
            worker: "a worker".into(),
            ..Default::default()
        }),
        output_symlinks: vec![link("link")],
        ..with_files(vec![tagged])
    };
    expect_eq(
        "a result with every field",
        &round_trip(&t, &result).await?,
        &result,
    )
}

async fn unknown_fields(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    let mut bytes = ActionResult {
        exit_code: 2,
        ..Default::default()
    }
    .encode_to_vec();
    let future = [0xc2, 0x3e, 0x01, 0x2a]; // field 1000, length-delimited, one byte
    bytes.extend_from_slice(&future);
    t.store_encoded(&action, bytes).await?;
    let came = t.action(t.action_request(&action)).await.due("GetActionResult")?;
    expect(came.windows(future.len()).any(|window| window == future), || {
        "field 1000 is lost".into()
    })
}

async fn lists_lose_nothing(t: Arc<Target>) -> Verdict {
    let blob = t.stored(50).await?;
    let files = ["b", "a", "c"].map(|path| file(path, &blob.digest)).to_vec();
    let mut came = round_trip(&t, &with_files(files)).await?.output_files;
    came.sort_by(|a, b| a.path.cmp(&b.path));
    let paths: Vec<&str> = came.iter().map(|file| file.path.as_str()).collect();
    expect_eq("three files of one content", &paths, &vec!["a", "b", "c"])
}

async fn whole_working_directory(t: Arc<Target>) -> Verdict {
    let tree = Blob::of(Tree::default().encode_to_vec());
    let file = t.stored(10).await?;
    let tree = if tree.bytes.is_empty() {
        let tree = Tree {
            root: Some(directory_of(&[file.digest])),
            children: Vec::new(),
        };
        Blob::of(tree.encode_to_vec())
    } else {
        tree
    };
    t.put(&tree).await?;
    let result = ActionResult {
        output_directories: vec![OutputDirectory {
            tree_digest: Some(tree.digest),
            ..Default::default()
        }],
        ..Default::default()
    };
    expect_eq(
        "a directory without a path",
        &round_trip(&t, &result).await?.output_directories.len(),
        &1,
    )
}

async fn nested_tree(t: Arc<Target>) -> Verdict {
    let file = t.stored(10).await?;
    let tree = nested(&directory_of(&[file.digest]), true);
    t.put(&tree).await?;
    let came = round_trip(&t, &with_tree(&tree.digest)).await?;
    expect_eq("a result with a nested Tree", &came.output_directories.len(), &1)
}

async fn tree_without_a_child(t: Arc<Target>) -> Verdict {
    let file = t.stored(11).await?;
    let tree = nested(&directory_of(&[file.digest]), false);
    t.put(&tree).await?;
    is_no_hit(&t, &with_tree(&tree.digest), "a Tree lacks a child").await
}

async fn sorted_tree(t: Arc<Target>) -> Verdict {
    let file = t.stored(12).await?;
    let tree = nested(&directory_of(&[file.digest]), true);
    t.put(&tree).await?;
    let mut result = with_tree(&tree.digest);
    result.output_directories[0].is_topologically_sorted = true;
    let came = round_trip(&t, &result).await?;
    let sorted = came
        .output_directories
        .iter()
        .all(|directory| directory.is_topologically_sorted);
    expect(sorted, || "is_topologically_sorted is lost".into())?;
    t.reads_as(&t.read_name(&tree.digest), &tree.bytes).await
}

async fn other_root(t: Arc<Target>) -> Verdict {
    let file = t.stored(13).await?;
    let (root, other) = (
        directory_of(std::slice::from_ref(&file.digest)),
        directory_of(&[file.digest.clone(), file.digest]),
    );
    let tree = Tree {
        root: Some(root),
        children: Vec::new(),
    };
    let (tree, other) = (Blob::of(tree.encode_to_vec()), Blob::of(other.encode_to_vec()));
    t.put(&tree).await?;
    t.put(&other).await?;
    let mut result = with_tree(&tree.digest);
    result.output_directories[0].root_directory_digest = Some(other.digest);
    is_no_hit(&t, &result, "the root is not the Tree's").await
}

async fn symlink_lists(t: Arc<Target>) -> Verdict {
    let result = ActionResult {
        output_symlinks: vec![link("a"), link("b")],
        output_file_symlinks: vec![link("a")],
        output_directory_symlinks: vec![link("b")],
        ..Default::default()
    };
    expect_eq(
        "a result with all lists of symlinks",
        &round_trip(&t, &result).await?,
        &result,
    )
}

async fn as_bazel_writes(t: Arc<Target>) -> Verdict {
    let blob = t.stored(60).await?;
    let mut executable = file("bazel-out/k8-fastbuild/bin/a", &blob.digest);
    executable.is_executable = true;
    let empty = Some(Blob::of("").digest);
    let result = ActionResult {
        stdout_digest: empty.clone(),
        stderr_digest: empty,
        ..with_files(vec![executable])
    };
    expect_eq(
        "a result as Bazel writes it",
        &round_trip(&t, &result).await?,
        &result,
    )
}

async fn absent_stream(t: Arc<Target>) -> Verdict {
    let stderr = t.stored(14).await?;
    let result = ActionResult {
        stderr_digest: Some(stderr.digest),
        ..Default::default()
    };
    expect_eq(
        "a result without stdout",
        &round_trip(&t, &result).await?.stdout_digest,
        &None,
    )
}
