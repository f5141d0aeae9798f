use prost::Message;
use tonic::Code;

use super::*;

fn digest(bytes: &[u8]) -> reapi::Digest {
    digests::message(&Digest::of(Function::Sha256, bytes))
}

fn file(path: &str, bytes: &[u8]) -> reapi::OutputFile {
    reapi::OutputFile {
        path: path.into(),
        digest: Some(digest(bytes)),
        ..Default::default()
    }
}

fn result() -> reapi::ActionResult {
    reapi::ActionResult {
        output_files: vec![file("a", b"bytes of a"), file("b", b"bytes of b")],
        stdout_digest: Some(digest(b"out")),
        stderr_digest: Some(digest(b"err")),
        exit_code: 3,
        ..Default::default()
    }
}

/// A field that no version of the protocol has yet, at top level or within a file.
fn from_the_future(message: &impl Message) -> Bytes {
    let mut encoded = BytesMut::from(message.encode_to_vec().as_slice());
    encoding::bytes::encode(1000, &Bytes::from_static(b"future"), &mut encoded);
    encoded.freeze()
}

fn wanted(stdout: bool, stderr: bool, files: &[&str]) -> Wanted {
    Wanted {
        stdout,
        stderr,
        files: files.iter().map(|path| (*path).to_owned()).collect(),
    }
}

/// What a client receives when every blob can be read.
fn inline(encoded: &Bytes, wanted: &Wanted, bytes_max: usize) -> Bytes {
    let result = reapi::ActionResult::decode(encoded.clone()).unwrap();
    let plan = Plan::new(Function::Sha256, &result, encoded.len(), wanted, bytes_max);
    let contents: [&[u8]; 4] = [b"bytes of a", b"bytes of b", b"out", b"err"];
    let blobs: HashMap<_, _> = contents
        .into_iter()
        .map(|bytes| (Digest::of(Function::Sha256, bytes), Bytes::from_static(bytes)))
        .filter(|(digest, _)| plan.blobs().contains(digest))
        .collect();
    plan.apply(encoded, &blobs).unwrap()
}

#[test]
fn what_is_asked_for_is_inlined_beside_its_digest() {
    // AC-GET-14, AC-GET-15
    let encoded = from_the_future(&result());
    let inlined = inline(&encoded, &wanted(true, true, &["b", "no such path"]), 1 << 20);
    let mut expected = result();
    expected.stdout_raw = Bytes::from_static(b"out");
    expected.stderr_raw = Bytes::from_static(b"err");
    expected.output_files[1].contents = Bytes::from_static(b"bytes of b");
    assert_eq!(reapi::ActionResult::decode(inlined).unwrap(), expected);
}

#[test]
fn nothing_is_inlined_unasked_and_the_result_passes_byte_for_byte() {
    // AC-GET-12
    let encoded = from_the_future(&result());
    let plan = Plan::new(
        Function::Sha256,
        &result(),
        encoded.len(),
        &Wanted::default(),
        1 << 20,
    );
    assert!(plan.is_empty());
    assert_eq!(plan.apply(&encoded, &HashMap::new()).unwrap(), encoded);
}

#[test]
fn fields_from_the_future_survive_an_edit_at_every_level() {
    // AC-RES-02, R7
    let mut encoded = BytesMut::new();
    encoding::bytes::encode(
        OUTPUT_FILES,
        &from_the_future(&file("a", b"bytes of a")),
        &mut encoded,
    );
    encoded.put_slice(&from_the_future(&reapi::ActionResult::default()));
    let encoded = encoded.freeze();
    let inlined = inline(&encoded, &wanted(false, false, &["a"]), 1 << 20);
    let futures = |bytes: &[u8]| bytes.windows(6).filter(|window| *window == b"future").count();
    assert_eq!((futures(&encoded), futures(&inlined)), (2, 2));
    let decoded = reapi::ActionResult::decode(inlined).unwrap();
    assert_eq!(decoded.output_files[0].contents, b"bytes of a"[..]);
}

#[test]
fn stored_inline_data_leave_unless_asked_for_or_without_a_digest() {
    // AC-GET-12
    let mut stored = result();
    stored.stdout_raw = Bytes::from_static(b"out");
    stored.stderr_raw = Bytes::from_static(b"err");
    stored.output_files[0].contents = Bytes::from_static(b"bytes of a");
    let encoded = from_the_future(&stored);
    let decoded = |wanted| reapi::ActionResult::decode(inline(&encoded, &wanted, 1 << 20)).unwrap();
    assert_eq!(decoded(Wanted::default()), result());
    assert_eq!(decoded(wanted(true, true, &["a"])), stored);

    stored.stdout_digest = None;
    let encoded = from_the_future(&stored);
    let decoded = reapi::ActionResult::decode(inline(&encoded, &Wanted::default(), 1 << 20)).unwrap();
    assert_eq!(decoded.stdout_raw, b"out"[..]);
}

