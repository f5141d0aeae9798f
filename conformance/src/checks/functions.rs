//! A second digest function: what is known under which, and how it is said.

use proto::reapi::{Directory, DirectoryNode};

use super::prelude::*;
use crate::codec::{unzstd, zstd};
use crate::function::Function;

pub(super) const CHECKS: &[Check] = &[
    check!("DIG-12", never_guessed),
    check!("DIG-18", own_function_only),
    check!("DIG-21", sha256tree),
    check!("DIG-22", gitsha1),
    check!("RN-07", function_in_names),
    check!("TREE-26", whole_tree),
    check!("CDC-05", chunks),
];

/// Checks that are made again under each new function that a server announces: what a cache is for, on every path, where
/// nothing is about the form of a digest.
pub(super) const AGAIN: &[&str] = &[
    "CAS-GEN-01",
    "CAS-GEN-02",
    "CAS-GEN-06",
    "CAS-GEN-07",
    "CAS-GEN-09",
    "CAS-FMB-01",
    "CAS-FMB-02",
    "CAS-FMB-03",
    "CAS-FMB-07",
    "CAS-FMB-11",
    "CAS-FMB-13",
    "CAS-FMB-14",
    "CAS-BUB-01",
    "CAS-BUB-02",
    "CAS-BUB-04",
    "CAS-BUB-05",
    "CAS-BUB-13",
    "CAS-BUB-14",
    "CAS-BUB-16",
    "CAS-BUB-19",
    "CAS-BRB-01",
    "CAS-BRB-02",
    "CAS-BRB-03",
    "CAS-BRB-09",
    "CAS-BRB-10",
    "CAS-BRB-11",
    "BS-READ-01",
    "BS-READ-02",
    "BS-READ-04",
    "BS-READ-07",
    "BS-READ-09",
    "BS-READ-10",
    "BS-READ-12",
    "BS-READ-15",
    "BS-READ-16",
    "BS-READ-18",
    "BS-WRITE-06",
    "BS-WRITE-09",
    "BS-WRITE-10",
    "BS-WRITE-11",
    "BS-WRITE-13",
    "BS-WRITE-14",
    "BS-WRITE-20",
    "BS-WRITE-22",
    "BS-WRITE-23",
    "BS-WRITE-28",
    "BS-QWS-01",
    "BS-QWS-02",
    "BS-QWS-03",
    "BS-QWS-04",
    "BS-QWS-09",
    "BS-QWS-15",
    "AC-GET-01",
    "AC-GET-02",
    "AC-GET-03",
    "AC-GET-06",
    "AC-GET-10",
    "AC-UPD-01",
    "AC-UPD-10",
    "AC-UPD-16",
    "COMP-01",
    "COMP-02",
    "COMP-07",
    "COMP-11",
    "CDC-02",
    "CDC-03",
    "CDC-24",
];

/// The server, asked by digests of BLAKE3.
async fn by_blake3(t: &Target) -> Result<Target, Stop> {
    let offers = t
        .cache()
        .await?
        .digest_functions
        .contains(&Function::Blake3.number());
    if offers {
        Ok(t.under(Function::Blake3))
    } else {
        Err(Stop::NotOffered("BLAKE3 is not announced".into()))
    }
}

/// A random blob that a batch brought.
async fn in_batch(t: &Target, len: usize) -> Result<Blob, Stop> {
    let blob = t.random(len);
    let codes = t.update(vec![blob.entry()]).await.due("BatchUpdateBlobs")?;
    expect_eq("BatchUpdateBlobs", &codes, &vec![Code::Ok])?;
    Ok(blob)
}

async fn never_guessed(t: Arc<Target>) -> Verdict {
    let digest = in_batch(&by_blake3(&t).await?, 100).await?.digest;
    let missing = t.missing(vec![digest.clone()]).await.due("FindMissingBlobs")?;
    let step = "FindMissingBlobs of a BLAKE3 blob, without a function";
    expect_eq(step, &missing, &vec![digest.clone()])?;
    t.read(&t.read_name(&digest), 0, 0)
        .await
        .denied("Read of a BLAKE3 blob, without a function", &[Code::NotFound])
}

async fn own_function_only(t: Arc<Target>) -> Verdict {
    let new = by_blake3(&t).await?;
    let digest = in_batch(&t, 100).await?.digest;
    let missing = new.missing(vec![digest.clone()]).await.due("FindMissingBlobs")?;
    let step = "FindMissingBlobs of a SHA256 blob, as BLAKE3";
    expect_eq(step, &missing, &vec![digest.clone()])?;
    t.store_result(&digest, &ActionResult::default()).await?;
    new.action(new.action_request(&digest))
        .await
        .denied("GetActionResult of a SHA256 action, as BLAKE3", &[Code::NotFound])
}

async fn function_in_names(t: Arc<Target>) -> Verdict {
    let new = by_blake3(&t).await?;
    let blob = new.random(300);
    let (read, write) = (new.read_name(&blob.digest), new.write_name(&blob.digest));
    let size = new
        .write(&write, &blob.bytes, 1000)
        .await
        .due("Write of blobs/blake3")?;
    expect_eq("Write of blobs/blake3", &size, &300)?;
    new.reads_as(&read, &blob.bytes).await?;
    if !t.cache().await?.supported_compressors.contains(&1) {
        return Ok(());
    }
    let in_zstd = |name: &str| name.replacen("blobs/", "compressed-blobs/zstd/", 1);
    let stream = new.read(&in_zstd(&read), 0, 0).await;
    let came = unzstd(&stream.due("Read of compressed-blobs/zstd/blake3")?).unwrap_or_default();
    expect(came == blob.bytes, || {
        format!("it decodes to {} other bytes", came.len())
    })?;
    let other = new.random(310);
    new.write(
        &in_zstd(&new.write_name(&other.digest)),
        &zstd(&other.bytes),
        1000,
    )
    .await
    .due("Write of compressed-blobs/zstd/blake3")?;
    new.is_present(&other.digest).await
}

