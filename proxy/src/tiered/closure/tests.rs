use proto::wire;

use super::tree::{Closure, Walk, of_tree};
use super::*;

fn digest(text: &str) -> Digest {
    Digest::of(Function::Sha256, text.as_bytes())
}

fn named(digest: Digest) -> Option<reapi::Digest> {
    Some(reapi::Digest {
        hash: digest.hash().to_hex(),
        size_bytes: i64::try_from(digest.size_bytes()).unwrap(),
    })
}

fn wire_digest(text: &str) -> Option<reapi::Digest> {
    named(digest(text))
}

fn file(text: &str) -> reapi::OutputFile {
    reapi::OutputFile {
        path: text.to_owned(),
        digest: wire_digest(text),
        ..Default::default()
    }
}

fn read(result: &reapi::ActionResult) -> Result<References, Flaw> {
    References::of(Function::Sha256, &RawActionResult(result.encode_to_vec().into()))
}

fn in_directory(tree: Option<reapi::Digest>, root: Option<reapi::Digest>) -> reapi::ActionResult {
    reapi::ActionResult {
        output_directories: vec![reapi::OutputDirectory {
            tree_digest: tree,
            root_directory_digest: root,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn directory(files: &[&str], children: &[&Bytes]) -> Bytes {
    let directory = reapi::Directory {
        files: files
            .iter()
            .map(|text| reapi::FileNode {
                name: (*text).to_owned(),
                digest: wire_digest(text),
                ..Default::default()
            })
            .collect(),
        directories: children
            .iter()
            .enumerate()
            .map(|(number, child)| reapi::DirectoryNode {
                name: number.to_string(),
                digest: named(of(child)),
            })
            .collect(),
        ..Default::default()
    };
    directory.encode_to_vec().into()
}

fn of(bytes: &Bytes) -> Digest {
    Digest::of(Function::Sha256, bytes)
}

fn look_into(root: &Bytes, children: &[&Bytes]) -> Result<Closure, Flaw> {
    let tree = wire::Tree {
        root: Some(root.clone()),
        children: children.iter().map(|child| (*child).clone()).collect(),
    };
    let bytes = Bytes::from(tree.encode_to_vec());
    of_tree(of(&bytes), bytes)
}

#[test]
fn every_blob_that_a_result_names_is_found_once() {
    // AC-GET-05, AC-GET-06
    let result = reapi::ActionResult {
        output_files: vec![file("file"), file(""), file("twice"), file("twice")],
        stdout_digest: wire_digest("stdout"),
        stderr_digest: wire_digest("twice"),
        ..in_directory(wire_digest("tree"), wire_digest("root"))
    };
    let found = read(&result).unwrap();
    assert_eq!(*found.blobs, ["file", "twice", "stdout"].map(digest));
    let expected = ["file", "twice", "stdout", "tree", "root"].map(digest);
    assert_eq!(found.named().collect::<Vec<_>>(), expected);
    assert_eq!(
        found.bytes(),
        3 * size_of::<Digest>() + size_of::<OutputDirectory>()
    );
}

#[test]
fn what_is_absent_is_none_and_a_result_without_outputs_is_whole() {
    // AC-RES-11, AC-UPD-15
    assert_eq!(read(&reapi::ActionResult::default()), Ok(References::default()));
    let root_only = read(&in_directory(None, wire_digest("root"))).unwrap();
    assert_eq!(*root_only.directories, [OutputDirectory::Root(digest("root"))]);
}

#[test]
fn a_result_that_no_client_could_use_says_why() {
    // AC-GET-07
    let garbage = RawActionResult(Bytes::from_static(b"\xff\xff"));
    assert_eq!(References::of(Function::Sha256, &garbage), Err(Flaw::Undecodable));
    let malformed = Some(reapi::Digest {
        hash: "no hash".to_owned(),
        size_bytes: 1,
    });
    let no_digest = reapi::OutputFile::default();
    let other_bytes = reapi::OutputFile {
        contents: Bytes::from_static(b"other"),
        ..file("file")
    };
    let of_file = |file| reapi::ActionResult {
        output_files: vec![file],
        ..Default::default()
    };
    let of_stdout = reapi::ActionResult {
        stdout_digest: malformed.clone(),
        ..Default::default()
    };
    for (result, flaw) in [
        (of_file(no_digest), Flaw::Malformed("digest of an output file")),
        (of_file(other_bytes), Flaw::Inlined(digest("file"))),
        (of_stdout, Flaw::Malformed("stdout digest")),
        (
            in_directory(None, None),
            Flaw::Malformed("tree digest of an output directory"),
        ),
        (
            in_directory(wire_digest("tree"), malformed),
            Flaw::Malformed("root digest of an output directory"),
        ),
    ] {
        assert_eq!(read(&result), Err(flaw));
    }
}

#[test]
fn a_tree_leads_to_the_files_of_all_its_directories() {
    // AC-GET-05
    let leaf = directory(&["deep", "", "shared"], &[]);
    let middle = directory(&["shared"], &[&leaf]);
    let root = directory(&["top"], &[&middle, &leaf]);
    let closure = look_into(&root, &[&leaf, &middle]).unwrap();
    assert_eq!(closure.root, of(&root));
    assert_eq!(*closure.directories, [of(&root), of(&middle), of(&leaf)]);
    assert_eq!(*closure.files, ["top", "shared", "deep"].map(digest));
    assert_eq!(closure.bytes(), 6 * size_of::<Digest>());
}

#[test]
fn empty_directories_and_an_empty_tree_lack_nothing() {
    let empty = directory(&[], &[]);
    let root = directory(&["file"], &[&empty]);
    let closure = look_into(&root, &[]).unwrap();
    assert_eq!(*closure.directories, [of(&root)]);
    let nothing = of_tree(digest(""), Bytes::new()).unwrap();
    assert_eq!(nothing.root, digest(""));
    assert!(nothing.directories.is_empty() && nothing.files.is_empty());
}

#[test]
fn a_tree_that_lacks_a_child_is_useless() {
    // AC-RES-06
    let leaf = directory(&["deep"], &[]);
    let root = directory(&[], &[&leaf]);
    let error = look_into(&root, &[]).unwrap_err();
    assert!(
        matches!(error, Flaw::ChildLacking { child, .. } if child == of(&leaf)),
        "{error}"
    );
    assert_eq!(error.reason(), "tree_child_lacking");
}

#[test]
fn a_tree_of_no_sense_says_so() {
    // AC-GET-07
    let garbage = Bytes::from_static(b"\x0a\x7f");
    assert_eq!(
        of_tree(of(&garbage), garbage.clone()),
        Err(Flaw::TreeUndecodable(of(&garbage)))
    );
    let error = look_into(&Bytes::from_static(b"\xff\xff"), &[]).unwrap_err();
    assert!(matches!(error, Flaw::TreeUndecodable(_)), "{error}");
    for nameless in [
        reapi::Directory {
            files: vec![reapi::FileNode::default()],
            ..Default::default()
        },
        reapi::Directory {
            directories: vec![reapi::DirectoryNode::default()],
            ..Default::default()
        },
    ] {
        let error = look_into(&nameless.encode_to_vec().into(), &[]).unwrap_err();
        assert!(matches!(error, Flaw::TreeMalformed(_)), "{error}");
    }
}

#[test]
fn a_tree_that_is_too_deep_is_not_assumed_whole() {
    // AC-GET-21
    let mut levels = vec![directory(&["bottom"], &[])];
    for _ in 0..512 {
        let above = directory(&[], &[levels.last().unwrap()]);
        levels.push(above);
    }
    let look = |levels: &[Bytes]| {
        let (root, below) = levels.split_last().unwrap();
        look_into(root, &below.iter().collect::<Vec<_>>())
    };
    assert_eq!(look(&levels).unwrap().directories.len(), 513);
    levels.push(directory(&[], &[levels.last().unwrap()]));
    let error = look(&levels).unwrap_err();
    assert!(matches!(error, Flaw::TreeTooLarge(_)), "{error}");
}

#[test]
fn a_small_tree_that_describes_millions_of_paths_is_walked_once_per_directory() {
    let mut levels = vec![directory(&["bottom"], &[])];
    for _ in 0..64 {
        let below = levels.last().unwrap();
        let above = directory(&[], &[below, below]);
        levels.push(above);
    }
    let (root, below) = levels.split_last().unwrap();
    let closure = look_into(root, &below.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!((closure.directories.len(), closure.files.len()), (65, 1));
}

/// What a walk says that is given directories of a thousand files until it has enough, and how many it took.
fn swamp(name_bytes: usize) -> (Flaw, usize) {
    let mut walk = Walk::new(digest("root"), digest("root"));
    let padding = "x".repeat(name_bytes);
    for taken in 0.. {
        let names: Vec<String> = (0..1000).map(|name| format!("{taken}/{name}{padding}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if let Err(flaw) = walk.take(&directory(&names, &[])) {
            return (flaw, taken);
        }
    }
    unreachable!("a walk without a bound");
}

#[test]
fn more_references_or_bytes_than_can_be_checked_are_not_assumed_whole() {
    // AC-GET-21
    assert_eq!(swamp(0), (Flaw::TooMany, REFERENCES_MAX / 1000 - 1));
    let (flaw, taken) = swamp(1000);
    assert_eq!(flaw, Flaw::TreeTooLarge(digest("root")));
    assert!((25..32).contains(&taken), "{taken}");
}

#[test]
fn directories_are_wanted_from_the_top_down_and_each_once() {
    let leaf = directory(&["deep"], &[]);
    let middle = directory(&[], &[&leaf]);
    let root = directory(&["top"], &[&middle, &leaf]);
    let mut walk = Walk::new(of(&root), of(&root));
    assert_eq!(walk.next(), Some(of(&root)));
    assert_eq!(walk.next(), None, "until its bytes are here");
    walk.take(&root).unwrap();
    assert_eq!([walk.next(), walk.next()], [Some(of(&middle)), Some(of(&leaf))]);
    walk.take(&middle).unwrap();
    walk.take(&leaf).unwrap();
    assert_eq!(walk.next(), None);
    let closure = walk.finish();
    assert_eq!(*closure.files, ["top", "deep"].map(digest));
}

#[test]
fn every_reason_has_a_word_of_its_own_or_shares_it_knowingly() {
    let (a, b) = (digest("a"), digest("b"));
    let flaws = [
        Flaw::Undecodable,
        Flaw::Malformed("x"),
        Flaw::TooMany,
        Flaw::TreeTooLarge(a),
        Flaw::TreeUndecodable(a),
        Flaw::TreeMalformed(a),
        Flaw::ChildLacking { tree: a, child: b },
        Flaw::OtherRoot { tree: a, root: b },
        Flaw::Missing(a),
        Flaw::Bad(a),
    ];
    let words: HashSet<_> = flaws.iter().map(Flaw::reason).collect();
    assert_eq!(words.len(), flaws.len());
    assert_eq!(Flaw::Inlined(a).reason(), "malformed");
}
