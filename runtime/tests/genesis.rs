//! The genesis file: one test per rule, and what the devnet's own file says.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

use aria_chain::certificate::Validator;
use aria_chain::error::CertificateError;
use aria_chain::ids::{BlockHash, ModelId, NodeId};
use aria_chain::units::{Epoch, Height, NanoAria};
use aria_runtime::genesis::{Genesis, GenesisError};
use aria_runtime::params::ParamsError;
use aria_runtime::state::{Candidate, MemoryState, Reader};
use aria_runtime::voters::POWER_TOTAL;
use aria_runtime::work::ShapeError;

const DEVNET: &str = include_str!("../../genesis/devnet.toml");

fn node(byte: u8) -> NodeId {
    NodeId::new([byte; 32])
}

fn devnet() -> Genesis {
    Genesis::from_toml(DEVNET, Some(node(0xab))).unwrap()
}

/// The devnet's file with one piece replaced.
fn changed(from: &str, to: &str) -> Result<Genesis, GenesisError> {
    assert!(DEVNET.contains(from), "the devnet's file has no `{from}`");
    Genesis::from_toml(&DEVNET.replacen(from, to, 1), Some(node(0xab)))
}

#[track_caller]
fn refused(from: &str, to: &str, expected: &GenesisError) {
    assert_eq!(changed(from, to).as_ref(), Err(expected));
}

/// The devnet's file with lines added at the end.
fn extended(lines: &str) -> Result<Genesis, GenesisError> {
    Genesis::from_toml(&format!("{DEVNET}\n{lines}"), Some(node(0xab)))
}

#[test]
fn the_local_key_names_the_chain() {
    let genesis = devnet();
    assert_eq!(genesis.chain_id().to_string(), "aria-devnet-abababab");
    assert_eq!(genesis.validators().members(), [Validator { node_id: node(0xab), power: POWER_TOTAL }]);
    let other = Genesis::from_toml(DEVNET, Some(node(0xcd))).unwrap();
    assert_eq!(other.chain_id().to_string(), "aria-devnet-cdcdcdcd");
    assert_ne!(other.hash(), genesis.hash());
}

#[test]
fn the_same_text_and_key_give_the_same_hash() {
    assert_eq!(devnet().hash(), devnet().hash());
    let spelled_otherwise = DEVNET.replace("1_000_000_000_000_000", "1000000000000000");
    let without_comments: String =
        spelled_otherwise.lines().map(|line| line.split('#').next().unwrap_or_default().to_owned() + "\n").collect();
    assert_eq!(Genesis::from_toml(&without_comments, Some(node(0xab))).unwrap().hash(), devnet().hash());
}

#[test]
fn every_value_is_part_of_the_hash() {
    let hash = devnet().hash();
    for (from, to) in [
        ("aria-devnet", "aria-devnot"),
        ("timestamp_ms = 1", "timestamp_ms = 2"),
        ("heartbeat_ms = 60_000", "heartbeat_ms = 60_001"),
        ("bonus_max_ppm = 2_000_000", "bonus_max_ppm = 2_000_001"),
        ("base_work = 1_000", "base_work = 1_001"),
        ("bond_nano = 1", "bond_nano = 2"),
        ("challenge_blocks = 16", "challenge_blocks = 15"),
        ("name = \"aria-tiny\"", "name = \"aria-mini\""),
        ("vocab = 4_096", "vocab = 4_097"),
    ] {
        assert_ne!(changed(from, to).unwrap().hash(), hash, "{to}");
    }
}

#[test]
fn the_resolved_file_means_the_same_without_a_local_key() {
    let genesis = devnet();
    let text = genesis.to_toml();
    assert!(!text.contains("local"), "{text}");
    for local in [None, Some(node(1))] {
        let again = Genesis::from_toml(&text, local).unwrap();
        assert_eq!(again, genesis);
        assert_eq!(again.hash(), genesis.hash());
        assert_eq!(again.to_toml(), text);
    }
    let three: String = (1..=3).map(|n| format!("[[validators]]\nkey = \"{}\"\npower = {n}\n", node(n))).collect();
    let genesis = extended(&three).unwrap();
    assert_eq!(Genesis::from_toml(&genesis.to_toml(), None).unwrap(), genesis, "scaled powers stay as they are");
}

