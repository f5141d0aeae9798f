//! Which of the clients that upload the same blob feeds Tier 2 (R12). A repair is one more of them, and the last choice. Pure.

use std::time::Duration;

/// How long a leading client may leave Tier 2 without bytes while another could go on (R12).
pub(super) const STALL: Duration = Duration::from_secs(5);

/// One client, as far as the choice is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Bytes that are here.
    pub(super) bytes: u64,
    /// All bytes are here, they fit, and the client wants them stored.
    pub(super) finished: bool,
    /// Every byte can be had from the first on.
    pub(super) whole: bool,
    /// How long nothing came although something could.
    pub(super) quiet: Duration,
    /// While leading: how long Tier 2 has waited for this client, all in all.
    pub(super) starved: Duration,
    /// Not a client, but Tier 1's copy of what Tier 2 lost.
    pub(super) repairs: bool,
}

impl Candidate {
    /// Whether an upstream stream can begin with this client.
    fn can_lead(&self) -> bool {
        self.whole && self.bytes > 0
    }

    fn stalled(&self) -> bool {
        !self.finished && self.quiet >= STALL
    }
}

/// Chooses who leads next: a client that has finished, else one that is alive, among them who has most; then a repair, then
/// whoever stalled. On a tie the earlier one. `None` while nobody can.
pub(super) fn choose(candidates: &[Candidate]) -> Option<usize> {
    let rank = |candidate: &Candidate| {
        let Candidate {
            finished,
            repairs,
            bytes,
            ..
        } = *candidate;
        (!candidate.stalled(), !repairs, finished, bytes)
    };
    let mut best: Option<(usize, &Candidate)> = None;
    for (index, candidate) in candidates.iter().enumerate().filter(|(_, c)| c.can_lead()) {
        if best.is_none_or(|(_, best)| rank(candidate) > rank(best)) {
            best = Some((index, candidate));
        }
    }
    best.map(|(index, _)| index)
}

/// Says whether the one that leads has to give way: it stalled and another is alive; or it kept Tier 2 waiting, drip by
/// drip, while another has finished.
pub(super) fn gives_way(leader: usize, candidates: &[Candidate]) -> bool {
    let Some(leading) = candidates.get(leader) else {
        return true;
    };
    if leading.finished {
        return false;
    }
    let mut others = candidates
        .iter()
        .enumerate()
        .filter(|(index, other)| *index != leader && other.can_lead())
        .map(|(_, other)| other);
    let (stalled, starving) = (leading.stalled(), leading.starved >= STALL);
    others.any(|other| (stalled && !other.stalled()) || (starving && other.finished && !other.repairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(bytes: u64) -> Candidate {
        Candidate {
            bytes,
            finished: false,
            whole: true,
            quiet: Duration::ZERO,
            starved: Duration::ZERO,
            repairs: false,
        }
    }

    fn stalled(bytes: u64) -> Candidate {
        Candidate {
            quiet: STALL,
            starved: STALL,
            ..alive(bytes)
        }
    }

    fn finished() -> Candidate {
        Candidate {
            finished: true,
            ..alive(100)
        }
    }

    #[test]
    fn nobody_leads_before_its_first_byte() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[alive(0), alive(0)]), None);
        assert_eq!(choose(&[alive(0), alive(1)]), Some(1));
    }

    #[test]
    fn the_furthest_leads_and_the_earlier_on_a_tie() {
        assert_eq!(choose(&[alive(1), alive(3), alive(3)]), Some(1));
        assert_eq!(choose(&[alive(3), stalled(50)]), Some(0));
        assert_eq!(choose(&[alive(99), finished()]), Some(1));
        assert_eq!(choose(&[stalled(1), stalled(2)]), Some(1));
    }

    #[test]
    fn who_lost_its_first_bytes_cannot_lead() {
        let spent = Candidate {
            whole: false,
            ..finished()
        };
        assert_eq!(choose(&[spent, alive(1)]), Some(1));
        assert_eq!(choose(&[spent]), None);
    }

    #[test]
    fn a_stalled_leader_gives_way_only_to_one_that_is_alive() {
        assert!(!gives_way(0, &[stalled(5)]));
        assert!(!gives_way(0, &[stalled(5), stalled(9)]));
        assert!(!gives_way(0, &[stalled(5), alive(0)]));
        assert!(gives_way(0, &[stalled(5), alive(1)]));
        assert!(gives_way(0, &[stalled(5), finished()]));
    }

    #[test]
    fn a_leader_that_moves_is_left_alone_whoever_is_ahead() {
        assert!(!gives_way(0, &[alive(1), alive(99)]));
        assert!(!gives_way(0, &[alive(1), finished()]));
    }

    #[test]
    fn a_dripping_leader_gives_way_to_one_that_has_finished() {
        let dripping = Candidate {
            starved: STALL,
            ..alive(10)
        };
        assert!(gives_way(0, &[dripping, finished()]));
        assert!(!gives_way(0, &[dripping, alive(99)]));
    }

    #[test]
    fn a_repair_leads_only_where_no_client_is_alive_and_then_stays() {
        let repair = Candidate {
            repairs: true,
            ..finished()
        };
        assert_eq!(choose(&[repair, alive(1)]), Some(1));
        assert_eq!(
            choose(&[repair, alive(0)]),
            Some(0),
            "a client that has sent nothing cannot lead"
        );
        assert_eq!(choose(&[repair, stalled(50)]), Some(0));
        assert!(!gives_way(0, &[repair, finished()]));
        assert!(gives_way(1, &[repair, stalled(50)]));
        let dripping = Candidate {
            starved: STALL,
            ..alive(10)
        };
        assert!(!gives_way(1, &[repair, dripping]), "it would be chosen again");
    }

    #[test]
    fn a_finished_leader_stays() {
        let leader = Candidate {
            quiet: STALL,
            starved: STALL,
            ..finished()
        };
        assert!(!gives_way(0, &[leader, finished()]));
    }

    #[test]
    fn a_leader_that_left_gives_way() {
        assert!(gives_way(1, &[alive(1)]));
    }
}
