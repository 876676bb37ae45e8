//! Networks that fail and machines that die: whatever happens, one chain; and when it is over, it goes on.

use crate::node::EPOCH;
use crate::world::{Weather, World};

/// Seeds of each kind in an ordinary run. `ARIA_SIM_SEEDS` asks for more.
pub(crate) fn seeds(usual: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("ARIA_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    0..asked.unwrap_or(usual)
}

const EQUAL: [&[u64]; 3] = [&[1; 4], &[1; 7], &[1; 10]];

fn checked(world: &World) {
    assert!(world.double_signed.is_empty(), "seed {}: {:?}", world.seed, world.double_signed);
    for node in world.honest() {
        assert_eq!(node.halted, None, "seed {}", world.seed);
    }
}

fn reach(world: &mut World, height: u64, limit_ms: u64) {
    let time = world.run_to(height, limit_ms);
    assert!(time.is_some(), "seed {}: not at {height} after {limit_ms} ms: {}", world.seed, world.describe());
    checked(world);
}

#[test]
fn all_agree_through_loss_delay_doubling_and_reordering() {
    for seed in seeds(8) {
        let mut world = World::new(seed, EQUAL[usize::try_from(seed % 3).unwrap()]);
        world.weather = Weather::STORM;
        world.start_all();
        world.run_for(20_000);
        world.weather = Weather::CALM;
        let (_, highest) = world.heights();
        reach(&mut world, highest + 5, 120_000);
    }
}

#[test]
fn powers_need_not_be_equal() {
    for seed in seeds(4) {
        let mut world = World::new(seed, &[40, 30, 20, 10, 1]);
        world.start_all();
        reach(&mut world, 20, 60_000);
    }
}

#[test]
fn a_third_may_be_away_more_may_not_and_nothing_forks() {
    for seed in seeds(6) {
        let mut world = World::new(seed, &[1; 7]);
        world.start_all();
        world.run_for(2_000);
        world.crash(0);
        world.crash(1);
        let (_, before) = world.heights();
        world.run_for(60_000);
        let (_, with_two_away) = world.heights();
        assert!(with_two_away > before + 5, "seed {seed}: {before} to {with_two_away} with two of seven away");
        world.crash(2);
        world.run_for(3_000);
        let (_, halted) = world.heights();
        world.run_for(60_000);
        assert_eq!(world.heights().1, halted, "seed {seed}: three of seven are away");
        world.start(2);
        let mut waited = 0;
        while world.heights().1 <= halted {
            world.run_for(1_000);
            waited += 1;
            assert!(waited < 90, "seed {seed}: one came back and nothing goes on");
        }
        world.start(0);
        world.start(1);
        reach(&mut world, halted + 3, 120_000);
    }
}

#[test]
fn partitions_heal() {
    for seed in seeds(8) {
        let mut world = World::new(seed, &[1; 4]);
        world.start_all();
        world.run_for(1_000);
        for _ in 0..6 {
            world.cut.clear();
            let kind = world.source.below(4);
            let outside = usize::try_from(world.source.below(4)).unwrap();
            for from in 0..4 {
                for to in 0..4 {
                    let is_cut = match kind {
                        0 => (from < 2) != (to < 2),
                        1 => (from == outside) != (to == outside),
                        2 => from == outside && to != outside,
                        _ => false,
                    };
                    if is_cut {
                        world.cut.insert((from, to));
                    }
                }
            }
            let time = 500 + world.source.below(6_000);
            world.run_for(time);
        }
        world.cut.clear();
        let (_, highest) = world.heights();
        reach(&mut world, highest + 3, 180_000);
    }
}

#[test]
fn nobody_contradicts_himself_whenever_his_machine_dies() {
    for seed in seeds(12) {
        let mut world = World::new(seed, &[1; 4]);
        world.weather = Weather { delay_ms: (1, 120), loss_percent: 5, double_percent: 5 };
        world.start_all();
        for _ in 0..60 {
            let victim = usize::try_from(world.source.below(4)).unwrap();
            let operations = u32::try_from(world.source.below(12)).unwrap();
            world.nodes[victim].disk.borrow_mut().dies_in = Some(operations);
            world.dies_between_percent = world.source.below(3);
            let time = 50 + world.source.below(700);
            world.run_for(time);
            for index in 0..4 {
                world.start(index);
            }
        }
        world.dies_between_percent = 0;
        world.weather = Weather::CALM;
        for index in 0..4 {
            world.nodes[index].disk.borrow_mut().dies_in = None;
            world.start(index);
        }
        let (_, highest) = world.heights();
        reach(&mut world, highest + 3, 180_000);
    }
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| {
        let mut world = World::new(seed, &[3, 2, 1, 1]);
        world.weather = Weather::STORM;
        world.start_all();
        world.run_for(8_000);
        world.crash(1);
        world.run_for(4_000);
        world.start(1);
        world.run_for(8_000);
        (world.trace, world.heights())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
}

/// Joins, leaves, other powers, one alone, and two sets without a common member but one.
const EPOCHS: [&[u64]; 6] =
    [&[1, 1, 1, 1, 0, 0], &[1, 1, 1, 1, 1, 0], &[0, 3, 1, 1, 2, 0], &[0, 0, 0, 1, 0, 0], &[0, 0, 0, 1, 1, 1], &[1; 6]];

#[test]
fn sets_change_and_who_has_no_power_is_silent() {
    for seed in seeds(6) {
        let mut world = World::of_epochs(seed, &EPOCHS);
        world.weather = Weather { delay_ms: (1, 120), loss_percent: 5, double_percent: 5 };
        world.start_all();
        reach(&mut world, 2 * 6 * EPOCH + 3, 600_000);
        for (speaker, height) in &world.spoke {
            let power = world.shared.work_set(*height).set().power_of(speaker);
            assert!(power > 0, "seed {seed}: {speaker} spoke at {height} without power");
        }
    }
}

#[test]
fn who_was_away_for_a_thousand_blocks_of_changing_sets_votes_again() {
    for seed in seeds(1) {
        let mut world = World::of_epochs(seed, &[&[1; 4], &[2, 1, 1, 0], &[2, 2, 1, 1], &[3, 3, 3, 2]]);
        world.start_all();
        world.run_for(1_000);
        world.crash(3);
        for _ in 0..100 {
            world.run_for(10_000);
        }
        assert!(world.heights().1 > 1_000, "seed {seed}: {}", world.describe());
        world.start(3);
        let (_, highest) = world.heights();
        reach(&mut world, highest + 10, 240_000);
        // It takes the last blocks from peers too, while they make new ones.
        world.run_for(30_000);
        let me = world.nodes[3].id();
        assert!(world.spoke.iter().any(|(node, height)| *node == me && height.get() > highest), "it votes again");
    }
}
