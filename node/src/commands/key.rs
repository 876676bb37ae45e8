//! `aria key`: the node's identity, and keys of the OpenAI door.

use std::process::ExitCode;

use serde_json::json;

use super::{Setting, print_json};
use crate::data_dir::DataDir;

/// Bytes of an API key: as hard to guess as a private key.
const API_KEY_BYTES: usize = 24;

pub(super) fn show(setting: &Setting) -> anyhow::Result<ExitCode> {
    let node_id = setting.own_key()?.node_id();
    if setting.json {
        print_json(&json!({"node_id": node_id, "file": setting.existing().key_file()}));
    } else {
        println!("{node_id}");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn api(setting: &Setting) -> anyhow::Result<ExitCode> {
    let dir = DataDir::create(&setting.data_dir)?;
    let mut bytes = [0; API_KEY_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("the system's source of randomness failed: {error}"))?;
    let key = format!("aria-{}", hex::encode(bytes));
    let mut keys = dir.api_keys()?;
    keys.push(key.clone());
    dir.write_private(&dir.api_keys_file(), (keys.join("\n") + "\n").as_bytes())?;
    if setting.json {
        print_json(&json!({"api_key": key, "file": dir.api_keys_file()}));
    } else {
        println!("{key}");
        eprintln!("Clients send it as `Authorization: Bearer {key}`. A running node reads it at its next start.");
    }
    Ok(ExitCode::SUCCESS)
}
