//! Blobs in zstd: streams and batches.

use proto::bytestream::WriteRequest;
use proto::reapi::batch_update_blobs_request::Request;
use tonic::Status;

use super::prelude::*;
use crate::codec::{unzstd, zstd, zstd_at, zstd_with};

pub(super) const CHECKS: &[Check] = &[
    check!("COMP-01", upload_is_kept),
    check!("COMP-02", read_decodes),
    check!("COMP-03", goes_on_where_the_status_says),
    check!("COMP-04", later_offsets),
    check!("COMP-05", begins_behind_0),
    check!("COMP-06", offsets_out_of_range),
    check!("COMP-07", offset_counts_plain),
    check!("COMP-08", no_limit),
    check!("COMP-09", early_answer),
    check!("COMP-10", committed_size),
    check!("COMP-11", forms_are_interchangeable),
    check!("COMP-12", any_level),
    check!("COMP-13", resumed_in_another_form),
    check!("COMP-14", bomb),
    check!("COMP-15", undecodable),
    check!("COMP-16", wrong_length),
    check!("COMP-17", empty_blob),
    check!("COMP-18", not_twice),
    check!("COMP-19", unknown_compressor),
    check!("COMP-21", incompressible),
    check!("COMP-22", absent_blob),
    check!("COMP-23", other_data),
    check!("COMP-24", batch_says_the_form),
    check!("ZSTD-01", size_and_checksum),
    check!("ZSTD-02", several_frames),
    check!("ZSTD-03", dictionary),
    check!("ZSTD-04", window_of_8_mib),
    check!("ZSTD-05", wrong_checksum),
    check!("ZSTD-06", cut_anywhere),
    check!("ZSTD-07", lying_size),
    check!("BS-QWS-10", status_counts_plain),
    check!("CAS-GEN-10", every_form_however_it_came),
    check!("CAS-BUB-09", limit_counts_what_is_sent, heavy),
    check!("CAS-BUB-11", entry_decodes),
    check!("CAS-BUB-12", undecodable_entry),
];

const ZSTD: i32 = 1;

async fn offered(t: &Target) -> Verdict {
    let offers = t.cache().await?.supported_compressors.contains(&ZSTD);
    if offers {
        Ok(())
    } else {
        Err(Stop::NotOffered("zstd is not announced".into()))
    }
}

async fn offered_in_batches(t: &Target) -> Verdict {
    let offers = t
        .cache()
        .await?
        .supported_batch_update_compressors
        .contains(&ZSTD);
    if offers {
        Ok(())
    } else {
        Err(Stop::NotOffered("zstd is not announced for batches".into()))
    }
}

fn read_name(t: &Target, digest: &Digest) -> String {
    t.named(&format!("compressed-blobs/zstd/{}", t.tail(digest)))
}

fn write_name(t: &Target, digest: &Digest) -> String {
    let uuid = uuid::Uuid::new_v4();
    t.named(&format!(
        "uploads/{uuid}/compressed-blobs/zstd/{}",
        t.tail(digest)
    ))
}

/// Uploads a stream under a blob's compressed name.
async fn write(t: &Target, digest: &Digest, stream: &Bytes) -> Result<i64, Status> {
    t.write(&write_name(t, digest), stream, 1000).await
}

/// What a compressed read decodes to. No bytes at all stand for nothing.
async fn read(t: &Target, digest: &Digest, offset: i64) -> Result<Vec<u8>, Stop> {
    let stream = t
        .read(&read_name(t, digest), offset, 0)
        .await
        .due("Read in zstd")?;
    if stream.is_empty() {
        return Ok(stream);
    }
    unzstd(&stream)
        .map_err(|error| Stop::Failed(format!("{} bytes that do not decode: {error}", stream.len()).into()))
}

/// Bytes that shrink.
fn text(t: &Target, len: usize) -> Blob {
    let salt = uuid::Uuid::new_v4().to_string();
    t.blob(salt.bytes().cycle().take(len).collect::<Vec<u8>>())
}

