//! How full is too full.

/// The disk that Tier 1 may take, and where eviction begins and ends below that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watermarks {
    max_bytes: u64,
    high_bytes: u64,
    low_bytes: u64,
}

impl Watermarks {
    /// Marks in percent of `max_bytes`. Marks that contradict each other are bent until they do not: configuration refuses
    /// them with words, and a cache that stops for them would help nobody.
    pub(super) fn new(max_bytes: u64, high_percent: u8, low_percent: u8) -> Watermarks {
        let percent = |percent: u8| {
            u64::try_from(u128::from(max_bytes) * u128::from(percent) / 100).unwrap_or(max_bytes)
        };
        let high_bytes = percent(high_percent.min(100));
        Watermarks {
            max_bytes,
            high_bytes,
            low_bytes: percent(low_percent.min(100)).min(high_bytes),
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
        let marks = Watermarks::new(1000, 90, 80);
        assert!(!marks.above_high(900));
        assert!(marks.above_high(901));
        assert!(marks.above_low(801));
        assert!(!marks.above_low(800));
    }

    #[test]
    fn the_last_byte_of_room_can_be_used_and_no_more() {
        let marks = Watermarks::new(1000, 90, 80);
        assert!(marks.leaves_room(999, 1));
        assert!(!marks.leaves_room(1000, 1));
        assert!(!marks.leaves_room(1, u64::MAX));
    }

    #[test]
    fn marks_that_contradict_each_other_are_bent() {
        assert_eq!(Watermarks::new(1000, 50, 90), Watermarks::new(1000, 50, 50));
        assert_eq!(Watermarks::new(1000, 200, 90), Watermarks::new(1000, 100, 90));
        assert_eq!(Watermarks::new(u64::MAX, 100, 100).low_bytes(), u64::MAX);
    }
}
