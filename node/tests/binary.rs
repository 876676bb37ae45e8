//! The program as it is built: it starts, and it tells what it can do. That this test names the program has cargo build
//! it for the tests of whole nodes too.

use std::process::Command;

fn aria(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_aria")).args(arguments).output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn it_tells_its_version_and_its_commands() {
    assert_eq!(aria(&["--version"]), (Some(0), format!("aria {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, help) = aria(&["--help"]);
    assert_eq!(code, Some(0));
    for command in ["node", "infer", "model", "ledger", "key"] {
        assert!(help.contains(command), "{command} in {help}");
    }
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    for arguments in
        [&["nod"][..], &["node", "start", "--api-port", "70000"], &["node", "start", "--backend", "magic"], &[]]
    {
        let (code, text) = aria(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
    }
}