#[test]
fn the_first_state_holds_what_the_file_says() {
    let genesis = devnet();
    let sealed = genesis.changes();
    let mut state = MemoryState::new();
    state.apply(&sealed.entries);
    assert_eq!(sealed.state_root, state.full_root());

    let reader = Reader(&state);
    assert_eq!(reader.state_root(), Ok(sealed.state_root));
    assert_eq!(reader.genesis_hash(), Ok(genesis.hash()));
    let account = reader.account(&node(0xab)).unwrap().unwrap();
    assert_eq!(account.balance, NanoAria::new(1_000_000_000_000_000));
    assert_eq!(account.bond, NanoAria::new(1_000_000_000_000));
    assert_eq!(reader.supply().unwrap().genesis, NanoAria::new(2_001_000_000_000_000), "with the faucet");
    assert!(reader.beacon().is_ok());
    assert_eq!(reader.supply().unwrap().issued, NanoAria::ZERO);
    let models = reader.models(10).unwrap();
    assert_eq!(models.len(), 1);
    assert_eq!(models[0].1.name, "aria-tiny");
    assert_eq!(reader.model(&models[0].0).unwrap().unwrap(), models[0].1);
    assert_eq!(reader.epoch_totals(Epoch::ZERO).unwrap().blocks, 0);
    assert_eq!(reader.voters().as_ref(), Ok(genesis.validators()));
    assert_eq!(reader.next_voters().as_ref(), Ok(genesis.validators()));
    let first = Candidate { base: POWER_TOTAL, ..Candidate::default() };
    assert_eq!(reader.candidates(), Ok(vec![(node(0xab), first)]));
}

#[test]
fn the_first_block_commits_to_the_first_state() {
    let genesis = devnet();
    let block = genesis.block();
    assert_eq!(block.header().state_root, genesis.changes().state_root);
    assert_eq!(block.header().height, Height::ZERO);
    assert_eq!(block.header().parent, BlockHash::ZERO);
    assert_eq!(block.validators(), genesis.validators());
    assert_ne!(block.hash(), changed("heartbeat_ms = 60_000", "heartbeat_ms = 60_001").unwrap().block().hash());
}

#[test]
fn a_validator_has_an_account_even_if_none_is_listed() {
    let text = format!("{DEVNET}\n[[validators]]\nkey = \"{}\"\npower = 5\n", node(9));
    let genesis = Genesis::from_toml(&text, Some(node(0xab))).unwrap();
    let mut state = MemoryState::new();
    state.apply(&genesis.changes().entries);
    assert_eq!(Reader(&state).account(&node(9)).unwrap().unwrap().balance, NanoAria::ZERO);
    assert_eq!(
        (genesis.validators().power_of(&node(9)), genesis.validators().total_power()),
        (833_333_333, POWER_TOTAL)
    );
}

#[test]
fn unreadable_text_is_refused() {
    for (from, to) in [
        ("version = 6", "version = "),
        ("power = 1", "power = -1"),
        ("power = 1", "power = 1\nstake = 5"),
        ("heartbeat_ms = 60_000", "hartbeat_ms = 60_000"),
        ("stamp_zero_digits = 2 ", "stamp_zero_digits = 256 "),
        ("version = 6", "version = 6\nstake_ppm = 5"),
    ] {
        assert!(matches!(changed(from, to), Err(GenesisError::Toml(_))), "{to}");
    }
}

