//! Tables that pin numbers: rewards and ratings of the conformance list, the devnet's parameters, work of known models.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

use aria_chain::ids::NodeId;
use aria_chain::units::{NanoAria, WorkUnits};
use aria_runtime::genesis::Genesis;
use aria_runtime::params::Params;
use aria_runtime::rating::rating;
use aria_runtime::reward::{Effort, reward};
use aria_runtime::work::{Shape, counted_tokens, stage_share, work};

fn devnet() -> Params {
    let text = include_str!("../../genesis/devnet.toml");
    Genesis::from_toml(text, Some(NodeId::new([1; 32]))).unwrap().params().clone()
}

/// Latency in ms of an answer of 50 tokens, energy per generated token in uJ, reward in nano-ARIA. The list of the
/// seed formula without a floor on quality; where that divides by zero, unknown energy is neutral.
const REWARDS: [(u64, u64, u64); 14] = [
    (0, 28_000, 2_000_000),
    (500, 28_000, 2_000_000),
    (1_000, 28_000, 2_000_000),
    (1_000, 150_000, 1_000_000),
    (1_000, 100_000, 1_500_000),
    (1_200, 28_000, 1_900_000),
    (1_250, 28_500, 1_875_000),
    (3_000, 150_000, 500_000),
    (5_000, 150_000, 0),
    (6_000, 150_000, 0),
    (1_000, 300_000, 500_000),
    (1_000, 301_000, 500_000),
    (1_000, 9_000_000, 500_000),
    (1_000, 0, 1_000_000),
];

#[test]
fn rewards_of_the_conformance_list() {
    let params = devnet();
    for (latency_ms, energy_uj, nano) in REWARDS {
        let one_token = Effort {
            tokens: 1,
            first_token_ms: latency_ms,
            latency_ms,
            energy_uj,
            is_measured: true,
            is_vouched: true,
            ops: 0,
        };
        assert_eq!(reward(&one_token, &params), NanoAria::new(nano), "{latency_ms} ms, {energy_uj} uJ, one token");
    }
}

#[test]
fn rewards_of_longer_answers_at_the_same_pace() {
    let params = devnet();
    for (latency_ms, energy_uj, nano) in REWARDS {
        // The first token takes what is left after 50 further ones at an even pace.
        let pace_ms = latency_ms / 100;
        let first_token_ms = latency_ms - 50 * pace_ms;
        for tokens in [2, 51, 1_001] {
            let effort = Effort {
                tokens,
                first_token_ms,
                latency_ms: first_token_ms + (tokens - 1) * pace_ms,
                energy_uj: energy_uj * tokens,
                is_measured: true,
                is_vouched: true,
                ops: 0,
            };
            assert_eq!(
                reward(&effort, &params),
                NanoAria::new(nano),
                "{latency_ms} ms, {energy_uj} uJ, {tokens} tokens"
            );
        }
    }
}

#[test]
fn estimated_energy_is_capped_at_the_neutral_bonus() {
    let params = devnet();
    for (latency_ms, energy_uj, nano) in REWARDS {
        let estimated = Effort {
            tokens: 1,
            first_token_ms: latency_ms,
            latency_ms,
            energy_uj,
            is_measured: false,
            is_vouched: true,
            ops: 0,
        };
        let neutral = Effort { energy_uj: 0, ..estimated };
        let expected = NanoAria::new(nano).min(reward(&neutral, &params));
        assert_eq!(reward(&estimated, &params), expected, "{latency_ms} ms, {energy_uj} uJ");
    }
}

#[test]
fn ratings_of_the_conformance_list() {
    for (millijoules_x100, letter) in [
        (2_000, "A+"),
        (2_999, "A+"),
        (3_000, "A"),
        (4_000, "A"),
        (4_999, "A"),
        (5_000, "B"),
        (9_999, "B"),
        (10_000, "C"),
        (14_999, "C"),
        (15_000, "D"),
    ] {
        for tokens in [1, 100] {
            let letter_found = rating(millijoules_x100 * 10 * tokens, tokens).unwrap().to_string();
            assert_eq!(letter_found, letter, "{millijoules_x100} / 100 mJ");
        }
    }
    assert_eq!(rating(0, 0), None);
}

#[test]
fn the_devnet_takes_the_conformance_values() {
    let params = devnet();
    assert_eq!(params.check(), Ok(()));
    assert_eq!(params.energy_uj_max, 1_000_000 * 1_000, "1,000,000 mJ");
    assert_eq!(params.latency_ms_max, 300_000);
    // Not the hour of the conformance values: docs/decisions/0007.
    assert_eq!(params.record_age_ms_max, 7 * 24 * 3_600 * 1_000);
    assert_eq!(params.clock_skew_ms, 30_000);
    assert_eq!(params.heartbeat_ms, 60_000);
    assert_eq!(params.epoch_blocks, 100);
    assert_eq!(params.stamp_zero_digits, 2);
    assert_eq!(params.base_rate_nano, 1_000_000, "0.001 ARIA");
}

#[test]
fn work_of_known_models() {
    let tiny = Shape { layers: 6, dim: 256, ffn: 768, heads: 4, kv_heads: 2, head_dim: 64, vocab: 4_096 };
    let two_billion =
        Shape { layers: 30, dim: 2_560, ffn: 6_912, heads: 20, kv_heads: 5, head_dim: 128, vocab: 128_256 };
    assert_eq!(tiny.ops_per_token(), Ok(11_534_336));
    assert_eq!(two_billion.ops_per_token(), Ok(4_824_760_320));
    // 20 prompt tokens and 50 generated ones.
    assert_eq!(work(counted_tokens(20, 50, 2), 11_534_336), WorkUnits::new(70 * 11_534_336));
}

#[test]
fn the_plan_of_three_stages_shares_evenly() {
    // 24 layers on three nodes of eight.
    for (start, end) in [(0, 8), (8, 16), (16, 24)] {
        assert_eq!(stage_share(3_000_000, start, end, 24), 1_000_000);
    }
}
