//! Logs: to standard error, so that standard output carries results alone. Prompts are never logged.

use tracing_subscriber::{EnvFilter, fmt};

use crate::cli::LogFormat;

/// What would repeat the texts of older nodes' messages at its smallest detail.
const WORDLESS: &str = "tungstenite=info,tokio_tungstenite=info";

/// Installs the log for this process. A filter that cannot be read is refused with its text.
pub fn init(filter: &str, format: LogFormat) -> Result<(), String> {
    // More exact names win, so who spells out a part of it is not asked to be careful but refused.
    if filter.contains("tungstenite") {
        return Err(format!("log filter `{filter}` names tungstenite, which would log what others say; leave it out"));
    }
    // The consensus core tells every vote; whoever wants that names it in the filter.
    let quiet = format!("arc_malachitebft_core_consensus=warn,arc_malachitebft_core_driver=warn,{filter},{WORDLESS}");
    let filter = EnvFilter::try_new(quiet).map_err(|error| format!("log filter `{filter}` cannot be read: {error}"))?;
    let base = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // A log that is already installed (a test's) stays.
    match format {
        LogFormat::Text => drop(base.with_target(false).try_init()),
        LogFormat::Json => drop(base.json().try_init()),
    }
    Ok(())
}