#[test]
fn inlining_stops_at_the_messages_limit_and_is_never_partial() {
    // AC-GET-13, AC-GET-16
    let encoded = from_the_future(&result());
    let all = wanted(true, true, &["a", "b"]);
    for room_bytes in 0..120 {
        let bytes_max = encoded.len() + room_bytes;
        let inlined = inline(&encoded, &all, bytes_max);
        assert!(inlined.len() <= bytes_max, "{} in {bytes_max}", inlined.len());
        let decoded = reapi::ActionResult::decode(inlined).unwrap();
        assert!(matches!(&decoded.stdout_raw[..], b"" | b"out"));
        assert!(matches!(
            &decoded.output_files[0].contents[..],
            b"" | b"bytes of a"
        ));
    }
    let full = reapi::ActionResult::decode(inline(&encoded, &all, encoded.len() + 120)).unwrap();
    assert_eq!(full.output_files[1].contents, b"bytes of b"[..]);
}

#[test]
fn what_is_inlined_already_leaves_where_the_message_would_be_too_long() {
    // AC-GET-13, PXY-79
    let mut stored = result();
    stored.stdout_raw = Bytes::from_static(b"out");
    stored.stderr_raw = Bytes::from_static(b"err");
    stored.output_files[0].contents = Bytes::from_static(b"bytes of a");
    let (encoded, bare) = (from_the_future(&stored), from_the_future(&result()));
    let all = wanted(true, true, &["a", "b"]);
    for bytes_max in bare.len() + 6..=encoded.len() {
        let inlined = inline(&encoded, &all, bytes_max);
        assert!(inlined.len() <= bytes_max, "{} in {bytes_max}", inlined.len());
        let decoded = reapi::ActionResult::decode(inlined).unwrap();
        assert!(matches!(&decoded.stdout_raw[..], b"" | b"out"));
        let contents = &decoded.output_files[0].contents[..];
        assert!(matches!(contents, b"" | b"bytes of a"));
        assert_eq!(decoded.output_files[0].digest, stored.output_files[0].digest); // AC-GET-14
    }
    // What is not asked for makes room for what is.
    let inlined = inline(&encoded, &wanted(false, false, &["b"]), encoded.len() + 10);
    let decoded = reapi::ActionResult::decode(inlined).unwrap();
    assert_eq!(decoded.output_files[1].contents, b"bytes of b"[..]);
}

#[test]
fn a_blob_that_cannot_be_read_leaves_its_field_empty() {
    // AC-GET-16
    let encoded = from_the_future(&result());
    let plan = Plan::new(
        Function::Sha256,
        &result(),
        encoded.len(),
        &wanted(true, false, &["a"]),
        1 << 20,
    );
    let decoded = reapi::ActionResult::decode(plan.apply(&encoded, &HashMap::new()).unwrap()).unwrap();
    assert_eq!(decoded, result());
}

#[test]
fn references_need_digests_that_are_well_formed() {
    // AC-UPD-05, GEN-10
    let bad = || {
        Some(reapi::Digest {
            hash: "abc".into(),
            size_bytes: 1,
        })
    };
    let mut cases = vec![result(); 7];
    cases[0].output_files[0].digest = None;
    cases[1].output_files[0].digest = bad();
    cases[2].stdout_digest = bad();
    cases[3].stderr_digest = Some(reapi::Digest::default());
    cases[4].output_directories = vec![reapi::OutputDirectory::default()];
    cases[5].output_directories = vec![reapi::OutputDirectory {
        tree_digest: Some(digest(b"tree")),
        root_directory_digest: bad(),
        ..Default::default()
    }];
    cases[6].output_files[0].contents = Bytes::from_static(b"other bytes"); // AC-UPD-13
    for (number, case) in cases.iter().enumerate() {
        let status = check(Function::Sha256, case).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "case {number}");
    }
}

#[test]
fn what_clients_leave_out_is_not_demanded() {
    // AC-UPD-15, AC-RES-04, AC-RES-11
    let directory = reapi::OutputDirectory {
        tree_digest: Some(digest(b"tree")),
        ..Default::default()
    };
    let cases = [
        reapi::ActionResult::default(),
        result(),
        reapi::ActionResult {
            output_directories: vec![directory],
            stdout_raw: Bytes::from_static(b"no digest"),
            ..Default::default()
        },
    ];
    for case in cases {
        assert!(check(Function::Sha256, &case).is_ok(), "{case:?}");
    }
}

#[test]
fn garbage_is_an_error_and_no_panic() {
    let plan = Plan {
        stdout: Change::Remove,
        ..Plan::default()
    };
    for garbage in [&b"\xff\xff"[..], b"\x12\x05ab", b"\x0b"] {
        assert!(
            plan.apply(&Bytes::copy_from_slice(garbage), &HashMap::new())
                .is_err()
        );
    }
}
