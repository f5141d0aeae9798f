//! Instance names, and the resource names of ByteStream. Pure.
//!
//! ```text
//! read   [instance/]blobs/[function/]hash/size
//! write  [instance/]uploads/uuid/blobs/[function/]hash/size[/anything...]
//! ```

use crate::digest::{Digest, DigestError, Function};

/// No segment of an instance name is one of these, so the first of them in a resource name ends the instance.
const RESERVED: [&str; 7] = [
    "blobs",
    "uploads",
    "actions",
    "actionResults",
    "operations",
    "capabilities",
    "compressed-blobs",
];

/// What a name for Read, or a name for Write, says; whether the function is offered is for others to see.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) instance: String,
    pub(crate) digest: Digest,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("instance name {0:?} has an empty or a reserved segment")]
    Instance(String),
    #[error("{0:?} is no resource name of this method")]
    Form(String),
    #[error("no compressor is offered")]
    Compressed,
    #[error("{0:?} is not a size in plain decimal")]
    Size(String),
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl From<NameError> for tonic::Status {
    fn from(error: NameError) -> tonic::Status {
        tonic::Status::invalid_argument(error.to_string())
    }
}

pub(crate) fn check_instance(instance: &str) -> Result<(), NameError> {
    let bad = |segment: &str| segment.is_empty() || RESERVED.contains(&segment);
    if !instance.is_empty() && instance.split('/').any(bad) {
        return Err(NameError::Instance(shortened(instance)));
    }
    Ok(())
}

impl Name {
    pub(crate) fn of_read(name: &str) -> Result<Name, NameError> {
        let segments: Vec<&str> = name.split('/').collect();
        let (instance, rest) = split_instance(name, &segments)?;
        match rest {
            ["blobs", blob @ ..] => match digest(name, blob)? {
                (digest, []) => Ok(Name { instance, digest }),
                (_, [..]) => Err(NameError::Form(shortened(name))),
            },
            ["compressed-blobs", ..] => Err(NameError::Compressed),
            [..] => Err(NameError::Form(shortened(name))),
        }
    }

    pub(crate) fn of_write(name: &str) -> Result<Name, NameError> {
        let segments: Vec<&str> = name.split('/').collect();
        let (instance, rest) = split_instance(name, &segments)?;
        match rest {
            ["uploads", "", ..] => Err(NameError::Form(shortened(name))),
            ["uploads", _uuid, "blobs", blob @ ..] => {
                let (digest, _metadata) = digest(name, blob)?;
                Ok(Name { instance, digest })
            }
            ["uploads", _uuid, "compressed-blobs", ..] => Err(NameError::Compressed),
            [..] => Err(NameError::Form(shortened(name))),
        }
    }
}

/// The plain form of a name in zstd; none if it is in no compressor, or in another.
pub(crate) fn plain(name: &str) -> Option<String> {
    let segments: Vec<&str> = name.split('/').collect();
    let first = segments.iter().position(|segment| RESERVED.contains(segment))?;
    let at = match segments[first] {
        "uploads" => first + 2,
        _other => first,
    };
    if segments.get(at) != Some(&"compressed-blobs") || segments.get(at + 1) != Some(&"zstd") {
        return None;
    }
    Some(
        [&segments[..at], &["blobs"], &segments[at + 2..]]
            .concat()
            .join("/"),
    )
}

