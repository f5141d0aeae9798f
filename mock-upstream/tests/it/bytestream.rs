use mock_upstream::{After, Digest, Match, Mock};
use proto::bytestream::WriteRequest;
use tonic::Code;

use crate::client::{Client, code, part};

const TEN: &[u8] = b"0123456789";

#[tokio::test]
async fn reads_honour_offset_and_limit() {
    let mock = Mock::builder().read_chunk_bytes(3).start();
    let mut client = Client::of(&mock);
    let name = mock.put_blob("a/b", TEN).read_name("a/b");
    let empty = Digest::of(b"").read_name("");
    // BS-READ-01 to 09, BS-READ-18
    for (name, offset, limit, expected) in [
        (&name, 0, 0, Ok(TEN)),
        (&name, 4, 0, Ok(&TEN[4..])),
        (&name, 0, 4, Ok(&TEN[..4])),
        (&name, 4, 5, Ok(&TEN[4..9])),
        (&name, 4, 100, Ok(&TEN[4..])),
        (&name, 4, i64::MAX, Ok(&TEN[4..])),
        (&name, 10, 0, Ok(b"".as_slice())),
        (&name, 10, 1, Ok(b"".as_slice())),
        (&name, 11, 0, Err(Code::OutOfRange)),
        (&name, -1, 0, Err(Code::OutOfRange)),
        (&name, 0, -1, Err(Code::InvalidArgument)),
        (&empty, 0, 0, Ok(b"".as_slice())),
        (&empty, 1, 0, Err(Code::OutOfRange)),
    ] {
        let got = client
            .read(name, offset, limit)
            .await
            .map_err(|status| status.code());
        assert_eq!(
            got.as_deref(),
            expected.as_ref().map(|bytes| *bytes),
            "{name} {offset} {limit}"
        );
    }
}

#[tokio::test]
async fn reads_name_one_blob_of_one_instance() {
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let digest = mock.put_blob("a", TEN);
    let hash = digest.hash_hex();
    let wrong_size = Digest::parse(&hash, 9).unwrap();
    for (name, expected) in [
        (digest.read_name("a"), Code::Ok),
        (digest.read_name(""), Code::NotFound),
        (digest.read_name("a/b"), Code::NotFound),
        (wrong_size.read_name("a"), Code::NotFound), // BS-READ-12
        (Digest::of(b"absent").read_name("a"), Code::NotFound), // BS-READ-10
        (
            format!("a/blobs/{}/10", hash.to_uppercase()),
            Code::InvalidArgument,
        ), // DIG-01
        (format!("a/blobs/{hash}/-10"), Code::InvalidArgument), // RN-12
        (format!("a/compressed-blobs/zstd/{digest}"), Code::InvalidArgument), // COMP-19
        (String::new(), Code::InvalidArgument),      // RN-15
    ] {
        assert_eq!(code(client.read(&name, 0, 0).await), expected, "{name}");
    }
}

#[tokio::test]
async fn planted_bytes_are_served_though_they_do_not_fit() {
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let digest = Digest::of(TEN);
    for wrong in [b"012345678X".as_slice(), b"01234", b"0123456789and more"] {
        mock.plant("", &digest, wrong);
        assert_eq!(client.read_blob(&digest).await.unwrap(), wrong);
    }
    assert!(mock.evict("", &digest));
    assert_eq!(code(client.read_blob(&digest).await), Code::NotFound);
}

fn ten(instance: &str) -> String {
    Digest::of(TEN).write_name(instance, "u")
}

