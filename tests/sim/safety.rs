//! Liars, and tests of the tests: with a safety measure switched off, something must be seen.

use crate::disk::Flaws;
use crate::faults::seeds;
use crate::world::{Weather, World};

#[test]
fn liars_below_a_third_change_nothing_and_are_named() {
    let mut convictions = 0;
    for seed in seeds(6) {
        let (powers, liars): (&[u64], _) = if seed % 2 == 0 { (&[1; 4], 1) } else { (&[1; 7], 2) };
        let mut world = World::new(seed, powers);
        for index in 0..liars {
            world.make_liar(index);
        }
        world.weather = Weather { delay_ms: (1, 200), loss_percent: 2, double_percent: 5 };
        world.start_all();
        let time = world.run_to(8, 240_000);
        assert!(time.is_some(), "seed {seed}: {}", world.describe());
        assert!(world.double_signed.is_empty(), "seed {seed}: {:?}", world.double_signed);
        let guilty: Vec<_> = world.liars.keys().map(|index| world.nodes[*index].id()).collect();
        for node in world.honest() {
            let accused = node.accused.iter().map(|piece| piece.node_id).chain(node.convicted());
            assert!(
                accused.into_iter().all(|accused| guilty.contains(&accused)),
                "seed {seed}: only liars are accused"
            );
            convictions += node.convicted().count();
        }
    }
    assert!(convictions > 0, "who signs two votes in one round is named in a later block");
}

/// A world in which machines die all the time; says what the observer saw.
fn stress(seed: u64, flaws: Flaws) -> (usize, usize) {
    let mut world = World::new(seed, &[1; 4]).with_flaws(flaws);
    world.weather = Weather { delay_ms: (1, 400), loss_percent: 10, double_percent: 0 };
    world.start_all();
    for _ in 0..80 {
        let victim = usize::try_from(world.source.below(4)).unwrap();
        let time = 20 + world.source.below(400);
        world.run_for(time);
        world.crash(victim);
        world.start(victim);
    }
    let halted = world.nodes.iter().filter(|node| node.halted.is_some()).count();
    (world.double_signed.len(), halted)
}

#[test]
fn without_flush_and_guard_somebody_signs_twice() {
    let flaws = Flaws { no_flush: true, no_guard: true, ..Flaws::default() };
    let seen = (0..20).any(|seed| stress(seed, flaws).0 > 0);
    assert!(seen, "an observer sees a node that forgot what it said");
}

#[test]
fn without_flush_the_guard_stops_the_node() {
    let flaws = Flaws { no_flush: true, ..Flaws::default() };
    let runs: Vec<(usize, usize)> = (0..20).map(|seed| stress(seed, flaws)).collect();
    assert!(runs.iter().all(|(double, _)| *double == 0), "the guard holds: {runs:?}");
    assert!(runs.iter().any(|(_, halted)| *halted > 0), "and says so: {runs:?}");
}

#[test]
fn without_blocks_in_the_log_somebody_halts_or_is_late() {
    let flaws = Flaws { no_blocks: true, ..Flaws::default() };
    let stuck = (0..20).any(|seed| {
        let mut world = World::new(seed, &[1; 4]).with_flaws(flaws);
        world.start_all();
        world.run_for(1_000);
        // All die after they voted for a block that nobody stored: it is gone, and they are locked on it.
        let mut is_stuck = false;
        for _ in 0..20 {
            let time = 20 + world.source.below(120);
            world.run_for(time);
            for index in 0..4 {
                world.crash(index);
            }
            for index in 0..4 {
                world.start(index);
            }
            let (_, before) = world.heights();
            is_stuck |= world.run_to(before + 1, 60_000).is_none() || world.nodes.iter().any(|n| n.halted.is_some());
        }
        is_stuck
    });
    assert!(stuck, "a world without stored blocks comes to a halt");
}

#[test]
fn with_every_measure_nothing_is_seen() {
    for seed in seeds(6) {
        assert_eq!(stress(seed, Flaws::default()), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_lost_log_is_found_by_the_guard() {
    let mut refused = 0;
    for seed in 0..10 {
        let mut world = World::new(seed, &[1; 4]);
        world.weather = Weather { delay_ms: (50, 400), loss_percent: 0, double_percent: 0 };
        world.start_all();
        world.run_for(2_000 + seed * 37);
        world.crash(0);
        world.nodes[0].disk.borrow_mut().lose_log();
        world.start(0);
        world.run_for(20_000);
        assert!(world.double_signed.is_empty(), "seed {seed}");
        refused += usize::from(world.nodes[0].halted.is_some());
    }
    assert!(refused > 0, "a node that forgot its votes is stopped before it contradicts them");
}

#[test]
fn every_log_leads_back_to_where_its_node_was() {
    let mut checked = 0;
    for seed in seeds(20) {
        let mut world = World::new(seed, &[2, 1, 1, 1]);
        world.weather = Weather { delay_ms: (1, 700), loss_percent: 15, double_percent: 5 };
        world.start_all();
        for step in 0..50 {
            let time = 10 + world.source.below(300);
            world.run_for(time);
            if step % 10 == 9 {
                let victim = usize::try_from(world.source.below(4)).unwrap();
                world.crash(victim);
                world.start(victim);
            }
            checked += (0..4).filter(|index| world.check_replay(*index)).count();
        }
    }
    assert!(checked > 500, "only {checked} logs were read");
}
