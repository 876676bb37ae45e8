//! Kill -9 at any moment: nothing that was acknowledged is lost, and nothing is half done.
//!
//! The test runs itself as a child that commits blocks and says so, kills it, and opens what it left.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aria_chain::store::Store;
use aria_chain::units::Height;

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Chain, open, proof, verify};

/// Set for the child: the folder of its store.
const FOLDER: &str = "ARIA_TEST_CRASH_FOLDER";

/// What a child said before it died. Each line was written after the call returned.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Heights and block hashes.
    blocks: Vec<(u64, String)>,
    /// Nonces of proofs that wait.
    pending: BTreeSet<u64>,
}

#[test]
fn child_that_commits_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut chain = Chain::new(1);
    let (store, _) = open(Path::new(&folder), &chain).unwrap();
    chain.resume(&store.tip().unwrap());
    loop {
        let height = chain.draft.height.get();
        let (early, late) = (proof(height * 10), proof(height * 10 + 1));
        store.put_pending(&early).unwrap();
        println!("\npending {}", height * 10);
        store.put_pending(&late).unwrap();
        println!("\npending {}", height * 10 + 1);
        // The second proof stays for the block above.
        let mut proofs = vec![early];
        proofs.extend(
            store
                .pending()
                .unwrap()
                .into_iter()
                .filter(|waiting| waiting.request.nonce < height * 10)
                .map(|waiting| waiting.verify(&support::chain_id()).unwrap()),
        );
        let (block, changes) = chain.next(proofs);
        store.commit(&block, &changes).unwrap();
        println!("\nblock {height} {}", block.hash());
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_commits_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets a child run for a while, kills it, and adds what it said.
fn run_and_kill(folder: &Path, wait: Duration, acknowledged: &mut Acknowledged) {
    let mut child = start(folder);
    std::thread::sleep(wait);
    child.kill().unwrap();
    child.wait().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["pending", nonce] => drop(nonce.parse().map(|nonce| acknowledged.pending.insert(nonce))),
            ["block", height, hash] if hash.len() == 64 => {
                acknowledged.blocks.push((height.parse().unwrap(), hash.to_owned()));
            }
            _ => {}
        }
    }
}

/// Whether all that was acknowledged is there.
fn check(folder: &Path, acknowledged: &Acknowledged) -> u64 {
    let chain = Chain::new(1);
    let (store, report) = open(folder, &chain).unwrap();
    assert!(report.caches_moved.is_empty(), "a kill damages nothing: {report:?}");
    let tip = store.tip().unwrap().height.get();
    for (height, hash) in &acknowledged.blocks {
        let header = store.header(Height::new(*height)).unwrap();
        assert_eq!(header.map(|header| header.hash().to_string()).as_ref(), Some(hash), "height {height} of {tip}");
    }
    let waiting: BTreeSet<u64> = store.pending().unwrap().iter().map(|proof| proof.request.nonce).collect();
    for nonce in &acknowledged.pending {
        let is_final = store.record(&proof(*nonce).record_id()).unwrap().is_some();
        assert!(is_final != waiting.contains(nonce), "proof {nonce} is in a block or waits, and not both");
    }
    assert_eq!(store.state(b"supply").unwrap(), Some(tip.to_string().into_bytes()));
    assert_eq!(store.state_scan(b"height/", None, 1_000).unwrap().len(), usize::try_from(tip.min(1_000)).unwrap());
    assert_eq!(verify(&store), Ok(tip + 1));
    tip
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut tips = Vec::new();
    // Short waits hit the opening, longer ones the commits.
    for wait_ms in [3, 250, 12, 90, 30, 310, 60, 7, 180, 45, 120, 400] {
        run_and_kill(folder.path(), Duration::from_millis(wait_ms), &mut acknowledged);
        if acknowledged.blocks.is_empty() && !folder.path().join("format").exists() {
            continue; // killed before it did anything
        }
        tips.push(check(folder.path(), &acknowledged));
    }
    assert!(tips.is_sorted(), "a chain only grows: {tips:?}");
    assert!(acknowledged.blocks.len() > 12, "the child did commit: {tips:?}");
    assert!(acknowledged.pending.len() > 24);
}
