//! Re-execution of a whole chain from a store: clean, and with one thing wrong at a time.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

mod scenario;

use std::ops::ControlFlow;

use aria_chain::error::{BlockError, CertificateError};
use aria_chain::record::{BackendClass, RecordStatus};
use aria_chain::store::{MemoryStore, Store};
use aria_chain::units::Height;
use aria_runtime::execute::BlockFault;
use aria_runtime::genesis::Genesis;
use aria_runtime::rules::record::RecordFault;
use aria_runtime::state::{Reader, StoreView, View, key as state_key};
use aria_runtime::verify::{VerifyFault, VerifyReport, verify_chain};
use scenario::tampered::Tampered;
use scenario::{Scenario, finalise, height, key};

/// Five blocks: two records, one record, a heartbeat, three records (one external), a heartbeat.
fn stored() -> (Tampered, Scenario) {
    let mut chain = Scenario::devnet();
    let store = MemoryStore::new(&chain.genesis.block(), &chain.genesis.changes()).unwrap();
    for records in [2, 1, 0, 3, 0] {
        let proofs: Vec<_> = (0..records)
            .map(|place| {
                chain.proof(|claim| {
                    if place == 2 {
                        claim.record.backend = BackendClass::External;
                        claim.record.transcript_root = aria_chain::ids::Digest::ZERO;
                    }
                })
            })
            .collect();
        let distance = if records == 0 { 60_000 } else { 200 };
        let (block, executed) = chain.advance(chain.after_ms(distance), proofs);
        store.commit(&finalise(block, &chain.genesis), &executed.changes).unwrap();
    }
    (Tampered::new(store), chain)
}

fn verify(store: &Tampered, genesis: &Genesis, from: u64, to: u64) -> VerifyReport {
    verify_chain(store, genesis, height(from), height(to), &mut |_| ControlFlow::Continue(()))
}

/// The first fault of a store after tampering.
#[track_caller]
fn found(tamper: impl FnOnce(&mut Tampered)) -> (Height, VerifyFault) {
    let (mut store, chain) = stored();
    tamper(&mut store);
    let report = verify(&store, &chain.genesis, 0, 99);
    assert!(!report.is_state_compared);
    report.fault.expect("the tampering is found")
}