fn split_instance<'a>(name: &str, segments: &'a [&'a str]) -> Result<(String, &'a [&'a str]), NameError> {
    let end = segments
        .iter()
        .position(|segment| RESERVED.contains(segment))
        .ok_or_else(|| NameError::Form(shortened(name)))?;
    let (instance, rest) = segments.split_at(end);
    if instance.iter().any(|segment| segment.is_empty()) {
        return Err(NameError::Instance(shortened(&instance.join("/"))));
    }
    Ok((instance.join("/"), rest))
}

fn digest<'a>(name: &str, segments: &'a [&'a str]) -> Result<(Digest, &'a [&'a str]), NameError> {
    let said = segments.split_first();
    let said = said.and_then(|(first, rest)| Some((Function::named(first)?, rest)));
    let (function, segments) = said.unwrap_or((Function::Sha256, segments));
    let [hash, size, rest @ ..] = segments else {
        return Err(NameError::Form(shortened(name)));
    };
    Ok((function.parse(hash, decimal(size)?)?, rest))
}

/// One size has one spelling: no sign, no leading zeros.
fn decimal(text: &str) -> Result<i64, NameError> {
    let plain = text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse() {
        Ok(size) if plain => Ok(size),
        Ok(_) | Err(_) => Err(NameError::Size(shortened(text))),
    }
}

/// As much of a client's text as an error may repeat.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> Digest {
        Digest::of(b"abc")
    }

    #[track_caller]
    fn read(name: &str, instance: Option<&str>) {
        let found = Name::of_read(name).ok();
        let digest = blob();
        let expected = instance.map(|instance| Name {
            instance: instance.into(),
            digest,
        });
        assert_eq!(found, expected, "{name}");
    }

    #[track_caller]
    fn write(name: &str, instance: Option<&str>) {
        let found = Name::of_write(name).ok();
        let digest = blob();
        let expected = instance.map(|instance| Name {
            instance: instance.into(),
            digest,
        });
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn read_names_have_one_spelling() {
        let d = blob();
        let hash = d.hash_hex();
        read(&format!("blobs/{d}"), Some(""));
        read(&format!("a/b/c/blobs/{d}"), Some("a/b/c")); // INST-03
        read(&format!("blobs/sha256/{d}"), Some("")); // RN-06
        read(&format!("/blobs/{d}"), None); // INST-04
        read(&format!("a//b/blobs/{d}"), None); // INST-05
        read(&format!("a/uploads/blobs/{d}"), None); // RN-03
        read(&format!("blobs/{d}/x"), None); // RN-13
        read(&format!("blobs/{d}/"), None);
        read(&format!("blobs/BLAKE3/{d}"), None); // RN-08
        read(&format!("blobs/SHA256/{d}"), None);
        read(&format!("compressed-blobs/zstd/{d}"), None); // RN-11
        read(&format!("uploads/u/blobs/{d}"), None);
        read("", None); // RN-15
        for size in ["+3", "-3", "03", "", " 3", "3.0", "9223372036854775808"] {
            read(&format!("blobs/{hash}/{size}"), None); // RN-12
        }
    }

    #[test]
    fn a_new_function_stands_before_the_hash() {
        let digest = Function::Blake3.of(b"abc");
        let expected = Ok(Name {
            instance: "a".into(),
            digest,
        });
        assert_eq!(Name::of_read(&digest.read_name("a")), expected); // RN-07
        assert_eq!(Name::of_write(&digest.write_name("a", "u")), expected);
        let zstd = format!("a/compressed-blobs/zstd/{digest}");
        assert_eq!(plain(&zstd), Some(digest.read_name("a")));
    }

    #[test]
    fn write_names_are_read_from_the_left() {
        let d = blob();
        write(&format!("uploads/u/blobs/{d}"), Some(""));
        write(&format!("a/b/uploads/u/blobs/sha256/{d}"), Some("a/b"));
        write(&format!("uploads/u/blobs/{d}/uploads/x/blobs/y"), Some("")); // RN-04
        write(&format!("uploads//blobs/{d}"), None);
        write(&format!("uploads/blobs/{d}"), None);
        write(&format!("blobs/{d}"), None); // BS-QWS-12
        write(&format!("/uploads/u/blobs/{d}"), None);
        write(&format!("uploads/u/compressed-blobs/zstd/{d}"), None);
    }

    #[test]
    fn a_name_in_zstd_has_a_plain_form() {
        let check =
            |name: &str, expected: Option<&str>| assert_eq!(plain(name).as_deref(), expected, "{name}");
        check("a/compressed-blobs/zstd/h/1", Some("a/blobs/h/1"));
        check(
            "uploads/u/compressed-blobs/zstd/h/1/x",
            Some("uploads/u/blobs/h/1/x"),
        );
        check("compressed-blobs/deflate/h/1", None);
        check("blobs/h/1", None);
        check("uploads/u/blobs/h/1/compressed-blobs/zstd", None);
    }

    #[test]
    fn instances_may_have_slashes_but_no_reserved_or_empty_segment() {
        for good in ["", "a", "a/b/c", "Blobs"] {
            assert_eq!(check_instance(good), Ok(()));
        }
        for bad in [
            "/",
            "a/",
            "/a",
            "a//b",
            "blobs",
            "a/uploads/b",
            "compressed-blobs",
        ] {
            assert_eq!(check_instance(bad), Err(NameError::Instance(bad.into()))); // INST-02, INST-05
        }
    }
}
