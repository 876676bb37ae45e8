use proptest::prelude::*;

use super::*;

fn node(n: u8) -> NodeId {
    NodeId::new([n; 32])
}

fn set(weights: &[u128]) -> ValidatorSet {
    let weights: BTreeMap<NodeId, u128> = (1..).zip(weights).map(|(n, weight)| (node(n), *weight)).collect();
    strongest(&weights).unwrap()
}

fn powers(set: &ValidatorSet) -> Vec<u64> {
    set.members().iter().map(|member| member.power).collect()
}

#[test]
fn weights_become_the_whole_power() {
    assert_eq!(powers(&set(&[1])), [POWER_TOTAL]);
    assert_eq!(powers(&set(&[1, 1, 1, 1])), [250_000_000; 4]);
    assert_eq!(powers(&set(&[1, 1, 1])), [333_333_334, 333_333_333, 333_333_333]);
    assert_eq!(powers(&set(&[1, 2])), [333_333_333, 666_666_667]);
    assert_eq!(set(&[0, 5]).members().len(), 1, "who has no weight is no member");
    assert_eq!(strongest(&BTreeMap::from([(node(1), 0)])), None);
}

#[test]
fn only_the_strongest_stay() {
    let weights: BTreeMap<NodeId, u128> = (0..120).map(|n| (node(n), 1_000 + u128::from(n % 60))).collect();
    let set = strongest(&weights).unwrap();
    assert_eq!(set.members().len(), VALIDATORS_MAX);
    assert!(set.power_of(&node(59)) > 0 && set.power_of(&node(119)) > 0);
    assert!(set.power_of(&node(9)) == 0 && set.power_of(&node(69)) == 0 && set.power_of(&node(10)) > 0);
}

#[test]
fn a_third_changes_hands_and_then_the_next_third() {
    let mut now = set(&[1, 0, 0, 0]);
    let goal = set(&[0, 0, 0, 1]);
    let mut ways = Vec::new();
    for _ in 0..3 {
        now = limited(&now, &goal, 333_333);
        ways.push((now.power_of(&node(1)), now.power_of(&node(4))));
    }
    assert_eq!(ways, [(666_667_000, 333_333_000), (333_334_000, 666_666_000), (1_000, 999_999_000)]);
    assert_eq!(limited(&now, &goal, 333_333), goal, "it arrives");
}

#[test]
fn who_misses_its_turns_is_away_for_longer_each_time() {
    let mut candidate = Candidate { base: 1, ..Candidate::default() };
    let mut end = |taken, missed, next| {
        candidate.taken += taken;
        candidate.missed += missed;
        candidate.end_epoch(Epoch::new(next));
        (candidate.strikes, candidate.returns.get())
    };
    assert_eq!(end(5, 5, 10), (0, 0), "as many taken as missed");
    assert_eq!(end(0, 1, 10), (0, 0), "one is free");
    assert_eq!(end(1, 0, 10), (0, 0), "and forgotten with the next turn that is taken");
    assert_eq!(end(0, 1, 10), (0, 0), "so it is free again");
    assert_eq!(end(0, 0, 10), (0, 0), "an epoch without a turn changes nothing");
    assert_eq!(end(0, 1, 10), (1, 11), "a second one with none taken is not");
    assert_eq!(end(1, 2, 11), (2, 13));
    assert_eq!(end(0, 0, 12), (2, 13), "no turn, no judgement");
    assert_eq!(end(0, 9, 14), (3, 18));
    assert_eq!(end(9, 8, 19), (0, 18), "back for good");
    for _ in 0..300 {
        end(0, 9, 20);
    }
    assert_eq!(end(0, 9, 20), (255, 84), "away for at most {ABSENCE_EPOCHS_MAX} epochs");
}

fn weight() -> impl Strategy<Value = u128> {
    prop_oneof![Just(0_u128), 1_u128..5, any::<u64>().prop_map(u128::from), Just(u128::MAX), Just(1_u128 << 68)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_weights_give_a_set_of_the_whole_power(weights in prop::collection::vec(weight(), 1..150)) {
        let weights: BTreeMap<NodeId, u128> = (0..).map(node).zip(weights).collect();
        let found = strongest(&weights);
        prop_assert_eq!(found.is_none(), weights.values().all(|weight| *weight == 0));
        if let Some(found) = found {
            prop_assert_eq!(found.total_power(), POWER_TOTAL);
            let raw: Vec<(NodeId, u128)> =
                found.members().iter().map(|member| (member.node_id, u128::from(member.power))).collect();
            prop_assert_eq!(scaled(&raw).unwrap(), found, "scaling what is scaled changes nothing");
        }
    }

    #[test]
    fn no_epoch_changes_more_than_its_part(
        old in prop::collection::vec(0_u128..1_000, 1..40),
        new in prop::collection::vec(0_u128..1_000, 1..40),
        ppm in 1_u32..=333_333,
    ) {
        prop_assume!(old.iter().any(|weight| *weight > 0) && new.iter().any(|weight| *weight > 0));
        let (old, goal) = (set(&old), set(&new));
        let found = limited(&old, &goal, ppm);
        prop_assert_eq!(found.total_power(), POWER_TOTAL);
        let lost: u64 =
            old.members().iter().map(|member| member.power.saturating_sub(found.power_of(&member.node_id))).sum();
        // Scaling to the whole may move a unit per member.
        prop_assert!(lost <= POWER_TOTAL / 1_000_000 * u64::from(ppm) + 80, "{lost}");
        let (_, mut steps) = (0, 0);
        let mut now = found;
        while now != goal && steps < 4_000_000 / u64::from(ppm) + 40 {
            now = limited(&now, &goal, ppm);
            steps += 1;
        }
        prop_assert_eq!(now, goal, "it arrives");
    }
}