#[tokio::test]
async fn writes_in_any_style_are_stored() {
    let name = ten("a/b");
    let with_metadata = format!("{name}/any/blobs/metadata");
    for messages in [
        vec![part(&name, 0, TEN, true)],
        vec![part(&name, 0, b"0123", false), part("", 4, b"456789", true)],
        vec![part(&name, 0, b"0123", false), part(&name, 4, b"456789", true)], // BS-WRITE-02
        vec![part(&name, 0, TEN, false), part("", 10, b"", true)],             // BS-WRITE-06
        vec![
            part(&name, 0, b"", false),
            part("", 0, b"", false),
            part("", 0, TEN, true),
        ], // BS-WRITE-19
        vec![part(&with_metadata, 0, TEN, true)],                              // RN-04
    ] {
        let mock = Mock::builder().start();
        let mut client = Client::of(&mock);
        assert_eq!(client.write(messages.clone()).await.unwrap(), 10, "{messages:?}"); // BS-WRITE-13
        assert_eq!(mock.blob("a/b", &Digest::of(TEN)).unwrap(), TEN);
        assert_eq!(mock.blob("", &Digest::of(TEN)), None); // INST-07
    }
    let mock = Mock::builder().start();
    let empty = Digest::of(b"").write_name("", "u");
    assert_eq!(
        Client::of(&mock)
            .write(vec![part(&empty, 0, b"", true)])
            .await
            .unwrap(),
        0
    ); // BS-WRITE-20
}

#[tokio::test]
async fn writes_that_break_the_rules_are_refused_and_leave_nothing() {
    let name = ten("");
    let huge = Digest::parse(&"1".repeat(64), 1 << 62)
        .unwrap()
        .write_name("", "u");
    let read_name = Digest::of(TEN).read_name("");
    let cases: [(&str, Vec<WriteRequest>); 12] = [
        ("BS-WRITE-01", vec![part("", 0, TEN, true)]),
        ("BS-WRITE-01", vec![]),
        (
            "BS-WRITE-02",
            vec![
                part(&name, 0, b"0", false),
                part(&ten("a"), 1, b"123456789", true),
            ],
        ),
        ("BS-WRITE-03", vec![part(&name, 3, b"3456789", true)]),
        ("BS-WRITE-03", vec![part(&name, -1, TEN, true)]),
        (
            "BS-WRITE-05",
            vec![part(&name, 0, b"01", false), part("", 3, b"3456789", true)],
        ),
        (
            "BS-WRITE-05",
            vec![part(&name, 0, b"01", false), part("", 0, b"23456789", true)],
        ),
        ("BS-WRITE-09", vec![part(&name, 0, b"01234", true)]),
        ("BS-WRITE-10", vec![part(&name, 0, b"0123456789more", false)]),
        ("BS-WRITE-11", vec![part(&name, 0, b"012345678X", true)]),
        ("BS-WRITE-32", vec![part(&huge, 0, TEN, true)]),
        ("RN-02", vec![part(&read_name, 0, TEN, true)]),
    ];
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    for (id, messages) in cases {
        assert_eq!(
            code(client.write(messages.clone()).await),
            Code::InvalidArgument,
            "{id} {messages:?}"
        );
        assert_eq!(mock.counts().blobs, 0, "{id}");
        assert_eq!(
            client.write_status(&name).await.unwrap(),
            (0, false),
            "BS-QWS-11 after {id}"
        );
    }
}

#[tokio::test]
async fn a_blob_over_the_limit_is_refused_by_its_declared_size() {
    let mock = Mock::builder()
        .settings(|settings| settings.max_blob_bytes = 9)
        .start();
    let mut client = Client::of(&mock);
    // BS-WRITE-26: nothing of it was sent, nor is the stream finished.
    assert_eq!(
        code(client.write(vec![part(&ten(""), 0, b"", false)]).await),
        Code::InvalidArgument
    );
    mock.configure(|settings| settings.max_blob_bytes = 10);
    assert_eq!(
        code(client.write(vec![part(&ten(""), 0, TEN, true)]).await),
        Code::Ok
    );
}

#[tokio::test]
async fn a_write_of_what_is_there_is_answered_at_once() {
    // BS-WRITE-14
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", TEN);
    let mut client = Client::of(&mock);
    let endless = futures::stream::unfold(0, |offset| {
        let name = ten("");
        async move { (offset < 5).then(|| (part(&name, offset, b"0", false), offset + 1)) }
    });
    let unfinished = futures::StreamExt::chain(endless, futures::stream::pending());
    let answer = client
        .bytestream
        .write(Box::pin(unfinished))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.committed_size, 10);
    assert_eq!(
        client
            .write_status(&digest.write_name("", "other"))
            .await
            .unwrap(),
        (10, true)
    ); // BS-QWS-03
}

