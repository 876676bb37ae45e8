//! `aria ledger verify-proof`: a record's proof, checked without a node.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use aria_chain::light::{LIGHT_PROOF_BYTES_MAX, LightProof, Trusted};
use aria_runtime::genesis::Genesis;
use serde_json::{Value, json};

use super::{EXIT_VERIFICATION_FAILED, Setting, print_json};
use crate::cli::VerifyProofArgs;

pub(super) fn verify_proof(setting: &Setting, args: &VerifyProofArgs) -> anyhow::Result<ExitCode> {
    let path = args.genesis.clone().unwrap_or_else(|| setting.existing().genesis_file());
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{}: name the chain's genesis file with --genesis", path.display()))?;
    let genesis = Genesis::from_toml(&text, None).with_context(|| path.display().to_string())?;
    let set_hash = match &args.trusted_set {
        Some(hash) => hash.parse().context("trusted-set must be 64 hex digits")?,
        None => genesis.validators().hash(),
    };
    let trusted = Trusted { chain_id: genesis.chain_id().clone(), set_hash };
    let outcome = read(&args.file)?.verify(&trusted);
    let is_valid = outcome.is_ok();
    let view = match &outcome {
        Ok(proven) => json!({
            "valid": true,
            "record_id": proven.record_id,
            "height": proven.height,
            "index": proven.index,
            "block_hash": proven.block_hash,
            "power_signed": proven.power.0.to_string(),
            "power_total": proven.power.1.to_string(),
        }),
        Err(error) => json!({"valid": false, "reason": error.to_string()}),
    };
    if setting.json {
        print_json(&view);
    } else if let Ok(proven) = outcome {
        println!(
            "record {} is final: block {} ({}), place {}, signed by {} of {} power",
            proven.record_id, proven.height, proven.block_hash, proven.index, proven.power.0, proven.power.1
        );
    } else {
        println!("the proof does not hold: {}", view["reason"].as_str().unwrap_or_default());
    }
    Ok(if is_valid { ExitCode::SUCCESS } else { ExitCode::from(EXIT_VERIFICATION_FAILED) })
}

/// The proof, bare or as the result of a JSON-RPC answer.
fn read(path: &Path) -> anyhow::Result<LightProof> {
    let mut text = String::new();
    let limit = LIGHT_PROOF_BYTES_MAX as u64 + 1;
    if path.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_string(&mut text).context("standard input")?;
    } else {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        file.take(limit).read_to_string(&mut text).with_context(|| path.display().to_string())?;
    }
    if text.len() > LIGHT_PROOF_BYTES_MAX {
        bail!("{} is longer than {LIGHT_PROOF_BYTES_MAX} bytes, no proof is", path.display());
    }
    let mut value: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    if value.get("result").is_some() {
        value = value["result"].take();
    }
    serde_json::from_value(value).with_context(|| format!("{} is no light proof", path.display()))
}
