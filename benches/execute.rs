//! What a block costs before it is stored: signatures, execution, the Merkle tree.

use std::hint::black_box;

use aria_benches::{block, chain, proof, proofs};
use aria_chain::merkle::RecordTree;
use aria_runtime::{execute::execute, state::MemoryState};
use criterion::{Criterion, criterion_group, criterion_main};

fn bench(criterion: &mut Criterion) {
    let (key, genesis) = chain();
    let parent = genesis.block().header().clone();
    let mut state = MemoryState::new();
    state.apply(&genesis.changes().entries);

    let signed = proof(&key, &genesis, &parent, 1);
    criterion.bench_function("verify the three signatures of a proof", |bench| {
        bench.iter(|| black_box(signed.clone()).verify(genesis.chain_id()).expect("a good proof"));
    });
    let (full, _) = block(&key, &genesis, &parent, &state, proofs(&key, &genesis, &parent, 0, 100));
    criterion.bench_function("execute a block of 100 records", |bench| {
        bench.iter(|| execute(black_box(full.block()), &parent, &state, &genesis).expect("a good block"));
    });
    let ids: Vec<_> = full.block().proofs().iter().map(|proof| proof.record_id()).collect();
    criterion.bench_function("Merkle proof in a block of 100 records", |bench| {
        bench.iter(|| {
            RecordTree::new(full.header().height, black_box(&ids))
                .and_then(|tree| tree.proof(50))
                .expect("there are 100")
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