async fn upload_is_kept(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 1200);
    write(&t, &blob.digest, &zstd(&blob.bytes))
        .await
        .due("Write in zstd")?;
    t.reads_as(&t.read_name(&blob.digest), &blob.bytes).await
}

async fn read_decodes(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.stored(1111).await?;
    let came = read(&t, &blob.digest, 0).await?;
    expect(came == blob.bytes, || {
        format!("it decodes to {} other bytes", came.len())
    })
}

/// Sends the first message of an upload and half-closes; then what its status says.
async fn broken(t: &Target, blob: &Blob) -> Result<(String, i64), Stop> {
    let name = write_name(t, &blob.digest);
    let mut requests = write_requests(&name, &zstd(&blob.bytes), 500);
    requests.truncate(1);
    requests[0].finish_write = false;
    // Whether a half-close is an error is left to the server.
    let _ = t.write_requests(requests).await;
    let status = match t.query(&name).await {
        Err(status) if status.code() == Code::NotFound => Default::default(),
        Err(status) if status.code() == Code::Unimplemented => Default::default(),
        answer => answer.due("QueryWriteStatus in zstd")?,
    };
    Ok((name, status.committed_size))
}

async fn goes_on_where_the_status_says(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.random(1300);
    let (name, from) = broken(&t, &blob).await?;
    let rest = usize::try_from(from).ok().filter(|from| *from < 1300);
    let Some(rest) = rest else {
        return Err(Stop::Failed(
            format!("the status of a broken upload is {from}").into(),
        ));
    };
    let request = WriteRequest {
        resource_name: name,
        write_offset: from,
        finish_write: true,
        data: zstd(&blob.bytes.slice(rest..)),
    };
    t.write_requests(vec![request])
        .await
        .due("Write in zstd from where the status says")?;
    t.is_present(&blob.digest).await
}

async fn later_offsets(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.random(1400);
    let mut requests = write_requests(&write_name(&t, &blob.digest), &zstd(&blob.bytes), 500);
    requests[1].write_offset += 1;
    let codes = &[Code::InvalidArgument, Code::OutOfRange, Code::FailedPrecondition];
    t.write_requests(requests)
        .await
        .denied("Write in zstd with a gap", codes)
}

async fn begins_behind_0(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.random(1450);
    let request = WriteRequest {
        resource_name: write_name(&t, &blob.digest),
        write_offset: 700,
        finish_write: true,
        data: zstd(&blob.bytes.slice(700..)),
    };
    let codes = &[Code::InvalidArgument, Code::OutOfRange, Code::FailedPrecondition];
    t.write_requests(vec![request])
        .await
        .denied("Write in zstd of a new upload at 700", codes)
}

async fn offsets_out_of_range(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.stored(900).await?;
    let at_the_end = read(&t, &blob.digest, 900).await?;
    expect(at_the_end.is_empty(), || {
        format!("{} bytes at the end", at_the_end.len())
    })?;
    for offset in [901, -1] {
        let answer = t.read(&read_name(&t, &blob.digest), offset, 0).await;
        answer.denied(
            &format!("Read in zstd of 900 bytes at {offset}"),
            &[Code::OutOfRange],
        )?;
    }
    Ok(())
}

async fn offset_counts_plain(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.stored(70_000).await?;
    for offset in [1, 65_536] {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let came = read(&t, &blob.digest, offset).await?;
        expect(came == blob.bytes[from..], || {
            format!("offset {offset}: {} other bytes", came.len())
        })?;
    }
    Ok(())
}

async fn no_limit(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.stored(900).await?;
    t.read(&read_name(&t, &blob.digest), 0, 10)
        .await
        .denied("Read in zstd with a limit", INVALID)
}

