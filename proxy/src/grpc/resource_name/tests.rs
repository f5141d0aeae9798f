use proptest::prelude::*;

use super::*;

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const UUID: &str = "7f1ab0a5-51ac-4a71-8a47-0d0a8a5e5f5c";

fn hello() -> Digest {
    Digest::of(Function::Sha256, b"hello")
}

#[track_caller]
fn reads(name: &str, instance: &str) {
    let expected = ReadName {
        instance: InstanceName::parse(instance).unwrap(),
        digest: hello(),
    };
    assert_eq!(ReadName::parse(name), Ok(expected), "{name}");
}

#[track_caller]
fn writes(name: &str, instance: &str) {
    let expected = WriteName {
        instance: InstanceName::parse(instance).unwrap(),
        digest: hello(),
    };
    assert_eq!(WriteName::parse(name), Ok(expected), "{name}");
}

#[track_caller]
fn refuses_read(name: &str, expected: NameError) {
    assert_eq!(ReadName::parse(name), Err(expected), "{name}");
}

#[track_caller]
fn refuses_write(name: &str, expected: NameError) {
    assert_eq!(WriteName::parse(name), Err(expected), "{name}");
}

#[test]
fn read_names_have_any_instance_and_a_function_only_if_the_client_insists() {
    reads(&format!("blobs/{HELLO}/5"), ""); // RN-01, INST-04
    reads(&format!("a/blobs/{HELLO}/5"), "a");
    reads(&format!("a/b/c/blobs/{HELLO}/5"), "a/b/c"); // RN-03, INST-03
    reads(&format!("a/blobs/sha256/{HELLO}/5"), "a"); // RN-06
    reads(&format!("%2e/../blobs/{HELLO}/5"), "%2e/.."); // RN-16: taken literally
}

#[test]
fn write_names_have_a_uuid_and_whatever_follows_the_size() {
    writes(&format!("uploads/{UUID}/blobs/{HELLO}/5"), ""); // RN-02
    writes(&format!("a/b/uploads/{UUID}/blobs/{HELLO}/5"), "a/b");
    writes(&format!("uploads/{UUID}/blobs/sha256/{HELLO}/5"), ""); // RN-06
    writes(&format!("uploads/{UUID}/blobs/{HELLO}/5/uploads/x/blobs/y"), ""); // RN-04
    writes(&format!("uploads/{UUID}/blobs/{HELLO}/5//"), ""); // RN-04
    writes(&format!("uploads/no uuid at all/blobs/{HELLO}/5"), ""); // RN-09
}

#[test]
fn names_of_another_form_are_refused() {
    refuses_read("", NameError::Empty); // RN-15
    refuses_write("", NameError::Empty);
    refuses_read("a", NameError::Form);
    refuses_read("blobs", NameError::Form);
    refuses_read("blobs/", NameError::Form);
    refuses_read(&format!("blobs/{HELLO}"), NameError::Form);
    refuses_read("parent/logstreams/id", NameError::Form); // RN-19
    refuses_read(&format!("blobs/{HELLO}/5/x"), NameError::Tail); // RN-13
    refuses_read(&format!("blobs/{HELLO}/5/"), NameError::Tail);
    refuses_write(&format!("blobs/{HELLO}/5"), NameError::Form); // BS-QWS-12: a read name
    refuses_write(&format!("uploads/{UUID}/{HELLO}/5"), NameError::Form);
    refuses_write(&format!("uploads//blobs/{HELLO}/5"), NameError::Uuid);
    refuses_write(&"a/".repeat(4000), NameError::TooLong);
}

#[test]
fn a_write_name_is_no_read_name() {
    refuses_read(
        &format!("uploads/{UUID}/blobs/{HELLO}/5"),
        NameError::Instance(InstanceNameError::Reserved("uploads".into())),
    );
}

#[test]
fn instances_have_one_spelling() {
    // INST-04, INST-05
    let slashes = || NameError::Instance(InstanceNameError::Slashes);
    refuses_read(&format!("/blobs/{HELLO}/5"), slashes());
    refuses_read(&format!("a//blobs/{HELLO}/5"), slashes());
    refuses_read(&format!("/a/blobs/{HELLO}/5"), slashes());
    refuses_write(&format!("/uploads/{UUID}/blobs/{HELLO}/5"), slashes());
    let reserved = NameError::Instance(InstanceNameError::Reserved("actions".into()));
    refuses_read(&format!("actions/blobs/{HELLO}/5"), reserved); // INST-02
}

#[test]
fn what_is_not_announced_is_refused() {
    refuses_read(&format!("compressed-blobs/zstd/{HELLO}/5"), NameError::Compressor); // RN-11
    refuses_write(
        &format!("uploads/{UUID}/compressed-blobs/zstd/{HELLO}/5"),
        NameError::Compressor,
    );
    refuses_read(&format!("blobs/blake3/{HELLO}/5"), NameError::Function); // RN-07, RN-08
    refuses_read(&format!("blobs/SHA256/{HELLO}/5"), NameError::Function);
    refuses_write(
        &format!("uploads/{UUID}/blobs/blake3/{HELLO}/5"),
        NameError::Function,
    );
}

#[test]
fn sizes_are_plain_decimal() {
    // RN-12, DIG-04
    for size in ["", "+5", "-5", "05", "5 ", "0x5", "9223372036854775808", "５"] {
        refuses_read(&format!("blobs/{HELLO}/{size}"), NameError::Size);
    }
    assert!(ReadName::parse(&format!("blobs/{HELLO}/9223372036854775807")).is_ok());
}

#[test]
fn malformed_digests_are_refused() {
    let upper = HELLO.to_uppercase();
    refuses_read(
        &format!("blobs/{upper}/5"),
        NameError::Digest(DigestError::HashDigits),
    ); // DIG-01
    refuses_read("blobs//5", NameError::Digest(DigestError::NoHash)); // DIG-06
    refuses_read(
        &format!("blobs/{HELLO}/0"),
        NameError::Digest(DigestError::EmptyMismatch),
    ); // DIG-07
}

fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just(HELLO.to_owned()),
        Just(UUID.to_owned()),
        "(blobs|uploads|compressed-blobs|sha256|blake3|zstd|5|0|)",
        "\\PC{0,4}",
    ];
    proptest::collection::vec(word, 0..8).prop_map(|words| words.join("/"))
}

proptest! {
    #[test]
    fn no_text_panics_the_parsers(name in words()) {
        // RN-14
        let _read = ReadName::parse(&name);
        let _write = WriteName::parse(&name);
    }

    #[test]
    fn names_put_together_are_taken_apart(
        instance in proptest::collection::vec("[a-z.%]{1,5}x", 0..4),
        bytes in proptest::collection::vec(any::<u8>(), 0..16),
        metadata in "(/[a-z/]{0,9})?",
    ) {
        let digest = Digest::of(Function::Sha256, &bytes);
        let instance = instance.join("/");
        let prefix = if instance.is_empty() { String::new() } else { format!("{instance}/") };
        let instance = InstanceName::parse(&instance).unwrap();
        let read = ReadName::parse(&format!("{prefix}blobs/{digest}"));
        prop_assert_eq!(read, Ok(ReadName { instance: instance.clone(), digest }));
        let write = WriteName::parse(&format!("{prefix}uploads/{UUID}/blobs/{digest}{metadata}"));
        prop_assert_eq!(write, Ok(WriteName { instance, digest }));
    }
}
