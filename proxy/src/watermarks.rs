//! How full Tier 1's disk may be.

/// The disk that Tier 1 may take, and where eviction begins and ends below that: allocated bytes. Low is never above high,
/// nor high above the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    max_bytes: u64,
    high_bytes: u64,
    low_bytes: u64,
}

impl Watermarks {
    /// `None` if the marks contradict each other.
    #[must_use]
    pub fn new(max_bytes: u64, high_bytes: u64, low_bytes: u64) -> Option<Watermarks> {
        (low_bytes <= high_bytes && high_bytes <= max_bytes).then_some(Watermarks {
            max_bytes,
            high_bytes,
            low_bytes,
        })
    }

    /// All that may be taken.
    #[must_use]
    pub fn max_bytes(self) -> u64 {
        self.max_bytes
    }

    /// Where eviction begins.
    #[must_use]
    pub fn high_bytes(self) -> u64 {
        self.high_bytes
    }

    /// What eviction goes back to.
    #[must_use]
    pub fn low_bytes(self) -> u64 {
        self.low_bytes
    }

    /// Whether `more_bytes` may be written on top of `used_bytes`.
    #[must_use]
    pub fn leaves_room(self, used_bytes: u64, more_bytes: u64) -> bool {
        used_bytes.saturating_add(more_bytes) <= self.max_bytes
    }

    /// Whether eviction shall begin.
    #[must_use]
    pub fn above_high(self, used_bytes: u64) -> bool {
        used_bytes > self.high_bytes
    }

    /// Whether eviction that began shall go on.
    #[must_use]
    pub fn above_low(self, used_bytes: u64) -> bool {
        used_bytes > self.low_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_begins_above_high_and_ends_at_low() {
        let marks = Watermarks::new(1000, 900, 800).unwrap();
        assert!(!marks.above_high(900));
        assert!(marks.above_high(901));
        assert!(marks.above_low(801));
        assert!(!marks.above_low(800));
    }

    #[test]
    fn the_last_byte_of_room_can_be_used_and_no_more() {
        let marks = Watermarks::new(1000, 900, 800).unwrap();
        assert!(marks.leaves_room(999, 1));
        assert!(!marks.leaves_room(1000, 1));
        assert!(!marks.leaves_room(1, u64::MAX));
    }

    #[test]
    fn marks_that_contradict_each_other_are_refused() {
        assert_eq!(Watermarks::new(1000, 500, 501), None);
        assert_eq!(Watermarks::new(1000, 1001, 500), None);
        assert!(Watermarks::new(1000, 1000, 1000).is_some());
    }
}