#[test]
fn a_clean_chain_verifies() {
    let (store, chain) = stored();
    let mut seen = Vec::new();
    let report = verify_chain(&store, &chain.genesis, height(0), height(99), &mut |height| {
        seen.push(height.get());
        ControlFlow::Continue(())
    });
    assert_eq!(report.fault, None);
    assert_eq!((report.from, report.to), (height(0), height(5)));
    assert_eq!((report.blocks, report.records), (6, 6));
    assert!(report.is_state_compared && !report.is_stopped);
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_part_of_a_chain_verifies() {
    let (store, chain) = stored();
    let report = verify(&store, &chain.genesis, 2, 4);
    assert_eq!(report.fault, None);
    assert_eq!((report.blocks, report.records, report.to), (3, 4, height(4)));
    assert!(!report.is_state_compared, "the stored state is that of the tip");
}

#[test]
fn the_caller_may_stop() {
    let (store, chain) = stored();
    let report = verify_chain(&store, &chain.genesis, height(0), height(99), &mut |at| {
        if at == height(2) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(report.is_stopped && report.fault.is_none() && !report.is_state_compared);
    assert_eq!(report.blocks, 3);
}

#[test]
fn a_block_that_comes_meanwhile_is_no_fault() {
    let (store, mut chain) = stored();
    let genesis = chain.genesis.clone();
    let report = verify_chain(&store, &genesis, height(0), height(99), &mut |at| {
        if at == height(5) {
            let proofs = vec![chain.proof(|_| {})];
            let (block, executed) = chain.advance(chain.soon(), proofs);
            store.commit(&finalise(block, &chain.genesis), &executed.changes).unwrap();
        }
        ControlFlow::Continue(())
    });
    assert_eq!((report.fault, report.to, report.is_state_compared), (None, height(5), false));
    let report = verify(&store, &genesis, 0, 99);
    assert_eq!((report.fault, report.to, report.is_state_compared), (None, height(6), true));
}

#[test]
fn another_genesis_is_found() {
    let (store, chain) = stored();
    let other = Scenario::new(&scenario::DEVNET.replace("heartbeat_ms = 60_000", "heartbeat_ms = 60_001")).genesis;
    let report = verify(&store, &other, 0, 99);
    let fault = VerifyFault::Genesis { got: chain.genesis.block().hash(), expected: other.block().hash() };
    assert_eq!(report.fault, Some((height(0), fault)));
    assert_eq!(report.blocks, 0);
}

#[test]
fn a_missing_block_is_found() {
    let fault = found(|store| store.block = Box::new(|block| (block.header.height != height(3)).then_some(block)));
    assert_eq!(fault, (height(3), VerifyFault::Missing));
}

#[test]
fn a_missing_certificate_is_found() {
    let fault = found(|store| {
        store.block = Box::new(|mut block| {
            block.certificate = block.certificate.filter(|certificate| certificate.height != height(2));
            Some(block)
        });
    });
    assert_eq!(fault, (height(2), VerifyFault::NoCertificate));
}

#[test]
fn a_forged_certificate_is_found() {
    let fault = found(|store| {
        store.block = Box::new(|mut block| {
            if let Some(certificate) = block.certificate.as_mut().filter(|it| it.height == height(4)) {
                certificate.signatures.clear();
            }
            Some(block)
        });
    });
    let none = CertificateError::NoQuorum { power: 0, total: aria_runtime::voters::POWER_TOTAL };
    assert_eq!(fault, (height(4), VerifyFault::Certificate(none)));
}

#[test]
fn a_changed_record_is_found() {
    let (at, fault) = found(|store| {
        store.block = Box::new(|mut block| {
            if block.header.height == height(4) {
                block.body.proofs[1].record.tokens_generated += 1;
            }
            Some(block)
        });
    });
    assert_eq!(at, height(4));
    assert!(matches!(fault, VerifyFault::Malformed(BlockError::Proof { index: 1, .. })), "{fault}");
}

#[test]
fn a_dropped_record_is_found() {
    let (at, fault) = found(|store| {
        store.block = Box::new(|mut block| {
            block.body.proofs.truncate(2);
            Some(block)
        });
    });
    assert_eq!(at, height(4));
    assert_eq!(fault, VerifyFault::Malformed(BlockError::RecordCount { header: 3, body: 2 }));
}

#[test]
fn a_changed_header_is_found() {
    let (at, fault) = found(|store| {
        store.block = Box::new(|mut block| {
            if block.header.height == height(2) {
                block.header.timestamp_ms = block.header.timestamp_ms.plus(aria_chain::units::Millis::new(1)).unwrap();
            }
            Some(block)
        });
    });
    assert_eq!(at, height(2));
    // Without its stamp, or by luck with one but without its certificate.
    assert!(matches!(fault, VerifyFault::Malformed(BlockError::Stamp { .. }) | VerifyFault::Certificate(_)), "{fault}");
}

#[test]
fn a_block_that_breaks_a_rule_is_found_though_its_validator_signed_it() {
    // The only validator signs a block that counts a request twice, and a store without runtime takes it.
    let mut chain = Scenario::devnet();
    let store = MemoryStore::new(&chain.genesis.block(), &chain.genesis.changes()).unwrap();
    let claim = chain.claim();
    let first = chain.sign(claim.clone());
    let (block, executed) = chain.advance(chain.soon(), vec![first.clone()]);
    store.commit(&finalise(block, &chain.genesis), &executed.changes).unwrap();
    let mut other = claim;
    other.record.tokens_generated = 7;
    let second = chain.sign(other);
    let record = second.record_id();
    let bad = aria_chain::block::ProposedBlock::seal(chain.draft(chain.soon()), vec![second].into(), 2).unwrap();
    let nothing = aria_chain::store::StateChanges { state_root: chain.state.full_root(), ..Default::default() };
    store.commit(&finalise(bad, &chain.genesis), &nothing).unwrap();

    let report = verify(&Tampered::new(store), &chain.genesis, 2, 2);
    let fault = RecordFault::RequestCounted { request: first.request_id(), height: height(1) };
    let fault = BlockFault::Record { index: 0, record, fault };
    assert_eq!(report.fault, Some((height(2), VerifyFault::Invalid(fault))));
    assert_eq!(report.to, height(2), "nothing of the part asked for was verified");
    assert_eq!(report.blocks, 0);
}

#[test]
fn a_changed_status_is_found() {
    let (at, fault) = found(|store| {
        store.record = Box::new(|mut entry| {
            if entry.height == height(4) && entry.status == RecordStatus::Included {
                entry.status = RecordStatus::Verified;
            }
            Some(entry)
        });
    });
    assert_eq!(at, height(4));
    let VerifyFault::Status { got, expected, .. } = &fault else { panic!("{fault}") };
    assert_eq!((*got, *expected), (Some(RecordStatus::Verified), RecordStatus::Included));
    assert!(fault.to_string().contains("has status verified in the store, its block gives included"), "{fault}");
    let (_, fault) = found(|store| store.record = Box::new(|_| None));
    assert!(fault.to_string().contains("has status none"), "{fault}");
}

#[test]
fn a_changed_hidden_or_added_state_entry_is_found() {
    let account = state_key::account(&key(1).node_id());
    let hex: String = account.iter().map(|byte| format!("{byte:02x}")).collect();
    let differs = (height(5), VerifyFault::StateEntry { key: hex });

    let theirs = account.clone();
    let changed = found(|store| {
        store.entry = Box::new(move |(key, mut value)| {
            if key == theirs {
                value[1] ^= 1;
            }
            Some((key, value))
        });
    });
    assert_eq!(changed, differs);
    let theirs = account.clone();
    assert_eq!(found(|store| store.entry = Box::new(move |entry| (entry.0 != theirs).then_some(entry))), differs);
    // The last entry of all, hidden.
    let (at, fault) = found(|store| store.entry = Box::new(|entry| (entry.0[0] != 0x07).then_some(entry)));
    assert_eq!(at, height(5));
    assert!(matches!(&fault, VerifyFault::StateEntry { key } if key.starts_with("07")), "{fault}");
    // An entry that no block wrote, in the place of another.
    let theirs = account;
    let (at, fault) = found(|store| {
        store.entry = Box::new(move |(key, value)| {
            let key = if key == theirs { vec![0x02, 0x00] } else { key };
            Some((key, value))
        });
    });
    assert_eq!((at, fault), (height(5), VerifyFault::StateEntry { key: "0200".to_owned() }));
}

#[test]
fn a_store_reads_like_the_state_it_keeps() {
    let (store, chain) = stored();
    let view = StoreView(&store.inner);
    let whole = view.scan(&[], usize::MAX).unwrap();
    let expected: Vec<_> = chain.state.entries().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert_eq!(whole, expected);
    assert_eq!(view.scan(&[], 2).unwrap(), expected[..2]);
    assert_eq!(view.scan(state_key::REQUESTS, usize::MAX).unwrap(), chain.state.scan(state_key::REQUESTS, 99).unwrap());
    assert_eq!(Reader(&view).supply(), chain.reader().supply());
    assert_eq!(Reader(&view).state_root().unwrap(), store.tip().unwrap().state_root);
    // A block can be proposed on it.
    let mut next = chain;
    let proof = next.proof(|_| {});
    let slot = aria_runtime::propose::Slot {
        parent: &next.tip,
        round: aria_chain::units::Round::ZERO,
        timestamp: next.soon(),
        proposer: key(1).node_id(),
        vrf: next.vrf(),
    };
    let on_store = aria_runtime::propose::propose(slot, vec![proof.clone()].into(), &view, &next.genesis).unwrap();
    let in_memory = next.propose(next.soon(), vec![proof]).unwrap();
    assert_eq!(on_store.block, in_memory.block);
}
