//! How the partitions of a run are shared among its plotters. Pure.

use isochrone_model::id::{DaemonId, Partition};
use isochrone_store::types::{Member, Role};

/// A partition this plotter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub partition: Partition,
    /// Whether it has ever had data: the work lies there.
    pub load: Load,
}

/// Whether a partition has any work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing was ever written to it.
    Empty,
    /// It has data.
    Data,
}

/// How many of `partitions` this plotter may hold: an even share, the odd ones going to those who joined first. `None` when
/// it is not in the roster (any more).
pub fn fair_share(partitions: u16, roster: &[Member], me: DaemonId) -> Option<usize> {
    let mut plotters: Vec<_> = roster
        .iter()
        .filter(|member| member.role == Role::Plotter && member.stands())
        .map(|member| (member.ordinal, member.daemon))
        .collect();
    plotters.sort_unstable();
    let rank = plotters.iter().position(|(_, daemon)| *daemon == me)?;
    let (partitions, count) = (usize::from(partitions), plotters.len());
    Some(partitions / count + usize::from(rank < partitions % count))
}

/// What to let go of to come down to `share`: as large a part of those with data as of those without, so that the work is
/// shared and not only the names; those without data first.
pub fn surplus(held: &[Held], share: usize) -> Vec<Partition> {
    if held.len() <= share {
        return Vec::new();
    }
    let of = |load: Load| {
        held.iter()
            .filter(move |held| held.load == load)
            .map(|held| held.partition)
    };
    let (count, busy) = (held.len() - share, of(Load::Data).count());
    let busy_kept = (busy * share).div_ceil(held.len());
    let busy_gone = (busy - busy_kept).min(count);
    let empty_gone = count - busy_gone;
    let empty = held.len() - busy;
    // Rounding may ask for more empty ones than there are.
    let (empty_gone, busy_gone) = (empty_gone.min(empty), busy_gone + empty_gone.saturating_sub(empty));
    of(Load::Empty)
        .take(empty_gone)
        .chain(of(Load::Data).take(busy_gone))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(daemon: u64, ordinal: u32) -> Member {
        Member {
            daemon: DaemonId(daemon),
            role: Role::Plotter,
            ordinal,
            counter: 1,
            joined: 0,
            ended: false,
            vanished: false,
        }
    }

    /// The first takes all, a second one halves it, one that ended or vanished or has another role counts for nothing.
    #[test]
    fn shares_are_even() {
        let first = member(9, 0);
        let second = member(3, 1);
        assert_eq!(fair_share(65, std::slice::from_ref(&first), DaemonId(9)), Some(65));
        assert_eq!(fair_share(65, &[second.clone(), first.clone()], DaemonId(9)), Some(33));
        assert_eq!(fair_share(65, &[second.clone(), first.clone()], DaemonId(3)), Some(32));
        let gone = Member {
            ended: true,
            ..second.clone()
        };
        let dead = Member {
            vanished: true,
            ..second.clone()
        };
        let other = Member {
            role: Role::Consumer,
            ..second
        };
        assert_eq!(fair_share(65, &[first, gone, dead, other], DaemonId(9)), Some(65));
        assert_eq!(fair_share(65, &[], DaemonId(9)), None);
    }

    proptest! {
        /// Shares of all plotters add up to all partitions and differ by at most one.
        #[test]
        fn shares_add_up(partitions in 1u16..300, plotters in 1usize..12) {
            let roster: Vec<_> = (0..plotters as u64).map(|n| member(n * 7 % 13, n as u32)).collect();
            let shares: Vec<_> =
                roster.iter().map(|member| fair_share(partitions, &roster, member.daemon).unwrap()).collect();
            prop_assert_eq!(shares.iter().sum::<usize>(), usize::from(partitions));
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }

        /// Letting go ends exactly at the share, and the work let go of is the share's part of it, to within one.
        #[test]
        fn surplus_meets_the_share(busy in 0usize..70, empty in 0usize..70, share in 0usize..140) {
            let held: Vec<_> = (0..busy + empty)
                .map(|n| Held { partition: Partition(n as u16), load: if n < busy { Load::Data } else { Load::Empty } })
                .collect();
            let gone = surplus(&held, share);
            prop_assert_eq!(held.len() - gone.len(), held.len().min(share));
            let busy_left = busy - gone.iter().filter(|partition| usize::from(partition.0) < busy).count();
            if held.len() > share {
                let fair = busy as f64 * share as f64 / held.len() as f64;
                prop_assert!((busy_left as f64 - fair).abs() <= 1.0, "{busy_left} of {busy}, fair {fair}");
            }
        }
    }
}
