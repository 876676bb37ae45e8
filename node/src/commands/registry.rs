//! `aria model register`, `confirm` and `registered`: models on the chain. What is signed here was read in a file of this
//! machine, never taken from the command line.

use std::process::ExitCode;

use anyhow::{Context, bail};
use aria_chain::ids::Digest;
use aria_chain::model::{ModelName, Shape, proposal_id};
use aria_chain::transaction::Action;
use aria_chain::units::NanoAria;
use serde_json::{Value, json};

use super::{Setting, print_json, wallet};
use crate::amount::Amount;
use crate::cli::{ConfirmArgs, RegisterArgs};
use crate::client::rpc;
use crate::model::locate;
use crate::registrar::files::{Files, Found};

/// Pages of a listing: a hundred models each.
const PAGES_MAX: usize = 1_000;

pub(super) async fn register(setting: &Setting, args: RegisterArgs) -> anyhow::Result<ExitCode> {
    let located = locate(&args.model, &setting.existing().models())?;
    let found = read(&args.model, setting)?;
    let name = ModelName::new(args.name.unwrap_or(located.name))?;
    let proposal = proposal_id(&found.model, &name, &found.shape);
    let action = Action::RegisterModel { model: found.model, name: name.clone(), shape: found.shape };
    let mut told = wallet::order(setting, &setting.own_key()?, action, &args.order).await?;
    if setting.json {
        told["model_id"] = json!(found.model);
        told["name"] = json!(name.as_str());
        told["shape"] = json!(found.shape);
        told["proposal"] = json!(proposal);
        print_json(&told);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", wallet::said(&told)?);
    println!("model {}", found.model);
    println!("is proposed as `{name}` with {} operations a token", ops(&found.shape)?);
    eprintln!("Voters who have the model confirm it by themselves; `aria model registered` shows how far it has come.");
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn confirm(setting: &Setting, args: ConfirmArgs) -> anyhow::Result<ExitCode> {
    let found = match &args.file {
        Some(model) => Some(read(model, setting)?).filter(|found| found.model == args.model),
        None => Files::new(setting.existing().models()).find(&args.model, &|| false),
    };
    let Some(found) = found else {
        bail!(
            "no file here is model {}, so its shape cannot be checked: put it into {} or name it with --file",
            args.model,
            setting.existing().models().display()
        );
    };
    let url = wallet::door(setting, args.order.rpc.as_deref())?;
    let (_, proposals) = list(&url, Some("proposed")).await?;
    let proposal = choose(&proposals, &found, args.name.as_deref())?;
    let action = Action::ConfirmModel { model: args.model, proposal };
    let told = wallet::order(setting, &setting.own_key()?, action, &args.order).await?;
    if setting.json {
        print_json(&told);
    } else {
        println!("{}", wallet::said(&told)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// The first proposal of a model that says what its file says.
fn choose(proposals: &[Value], found: &Found, name: Option<&str>) -> anyhow::Result<Digest> {
    let of_model: Vec<&Value> = proposals.iter().filter(|one| one["model_id"] == json!(found.model)).collect();
    let is_named = |one: &&&Value| name.is_none_or(|name| one["name"] == json!(name));
    let right = of_model.iter().filter(|one| one["shape"] == json!(found.shape)).filter(is_named);
    match right.min_by_key(|one| one["height"].as_u64()) {
        Some(one) => Ok(one["proposal"].as_str().context("the node's answer has no proposal")?.parse()?),
        None if of_model.is_empty() => {
            bail!("model {} is not proposed; `aria model registered` shows what is", found.model)
        }
        None => bail!(
            "no proposal of model {} has this name and the shape of {}; `aria model registered --json` shows what they say",
            found.model,
            found.located.source
        ),
    }
}

pub(super) async fn registered(setting: &Setting, named: Option<&str>) -> anyhow::Result<ExitCode> {
    let (fee, models) = list(&wallet::door(setting, named)?, None).await?;
    if setting.json {
        print_json(&json!({"registration_fee": fee.to_string(), "models": models}));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<28} {:>9} {:>10}  {:<15}  MODEL", "NAME", "WEIGHTS", "OPS/TOKEN", "STATUS");
    for model in &models {
        let text = |field: &str| model[field].as_str().unwrap_or("-");
        let count = |field: &str| model[field].as_u64().map_or_else(|| "-".to_owned(), super::model::count);
        let status = match (text("status"), model["confirmed_ppm"].as_u64()) {
            ("proposed", Some(ppm)) => format!("proposed, {} %", ppm / 10_000),
            (status, _) => status.to_owned(),
        };
        println!(
            "{:<28} {:>9} {:>10}  {status:<15}  {}",
            text("name"),
            count("parameters"),
            count("ops_per_token"),
            text("model_id")
        );
    }
    eprintln!("Registering one costs {} besides the fee, and takes more than two thirds of the voters.", Amount(fee));
    Ok(ExitCode::SUCCESS)
}

/// All models of a status, and what registering another costs.
async fn list(url: &str, status: Option<&str>) -> anyhow::Result<(NanoAria, Vec<Value>)> {
    let (mut models, mut cursor) = (Vec::new(), Value::Null);
    for _ in 0..PAGES_MAX {
        let mut page = rpc(url, "chain_listModels", json!({"status": status, "cursor": cursor})).await?;
        let Value::Array(listed) = page["models"].take() else { bail!("the node's answer has no models") };
        models.extend(listed);
        cursor = page["next_cursor"].take();
        if cursor.is_null() {
            let fee = page["registration_fee"].as_str().context("the node's answer has no registration_fee")?;
            return Ok((NanoAria::new(fee.parse()?), models));
        }
    }
    bail!("the node lists more than {PAGES_MAX} pages of models; ask another one with --rpc")
}

/// Reads a whole model: digest and shape.
fn read(model: &str, setting: &Setting) -> anyhow::Result<Found> {
    Ok(Found::read(locate(model, &setting.existing().models())?)?)
}

fn ops(shape: &Shape) -> anyhow::Result<u64> {
    Ok(shape.ops_per_token()?)
}

#[cfg(test)]
mod tests {
    use aria_chain::ids::ModelId;

    use super::*;
    use crate::model::{Located, Source};

    #[test]
    fn only_what_the_file_says_is_chosen() {
        let shape = Shape { layers: 1, dim: 2, ffn: 3, heads: 1, kv_heads: 1, head_dim: 2, vocab: 5 };
        let located = Located { name: "a".to_owned(), source: Source::File("a.gguf".into()) };
        let found = Found { model: ModelId::new([1; 32]), shape, located };
        let proposal = |model: u8, name: &str, shape: Shape, height: u64, id: u8| json!({"model_id": ModelId::new([model; 32]), "name": name, "shape": shape, "height": height, "proposal": Digest::new([id; 32])});
        let inflated = Shape { dim: 200, ..shape };
        let all = [
            proposal(1, "a", inflated, 1, 1),
            proposal(2, "a", shape, 1, 2),
            proposal(1, "b", shape, 3, 3),
            proposal(1, "a", shape, 2, 4),
        ];
        let chosen = |all: &[Value], name: Option<&str>| choose(all, &found, name).map_err(|error| error.to_string());
        assert_eq!(chosen(&all, None), Ok(Digest::new([4; 32])), "the first that is true");
        assert_eq!(chosen(&all, Some("b")), Ok(Digest::new([3; 32])));
        assert!(chosen(&all[..2], None).unwrap_err().contains("the shape of a.gguf"));
        assert!(chosen(&all, Some("c")).unwrap_err().contains("has this name"));
        assert!(chosen(&all[1..2], None).unwrap_err().contains("is not proposed"));
    }
}
