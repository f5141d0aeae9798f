//! A hit can be used: everything that it refers to is there, or it is no hit (P3, R6).

use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{Digest, Match, Mock, method};
use prost::Message as _;
use proto::reapi;
use tokio::time::sleep;
use tonic::Code;

use crate::client::{Client, code};
use crate::harness::{Harness, MIB, Site, noise};

/// Longer than any lease.
const AGES: Duration = Duration::from_secs(3600);

fn action() -> Digest {
    Digest::of(b"action")
}

fn directory(files: &[&Digest], children: &[&Bytes]) -> Bytes {
    let directory = reapi::Directory {
        files: files
            .iter()
            .map(|digest| reapi::FileNode {
                name: digest.hash_hex(),
                digest: Some(digest.to_wire()),
                ..Default::default()
            })
            .collect(),
        directories: children
            .iter()
            .map(|child| reapi::DirectoryNode {
                name: Digest::of(child).hash_hex(),
                digest: Some(Digest::of(child).to_wire()),
            })
            .collect(),
        ..Default::default()
    };
    directory.encode_to_vec().into()
}

fn tree(root: &Bytes, children: &[&Bytes]) -> Bytes {
    let tree = proto::wire::Tree {
        root: Some(root.clone()),
        children: children.iter().map(|child| (*child).clone()).collect(),
    };
    tree.encode_to_vec().into()
}

/// Output files and at most one output directory.
fn result(files: &[&Digest], tree: Option<&Digest>, root: Option<&Digest>) -> Bytes {
    let named = |digest: &Digest| digest.to_wire();
    let result = reapi::ActionResult {
        output_files: files
            .iter()
            .map(|digest| reapi::OutputFile {
                path: digest.hash_hex(),
                digest: Some(digest.to_wire()),
                ..Default::default()
            })
            .collect(),
        output_directories: (tree.is_some() || root.is_some())
            .then(|| reapi::OutputDirectory {
                path: "out".to_owned(),
                tree_digest: tree.map(named),
                root_directory_digest: root.map(named),
                ..Default::default()
            })
            .into_iter()
            .collect(),
        ..Default::default()
    };
    result.encode_to_vec().into()
}

/// A directory of two levels, in Tier 2 as a Tree.
struct Planted {
    top: Digest,
    deep: Digest,
    tree: Digest,
    root: Bytes,
    leaf: Bytes,
}

fn plant(mock: &Mock) -> Planted {
    let (top, deep) = (mock.put_blob("", "top"), mock.put_blob("", "deep"));
    let leaf = directory(&[&deep], &[]);
    let root = directory(&[&top], &[&leaf]);
    Planted {
        top,
        deep,
        tree: mock.put_blob("", tree(&root, &[&leaf])),
        root,
        leaf,
    }
}

/// What a client is told of a result that another node wrote.
async fn told(site: &Site, result: &Bytes) -> Result<Bytes, Code> {
    site.mock.put_action("", &action(), result.clone());
    sleep(AGES).await;
    asked(&site.client()).await
}

async fn asked(client: &Client) -> Result<Bytes, Code> {
    client.action(&action()).await.map_err(|status| status.code())
}

/// How often a result was no hit for `reason`.
fn counted(site: &Site, reason: &str) -> u64 {
    let incomplete = &site.node.metrics.actions.incomplete;
    incomplete.with_label_values(&[reason]).get()
}

#[tokio::test(start_paused = true)]
async fn row_8_a_hit_whose_output_was_evicted_and_is_nowhere_else_is_not_found() {
    // P3, AC-GET-02, AC-GET-03
    let site = Harness::new().start().await;
    let [one, two] = [1, 2].map(|seed| site.mock.put_blob("", noise(1000, seed)));
    let whole = result(&[&one, &two], None, None);
    assert_eq!(told(&site, &whole).await, Ok(whole.clone()));
    site.mock.evict("", &two);
    sleep(AGES).await;
    let status = site.client().action(&action()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains(&two.hash_hex()), "{status}");
    assert_eq!(counted(&site, "missing"), 1);
    // It is one again when somebody brings the output.
    site.client().write(&noise(1000, 2)).await.unwrap();
    assert_eq!(asked(&site.client()).await, Ok(whole));
}

