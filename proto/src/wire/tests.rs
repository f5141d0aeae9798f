use tonic::codegen::tokio_stream::{self, StreamExt};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::action_cache_client::ActionCacheClient;
use super::action_cache_server::{ActionCache, ActionCacheServer};
use super::content_addressable_storage_client::ContentAddressableStorageClient;
use super::content_addressable_storage_server::{ContentAddressableStorage, ContentAddressableStorageServer};
use super::*;
use crate::hand_encoded::{bytes, digest, padded_varint, varint};

/// An action result that prost could not give back: a field from the future between the known ones, those in falling
/// order, a number written in more bytes than it needs, a default written out (AC-RES-02, R7).
fn odd_action_result() -> Bytes {
    let future = bytes(1000, "from the future");
    let encoded = [
        bytes(6, digest("aa", 3)),
        future,
        padded_varint(4, 5),
        bytes(5, ""),
    ]
    .concat();
    assert_ne!(
        reapi::ActionResult::decode(encoded.as_slice())
            .unwrap()
            .encode_to_vec(),
        encoded
    );
    encoded.into()
}

/// Likewise a Directory (TREE-20).
fn odd_directory(name: &str) -> Bytes {
    let file = [padded_varint(4, 1), bytes(1, name)].concat();
    let encoded = [
        bytes(1000, "from the future"),
        bytes(3, bytes(1, "link")),
        bytes(1, file),
    ]
    .concat();
    assert_ne!(
        reapi::Directory::decode(encoded.as_slice())
            .unwrap()
            .encode_to_vec(),
        encoded
    );
    encoded.into()
}

fn typed_request() -> reapi::UpdateActionResultRequest {
    reapi::UpdateActionResultRequest {
        instance_name: "main".to_owned(),
        action_digest: Some(reapi::Digest {
            hash: "aa".to_owned(),
            size_bytes: 1,
        }),
        action_result: Some(reapi::ActionResult {
            exit_code: 3,
            ..Default::default()
        }),
        results_cache_policy: Some(reapi::ResultsCachePolicy { priority: -4 }),
        digest_function: reapi::digest_function::Value::Blake3.into(),
    }
}

/// Gives back what it is given, and on Get what it was made with.
struct Echo(Bytes);

#[async_trait]
impl ActionCache for Echo {
    async fn get_action_result(
        &self,
        _request: Request<reapi::GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        Ok(Response::new(ActionResult(self.0.clone())))
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let result = request
            .into_inner()
            .action_result
            .ok_or_else(|| Status::invalid_argument("no action result"))?;
        Ok(Response::new(ActionResult(result)))
    }
}

/// Answers GetTree with these Directories, one a message.
struct Directories(Vec<Bytes>);

#[async_trait]
impl ContentAddressableStorage for Directories {
    type GetTreeStream = tokio_stream::Iter<std::vec::IntoIter<Result<GetTreeResponse, Status>>>;

    async fn get_tree(
        &self,
        _request: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        let pages: Vec<_> = self
            .0
            .iter()
            .map(|directory| {
                Ok(GetTreeResponse {
                    directories: vec![directory.clone()],
                    next_page_token: String::new(),
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(pages)))
    }

    async fn find_missing_blobs(
        &self,
        _request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        Err(Status::unimplemented("only GetTree"))
    }

    async fn batch_update_blobs(
        &self,
        _request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        Err(Status::unimplemented("only GetTree"))
    }

    async fn batch_read_blobs(
        &self,
        _request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        Err(Status::unimplemented("only GetTree"))
    }

    async fn split_blob(
        &self,
        _request: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("only GetTree"))
    }

    async fn splice_blob(
        &self,
        _request: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("only GetTree"))
    }
}

