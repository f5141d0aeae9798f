//! What a client says of itself with each call: sent on to Tier 2 as it came, if it is what it claims to be.

use bytes::Bytes;
use prost::Message as _;
use proto::REQUEST_METADATA_HEADER;
use proto::reapi::RequestMetadata;
use tonic::metadata::MetadataMap;

use crate::metrics::CallMetrics;

/// Bytes that are sent on. gRPC servers bear 8 KiB of headers by default, and refuse more now and then; in base64 these
/// take two thirds of that, and leave room for the other headers.
const SENT_ON_BYTES_MAX: usize = 4096;

/// Why a client's metadata ends here. The call goes on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("it is not base64")]
    Encoding,
    #[error("it has more than {SENT_ON_BYTES_MAX} bytes")]
    TooLarge,
    #[error("it is no RequestMetadata")]
    Undecodable,
}

impl Unfit {
    /// The metric's label.
    fn reason(self) -> &'static str {
        match self {
            Unfit::Encoding => "encoding",
            Unfit::TooLarge => "too_large",
            Unfit::Undecodable => "undecodable",
        }
    }
}

/// The metadata that goes along to Tier 2, still encoded, so that fields which this version does not know survive. What is
/// unfit would make some servers refuse the call: it is counted and left out (META-03, META-06).
pub(super) fn to_send_on(headers: &MetadataMap, calls: &CallMetrics) -> Option<Bytes> {
    match read(headers) {
        Ok(metadata) => metadata,
        Err(unfit) => {
            calls.metadata_dropped.with_label_values(&[unfit.reason()]).inc();
            tracing::debug!(reason = %unfit, "a client's request metadata is not sent on to tier 2");
            None
        }
    }
}

fn read(headers: &MetadataMap) -> Result<Option<Bytes>, Unfit> {
    let Some(value) = headers.get_bin(REQUEST_METADATA_HEADER) else {
        return Ok(None);
    };
    let bytes = value.to_bytes().map_err(|_invalid| Unfit::Encoding)?;
    if bytes.len() > SENT_ON_BYTES_MAX {
        return Err(Unfit::TooLarge);
    }
    RequestMetadata::decode(bytes.clone()).map_err(|_invalid| Unfit::Undecodable)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use tonic::metadata::BinaryMetadataValue;

    use super::*;
    use crate::metrics::Metrics;

    fn headers(metadata: &[u8]) -> MetadataMap {
        let mut headers = MetadataMap::new();
        headers.insert_bin(REQUEST_METADATA_HEADER, BinaryMetadataValue::from_bytes(metadata));
        headers
    }

    /// Metadata of so many bytes when encoded.
    fn metadata_of(bytes: usize) -> Vec<u8> {
        let framing = 3; // a tag, and a length of two bytes
        let metadata = RequestMetadata {
            correlated_invocations_id: "x".repeat(bytes - framing),
            ..Default::default()
        };
        let encoded = metadata.encode_to_vec();
        assert_eq!(encoded.len(), bytes);
        encoded
    }

    #[test]
    fn metadata_is_sent_on_as_it_came_with_fields_that_nobody_knows() {
        // META-01, PXY-28
        let unknown = b"\xba\x3e\x01x"; // field 999
        for bytes in [
            &b""[..],
            b"\x12\x05input",
            unknown,
            &metadata_of(SENT_ON_BYTES_MAX),
        ] {
            assert_eq!(read(&headers(bytes)), Ok(Some(Bytes::copy_from_slice(bytes))));
        }
        assert_eq!(read(&MetadataMap::new()), Ok(None)); // META-02
    }

    #[test]
    fn what_is_no_metadata_or_too_much_is_left_out_and_counted() {
        // META-03, META-06
        let calls = Metrics::new().calls;
        let mut odd = HeaderMap::new();
        odd.insert(REQUEST_METADATA_HEADER, HeaderValue::from_static("!"));
        let cases = [
            (MetadataMap::from_headers(odd), Unfit::Encoding),
            (headers(&metadata_of(SENT_ON_BYTES_MAX + 1)), Unfit::TooLarge),
            (headers(&[0xff; 20]), Unfit::Undecodable),
            (headers(b"\x12\x02\xff\xfe"), Unfit::Undecodable), // a string that is no UTF-8
        ];
        for (headers, expected) in &cases {
            assert_eq!(read(headers), Err(*expected));
            assert_eq!(to_send_on(headers, &calls), None);
        }
        let counted = |unfit: Unfit| {
            let counter = calls.metadata_dropped.with_label_values(&[unfit.reason()]);
            counter.get()
        };
        let all = [Unfit::Encoding, Unfit::TooLarge, Unfit::Undecodable].map(counted);
        assert_eq!(all, [1, 1, 2]);
    }
}
