use std::fmt::Write;

use super::*;
use crate::blob::DigestMismatch;
use crate::digest::{Digest, Function};
use crate::tiered::Flaw;

const ALL_CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

fn upstream(code: Code) -> CallError {
    CallError::Tier2(Tier2Error::Answered(UpstreamStatus {
        code,
        message: "disk /srv/cache at 10.0.0.1 is full".into(),
        details: Bytes::from_static(b"\x08\x01"),
    }))
}

fn hello() -> Digest {
    Digest::of(Function::Sha256, b"hello")
}

fn mismatch() -> DigestMismatch {
    DigestMismatch::TooShort {
        expected: Digest::of(Function::Sha256, b"hello"),
        found_bytes: 4,
    }
}

#[test]
fn every_error_has_the_code_that_its_table_says() {
    let errors = [
        ("BadUpload", CallError::BadUpload(mismatch())),
        (
            "ResumeOffset",
            CallError::ResumeOffset {
                expected: 7,
                found: 3,
            },
        ),
        ("Superseded", CallError::Superseded),
        ("Quiet", CallError::Quiet),
        ("DataLoss", CallError::DataLoss),
        ("BadBlob", CallError::BadBlob),
        ("MissingBlobs", CallError::MissingBlobs([hello()].into())),
        ("Incomplete", Flaw::Missing(hello()).into()),
        ("DoneWithout", CallError::DoneWithout),
        ("Overloaded", CallError::Overloaded("too many uploads are kept")),
        ("Busy", CallError::Busy("an upload takes too long")),
        ("DeadlineExceeded", CallError::DeadlineExceeded),
        ("ShuttingDown", CallError::ShuttingDown),
        ("Tier2::NotFound", Tier2Error::NotFound.into()),
        ("Tier2::Down", Tier2Error::down("10.0.0.1:8980 refused").into()),
        ("Tier2::Corrupt", Tier2Error::Corrupt(mismatch()).into()),
        ("Tier2::Short", Tier2Error::Short.into()),
        ("Tier2::Stalled", Tier2Error::Stalled.into()),
        ("Tier2::DeadlineExceeded", Tier2Error::DeadlineExceeded.into()),
        ("Tier2::Aborted", Tier2Error::Aborted.into()),
    ];
    let upstream = ALL_CODES.map(|code| (format!("Tier2::Answered({code:?})"), upstream(code)));
    let mut table = String::new();
    let all = errors
        .map(|(name, error)| (name.to_owned(), error))
        .into_iter()
        .chain(upstream);
    for (name, error) in all {
        let status = status(&error);
        writeln!(
            table,
            "{name:<34} {:<18} {}",
            format!("{:?}", status.code()),
            status.message()
        )
        .unwrap();
    }
    let root = Digest::of(Function::Sha256, b"root");
    let trees = [
        ("Tree::Call", TreeError::Call(Tier2Error::NotFound.into())),
        ("Tree::BadDirectory", TreeError::BadDirectory(hello())),
        ("Tree::NotADirectory", TreeError::NotADirectory),
        ("Tree::TooLarge", TreeError::TooLarge("512 levels")),
        ("Tree::DirectoryTooLarge", TreeError::DirectoryTooLarge(root)),
        ("Tree::Token", TreeError::Token),
    ];
    for (name, error) in trees {
        let status = tree_status(&error, root);
        writeln!(
            table,
            "{name:<34} {:<18} {}",
            format!("{:?}", status.code()),
            status.message()
        )
        .unwrap();
    }
    insta::assert_snapshot!(table);
}

#[test]
fn nothing_of_an_outage_looks_like_a_miss() {
    // ERR-06, PXY-01
    for code in ALL_CODES.into_iter().filter(|code| *code != Code::NotFound) {
        assert_ne!(status(&upstream(code)).code(), Code::NotFound, "{code:?}");
    }
    assert_eq!(status(&Tier2Error::down("x").into()).code(), Code::Unavailable);
}

#[test]
fn codes_that_mean_nothing_or_something_else_to_clients_are_never_sent() {
    // ERR-02, ERR-03, ERR-07, ERR-12, PXY-06
    let never = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::AlreadyExists,
        Code::OutOfRange,
        Code::Unauthenticated,
        Code::PermissionDenied,
    ];
    for code in ALL_CODES {
        let code = status(&upstream(code)).code();
        assert!(!never.contains(&code), "{code:?}");
    }
}

#[test]
fn details_pass_with_the_code_that_they_belong_to_and_not_with_another() {
    // PXY-08: RetryInfo stays with RESOURCE_EXHAUSTED.
    assert_eq!(status(&upstream(Code::ResourceExhausted)).details(), b"\x08\x01");
    assert_eq!(status(&upstream(Code::PermissionDenied)).details(), b"");
}

#[test]
fn messages_name_the_subject_and_stay_small() {
    // GEN-18, ERR-26
    let digest = Digest::of(Function::Sha256, b"hello");
    let named = status_of(&Tier2Error::NotFound.into(), digest);
    assert_eq!(named.message(), format!("not found: {digest}"));
    let long = invalid("é".repeat(4000));
    assert!(long.message().len() < 1024);
    for code in ALL_CODES {
        let status = status(&upstream(code));
        assert!(
            !status.message().contains("10.0.0.1") && !status.message().contains("/srv"),
            "{status}"
        );
    }
}

#[test]
fn missing_blobs_are_named_as_far_as_a_trailer_holds_them() {
    // RN-18, AC-UPD-06
    let subject = format!("blobs/{}/5", hello().hash());
    for (missing, named) in [(1, 1), (1000, 32)] {
        let status = status(&CallError::MissingBlobs(vec![hello(); missing].into()));
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.details().len() < 4 * 1024);
        let details = rpc::Status::decode(status.details()).unwrap();
        assert_eq!(details.code, 9);
        let failure: rpc::PreconditionFailure = details.details[0].to_msg().unwrap();
        assert_eq!(failure.violations.len(), named);
        for violation in failure.violations {
            assert_eq!(
                (violation.r#type.as_str(), &violation.subject),
                ("MISSING", &subject)
            );
        }
    }
}
