use bytes::Bytes;
use mock_upstream::{Digest, Mock};
use prost::Message;
use proto::reapi::{
    self, Directory, DirectoryNode, FileNode, GetActionResultRequest, OutputDirectory, OutputFile,
};
use proto::wire::{self, UpdateActionResultRequest};
use tonic::{Code, Status};

use crate::client::{Client, code};

async fn action(client: &mut Client, instance: &str, action: &Digest) -> Result<Bytes, Status> {
    let request = GetActionResultRequest {
        instance_name: instance.into(),
        action_digest: Some(action.to_wire()),
        ..GetActionResultRequest::default()
    };
    Ok(client.actions.get_action_result(request).await?.into_inner().0)
}

async fn put(
    client: &mut Client,
    instance: &str,
    action: &Digest,
    raw: Option<Bytes>,
) -> Result<Bytes, Status> {
    let request = UpdateActionResultRequest {
        instance_name: instance.into(),
        action_digest: Some(action.to_wire()),
        action_result: raw,
        ..UpdateActionResultRequest::default()
    };
    Ok(client.actions.update_action_result(request).await?.into_inner().0)
}

fn raw(result: &reapi::ActionResult) -> Option<Bytes> {
    Some(result.encode_to_vec().into())
}

#[tokio::test]
async fn results_come_back_as_the_bytes_they_were() {
    // AC-RES-02: exit_code 7 spelled with five bytes, then field 1000 from the future, twice.
    let odd = Bytes::from_static(b"\x20\x87\x80\x80\x80\x00\xc2\x3e\x02hi\xc2\x3e\x00");
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let key = Digest::of(b"action");
    assert_eq!(code(action(&mut client, "a", &key).await), Code::NotFound); // AC-GET-01
    assert_eq!(put(&mut client, "a", &key, Some(odd.clone())).await.unwrap(), odd);
    assert_eq!(action(&mut client, "a", &key).await.unwrap(), odd);
    assert_eq!(mock.action("a", &key).unwrap(), odd);
    assert_eq!(mock.actions("a"), [key]);
    assert_eq!(code(action(&mut client, "b", &key).await), Code::NotFound); // INST-08
    let resized = Digest::parse(&key.hash_hex(), 7).unwrap();
    assert_eq!(code(action(&mut client, "a", &resized).await), Code::NotFound); // AC-GET-10
    let newer = Bytes::new();
    put(&mut client, "a", &key, Some(newer.clone())).await.unwrap(); // AC-UPD-10, AC-UPD-15
    assert_eq!(action(&mut client, "a", &key).await.unwrap(), newer);
    mock.put_action("a", &key, odd.clone());
    assert_eq!(action(&mut client, "a", &key).await.unwrap(), odd);
    assert!(mock.evict_action("a", &key));
    assert_eq!(code(action(&mut client, "a", &key).await), Code::NotFound);
}

fn file(digest: Option<reapi::Digest>, contents: &'static [u8]) -> reapi::ActionResult {
    let file = OutputFile {
        path: "out".into(),
        digest,
        contents: Bytes::from_static(contents),
        ..OutputFile::default()
    };
    reapi::ActionResult {
        output_files: vec![file],
        ..reapi::ActionResult::default()
    }
}