async fn early_answer(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.stored(5000).await?;
    let stream = zstd(&blob.bytes);
    let size = write(&t, &blob.digest, &stream)
        .await
        .due("Write in zstd of what is there")?;
    // A server that read on to the end may answer as for a whole upload.
    let whole = i64::try_from(stream.len()).unwrap_or(0);
    expect([-1, whole].contains(&size), || {
        format!("committed_size is {size}")
    })
}

async fn committed_size(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 5000);
    let stream = zstd(&blob.bytes);
    let size = write(&t, &blob.digest, &stream).await.due("Write in zstd")?;
    let due = [-1, 5000, i64::try_from(stream.len()).unwrap_or(0)];
    expect(due.contains(&size), || {
        format!("committed_size is {size}, none of {due:?}")
    })
}

async fn forms_are_interchangeable(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let plain = t.stored(1500).await?;
    let came = read(&t, &plain.digest, 0).await?;
    expect(came == plain.bytes, || {
        format!("plain in, {} other bytes out", came.len())
    })?;
    let compressed = text(&t, 1550);
    write(&t, &compressed.digest, &zstd(&compressed.bytes))
        .await
        .due("Write in zstd")?;
    t.reads_as(&t.read_name(&compressed.digest), &compressed.bytes)
        .await
}

async fn any_level(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    for level in [-5, 1, 19] {
        let blob = text(&t, 1700);
        write(&t, &blob.digest, &zstd_at(&blob.bytes, level))
            .await
            .due("Write in zstd of some level")?;
        t.is_present(&blob.digest).await?;
    }
    Ok(())
}

async fn resumed_in_another_form(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.stored(1800).await?;
    let mut came = t
        .read(&t.read_name(&blob.digest), 0, 901)
        .await
        .due("Read of the first part")?;
    came.extend(read(&t, &blob.digest, 901).await?);
    expect(came == blob.bytes, || {
        format!("the parts make {} other bytes", came.len())
    })
}

async fn bomb(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let digest = t.random(100).digest;
    let bomb = zstd(&vec![0; 20_000_000]);
    write(&t, &digest, &bomb)
        .await
        .denied("Write in zstd of 100 bytes that decode to 20 MB", INVALID)
}

async fn undecodable(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.random(800);
    let good = zstd(&blob.bytes);
    let streams = [
        ("garbage", t.random(300).bytes),
        ("a truncated stream", good.slice(..good.len() - 5)),
        (
            "bytes behind a stream",
            [&good[..], b"more than a frame"].concat().into(),
        ),
    ];
    for (what, stream) in streams {
        write(&t, &blob.digest, &stream)
            .await
            .denied(&format!("Write in zstd of {what}"), INVALID)?;
    }
    t.is_absent(&blob.digest).await
}

async fn wrong_length(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 1000);
    let stream = zstd(&blob.bytes);
    for size in [1001, 999] {
        let answer = write(&t, &blob.sized(size), &stream).await;
        answer.denied(&format!("Write in zstd of 1000 bytes said to be {size}"), INVALID)?;
    }
    Ok(())
}

async fn empty_blob(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let empty = t.blob("").digest;
    let came = read(&t, &empty, 0).await?;
    expect(came.is_empty(), || format!("{} bytes came", came.len()))?;
    for stream in [Bytes::new(), zstd(b"")] {
        write(&t, &empty, &stream)
            .await
            .due("Write in zstd of the empty blob")?;
    }
    Ok(())
}

async fn not_twice(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.stored(2000).await?;
    let request = proto::bytestream::ReadRequest {
        resource_name: read_name(&t, &blob.digest),
        ..Default::default()
    };
    let body = crate::raw::framed(&request.encode_to_vec());
    let headers = [("grpc-accept-encoding", "gzip, zstd, identity")];
    let answer = t
        .post("/google.bytestream.ByteStream/Read", body, &headers)
        .await
        .due("Read in zstd")?;
    expect(answer.body.first() == Some(&0), || {
        "its frames are compressed as well".into()
    })
}