#[test]
fn versions_and_names_are_checked() {
    refused("version = 6", "version = 5", &GenesisError::Version(5));
    let older = Genesis::from_toml("version = 1\nfield = \"of another time\"", None);
    assert_eq!(older, Err(GenesisError::Version(1)), "before anything else is read");
    assert!(
        matches!(changed("aria-devnet", "Aria Devnet"), Err(GenesisError::ChainId { chain_id, .. }) if chain_id == "Aria Devnet-abababab")
    );
    let long = "x".repeat(65);
    refused("\"aria-tiny\"", &format!("\"{long}\""), &GenesisError::ModelName(long));
    refused("\"aria-tiny\"", "\"\"", &GenesisError::ModelName(String::new()));
    refused("\"aria-tiny\"", "\"two words\"", &GenesisError::ModelName("two words".to_owned()));
}

#[test]
fn local_needs_a_local_key() {
    let missing = |field| Err(GenesisError::LocalKeyMissing { field });
    assert_eq!(Genesis::from_toml(DEVNET, None), missing("accounts.key"));
    let accounts_named =
        DEVNET.replace("[[accounts]]\nkey = \"local\"", &format!("[[accounts]]\nkey = \"{}\"", node(1)));
    assert_eq!(Genesis::from_toml(&accounts_named, None), missing("validators.key"));
}

#[test]
fn keys_and_digests_are_hex() {
    let bad_key = changed("key = \"local\"", "key = \"locale\"");
    assert!(matches!(bad_key, Err(GenesisError::Key { field: "validators.key", .. })), "{bad_key:?}");
    let bad_digest = changed("digest = \"", "digest = \"x");
    assert!(matches!(bad_digest, Err(GenesisError::Digest { .. })), "{bad_digest:?}");
}

#[test]
fn validators_are_some_and_powerful() {
    let without = DEVNET.replace("[[validators]]\nkey = \"local\"\npower = 1\n", "");
    let text = without.replacen("version = 6", "version = 6\nvalidators = []", 1);
    assert_eq!(Genesis::from_toml(&text, Some(node(1))), Err(CertificateError::SetSize { got: 0 }.into()));
    refused("power = 1", "power = 0", &CertificateError::NoPower { node: node(0xab) }.into());
    refused("power = 1", "power = 2_000_000_000_000_000_000", &CertificateError::PowerTotal.into());
    let twice = extended("[[validators]]\nkey = \"local\"\npower = 1");
    assert_eq!(twice, Err(GenesisError::DuplicateValidator(node(0xab))));
    let crowd: String = (1..=100).map(|i| format!("[[validators]]\nkey = \"{}\"\npower = 1\n", node(i))).collect();
    assert_eq!(extended(&crowd), Err(CertificateError::SetSize { got: 101 }.into()));
}

#[test]
fn accounts_are_distinct_and_add_up() {
    let twice = extended("[[accounts]]\nkey = \"local\"\nbalance_nano = 1");
    assert_eq!(twice, Err(GenesisError::DuplicateAccount(node(0xab))));
    let rich = |amount: u64| format!("[[accounts]]\nkey = \"{}\"\nbalance_nano = {amount}\n", node(1));
    // TOML integers end at 2^63 - 1, so it takes three accounts to overflow.
    let max = i64::MAX.unsigned_abs();
    let two = format!("{}[[accounts]]\nkey = \"{}\"\nbalance_nano = {max}\n", rich(max), node(2));
    assert_eq!(extended(&two), Err(GenesisError::SupplyOverflow));
    assert!(extended(&rich(max)).is_ok());
}

#[test]
fn models_are_distinct_and_possible() {
    let entry = &DEVNET[DEVNET.find("[[models]]").unwrap()..];
    let digest: ModelId = entry.split('"').nth(3).unwrap().parse().unwrap();
    assert_eq!(extended(entry), Err(GenesisError::DuplicateModel(digest)));
    let error = ShapeError::Zero { field: "layers" };
    refused("layers = 6", "layers = 0", &GenesisError::Shape { name: "aria-tiny".to_owned(), error });
}

#[test]
fn contradicting_parameters_are_refused() {
    let error = ParamsError::HeartbeatTooShort { heartbeat_ms: 100, block_interval_ms: 200 };
    refused("heartbeat_ms = 60_000", "heartbeat_ms = 100", &GenesisError::Params(error));
}
