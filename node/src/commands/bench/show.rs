//! The report as a table.

use serde_json::Value;

/// Prints a report for people.
pub(super) fn table(report: &Value) {
    let text = |key: &str| report[key].as_str().unwrap_or("?").to_owned();
    println!("{} on {}", text("model"), text("kernel"));
    if let (Some(rss), Some(ratio)) = (report["rss_bytes"].as_f64(), report["rss_over_file"].as_f64()) {
        println!("{:.0} MiB resident, {ratio:.2} of the file", rss / 1_048_576.0);
    }
    println!(
        "{:>7} {:>7} {:>8} {:>6} {:>13} {:>12} {:>7} {:>7} {:>7} {:>8} {:>10} {:>11} {:>10} {:>10}",
        "threads",
        "prompt",
        "generate",
        "batch",
        "prefill tok/s",
        "decode tok/s",
        "audit",
        "layer",
        "last",
        "commits",
        "read GB/s",
        "int8 GMAC/s",
        "of reading",
        "of int8"
    );
    let single = std::slice::from_ref(report);
    for run in report["runs"].as_array().map_or(single, Vec::as_slice) {
        let number = |key: &str, digits: usize| match run[key].as_f64() {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_owned(),
        };
        let percent = |value: &Value| value.as_f64().map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        println!(
            "{:>7} {:>7} {:>8} {:>6} {:>13} {:>12} {:>7} {:>7} {:>7} {:>8} {:>10} {:>11} {:>10} {:>10}",
            number("threads", 0),
            number("prompt", 0),
            number("generate", 0),
            number("batch", 0),
            number("prefill_tok_s", 1),
            number("decode_tok_s", 2),
            number("audit_ratio", 3),
            number("layer_ratio", 3),
            number("last_layer_ratio", 3),
            percent(&run["commit_share"]),
            number("read_gb_s", 1),
            number("int8_gmac_s", 0),
            percent(&run["derived"]["decode_share_of_read_limit"]),
            percent(&run["derived"]["prefill_share_of_int8_peak"]),
        );
    }
    println!("audit: time to verify a claim over the time to generate it. commits: share of a token's time.");
    println!(
        "layer, last: time to run a layer in the middle, and the last one with its draws, over the time to verify all."
    );
    println!("The limits are measured here and now; the shares follow from them and the model's sizes.");
}
