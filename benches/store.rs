//! What the store costs: a durable commit, and the reads behind JSON-RPC.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aria_benches::{block, chain, proofs};
use aria_chain::{
    store::{OpenOptions, Page, RecordFilter, SledStore, Store},
    units::Height,
};
use aria_runtime::state::StoreView;
use criterion::{Criterion, criterion_group, criterion_main};

fn bench(criterion: &mut Criterion) {
    let (key, genesis) = chain();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (store, _) = SledStore::open(folder.path(), &genesis.block(), &genesis.changes(), OpenOptions::default())
        .expect("a fresh store opens");
    let mut number = 0;
    for records in [0_u64, 10, 100] {
        criterion.bench_function(&format!("commit a block of {records} records, synced to disk"), |bench| {
            bench.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let tip = store.tip().expect("the store is open").height;
                    let parent = store.header(tip).expect("the store is open").expect("the tip is there");
                    let chosen = proofs(&key, &genesis, &parent, number, records);
                    number += records;
                    let (block, executed) = block(&key, &genesis, &parent, &StoreView(&store), chosen);
                    let begun = Instant::now();
                    store.commit(&block, &executed.changes).expect("the next block is committed");
                    spent += begun.elapsed();
                }
                spent
            });
        });
    }
    let page = store.records(&RecordFilter::default(), &Page::default()).expect("the store is open");
    let id = page.records[0].id;
    criterion.bench_function("read a record", |bench| {
        bench.iter(|| store.record(black_box(&id)).expect("the store is open"))
    });
    let height = page.records[0].height;
    criterion.bench_function("read a block of 100 records", |bench| {
        bench.iter(|| store.block(black_box(height)).expect("the store is open"))
    });
    criterion.bench_function("read a page of 100 records", |bench| {
        bench.iter(|| store.records(&RecordFilter::default(), black_box(&Page::default())).expect("the store is open"));
    });
    criterion.bench_function("read a header", |bench| {
        bench.iter(|| store.header(black_box(Height::new(1))).expect("the store is open"))
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = bench
}
criterion_main!(benches);
