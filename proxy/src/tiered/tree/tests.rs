use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use prost::Message as _;
use proto::reapi;

use super::super::CallError;
use super::super::read_harness::Harness;
use super::{PAGE_BYTES_MAX, TreeError, TreePage, TreeToken};
use crate::digest::{Digest, Function};
use crate::tier2::Tier2Error;

/// A directory with a name of its own and these children.
fn directory(name: &str, children: &[Digest]) -> Bytes {
    let nodes = children
        .iter()
        .enumerate()
        .map(|(index, child)| reapi::DirectoryNode {
            name: format!("child-{index}"),
            digest: Some(reapi::Digest {
                hash: child.hash().to_hex(),
                size_bytes: i64::try_from(child.size_bytes()).unwrap(),
            }),
        });
    let directory = reapi::Directory {
        directories: nodes.collect(),
        symlinks: vec![reapi::SymlinkNode {
            name: name.to_owned(),
            target: "elsewhere".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    directory.encode_to_vec().into()
}

async fn pages(
    harness: &Harness,
    root: &Digest,
    page_size: usize,
    token: Option<TreeToken>,
) -> Result<Vec<TreePage>, TreeError> {
    let pages: Vec<_> = harness
        .reads
        .tree(&harness.call, root, page_size, token)
        .collect()
        .await;
    pages.into_iter().collect()
}

async fn all(harness: &Harness, root: &Digest) -> Result<Vec<Bytes>, TreeError> {
    let pages = pages(harness, root, 0, None).await?;
    Ok(pages.into_iter().flat_map(|page| page.directories).collect())
}

/// A root with nine children in a chain of three each.
fn plant_bush(harness: &Harness) -> (Digest, usize) {
    let chains: Vec<Digest> = (0..9)
        .map(|index| {
            let leaf = harness.plant(directory(&format!("leaf-{index}"), &[]));
            let middle = harness.plant(directory(&format!("middle-{index}"), &[leaf]));
            harness.plant(directory(&format!("top-{index}"), &[middle]))
        })
        .collect();
    (harness.plant(directory("root", &chains)), 28)
}

#[tokio::test(start_paused = true)]
async fn a_tree_is_the_root_and_all_below_it_with_one_batch_per_level() {
    let harness = Harness::new().await;
    let (root, count) = plant_bush(&harness);
    let found = all(&harness, &root).await.unwrap(); // TREE-01, -22
    assert_eq!(found.len(), count);
    assert_eq!(Digest::of(Function::Sha256, &found[0]), root);
    assert_eq!(harness.tier2.count("read_batch"), 4);
    harness.landed().await;
    // PXY-75: what is only here counts as well.
    harness
        .tier2
        .evict(&harness.call.blob(&Digest::of(Function::Sha256, &found[20])));
    assert_eq!(all(&harness, &root).await.unwrap(), found);
}

#[tokio::test(start_paused = true)]
async fn a_tree_with_a_billion_paths_is_walked_once_per_directory() {
    let harness = Harness::new().await;
    let mut root = harness.plant(directory("leaf", &[]));
    for level in 0..30 {
        root = harness.plant(directory(&level.to_string(), &[root, root]));
    }
    assert_eq!(all(&harness, &root).await.unwrap().len(), 31); // TREE-15
}

#[tokio::test(start_paused = true)]
async fn a_missing_or_meaningless_descendant_is_left_out_with_what_only_it_leads_to() {
    let harness = Harness::new().await;
    let leaf = harness.plant(directory("leaf", &[]));
    let gone = Digest::of(Function::Sha256, &directory("gone", &[leaf]));
    let garbage = harness.plant(&b"\x0a\xff\xff"[..]);
    let shared = harness.plant(directory("shared", &[]));
    let nodes = [gone, garbage, shared];
    let mut message = reapi::Directory::decode(directory("root", &nodes)).unwrap();
    message.directories.push(reapi::DirectoryNode::default()); // TREE-19
    message.directories.push(reapi::DirectoryNode {
        name: "malformed".into(),
        digest: Some(reapi::Digest {
            hash: "abc".into(),
            size_bytes: -1,
        }),
    });
    let root = harness.plant(message.encode_to_vec());
    let found = all(&harness, &root).await.unwrap(); // TREE-03, -18
    let found: Vec<Digest> = found
        .iter()
        .map(|bytes| Digest::of(Function::Sha256, bytes))
        .collect();
    assert_eq!(found, [root, shared]);
}

#[tokio::test(start_paused = true)]
async fn trouble_with_a_descendant_is_an_error_and_not_an_absence() {
    let harness = Harness::new().await;
    let (root, _) = plant_bush(&harness);
    harness.read(&root).await.unwrap();
    harness.landed().await;
    harness.tier2.fail_with(Some(Tier2Error::down("a test says so")));
    assert!(matches!(
        all(&harness, &root).await,
        Err(TreeError::Call(CallError::Tier2(Tier2Error::Down(_)))) // TREE-04
    ));
}

#[tokio::test(start_paused = true)]
async fn a_root_that_is_absent_or_no_directory_says_so_and_the_empty_one_is_a_tree() {
    let harness = Harness::new().await;
    let absent = Digest::of(Function::Sha256, b"nowhere");
    assert!(matches!(
        all(&harness, &absent).await,
        Err(TreeError::Call(CallError::Tier2(Tier2Error::NotFound))) // TREE-02
    ));
    let garbage = harness.plant(&b"\x0a\xff\xff"[..]);
    assert!(matches!(
        all(&harness, &garbage).await,
        Err(TreeError::NotADirectory) // TREE-17
    ));
    let empty = Function::Sha256.empty();
    assert_eq!(all(&harness, &empty).await.unwrap(), [Bytes::new()]); // TREE-21
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_of_a_directory_survive() {
    let harness = Harness::new().await;
    let mut bytes = BytesMut::from(&directory("future", &[])[..]);
    bytes.put_slice(b"\xca\x3e\x03abc"); // Field 1001, from a later version.
    let bytes = bytes.freeze();
    let root = harness.plant(bytes.clone());
    assert_eq!(all(&harness, &root).await.unwrap(), [bytes]); // TREE-20
}

#[tokio::test(start_paused = true)]
async fn pages_by_token_neither_repeat_nor_lose_whatever_the_page_size() {
    let harness = Harness::new().await;
    let (root, count) = plant_bush(&harness);
    let whole = all(&harness, &root).await.unwrap();
    for page_size in [1, 5, 27, 28, 29] {
        let cut = pages(&harness, &root, page_size, None).await.unwrap();
        assert_eq!(cut.len(), count.div_ceil(page_size)); // TREE-06, -10
        let (last, others) = cut.split_last().unwrap();
        assert!(last.next.is_none() && others.iter().all(|page| page.next.is_some())); // TREE-09
        let together: Vec<Bytes> = cut.iter().flat_map(|page| page.directories.clone()).collect();
        assert_eq!(together, whole);
        // Any token, sent back as text with another size, continues just there.
        for (index, page) in others.iter().enumerate() {
            let text = page.next.unwrap().to_string();
            let token = TreeToken::parse(&text, &root).unwrap();
            let rest = pages(&harness, &root, 4, Some(token)).await.unwrap(); // TREE-08, -11, -12
            let rest: Vec<Bytes> = rest.into_iter().flat_map(|page| page.directories).collect();
            assert_eq!(rest, whole[(index + 1) * page_size..]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_malformed_or_of_another_tree_is_refused() {
    let harness = Harness::new().await;
    let (root, _) = plant_bush(&harness);
    let other = harness.plant(directory("other", &[]));
    let token = pages(&harness, &root, 5, None).await.unwrap()[0]
        .next
        .unwrap()
        .to_string();
    assert!(matches!(TreeToken::parse(&token, &other), Err(TreeError::Token))); // TREE-14
    let respelled = format!("0{token}");
    for text in [
        "",
        "5",
        "5-",
        "-",
        "x-y",
        "99999999999999999999-0",
        "0-0",
        &respelled,
    ] {
        assert!(
            matches!(TreeToken::parse(text, &root), Err(TreeError::Token)),
            "{text}"
        );
    }
    // A tree that has lost the place since.
    let beyond = TreeToken { root, position: 28 };
    assert!(matches!(
        pages(&harness, &root, 5, Some(beyond)).await,
        Err(TreeError::Token)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_page_stays_below_the_message_limit_and_a_directory_above_it_is_an_error() {
    let harness = Harness::new().await;
    let name = "n".repeat(1_000_000);
    let children: Vec<Digest> = (0..5)
        .map(|index| harness.plant(directory(&format!("{index}{name}"), &[])))
        .collect();
    let root = harness.plant(directory("root", &children));
    let cut = pages(&harness, &root, 100, None).await.unwrap(); // TREE-16
    let sizes: Vec<usize> = cut.iter().map(|page| page.directories.len()).collect();
    assert_eq!(sizes, [4, 2]);
    let huge = harness.plant(directory(
        &"n".repeat(usize::try_from(PAGE_BYTES_MAX).unwrap()),
        &[],
    ));
    let root = harness.plant(directory("root", &[huge]));
    assert!(matches!(
        all(&harness, &root).await,
        Err(TreeError::DirectoryTooLarge(digest)) if digest == huge
    ));
}

#[tokio::test(start_paused = true)]
async fn a_tree_deeper_than_the_bound_ends_with_an_error() {
    let harness = Harness::new().await;
    let mut root = harness.plant(directory("leaf", &[]));
    for level in 0..super::DEPTH_MAX {
        root = harness.plant(directory(&level.to_string(), &[root]));
    }
    assert_eq!(all(&harness, &root).await.unwrap().len(), 513);
    root = harness.plant(directory("one too many", &[root]));
    assert!(matches!(all(&harness, &root).await, Err(TreeError::TooLarge(_)))); // TREE-25
}

#[tokio::test(start_paused = true)]
async fn a_descendant_whose_copy_is_bad_is_not_silently_left_out() {
    // TREE-04
    let harness = Harness::new().await;
    let child = harness.plant(directory("child", &[]));
    let root = harness.plant(directory("root", &[child]));
    harness.bad.condemn(&harness.call.blob(&child));
    let error = all(&harness, &root).await.unwrap_err();
    assert!(
        matches!(error, TreeError::BadDirectory(bad) if bad == child),
        "{error:?}"
    );
    harness.bad.condemn(&harness.call.blob(&root));
    let error = all(&harness, &child).await.unwrap_err();
    assert!(matches!(error, TreeError::Call(CallError::BadBlob)), "{error:?}");
}