async fn unknown_compressor(t: Arc<Target>) -> Verdict {
    let blob = t.random(60);
    let name = t
        .write_name(&blob.digest)
        .replace("/blobs/", "/compressed-blobs/lz17/");
    let codes = &[Code::InvalidArgument, Code::Unimplemented];
    t.write(&name, &blob.bytes, 100)
        .await
        .denied("Write in a compressor nobody knows", codes)
}

async fn incompressible(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    for len in [1, 65_536] {
        let blob = t.random(len);
        write(&t, &blob.digest, &zstd(&blob.bytes))
            .await
            .due("Write in zstd of what does not shrink")?;
    }
    Ok(())
}

async fn absent_blob(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let name = read_name(&t, &t.random(77).digest);
    t.read(&name, 0, 0)
        .await
        .denied("Read in zstd of an absent blob", &[Code::NotFound])
}

async fn other_data(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let digest = t.random(900).digest;
    let answer = write(&t, &digest, &zstd(&t.random(900).bytes)).await;
    answer.denied("Write in zstd of other data", INVALID)?;
    t.is_absent(&digest).await
}

async fn batch_says_the_form(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 3000);
    t.put(&blob).await?;
    let request = reapi::BatchReadBlobsRequest {
        acceptable_compressors: vec![ZSTD],
        ..t.read_request_of(vec![blob.digest])
    };
    let responses = t
        .batch_read(request)
        .await
        .due("BatchReadBlobs that accepts zstd")?;
    let data = |response: &reapi::batch_read_blobs_response::Response| match response.compressor {
        0 => Some(response.data.to_vec()),
        ZSTD => unzstd(&response.data).ok(),
        _other => None,
    };
    let right = responses.len() == 1 && data(&responses[0]).is_some_and(|data| data == blob.bytes);
    expect(right, || "the data is not what its compressor says".into())
}

async fn size_and_checksum(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 1850);
    let stream = zstd_with(&blob.bytes, |encoder| {
        encoder.include_checksum(true)?;
        encoder.include_contentsize(true)?;
        encoder.set_pledged_src_size(Some(1850))
    });
    write(&t, &blob.digest, &stream)
        .await
        .due("Write in zstd with content size and checksum")?;
    t.is_present(&blob.digest).await
}

async fn several_frames(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 2000);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18][..], &[3, 0, 0, 0], b"abc"].concat();
    let (first, second) = (zstd(&blob.bytes.slice(..700)), zstd(&blob.bytes.slice(700..)));
    let stream = [&skipped[..], &first, &skipped, &second].concat();
    write(&t, &blob.digest, &stream.into())
        .await
        .due("Write in zstd of two frames and two to skip")?;
    t.reads_as(&t.read_name(&blob.digest), &blob.bytes).await
}

async fn dictionary(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 400);
    let mut stream = zstd(&blob.bytes).to_vec();
    // The header says that a dictionary of one byte's number follows the window.
    stream[4] |= 1;
    stream.insert(6, 77);
    let answer = write(&t, &blob.digest, &stream.into()).await;
    answer.denied("Write in zstd of a frame that needs a dictionary", INVALID)
}

async fn window_of_8_mib(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 2200);
    let stream = zstd_with(&blob.bytes, |encoder| encoder.window_log(23));
    write(&t, &blob.digest, &stream)
        .await
        .due("Write in zstd with a window of 8 MiB")?;
    t.is_present(&blob.digest).await
}

async fn wrong_checksum(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 1900);
    let mut stream = zstd_with(&blob.bytes, |encoder| encoder.include_checksum(true)).to_vec();
    if let Some(last) = stream.last_mut() {
        *last ^= 1;
    }
    write(&t, &blob.digest, &stream.into())
        .await
        .denied("Write in zstd with a wrong checksum", INVALID)
}

