//! Views of the chain, shown to people as they come: a line for each field, a table for each list of things.

use std::process::ExitCode;

use anyhow::bail;
use aria_chain::units::NanoAria;
use serde_json::{Map, Value, json};

use super::look::{ask, node_or_own};
use super::{Setting, print_json};
use crate::amount::Amount;
use crate::cli::ShownCommand;

/// Fields that hold amounts, which are shown in ARIA.
const AMOUNTS: [&str; 23] = [
    "amount",
    "audit_fee",
    "balance",
    "bond",
    "bonded",
    "burned",
    "deposit",
    "fee",
    "fee_burned",
    "fee_of_deposit",
    "fee_to_proposer",
    "fees",
    "genesis",
    "held",
    "issued",
    "max_fee",
    "paid",
    "price",
    "rewards",
    "rewards_total",
    "spent",
    "total",
    "unbonding",
];
/// Longest cell of a table. A digest is shown whole.
const CELL_MAX: usize = 64;

pub(super) async fn shown(setting: &Setting, command: ShownCommand) -> anyhow::Result<ExitCode> {
    let of = |node| -> anyhow::Result<Value> { Ok(json!(node_or_own(setting, node)?)) };
    let view = match command {
        ShownCommand::Reputation { node } => ask(setting, "chain_getReputation", json!([of(node)?])).await?,
        ShownCommand::Work { node, epochs } => ask(setting, "chain_getWork", json!([of(node)?, epochs])).await?,
        ShownCommand::Epochs { epochs } => ask(setting, "chain_getNetworkStats", json!([epochs])).await?,
        ShownCommand::Supply => ask(setting, "chain_getSupply", json!([])).await?,
        ShownCommand::Params => ask(setting, "chain_getParams", json!([])).await?,
        ShownCommand::Accounts { limit } => ask(setting, "chain_listAccounts", json!([limit])).await?,
        ShownCommand::Transaction { id } => {
            let mut view = ask(setting, "chain_getTransaction", json!([id])).await?;
            if !view.is_null() {
                view["receipt"] = ask(setting, "chain_getReceipt", json!([id])).await?;
            }
            view
        }
        ShownCommand::Proof { record } => ask(setting, "chain_getUsefulWorkProof", json!([record])).await?,
        ShownCommand::Waiting { limit } => ask(setting, "mempool_list", json!([limit])).await?,
    };
    if view.is_null() {
        bail!("the chain has no such thing; what waits for a block shows `aria ledger waiting`");
    }
    if setting.json {
        print_json(&view);
    } else {
        print!("{}", page(&view));
    }
    Ok(ExitCode::SUCCESS)
}

/// Fields by line, then lists as tables.
fn page(view: &Value) -> String {
    let (mut lines, mut tables) = (Vec::new(), Vec::new());
    collect("", view, &mut lines, &mut tables);
    let width = lines.iter().map(|(name, _): &(String, String)| name.len()).max().unwrap_or(0);
    let mut page: String = lines.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect();
    for (name, rows) in tables {
        page.push_str(&format!("\n{name}\n{}", table(&rows)));
    }
    page
}

/// Names inside of objects are joined by dots; a list of objects becomes a table.
fn collect<'v>(
    prefix: &str,
    view: &'v Value,
    lines: &mut Vec<(String, String)>,
    tables: &mut Vec<(String, Vec<&'v Map<String, Value>>)>,
) {
    for (name, value) in view.as_object().into_iter().flatten() {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Object(_) => collect(&name, value, lines, tables),
            Value::Array(items) if items.first().is_some_and(Value::is_object) => {
                tables.push((name, items.iter().filter_map(Value::as_object).collect()));
            }
            Value::Array(items) => lines.push((name, items.iter().map(plain).collect::<Vec<_>>().join(", "))),
            value => {
                let shown = cell(&name, value);
                lines.push((name, shown));
            }
        }
    }
}

fn table(rows: &[&Map<String, Value>]) -> String {
    let names: Vec<&String> = rows.first().map(|row| row.keys().collect()).unwrap_or_default();
    let cell =
        |row: &Map<String, Value>, name: &String| row.get(name).map_or_else(String::new, |value| cell(name, value));
    let width = |name: &&String| rows.iter().map(|row| cell(row, name).chars().count()).chain([name.len()]).max();
    let widths: Vec<usize> = names.iter().map(|name| width(name).unwrap_or(0)).collect();
    let line = |cells: Vec<String>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let head = line(names.iter().map(|name| (*name).clone()).collect());
    let body = rows.iter().map(|row| line(names.iter().map(|name| cell(row, name)).collect()));
    head + &body.collect::<String>()
}

/// A value under its name: amounts are whole numbers of nano-ARIA in text.
fn cell(name: &str, value: &Value) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    let nano = value.as_str().filter(|_| AMOUNTS.contains(&last)).and_then(|text| text.parse().ok());
    nano.map_or_else(|| plain(value), |nano| Amount(NanoAria::new(nano)).to_string())
}

/// A value in a line. What is inside of a cell of a table is shown as JSON.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let is_long = text.chars().count() > CELL_MAX;
    if is_long { text.chars().take(CELL_MAX).chain("…".chars()).collect() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_lines_and_lists_are_tables() {
        let view = json!({
            "at": {"height": 7, "hash": "ab"},
            "held": "1500000000",
            "nothing": null,
            "names": ["x", "y"],
            "rows": [{"epoch": 3, "work": "12"}, {"epoch": 12, "work": "1"}],
            "long": "z".repeat(80),
        });
        let expected = format!(
            "at.height  7\nat.hash    ab\nheld       1.5 ARIA\nnothing    -\nnames      x, y\nlong       {}…\n\nrows\nepoch  work\n3      12\n12     1\n",
            "z".repeat(64)
        );
        assert_eq!(page(&view), expected);
        assert_eq!(page(&json!({})), "");
    }
}