#[tokio::test]
async fn an_action_result_from_the_future_passes_the_services_byte_for_byte() {
    let mut client = ActionCacheClient::new(ActionCacheServer::new(Echo(odd_action_result())));
    let update = UpdateActionResultRequest {
        action_result: Some(odd_action_result()),
        ..Default::default()
    };
    let updated = client.update_action_result(update).await.unwrap().into_inner();
    assert_eq!(updated.0, odd_action_result());
    let got = client
        .get_action_result(reapi::GetActionResultRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(got.0, odd_action_result());
    assert_eq!(got.parse().unwrap().exit_code, 5);
}

#[tokio::test]
async fn directories_from_the_future_pass_get_tree_byte_for_byte() {
    let sent = vec![odd_directory("a"), odd_directory("b")];
    let server = ContentAddressableStorageServer::new(Directories(sent.clone()));
    let mut client = ContentAddressableStorageClient::new(server);
    let pages: Streaming<GetTreeResponse> = client
        .get_tree(reapi::GetTreeRequest::default())
        .await
        .unwrap()
        .into_inner();
    let received: Vec<Bytes> = pages
        .collect::<Result<Vec<_>, _>>()
        .await
        .unwrap()
        .into_iter()
        .flat_map(|p| p.directories)
        .collect();
    assert_eq!(received, sent);
}

#[tokio::test]
async fn a_twin_server_is_found_by_clients_that_know_only_the_generated_types() {
    let server = ActionCacheServer::new(Echo(Bytes::new()));
    let mut client = reapi::action_cache_client::ActionCacheClient::new(server);
    let updated = client
        .update_action_result(typed_request())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(Some(updated), typed_request().action_result);

    let root = reapi::Directory {
        symlinks: vec![reapi::SymlinkNode::default()],
        ..Default::default()
    };
    let server = ContentAddressableStorageServer::new(Directories(vec![root.encode_to_vec().into()]));
    let mut client = reapi::content_addressable_storage_client::ContentAddressableStorageClient::new(server);
    let mut pages = client
        .get_tree(reapi::GetTreeRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(pages.message().await.unwrap().unwrap().directories, [root]);
}

#[test]
fn an_update_request_has_the_same_bytes_as_the_generated_one() {
    let encoded = typed_request().encode_to_vec();
    let twin = UpdateActionResultRequest::decode(encoded.as_slice()).unwrap();
    assert_eq!(twin.instance_name, "main");
    assert_eq!(twin.action_digest, typed_request().action_digest);
    assert_eq!(
        twin.action_result,
        typed_request()
            .action_result
            .map(|result| result.encode_to_vec().into())
    );
    assert_eq!(twin.results_cache_policy, typed_request().results_cache_policy);
    assert_eq!(twin.digest_function, 9);
    assert_eq!(twin.encode_to_vec(), encoded);
    assert_eq!(twin.encoded_len(), encoded.len());
    assert_eq!(UpdateActionResultRequest::default().encode_to_vec(), b"");
}

#[test]
fn an_absent_action_result_is_not_an_empty_one() {
    // AC-UPD-05 refuses the first, AC-UPD-15 allows the second.
    let absent = UpdateActionResultRequest::decode(bytes(1, "main").as_slice()).unwrap();
    assert_eq!(absent.action_result, None);
    let empty = UpdateActionResultRequest::decode(bytes(3, "").as_slice()).unwrap();
    assert_eq!(empty.action_result, Some(Bytes::new()));
    assert_eq!(empty.encode_to_vec(), bytes(3, ""));
}

#[test]
fn unknown_fields_of_a_request_are_ignored() {
    // GEN-11
    let encoded = [varint(1000, 1), bytes(1, "main"), bytes(1001, "new")].concat();
    let twin = UpdateActionResultRequest::decode(encoded.as_slice()).unwrap();
    assert_eq!(
        twin,
        UpdateActionResultRequest {
            instance_name: "main".to_owned(),
            ..Default::default()
        }
    );
}

#[test]
fn a_tree_keeps_its_directories_byte_for_byte() {
    // AC-RES-05: children are found by the digest of these bytes.
    let [root, a, b] = ["root", "a", "b"].map(odd_directory);
    let encoded = [
        bytes(2, &a),
        bytes(1000, "future"),
        bytes(1, &root),
        bytes(2, &b),
        bytes(2, &a),
    ]
    .concat();
    let tree = Tree::decode(encoded.as_slice()).unwrap();
    assert_eq!(
        tree,
        Tree {
            root: Some(root.clone()),
            children: vec![a.clone(), b.clone(), a.clone()]
        }
    );
    assert_eq!(
        tree.encode_to_vec(),
        [bytes(1, &root), bytes(2, &a), bytes(2, &b), bytes(2, &a)].concat()
    );
    assert_eq!(tree.encoded_len(), tree.encode_to_vec().len());
}

#[test]
fn a_field_that_stands_twice_means_the_same_to_twin_and_generated_type() {
    let [one, two] = ["one", "two"].map(odd_directory);
    let encoded = [bytes(1, &one), bytes(1, &two)].concat();
    let root = Tree::decode(encoded.as_slice()).unwrap().root.unwrap();
    let expected = reapi::Tree::decode(encoded.as_slice()).unwrap().root.unwrap();
    assert_eq!(expected.files.len(), 2);
    assert_eq!(reapi::Directory::decode(root).unwrap(), expected);

    let encoded = [
        bytes(3, varint(4, 1)),
        bytes(3, bytes(5, "out")),
        bytes(3, varint(4, 2)),
    ]
    .concat();
    let twin = UpdateActionResultRequest::decode(encoded.as_slice()).unwrap();
    let expected = reapi::UpdateActionResultRequest::decode(encoded.as_slice()).unwrap();
    assert_eq!(
        ActionResult(twin.action_result.unwrap()).parse().ok(),
        expected.action_result
    );
}

/// Copying all that came before for each piece would move 10^12 bytes here.
#[test]
fn a_root_in_a_million_pieces_is_put_together_in_linear_work() {
    let encoded = bytes(1, varint(1, 0)).repeat(1_000_000);
    let root = Tree::decode(Bytes::from(encoded)).unwrap().root.unwrap();
    assert_eq!(root, varint(1, 0).repeat(1_000_000));
}

#[test]
fn garbage_is_an_error_where_a_twin_parses() {
    let truncated = &bytes(3, "12345")[..4];
    let number_for_message = varint(3, 7);
    let text_that_is_none = bytes(1, [0xff]);
    for garbage in [truncated, &number_for_message, &text_that_is_none, &[0xff; 11]] {
        assert!(UpdateActionResultRequest::decode(garbage).is_err(), "{garbage:?}");
    }
    let error = UpdateActionResultRequest::decode(truncated)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("UpdateActionResultRequest.action_result"),
        "{error}"
    );

    for garbage in [varint(1, 7), varint(2, 7), bytes(1, "12345")[..4].to_vec()] {
        assert!(Tree::decode(garbage.as_slice()).is_err(), "{garbage:?}");
    }
    assert!(GetTreeResponse::decode(varint(1, 7).as_slice()).is_err());
}

#[test]
fn a_raw_action_result_takes_any_bytes_and_parse_judges_them() {
    let garbage = Bytes::from_static(&[0xff; 11]);
    let raw = ActionResult::decode(garbage.clone()).unwrap();
    assert_eq!(raw.0, garbage);
    assert!(raw.parse().is_err());

    let typed = reapi::ActionResult {
        exit_code: 3,
        ..Default::default()
    };
    assert_eq!(ActionResult::from(&typed).parse().unwrap(), typed);
}

#[test]
fn a_raw_action_result_refuses_to_be_read_field_by_field() {
    let delimited = [vec![2], varint(4, 7)].concat();
    let error = ActionResult::decode_length_delimited(delimited.as_slice())
        .unwrap_err()
        .to_string();
    assert!(error.contains("whole message"), "{error}");
}