async fn cut_anywhere(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 2300);
    let name = write_name(&t, &blob.digest);
    t.write(&name, &zstd(&blob.bytes), 1)
        .await
        .due("Write in zstd, byte by byte")?;
    t.is_present(&blob.digest).await
}

async fn lying_size(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 310);
    let stream = zstd_with(&blob.bytes, |encoder| {
        encoder.include_contentsize(true)?;
        encoder.set_pledged_src_size(Some(310))
    });
    let mut stream = stream.to_vec();
    // A single segment of 256 to 65,791 bytes: two bytes behind the descriptor, less 256.
    stream[5] = stream[5].wrapping_add(1);
    let answer = write(&t, &blob.digest, &stream.into()).await;
    answer.denied("Write in zstd of a frame that lies about its size", INVALID)
}

async fn status_counts_plain(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = text(&t, 2400);
    write(&t, &blob.digest, &zstd(&blob.bytes))
        .await
        .due("Write in zstd")?;
    let status = match t.query(&write_name(&t, &blob.digest)).await {
        Err(status) if [Code::Unimplemented, Code::NotFound].contains(&status.code()) => {
            return Err(Stop::NotOffered("the status of uploads is not told".into()));
        }
        answer => answer.due("QueryWriteStatus in zstd")?,
    };
    expect([0, 2400].contains(&status.committed_size), || {
        format!("it says {status:?}")
    })
}

async fn every_form_however_it_came(t: Arc<Target>) -> Verdict {
    offered(&t).await?;
    let blob = t.random(1600);
    t.update(vec![blob.entry()]).await.due("BatchUpdateBlobs")?;
    let came = read(&t, &blob.digest, 0).await?;
    expect(came == blob.bytes, || {
        format!("a batch in, {} other bytes out", came.len())
    })
}

/// The codes of entries in zstd, or that of the whole call.
async fn update(t: &Target, entries: Vec<(Digest, Bytes)>) -> Vec<Code> {
    let mut request = t.update_request(Vec::new());
    let entries = entries.into_iter().map(|(digest, data)| Request {
        digest: Some(digest),
        data,
        compressor: ZSTD,
    });
    request.requests.extend(entries);
    match t.batch_update(request).await {
        Ok(responses) => responses
            .iter()
            .map(|r| crate::calls::code(r.status.as_ref()))
            .collect(),
        Err(status) => vec![status.code()],
    }
}

async fn limit_counts_what_is_sent(t: Arc<Target>) -> Verdict {
    offered_in_batches(&t).await?;
    let each = t.batch_limit().await? / 4;
    let entries = (0..5)
        .map(|_| text(&t, each))
        .map(|blob| (blob.digest, zstd(&blob.bytes)))
        .collect();
    let codes = update(&t, entries).await;
    expect_eq(
        "a batch that is over its limit once it is decoded",
        &codes,
        &vec![Code::Ok; 5],
    )
}

async fn entry_decodes(t: Arc<Target>) -> Verdict {
    offered_in_batches(&t).await?;
    let blob = text(&t, 2100);
    let codes = update(&t, vec![(blob.digest.clone(), zstd(&blob.bytes))]).await;
    expect_eq("an entry in zstd", &codes, &vec![Code::Ok])?;
    t.reads_as(&t.read_name(&blob.digest), &blob.bytes).await
}

async fn undecodable_entry(t: Arc<Target>) -> Verdict {
    offered_in_batches(&t).await?;
    let blob = t.random(500);
    let good = zstd(&blob.bytes);
    for stream in [
        t.random(60).bytes,
        good.slice(..good.len() - 3),
        zstd(&vec![0; 9_000_000]),
    ] {
        let codes = update(&t, vec![(blob.digest.clone(), stream)]).await;
        expect_eq(
            "an entry that does not decode to its size",
            &codes,
            &vec![Code::InvalidArgument],
        )?;
    }
    Ok(())
}
