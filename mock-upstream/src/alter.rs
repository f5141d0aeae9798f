//! Wrong bytes made of right ones. Pure.

use bytes::{Bytes, BytesMut};

use crate::rule::{Act, After};

/// What appended bytes are made of.
const FILLER: u8 = 0x5a;

/// Changed bytes, and how many of them must have been sent for the change to be seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Altered {
    pub(crate) data: Bytes,
    pub(crate) seen_at: u64,
}

/// Bytes as the act would have them; `None` if it changes nothing there. `other` is another blob, `piece` the length of
/// what is sent at once.
pub(crate) fn alter(data: &Bytes, act: &Act, after: After, other: &Bytes, piece: usize) -> Option<Altered> {
    let size = data.len();
    let place = match after {
        After::Start => 0,
        After::Bytes(bytes) => usize::try_from(bytes).ok().filter(|at| *at <= size)?,
        After::End => size,
    };
    let altered = |data: Bytes, seen_at: usize| {
        Some(Altered {
            data,
            seen_at: seen_at as u64,
        })
    };
    match act {
        Act::FlipByte => {
            let place = place.min(size.checked_sub(1)?);
            let mut flipped = BytesMut::from(&data[..]);
            flipped[place] ^= 0xff;
            altered(flipped.freeze(), place + 1)
        }
        Act::ExtraBytes { count } => {
            let extra = vec![FILLER; usize::try_from(*count).ok().filter(|count| *count > 0)?];
            altered(joined(&[data, &extra]), size + 1)
        }
        // At the end there is nothing left to keep back.
        Act::EndEarly if place < size => altered(data.slice(..place), place),
        Act::OtherBlob => {
            let rest = other.get(place..).unwrap_or_default();
            let new = joined(&[&data[..place], rest]);
            let differs_at = new.iter().zip(data).take_while(|(new, old)| new == old).count();
            (new != *data).then_some(())?;
            let seen_at = new.len().min(differs_at + 1);
            altered(new, seen_at)
        }
        Act::RepeatChunk => {
            // At the start there is no piece yet: the first one it is.
            let end = if place == 0 { piece.min(size) } else { place };
            let begin = end.saturating_sub(piece);
            (begin < end).then_some(())?;
            altered(joined(&[&data[..end], &data[begin..]]), end + 1)
        }
        Act::EndEarly
        | Act::Delay { .. }
        | Act::Hang
        | Act::Drip { .. }
        | Act::Status { .. }
        | Act::EntryStatus { .. }
        | Act::CommittedSize { .. }
        | Act::SayPresent
        | Act::SayMissing
        | Act::Capabilities(_)
        | Act::Drop
        | Act::Evict
        | Act::EvictOutputs
        | Act::ResetStream
        | Act::Reset
        | Act::Close
        | Act::GoAway { .. }
        | Act::Starve
        | Act::Refuse => None,
    }
}

fn joined(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(act: &Act, after: After, expected: Option<(&[u8], u64)>) {
        let (data, other) = (Bytes::from_static(b"0123456789"), Bytes::from_static(b"abcd"));
        let expected = expected.map(|(data, seen_at)| Altered {
            data: Bytes::copy_from_slice(data),
            seen_at,
        });
        assert_eq!(alter(&data, act, after, &other, 4), expected, "{act:?} {after:?}");
    }

    #[test]
    fn each_act_changes_what_it_says_and_knows_when_that_is_seen() {
        check(&Act::FlipByte, After::Start, Some((b"\xcf123456789", 1)));
        check(&Act::FlipByte, After::Bytes(3), Some((b"012\xcc456789", 4)));
        check(&Act::FlipByte, After::End, Some((b"012345678\xc6", 10)));
        check(&Act::FlipByte, After::Bytes(11), None);
        check(
            &Act::ExtraBytes { count: 2 },
            After::Start,
            Some((b"0123456789ZZ", 11)),
        );
        check(&Act::ExtraBytes { count: 0 }, After::Start, None);
        check(&Act::EndEarly, After::Start, Some((b"", 0)));
        check(&Act::EndEarly, After::Bytes(9), Some((b"012345678", 9)));
        check(&Act::EndEarly, After::End, None);
        check(&Act::OtherBlob, After::Start, Some((b"abcd", 1)));
        check(&Act::OtherBlob, After::Bytes(2), Some((b"01cd", 3)));
        check(&Act::OtherBlob, After::Bytes(8), Some((b"01234567", 8)));
        check(&Act::RepeatChunk, After::Start, Some((b"01230123456789", 5)));
        check(&Act::RepeatChunk, After::Bytes(6), Some((b"01234523456789", 7)));
        check(&Act::RepeatChunk, After::End, Some((b"01234567896789", 11)));
        check(&Act::Hang, After::Start, None);
    }
}
