//! HTTP/2 frames on their way out: counted, held back, followed by a last one. Pure.

use bytes::{BufMut, BytesMut};

const HEADER_BYTES: usize = 9;
const TYPE_GOAWAY: u8 = 7;
const TYPE_WINDOW_UPDATE: u8 = 8;

/// Last stream id and error code.
const GOAWAY_BYTES: u8 = 8;

/// What is done to the frames of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// No flow control is granted any more.
    pub(crate) starve: bool,
    /// Before the next frame comes a GOAWAY that knows of no stream, and after it nothing.
    pub(crate) disown: bool,
}

/// Follows frames through bytes that are cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    payload_left: usize,
    /// The frame under way is left out.
    skip: bool,
    ended: bool,
}

impl Frames {
    /// Passes on what the orders leave of these bytes.
    pub(crate) fn pass(&mut self, mut bytes: &[u8], orders: Orders, out: &mut BytesMut) {
        while !bytes.is_empty() && !self.ended {
            if self.payload_left > 0 {
                let (part, rest) = bytes.split_at(self.payload_left.min(bytes.len()));
                if !self.skip {
                    out.extend_from_slice(part);
                }
                self.payload_left -= part.len();
                bytes = rest;
            } else if self.header_bytes == 0 && orders.disown {
                goaway(out);
                self.ended = true;
            } else {
                let missing = HEADER_BYTES - self.header_bytes;
                let (part, rest) = bytes.split_at(missing.min(bytes.len()));
                self.header[self.header_bytes..][..part.len()].copy_from_slice(part);
                self.header_bytes += part.len();
                bytes = rest;
                self.begin(orders, out);
            }
        }
    }

    /// Whether the GOAWAY is out.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    fn begin(&mut self, orders: Orders, out: &mut BytesMut) {
        if self.header_bytes < HEADER_BYTES {
            return;
        }
        let [high, middle, low, kind, ..] = self.header;
        self.payload_left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.skip = orders.starve && kind == TYPE_WINDOW_UPDATE;
        if !self.skip {
            out.extend_from_slice(&self.header);
        }
        self.header_bytes = 0;
    }
}

/// NO_ERROR, and no stream below it was seen: whoever has one in flight may try it again elsewhere.
fn goaway(out: &mut BytesMut) {
    out.put_slice(&[0, 0, GOAWAY_BYTES, TYPE_GOAWAY, 0]);
    out.put_bytes(0, 4 + usize::from(GOAWAY_BYTES));
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &[u8] = &[0, 0, 2, 0, 0, 0, 0, 0, 1, 0xaa, 0xbb];
    const WINDOW_UPDATE: &[u8] = &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    /// The frames in, cut into pieces of every length, and what comes out.
    #[track_caller]
    fn check(frames: &[&[u8]], orders: Orders, expected: &[&[u8]]) {
        let bytes = frames.concat();
        for length in 1..=bytes.len() {
            let (mut passing, mut out) = (Frames::default(), BytesMut::new());
            for piece in bytes.chunks(length) {
                passing.pass(piece, orders, &mut out);
            }
            assert_eq!(out, expected.concat(), "in pieces of {length}");
        }
    }

    #[test]
    fn without_orders_bytes_pass_as_they_are() {
        let frames = [DATA, WINDOW_UPDATE, EMPTY_SETTINGS, DATA];
        check(&frames, Orders::default(), &frames);
    }

    #[test]
    fn starving_leaves_out_window_updates_only() {
        let orders = Orders {
            starve: true,
            ..Orders::default()
        };
        check(
            &[DATA, WINDOW_UPDATE, EMPTY_SETTINGS, WINDOW_UPDATE, DATA],
            orders,
            &[DATA, EMPTY_SETTINGS, DATA],
        );
    }

    #[test]
    fn a_disowning_goaway_waits_for_the_end_of_a_frame_and_is_the_last_word() {
        let (mut frames, mut out) = (Frames::default(), BytesMut::new());
        frames.pass(&DATA[..10], Orders::default(), &mut out);
        let disown = Orders {
            disown: true,
            ..Orders::default()
        };
        frames.pass(&[&DATA[10..], DATA].concat(), disown, &mut out);
        assert!(frames.ended());
        frames.pass(DATA, disown, &mut out);
        assert_eq!(out, [DATA, GOAWAY].concat());
    }
}
