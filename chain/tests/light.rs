//! Light proofs: what holds, and that nothing holds after any change.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use aria_chain::block::FinalBlock;
use aria_chain::ids::Digest;
use aria_chain::light::{FinalHeader, LIGHT_STEPS_MAX, LightError, LightProof, LightStep, Trusted};
use aria_chain::merkle::RecordTree;

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Chain, chain_id, proof, validators};

fn block(chain: &mut Chain) -> FinalBlock {
    chain.next((1..=5).map(proof).collect()).0
}

fn light(block: &FinalBlock, index: u32) -> LightProof {
    let records: Vec<_> = block.block().proofs().iter().map(|proof| proof.record_id()).collect();
    let path = RecordTree::new(block.header().height, &records).unwrap().proof(index).unwrap();
    LightProof::new(Vec::new(), path, step(block, 4))
}

fn step(block: &FinalBlock, members: u8) -> LightStep {
    let (header, certificate) = (block.header().clone(), block.certificate().clone());
    LightStep::from(&FinalHeader { header, certificate, validators: validators(members) })
}

fn trusted() -> Trusted {
    Trusted { chain_id: chain_id(), set_hash: validators(4).hash() }
}

#[test]
fn a_final_record_is_proven_with_nothing_but_a_trusted_set() {
    let mut chain = Chain::new(4);
    let block = block(&mut chain);
    for index in 0..5 {
        let proof = light(&block, index);
        let text = serde_json::to_string(&proof).unwrap();
        assert!(text.len() < aria_chain::light::LIGHT_PROOF_BYTES_MAX / 8);
        let proven = serde_json::from_str::<LightProof>(&text).unwrap().verify(&trusted()).unwrap();
        assert_eq!((proven.height, proven.index, proven.block_hash), (block.header().height, index, block.hash()));
        assert_eq!(proven.record_id, block.block().proofs()[usize::try_from(index).unwrap()].record_id());
        assert!(proven.power.0 * 3 > proven.power.1 * 2);
    }
}

#[test]
fn another_chain_another_set_and_another_block_are_named() {
    let mut chain = Chain::new(4);
    let (first, second) = (block(&mut chain), chain.next(vec![proof(9)]).0);
    let good = light(&first, 0);
    let other = Trusted { chain_id: "aria-other".parse().unwrap(), ..trusted() };
    assert!(matches!(good.verify(&other), Err(LightError::Chain { .. })));
    let other = Trusted { set_hash: Digest::new([1; 32]), ..trusted() };
    assert!(matches!(good.verify(&other), Err(LightError::Set { .. })));
    let mixed = LightProof { record_proof: light(&second, 0).record_proof, ..good.clone() };
    assert!(matches!(mixed.verify(&trusted()), Err(LightError::Root { .. })));
    let mixed = LightProof { certificate: light(&second, 0).certificate, ..good.clone() };
    assert!(matches!(mixed.verify(&trusted()), Err(LightError::Certificate(_))));
    let long = LightProof { header: "00".repeat(100_000), ..good };
    assert!(matches!(long.verify(&trusted()), Err(LightError::Codec(_))));
}

#[test]
fn one_changed_digit_anywhere_is_found() {
    let mut chain = Chain::new(4);
    let block = block(&mut chain);
    let trusted = trusted();
    let text = serde_json::to_string(&light(&block, 3)).unwrap();
    let digits: Vec<usize> = text.char_indices().filter(|(_, c)| c.is_ascii_hexdigit()).map(|(at, _)| at).collect();
    // Every digit of the header and the path, and a part of the many signatures.
    for at in digits.into_iter().step_by(5) {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
        let changed = String::from_utf8(changed).unwrap();
        if changed == text {
            continue;
        }
        let holds = serde_json::from_str::<LightProof>(&changed).is_ok_and(|proof| proof.verify(&trusted).is_ok());
        assert!(!holds, "a change at {at} is not found: {changed}");
    }
}

#[test]
fn trust_goes_over_to_the_sets_that_follow() {
    let mut chain = Chain::new(4);
    chain.next(Vec::new());
    let first = chain.hand_over(3).0;
    chain.next(Vec::new());
    let second = chain.hand_over(5).0;
    let block = block(&mut chain);
    let steps = vec![step(&first, 4), step(&second, 3)];
    let path = light(&block, 2).record_proof;
    let good = LightProof::new(steps.clone(), path, step(&block, 5));
    assert_eq!(good.verify(&trusted()).unwrap().height, block.header().height);
    let newer = Trusted { set_hash: validators(5).hash(), ..trusted() };
    assert!(
        LightProof { steps: Vec::new(), ..good.clone() }.verify(&newer).is_ok(),
        "who trusts the last set needs no steps"
    );
    assert!(matches!(good.verify(&newer), Err(LightError::Set { .. })));
    for changed in
        [Vec::new(), vec![steps[0].clone()], vec![steps[1].clone()], vec![steps[1].clone(), steps[0].clone()]]
    {
        let proof = LightProof { steps: changed, ..good.clone() };
        assert!(matches!(proof.verify(&trusted()), Err(LightError::Set { .. })));
    }
    let forged = LightStep { certificate: steps[1].certificate.clone(), ..steps[0].clone() };
    let proof = LightProof { steps: vec![forged, steps[1].clone()], ..good.clone() };
    assert!(matches!(proof.verify(&trusted()), Err(LightError::Certificate(_))));
    // Back to the first set and on from there again: every part is true, and the way is not.
    let third = chain.hand_over(4).0;
    let round = vec![steps[0].clone(), steps[1].clone(), step(&third, 5), steps[0].clone(), steps[1].clone()];
    let proof = LightProof { steps: round, ..good.clone() };
    assert!(matches!(proof.verify(&trusted()), Err(LightError::Order { .. })));
    let proof = LightProof { steps: vec![steps[0].clone(); LIGHT_STEPS_MAX + 1], ..good };
    assert_eq!(proof.verify(&trusted()), Err(LightError::TooManySteps { got: LIGHT_STEPS_MAX + 1 }));
}
