//! Who proposes when: weighted round robin by accumulated priority.
//!
//! In every turn each member gains its power, the one with the most leads and gives up the total. Shares are exact over
//! as many turns as the total power has units, the strongest member leads first, and nobody can grind the order.

use aria_chain::certificate::ValidatorSet;
use aria_chain::ids::NodeId;
use aria_chain::units::{Height, Round};

/// Turns of an order before it begins again.
pub const SCHEDULE_TURNS: usize = 1_000;

/// The order of proposers of one validator set from a height on, computed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposerSchedule {
    first: Height,
    turns: Vec<NodeId>,
}

impl ProposerSchedule {
    /// The order of a set that begins to vote at a height. After [`SCHEDULE_TURNS`] turns it begins again.
    ///
    /// # Panics
    /// Never: a set has members.
    pub fn new(set: &ValidatorSet, first: Height) -> ProposerSchedule {
        let total = i128::from(set.total_power());
        let mut priorities: Vec<(i128, NodeId, i128)> =
            set.members().iter().map(|member| (0, member.node_id, i128::from(member.power))).collect();
        let turns = (0..SCHEDULE_TURNS).map(|_| {
            for (priority, _, power) in &mut priorities {
                // Within twice the total power, which is below 2^61.
                *priority = priority.saturating_add(*power);
            }
            // Among equals the lowest id: members are ascending, and only a greater priority replaces one found before.
            let leader = priorities.iter_mut().reduce(|best, next| if next.0 > best.0 { next } else { best });
            let leader = leader.expect("a validator set has members");
            leader.0 = leader.0.saturating_sub(total);
            leader.1
        });
        ProposerSchedule { first, turns: turns.collect() }
    }

    /// The height that it begins at.
    pub fn first(&self) -> Height {
        self.first
    }

    /// Who proposes in a round of a height. Rounds go on along the order, so that the next in line steps in.
    ///
    /// # Panics
    /// Never: there is a turn.
    pub fn proposer(&self, height: Height, round: Round) -> NodeId {
        let turns = u128::try_from(self.turns.len()).expect("a length");
        let place = u128::from(height.blocks_since(self.first)).saturating_add(u128::from(round.get()));
        let turn = place.checked_rem(turns).expect("there is a turn");
        self.turns[usize::try_from(turn).expect("less than a length")]
    }
}

#[cfg(test)]
mod tests {
    use aria_chain::certificate::Validator;

    use super::*;

    fn set(powers: &[u64]) -> ValidatorSet {
        let member = |(index, &power): (usize, &u64)| {
            let node_id = NodeId::new([u8::try_from(index).expect("few"); 32]);
            Validator { node_id, power }
        };
        ValidatorSet::new(powers.iter().enumerate().map(member).collect()).expect("a good set")
    }

    fn order(powers: &[u64], turns: usize) -> Vec<u8> {
        let schedule = ProposerSchedule::new(&set(powers), Height::new(500));
        let turn = |height| schedule.proposer(Height::new(height), Round::ZERO).as_bytes()[0];
        (500..).take(turns).map(turn).collect()
    }

    #[test]
    fn the_order_is_fixed() {
        assert_eq!(order(&[1, 1, 1, 1], 8), [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(order(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(order(&[1, 2, 3], 6), [2, 1, 0, 2, 1, 2]);
    }

    #[test]
    fn shares_are_exact_over_the_total_power() {
        for powers in [&[1, 2, 3][..], &[97, 1, 2], &[10, 20, 30, 40], &[1]] {
            let total: u64 = powers.iter().sum();
            let order = order(powers, usize::try_from(total).expect("small"));
            for (index, &power) in powers.iter().enumerate() {
                let turns = order.iter().filter(|&&leader| usize::from(leader) == index).count();
                assert_eq!(turns as u64, power, "{powers:?}");
            }
        }
    }

    #[test]
    fn a_round_that_fails_passes_to_the_next() {
        let schedule = ProposerSchedule::new(&set(&[1, 1, 1]), Height::ZERO);
        let leaders: Vec<NodeId> =
            (0..3).map(|round| schedule.proposer(Height::new(u64::MAX), Round::new(round))).collect();
        assert!(leaders[0] != leaders[1] && leaders[1] != leaders[2] && leaders[0] != leaders[2]);
    }
}