/// Questions to Tier 2 about action results, and about presence.
fn questions(site: &Site) -> [usize; 2] {
    [method::GET_ACTION, method::FIND_MISSING].map(|method| site.mock.calls().method(method).count())
}

#[tokio::test(start_paused = true)]
async fn without_a_copy_in_tier_1_evidence_counts_for_the_lease_of_action_results() {
    // R6
    let site = Harness::new().start().await;
    let output = site.mock.put_blob("", "output");
    let whole = result(&[&output], None, None);
    assert_eq!(told(&site, &whole).await, Ok(whole.clone()));
    assert_eq!(questions(&site), [1, 1]);
    sleep(Duration::from_secs(59)).await;
    assert_eq!(asked(&site.client()).await, Ok(whole.clone()));
    assert_eq!(questions(&site), [1, 1]);
    site.mock.evict("", &output);
    assert_eq!(asked(&site.client()).await, Ok(whole), "within the lease");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(asked(&site.client()).await, Err(Code::NotFound), "row 8");
}

#[tokio::test(start_paused = true)]
async fn with_a_copy_in_tier_1_evidence_counts_for_the_lease_of_blobs() {
    // R6
    let site = Harness::new().start().await;
    let client = site.client();
    let output = site.mock.put_blob("", "output");
    let whole = result(&[&output], None, None);
    site.mock.put_action("", &action(), whole.clone());
    client.read(&output).await.unwrap();
    site.landed().await;
    // A fetch is evidence, too.
    for minute in 1..=5 {
        assert_eq!(asked(&client).await, Ok(whole.clone()), "{minute}");
        assert_eq!(questions(&site), [minute, 0]);
        sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(asked(&client).await, Ok(whole));
    assert_eq!(questions(&site), [6, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_not_found_of_tier_2_for_an_output_makes_our_copy_be_checked_again() {
    // P3, R4: within the lease of both.
    for how in ["read", "batch", "find"] {
        let site = Harness::new().start().await;
        let client = site.client();
        let output = site.mock.put_blob("", "output");
        let whole = result(&[&output], None, None);
        assert_eq!(told(&site, &whole).await, Ok(whole.clone()));
        site.mock.evict("", &output);
        assert_eq!(asked(&client).await, Ok(whole), "{how}: nobody has noticed");
        match how {
            "read" => assert_eq!(code(client.read(&output).await), Code::NotFound),
            "batch" => drop(client.batch_read(&[output]).await.unwrap()),
            // Another question, which this one's lease does not answer.
            _ => {
                sleep(Duration::from_secs(60)).await;
                assert_eq!(asked(&client).await, Err(Code::NotFound));
            }
        }
        assert_eq!(asked(&client).await, Err(Code::NotFound), "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_leases_of_zero_every_hit_is_asked_about() {
    // R6
    let site = Harness::new()
        .set("ac.lease", "0s")
        .set("cas.lease", "0s")
        .start()
        .await;
    let output = site.mock.put_blob("", "output");
    let whole = result(&[&output], None, None);
    site.mock.put_action("", &action(), whole.clone());
    for asked_before in 0..3 {
        assert_eq!(questions(&site), [asked_before; 2]);
        assert_eq!(asked(&site.client()).await, Ok(whole.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_tier_2_lost_and_tier_1_holds_is_repaired_and_the_hit_is_one() {
    // R6
    let site = Harness::new().start().await;
    let planted = plant(&site.mock);
    let whole = result(&[&planted.top], Some(&planted.tree), None);
    assert_eq!(told(&site, &whole).await, Ok(whole.clone()));
    // The Tree came here to be looked into, the file because somebody wanted it; the other file did not.
    site.client().read(&planted.top).await.unwrap();
    site.landed().await;
    let lost = [planted.top, planted.tree];
    for digest in &lost {
        site.mock.evict("", digest);
    }
    assert_eq!(told(&site, &whole).await, Ok(whole.clone()));
    assert!(lost.iter().all(|digest| site.mock.blob("", digest).is_some()));
    for digest in [planted.top, planted.deep] {
        site.mock.evict("", &digest);
    }
    assert_eq!(
        told(&site, &whole).await,
        Err(Code::NotFound),
        "one is nowhere else"
    );
    assert!(
        site.mock.blob("", &planted.top).is_some(),
        "the other is there again"
    );
}

#[tokio::test(start_paused = true)]
async fn with_repair_off_what_tier_2_lost_is_no_hit_though_tier_1_holds_it() {
    // P3
    let site = Harness::new().set("repair", "off").start().await;
    let output = site.mock.put_blob("", "output");
    let whole = result(&[&output], None, None);
    site.client().read(&output).await.unwrap();
    site.landed().await;
    assert_eq!(told(&site, &whole).await, Ok(whole.clone()));
    site.mock.evict("", &output);
    assert_eq!(told(&site, &whole).await, Err(Code::NotFound));
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_reference_counts() {
    // P3, AC-GET-05, AC-GET-06
    let site = Harness::new().start().await;
    let Planted {
        top,
        deep,
        tree,
        root,
        leaf,
    } = plant(&site.mock);
    let [stdout, stderr] = ["stdout", "stderr"].map(|text| site.mock.put_blob("", text));
    let roots = [&root, &leaf].map(|bytes| site.mock.put_blob("", bytes.clone()));
    let empty = Digest::of(b"");
    let mut parsed = reapi::ActionResult::decode(result(&[&empty], Some(&tree), Some(&roots[0]))).unwrap();
    parsed.stdout_digest = Some(stdout.to_wire());
    parsed.stderr_digest = Some(stderr.to_wire());
    let whole = Bytes::from(parsed.encode_to_vec());
    assert_eq!(told(&site, &whole).await, Ok(whole.clone()));
    let all = [top, deep, tree, stdout, stderr, roots[0], roots[1]];
    for digest in all {
        // With nothing at hand there is nothing to repair from either.
        let site = Harness::new().start().await;
        let planted = plant(&site.mock);
        for bytes in [planted.root, planted.leaf, "stdout".into(), "stderr".into()] {
            site.mock.put_blob("", bytes);
        }
        assert!(site.mock.evict("", &digest));
        assert_eq!(told(&site, &whole).await, Err(Code::NotFound), "{digest}");
        assert_eq!(counted(&site, "missing"), 1, "{digest}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_directories_of_a_tree_need_not_be_blobs_unless_a_root_is_named() {
    // AC-GET-05: Bazel uploads the Tree and not its Directories.
    let site = Harness::new().start().await;
    let planted = plant(&site.mock);
    let by_tree = result(&[], Some(&planted.tree), None);
    assert_eq!(told(&site, &by_tree).await, Ok(by_tree));
    let root = Digest::of(&planted.root);
    for by_root in [
        result(&[], None, Some(&root)),
        result(&[], Some(&planted.tree), Some(&root)),
    ] {
        assert_eq!(told(&site, &by_root).await, Err(Code::NotFound));
    }
    for bytes in [planted.root, planted.leaf] {
        site.mock.put_blob("", bytes);
    }
    let by_root = result(&[], None, Some(&root));
    assert_eq!(told(&site, &by_root).await, Ok(by_root.clone()));
    site.mock.evict("", &planted.deep);
    sleep(AGES).await;
    assert_eq!(asked(&site.client()).await, Err(Code::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_tree_whose_root_is_another_than_the_one_named_is_no_hit() {
    // AC-RES-08
    let site = Harness::new().start().await;
    let planted = plant(&site.mock);
    let other = site.mock.put_blob("", planted.leaf.clone());
    let result = result(&[], Some(&planted.tree), Some(&other));
    assert_eq!(told(&site, &result).await, Err(Code::NotFound));
    assert_eq!(counted(&site, "tree_other_root"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_cannot_be_used_is_certain_and_no_hit() {
    // AC-GET-07, AC-GET-21, AC-RES-06
    let site = Harness::new().start().await;
    let planted = plant(&site.mock);
    let no_digest = reapi::Directory {
        files: vec![reapi::FileNode::default()],
        ..Default::default()
    };
    let huge = Digest::parse(&"ab".repeat(32), 33 * MIB as i64).unwrap();
    site.mock.plant("", &huge, "not that long");
    for (tree, reason) in [
        (site.mock.put_blob("", "\u{ff}"), "tree_undecodable"),
        (
            site.mock.put_blob("", tree(&planted.root, &[])),
            "tree_child_lacking",
        ),
        (
            site.mock
                .put_blob("", tree(&no_digest.encode_to_vec().into(), &[])),
            "tree_malformed",
        ),
        (huge, "tree_too_large"),
    ] {
        let result = result(&[], Some(&tree), None);
        for times in 1..3 {
            assert_eq!(told(&site, &result).await, Err(Code::NotFound), "{reason}");
            assert_eq!(counted(&site, reason), times, "{reason}");
        }
    }
    assert_eq!(site.upstream_reads(&huge), 0);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_checked_is_neither_a_hit_nor_a_miss() {
    // P3, P5, AC-GET-08, AC-GET-09
    for refusal in [Code::Unavailable, Code::Internal, Code::ResourceExhausted] {
        let site = Harness::new().start().await;
        let planted = plant(&site.mock);
        let whole = result(&[&planted.top], Some(&planted.tree), None);
        for unreadable in [
            Match::method(method::BATCH_READ),
            Match::method(method::FIND_MISSING),
        ] {
            // Also with whatever is tried again.
            site.mock.fail(unreadable, refusal, 10);
            assert_eq!(told(&site, &whole).await, Err(refusal));
            site.mock.heal();
        }
        // A refusal that is called NOT_FOUND says nothing about the action.
        site.mock
            .fail(Match::method(method::FIND_MISSING), Code::NotFound, 10);
        assert_eq!(told(&site, &whole).await, Err(Code::Unavailable));
        site.mock.heal();
        let misses = site.node.metrics.reads.misses.with_label_values(&["ac"]);
        assert_eq!(misses.get(), 0);
        assert_eq!(told(&site, &whole).await, Ok(whole));
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_refers_to_a_bad_blob_is_no_hit_until_it_is_healed() {
    // R10
    let site = Harness::new().start().await;
    let client = site.client();
    let blob = noise(1000, 1);
    let digest = Digest::of(&blob);
    site.mock.plant("", &digest, noise(1000, 2));
    let whole = result(&[&digest], None, None);
    assert_eq!(told(&site, &whole).await, Ok(whole.clone()), "nobody knows yet");
    assert_ne!(code(client.read(&digest).await), Code::Ok);
    site.landed().await;
    assert_eq!(asked(&client).await, Err(Code::NotFound));
    assert_eq!(counted(&site, "bad"), 1);
    site.mock.evict("", &digest);
    client.write(&blob).await.unwrap();
    assert_eq!(asked(&client).await, Ok(whole));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_outputs_are_asked_for_in_one_call() {
    // AC-GET-19
    let site = Harness::new().start().await;
    let outputs: Vec<Digest> = (0..1000_u32)
        .map(|number| site.mock.put_blob("", number.to_le_bytes().to_vec()))
        .collect();
    let whole = result(&outputs.iter().collect::<Vec<_>>(), None, None);
    assert_eq!(told(&site, &whole).await, Ok(whole));
    let asked = site.mock.calls().method(method::FIND_MISSING);
    assert_eq!(asked.count(), 1);
    assert_eq!(asked.first().unwrap().digests.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_tree_is_remembered_and_its_files_are_still_asked_for() {
    // R6
    let site = Harness::new().set("tier1.max_blob_size", "1").start().await;
    let planted = plant(&site.mock);
    let whole = result(&[], Some(&planted.tree), None);
    for _ in 0..3 {
        assert_eq!(told(&site, &whole).await, Ok(whole.clone()));
    }
    assert_eq!(site.upstream_reads(&planted.tree), 1);
    site.mock.evict("", &planted.deep);
    assert_eq!(told(&site, &whole).await, Err(Code::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_large_tree_is_checked_to_its_last_file() {
    // AC-GET-21
    let site = Harness::new().start().await;
    let files: Vec<Digest> = (0..12_000_u32)
        .map(|number| site.mock.put_blob("", number.to_le_bytes().to_vec()))
        .collect();
    let levels = files
        .chunks(100)
        .map(|files| directory(&files.iter().collect::<Vec<_>>(), &[]))
        .collect::<Vec<_>>();
    let levels: Vec<&Bytes> = levels.iter().collect();
    let root = directory(&[], &levels);
    let tree = site.mock.put_blob("", tree(&root, &levels));
    let whole = result(&[], Some(&tree), None);
    assert_eq!(told(&site, &whole).await, Ok(whole.clone()));
    site.mock.evict("", files.last().unwrap());
    assert_eq!(told(&site, &whole).await, Err(Code::NotFound));
}
