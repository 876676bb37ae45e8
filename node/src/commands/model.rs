//! `aria model`: what this machine can run.

use std::process::ExitCode;

use anyhow::Context;
use aria_inference::{
    catalog::{self, CatalogEntry, CatalogModel},
    digest::model_digest,
};
use serde_json::{Value, json};

use super::{Setting, print_json};
use crate::model::{EMBEDDED_NAME, locate};

pub(super) fn list(setting: &Setting) -> anyhow::Result<ExitCode> {
    let models = setting.existing().models();
    let gguf = locate(EMBEDDED_NAME, &models)?.open()?;
    let mut embedded = json!({"name": EMBEDDED_NAME, "path": null, "size_bytes": gguf.size_bytes()});
    describe(&mut embedded, &catalog::describe(&gguf)?);
    embedded["model_id"] = json!(model_digest(&gguf)?.to_string());
    let mut all = vec![embedded];
    // A folder that is not there has no models; one that cannot be read is said so.
    if models.exists() {
        let entries = catalog::catalog(&models).with_context(|| format!("{} cannot be read", models.display()))?;
        all.extend(entries.iter().map(view));
    }
    if setting.json {
        print_json(&Value::Array(all));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<28} {:>9} {:>9} {:>8}  WHERE", "NAME", "SIZE", "WEIGHTS", "CONTEXT");
    for model in &all {
        let text = |key: &str| model[key].as_str().unwrap_or_default().to_owned();
        let place = if model["path"].is_null() { "built in".to_owned() } else { text("path") };
        if let Some(error) = model["error"].as_str() {
            println!("{:<28} {:>9} {:>9} {:>8}  {place}: {error}", text("name"), size(&model["size_bytes"]), "-", "-");
            continue;
        }
        let weights = count(model["parameters"].as_u64().unwrap_or_default());
        println!(
            "{:<28} {:>9} {:>9} {:>8}  {place}",
            text("name"),
            size(&model["size_bytes"]),
            weights,
            model["context"]
        );
    }
    eprintln!("Others go into {}, a folder or a .gguf file each.", models.display());
    Ok(ExitCode::SUCCESS)
}

fn view(entry: &CatalogEntry) -> Value {
    let mut view = json!({"name": entry.name, "path": entry.path, "size_bytes": entry.size_bytes});
    match &entry.model {
        Ok(model) => describe(&mut view, model),
        Err(error) => view["error"] = json!(error.to_string()),
    }
    view
}

fn describe(view: &mut Value, model: &CatalogModel) {
    view["architecture"] = json!(model.architecture.name());
    view["parameters"] = json!(model.parameters);
    view["quantisation"] = json!(model.quantisation);
    view["context"] = json!(model.context);
}

/// A count of things with a unit of thousands.
pub(super) fn count(number: u64) -> String {
    size(&json!(number)).replace('B', "").trim_end().to_owned()
}

/// Bytes with a unit of thousands.
#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn size(value: &Value) -> String {
    let mut number = value.as_u64().unwrap_or_default() as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if number < 1000.0 {
            return if unit == "B" { format!("{number:.0} {unit}") } else { format!("{number:.1} {unit}") };
        }
        number /= 1000.0;
    }
    format!("{number:.1} TB")
}
