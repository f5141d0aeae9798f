//! HTTP/2 and gRPC by hand: bytes that no library would send, or would not send by halves.

use prost::Message;

/// What every HTTP/2 client begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The setting for the window that each stream begins with.
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

const FRAME_HEAD_BYTES: usize = 9;

pub(crate) const READ: &str = "/google.bytestream.ByteStream/Read";
pub(crate) const WRITE: &str = "/google.bytestream.ByteStream/Write";
pub(crate) const BATCH_UPDATE: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs";
pub(crate) const BATCH_READ: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs";

/// A frame, well formed or not.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head.as_slice(), payload].concat()
}

/// What a connection begins with: the preface, and settings.
pub(crate) fn greeting(settings: &[(u16, u32)]) -> Vec<u8> {
    let settings: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()
}

/// The headers of a call, uncompressed.
pub(crate) fn header_block(path: &str) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "node"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers
        .iter()
        .flat_map(|(name, value)| header(name.as_bytes(), value.as_bytes()))
        .collect()
}

/// One header field as a literal that no table remembers.
pub(crate) fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

/// A string without Huffman coding.
fn text(bytes: &[u8]) -> Vec<u8> {
    const PREFIX_MAX: usize = 127;
    let mut coded = Vec::new();
    if bytes.len() < PREFIX_MAX {
        coded.push(u8::try_from(bytes.len()).unwrap());
    } else {
        coded.push(0x7f);
        let mut rest = bytes.len() - PREFIX_MAX;
        while rest >= 128 {
            coded.push(u8::try_from(rest % 128).unwrap() | 0x80);
            rest /= 128;
        }
        coded.push(u8::try_from(rest).unwrap());
    }
    coded.extend_from_slice(bytes);
    coded
}

/// Begins a call.
pub(crate) fn call(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &header_block(path))
}

/// A body in frames of `frame_bytes`, the last of which ends the stream.
pub(crate) fn body(stream: u32, bytes: &[u8], frame_bytes: usize) -> Vec<u8> {
    let mut parts = bytes.chunks(frame_bytes).peekable();
    let mut frames = Vec::new();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() { END_STREAM } else { 0 };
        frames.extend(frame(DATA, flags, stream, part));
    }
    frames
}

/// A message as gRPC frames it.
pub(crate) fn message(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let len = u32::try_from(bytes.len()).unwrap();
    [&[0], len.to_be_bytes().as_slice(), &bytes].concat()
}

/// Kind, flags, stream and payload of the whole frames in what a peer said.
pub(crate) fn frames(mut said: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while said.len() >= FRAME_HEAD_BYTES {
        let (head, rest) = said.split_at(FRAME_HEAD_BYTES);
        let len = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        let Some(payload) = rest.get(..len) else {
            break;
        };
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.push((head[3], head[4], stream, payload.to_vec()));
        said = &rest[len..];
    }
    frames
}