#[tokio::test]
async fn updates_that_nobody_could_use_are_refused() {
    let mock = Mock::builder()
        .settings(|settings| settings.max_message_bytes = 10_000)
        .start();
    let mut client = Client::of(&mock);
    let key = Digest::of(b"action");
    let good = Digest::of(b"good").to_wire();
    let bad = reapi::Digest {
        hash: "bad".into(),
        size_bytes: 4,
    };
    let stream = |digest: &reapi::Digest| reapi::ActionResult {
        stdout_digest: Some(digest.clone()),
        stdout_raw: Bytes::from_static(b"good"),
        ..reapi::ActionResult::default()
    };
    let tree = OutputDirectory {
        tree_digest: Some(bad.clone()),
        ..OutputDirectory::default()
    };
    let with_tree = reapi::ActionResult {
        output_directories: vec![tree],
        ..reapi::ActionResult::default()
    };
    let large = reapi::ActionResult {
        stdout_raw: vec![0; 9_500].into(),
        ..reapi::ActionResult::default()
    };
    for (id, result, expected) in [
        ("AC-UPD-05", None, Code::InvalidArgument),
        ("AC-UPD-05", raw(&file(None, b"")), Code::InvalidArgument),
        (
            "AC-UPD-05",
            raw(&file(Some(bad.clone()), b"")),
            Code::InvalidArgument,
        ),
        ("AC-UPD-05", raw(&stream(&bad)), Code::InvalidArgument),
        ("AC-UPD-05", raw(&with_tree), Code::InvalidArgument),
        (
            "AC-UPD-05",
            Some(Bytes::from_static(b"\xff\xff")),
            Code::InvalidArgument,
        ),
        (
            "AC-UPD-13",
            raw(&file(Some(good.clone()), b"evil")),
            Code::InvalidArgument,
        ),
        ("AC-UPD-13", raw(&file(Some(good.clone()), b"good")), Code::Ok),
        ("AC-UPD-13", raw(&stream(&good)), Code::Ok),
        ("AC-UPD-14", raw(&large), Code::InvalidArgument),
    ] {
        assert_eq!(
            code(put(&mut client, "", &key, result.clone()).await),
            expected,
            "{id} {result:?}"
        );
        assert_eq!(mock.evict_action("", &key), expected == Code::Ok, "{id}");
    }
    let request = UpdateActionResultRequest {
        action_result: Some(Bytes::new()),
        ..UpdateActionResultRequest::default()
    };
    assert_eq!(
        code(client.actions.update_action_result(request).await),
        Code::InvalidArgument
    );
    mock.configure(|settings| settings.update_enabled = false);
    assert_eq!(
        code(put(&mut client, "", &key, Some(Bytes::new())).await),
        Code::PermissionDenied
    ); // AC-UPD-09
}

#[tokio::test]
async fn a_mock_that_requires_completeness_hides_results_with_holes() {
    let mock = Mock::builder()
        .settings(|settings| settings.require_complete = true)
        .start();
    let mut client = Client::of(&mock);
    let (leaf_file, out, log) = (
        mock.put_blob("", "leaf"),
        mock.put_blob("", "out"),
        mock.put_blob("", "log"),
    );
    let leaf = Directory {
        files: vec![FileNode {
            name: "f".into(),
            digest: Some(leaf_file.to_wire()),
            ..FileNode::default()
        }],
        ..Directory::default()
    };
    let leaf_bytes = Bytes::from(leaf.encode_to_vec());
    let child = |digest: Digest| DirectoryNode {
        name: "d".into(),
        digest: Some(digest.to_wire()),
    };
    let root = Directory {
        directories: vec![child(Digest::of(&leaf_bytes))],
        ..Directory::default()
    };
    let root = Bytes::from(root.encode_to_vec());
    let tree = wire::Tree {
        root: Some(root.clone()),
        children: vec![leaf_bytes.clone()],
    };
    let tree = mock.put_blob("", tree.encode_to_vec());
    let (root_blob, leaf_blob) = (mock.put_blob("", root.clone()), mock.put_blob("", leaf_bytes));
    let mut result = file(Some(out.to_wire()), b"");
    result.stdout_digest = Some(log.to_wire());
    result.stderr_digest = Some(Digest::of(b"").to_wire()); // AC-GET-06
    result.output_directories = vec![OutputDirectory {
        tree_digest: Some(tree.to_wire()),
        root_directory_digest: Some(root_blob.to_wire()),
        ..OutputDirectory::default()
    }];
    let key = Digest::of(b"action");
    put(&mut client, "", &key, raw(&result)).await.unwrap(); // AC-UPD-06

    for reference in [out, log, tree, leaf_file, root_blob, leaf_blob] {
        assert_eq!(code(action(&mut client, "", &key).await), Code::Ok);
        let bytes = mock.blob("", &reference).unwrap();
        mock.evict("", &reference);
        assert_eq!(
            code(action(&mut client, "", &key).await),
            Code::NotFound,
            "AC-GET-05 {reference}"
        );
        mock.put_blob("", bytes);
    }
    let childless = wire::Tree {
        root: Some(root),
        children: vec![],
    };
    let childless = mock.put_blob("", childless.encode_to_vec());
    result.output_directories[0].tree_digest = Some(childless.to_wire());
    put(&mut client, "", &key, raw(&result)).await.unwrap();
    assert_eq!(code(action(&mut client, "", &key).await), Code::NotFound); // AC-RES-06
    mock.configure(|settings| settings.require_complete = false);
    assert_eq!(code(action(&mut client, "", &key).await), Code::Ok);
}