#[tokio::test]
async fn a_half_closed_write_can_be_resumed_where_its_answer_says() {
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let name = ten("");
    assert_eq!(
        client.write(vec![part(&name, 0, b"0123", false)]).await.unwrap(),
        4
    ); // BS-WRITE-08
    assert_eq!(client.write_status(&name).await.unwrap(), (4, false));
    // BS-QWS-06: all is there but the finish; one byte must be left to send.
    assert_eq!(
        client
            .write(vec![part(&name, 4, b"456789", false)])
            .await
            .unwrap(),
        9
    );
    assert_eq!(client.write_status(&name).await.unwrap(), (9, false));
    assert_eq!(code(client.read_blob(&Digest::of(TEN)).await), Code::NotFound);
    assert_eq!(client.write(vec![part(&name, 9, b"9", true)]).await.unwrap(), 10);
    assert_eq!(client.read_blob(&Digest::of(TEN)).await.unwrap(), TEN);
}

#[tokio::test]
async fn a_write_may_start_over_at_zero() {
    // BS-WRITE-04
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    client
        .write(vec![part(&ten(""), 0, b"wrong", false)])
        .await
        .unwrap();
    assert_eq!(
        client.write(vec![part(&ten(""), 0, TEN, true)]).await.unwrap(),
        10
    );
}

#[tokio::test]
async fn uploads_that_share_a_uuid_share_no_progress() {
    // RN-10, BS-QWS-09
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let other = Digest::of(b"another").write_name("", "u");
    client
        .write(vec![part(&ten(""), 0, b"0123", false)])
        .await
        .unwrap();
    assert_eq!(client.write_status(&other).await.unwrap(), (0, false)); // BS-QWS-05
    assert_eq!(client.write_status(&ten("a")).await.unwrap(), (0, false));
    assert_eq!(
        client
            .write(vec![part(&other, 0, b"another", true)])
            .await
            .unwrap(),
        7
    );
    assert_eq!(client.write_status(&ten("")).await.unwrap(), (4, false));
    let empty = Digest::of(b"").write_name("", "u");
    assert_eq!(client.write_status(&empty).await.unwrap(), (0, true)); // BS-QWS-15
    let read_name = Digest::of(TEN).read_name("");
    assert_eq!(code(client.write_status(&read_name).await), Code::InvalidArgument); // BS-QWS-12
}

#[tokio::test]
async fn the_newest_stream_of_a_name_takes_over() {
    // BS-WRITE-23
    let mock = Mock::builder().start();
    let digest = Digest::of(TEN);
    let gate = mock.hold(Match::write(&digest).nth(1), After::Bytes(5));
    let mut old = Client::of(&mock);
    let mut new = old.clone();
    let write_anew = async {
        gate.reached().await;
        assert_eq!(
            new.write(vec![part(&ten(""), 0, b"012", false)]).await.unwrap(),
            3
        );
        gate.release();
    };
    let messages = vec![part(&ten(""), 0, b"01234", false), part("", 5, b"56789", true)];
    let (old, ()) = tokio::join!(old.write(messages), write_anew);
    assert_eq!(code(old), Code::Aborted);
    assert_eq!(new.write_status(&ten("")).await.unwrap(), (3, false));
}

#[tokio::test]
async fn of_two_uploads_of_one_blob_both_succeed() {
    // CAS-GEN-08
    let mock = Mock::builder().start();
    let digest = Digest::of(TEN);
    let gate = mock.hold(Match::write(&digest).nth(1), After::Bytes(5));
    let mut slow = Client::of(&mock);
    let mut fast = slow.clone();
    let overtake = async {
        gate.reached().await;
        let name = digest.write_name("", "fast");
        assert_eq!(fast.write(vec![part(&name, 0, TEN, true)]).await.unwrap(), 10);
        gate.release();
    };
    let messages = vec![part(&ten(""), 0, b"01234", false), part("", 5, b"56789", true)];
    let (slow, ()) = tokio::join!(slow.write(messages), overtake);
    assert_eq!(slow.unwrap(), 10);
}