async fn whole_tree(t: Arc<Target>) -> Verdict {
    let new = by_blake3(&t).await?;
    let mut due: Vec<Bytes> = Vec::new();
    let mut child: Option<Blob> = None;
    for _ in 0..3 {
        let node = |digest| DirectoryNode {
            name: uuid::Uuid::new_v4().to_string(),
            digest: Some(digest),
        };
        // The empty directory below the last is a salt.
        let below = child.map_or_else(|| new.blob("").digest, |child| child.digest);
        let directory = Directory {
            directories: vec![node(below)],
            ..Default::default()
        };
        let blob = new.blob(directory.encode_to_vec());
        new.put(&blob).await?;
        due.push(blob.bytes.clone());
        child = Some(blob);
    }
    let Some(root) = child else { return Ok(()) };
    let pages = match new.tree(new.tree_request(&root.digest)).await {
        Err(status) if status.code() == Code::Unimplemented => {
            return Err(Stop::NotOffered("GetTree is not implemented".into()));
        }
        answer => answer.due("GetTree with function 9")?,
    };
    let came: Vec<Bytes> = pages.into_iter().flat_map(|(page, _)| page).collect();
    let lost = due.iter().filter(|directory| !came.contains(directory)).count();
    expect(lost == 0, || format!("{lost} of 3 directories did not come"))
}

async fn chunks(t: Arc<Target>) -> Verdict {
    let new = by_blake3(&t).await?;
    if !t.cache().await?.split_blob_support {
        return Err(Stop::NotOffered("SplitBlob is not announced".into()));
    }
    let blob = in_batch(&new, 90_000).await?;
    let answer = match new.split(new.split_request(&blob.digest)).await {
        Err(status) if status.code() == Code::NotFound => {
            return Err(Stop::NotOffered(
                "a blob that was uploaded whole is not split".into(),
            ));
        }
        answer => answer.due("SplitBlob with function 9")?,
    };
    let mut from = 0;
    for chunk in answer.chunk_digests {
        let to = usize::try_from(chunk.size_bytes).map_or(usize::MAX, |size| size.saturating_add(from));
        let bytes = blob.bytes.get(from..to).unwrap_or_default();
        let due = new.blob(Bytes::copy_from_slice(bytes)).digest;
        expect_eq("the digest of a chunk", &chunk, &due)?;
        from = to;
    }
    Ok(())
}

/// Demands that blobs are taken under these hashes of a function, and other bytes are not.
async fn computed(t: &Target, digest_function: i32, known: Vec<(Bytes, &str)>) -> Verdict {
    let announced = t.cache().await?.digest_functions;
    if !announced.contains(&digest_function) {
        return Err(Stop::NotOffered(format!(
            "function {digest_function} is not announced"
        )));
    }
    for (bytes, hash) in known {
        let digest = Digest {
            hash: hash.to_owned(),
            size_bytes: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        };
        let other = t.random(bytes.len()).bytes;
        for (data, due) in [(other, Code::InvalidArgument), (bytes, Code::Ok)] {
            let request = reapi::BatchUpdateBlobsRequest {
                digest_function,
                ..t.update_request(vec![(digest.clone(), data)])
            };
            let responses = t.batch_update(request).await.due("BatchUpdateBlobs")?;
            let codes = responses
                .iter()
                .map(|response| crate::calls::code(response.status.as_ref()));
            let step = format!(
                "an entry of {} bytes with function {digest_function}",
                digest.size_bytes
            );
            expect_eq(&step, &codes.collect::<Vec<_>>(), &vec![due])?;
        }
    }
    Ok(())
}

async fn sha256tree(t: Arc<Target>) -> Verdict {
    /// Test vectors of the specification: hashes of so many of the bytes 0 to 250, again and again.
    const VECTORS: &[(usize, &str)] = &[
        (
            1025,
            "36c0998b21839ef74300b9de47d96d1f62323dc81f2b4231e98ce70cd6ffe750",
        ),
        (
            2048,
            "b584996386f01793751c5cf0c39561f51b7e9924b818943b3cb2f6928cea0fa9",
        ),
        (
            5121,
            "98f987c3e9fc057a70873715b679b89a663d0df806859b6ce73f8379b06a10ff",
        ),
        (
            102_400,
            "0668d69e5331840d2f1823d717b7b3f5d1fdc8a09504cddb692b87ff83d50e5f",
        ),
    ];
    let content = |len| (0..=250_u8).cycle().take(len).collect::<Vec<u8>>().into();
    let known = VECTORS.iter().map(|(len, hash)| (content(*len), *hash));
    computed(&t, 8, known.collect()).await
}

async fn gitsha1(t: Arc<Target>) -> Verdict {
    // As `git hash-object` has them.
    let known = [
        ("hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),
        ("test content\n", "d670460b4b4aece5915caf5c68d12f560a9fe3e4"),
    ];
    let known = known.map(|(text, hash)| (Bytes::from_static(text.as_bytes()), hash));
    computed(&t, 10, known.to_vec()).await
}
