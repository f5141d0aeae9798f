//! How full is too full.

/// The disk that Tier 1 may take, and where eviction begins and ends below that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watermarks {
    max_bytes: u64,
    high_bytes: u64,
    low_bytes: u64,
}

impl Watermarks {
    /// Marks in bytes. Marks that contradict each other are bent until they do not: configuration refuses them with words,
    /// and a cache that stops for them would help nobody.
    pub(super) fn new(max_bytes: u64, high_bytes: u64, low_bytes: u64) -> Watermarks {
        let high_bytes = high_bytes.min(max_bytes);
        Watermarks {
            max_bytes,
            high_bytes,
            low_bytes: low_bytes.min(high_bytes),
        }
    }

    /// Whether `more_bytes` may be written on top of `used_bytes`.
    pub(super) fn leaves_room(&self, used_bytes: u64, more_bytes: u64) -> bool {
        used_bytes.saturating_add(more_bytes) <= self.max_bytes
    }

    /// Whether eviction shall begin.
    pub(super) fn above_high(&self, used_bytes: u64) -> bool {
        used_bytes > self.high_bytes
    }

    /// Whether eviction that began shall go on.
    pub(super) fn above_low(&self, used_bytes: u64) -> bool {
        used_bytes > self.low_bytes
    }

    /// The disk that eviction goes back to.
    pub(super) fn low_bytes(&self) -> u64 {
        self.low_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_begins_above_high_and_ends_at_low() {
        let marks = Watermarks::new(1000, 900, 800);
        assert!(!marks.above_high(900));
        assert!(marks.above_high(901));
        assert!(marks.above_low(801));
        assert!(!marks.above_low(800));
    }

    #[test]
    fn the_last_byte_of_room_can_be_used_and_no_more() {
        let marks = Watermarks::new(1000, 900, 800);
        assert!(marks.leaves_room(999, 1));
        assert!(!marks.leaves_room(1000, 1));
        assert!(!marks.leaves_room(1, u64::MAX));
    }

    #[test]
    fn marks_that_contradict_each_other_are_bent() {
        assert_eq!(Watermarks::new(1000, 500, 900), Watermarks::new(1000, 500, 500));
        assert_eq!(Watermarks::new(1000, 2000, 900), Watermarks::new(1000, 1000, 900));
    }
}
