//! The program as its users start it: exit codes, closed pipes, settings of servers.

#![allow(clippy::unwrap_used)] // Helpers of tests count as tests.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

const OK: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;

fn afdg(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afdg"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AFDG_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    afdg(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/config").join(file)
}

const POD: [(&str, &str); 5] = [
    ("AFDG_POD_INDEX", "1"),
    ("AFDG_PEER_TOKEN", "s3cret"),
    ("AFDG_NAME", "node-1"),
    ("AFDG_ADVERTISE", "node-1:7300"),
    ("AFDG_ZONE", ""),
];

fn show(role: &str, file: &Path) -> Command {
    let mut command = afdg(&["config", "show", "--role", role, "--config"]);
    command.arg(file).envs(POD);
    command
}

#[test]
fn a_closed_pipe_ends_no_command_in_panic() {
    let commands = [afdg(&["--help"]), afdg(&["demo", "--help"]), show("catalog", &deploy("catalog.toml"))];
    for mut command in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(OK), ""), "{command:?}");
    }
}

#[test]
fn the_deployed_configurations_are_complete() {
    for role in ["catalog", "region-node", "extension"] {
        let output = show(role, &deploy(&format!("{role}.toml"))).output().unwrap();
        assert_eq!(output.status.code(), Some(OK), "{role}: {}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let line =
            |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        assert!(line("peer_token").contains("(hidden)") && !text.contains("s3cret"), "{text}");
        assert!(line("listen ").contains("file "), "{text}");
        assert!(line("log ").ends_with("default"), "{text}");
        if role == "catalog" {
            assert!(line("id ").contains("2      ") && line("id ").contains("AFDG_POD_INDEX + 1"), "{text}");
        }
    }
}

#[test]
fn print_config_starts_nothing() {
    let mut command = afdg(&["server", "extension", "--print-config", "--config"]);
    let output = command.arg(deploy("extension.toml")).envs(POD).output().unwrap();
    assert_eq!(output.status.code(), Some(OK), "{}", stderr(&output));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("SETTING"));
}

#[test]
fn a_wrong_command_line_or_file_is_told_and_nothing_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("catalog.toml");
    std::fs::write(&config, "data = \"d\"\nlissten = \"a:1\"\n").unwrap();
    let output = show("catalog", &config).output().unwrap();
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(stderr(&output).contains("catalog.toml:2: unknown field `lissten`"), "{}", stderr(&output));

    let purchases = folder.path().join("p.csv");
    std::fs::write(&purchases, "ID,Date,Amount\n1,20170101,1.234\n").unwrap();
    let output = run(&["demo", "--file", purchases.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(stderr(&output).contains("p.csv:2: the Amount '1.234' has more than two decimals"));

    for arguments in [&["call", "nonsense", "M"][..], &["call", "a.B/c", "M", "@/no/such"], &["nonsense"]] {
        assert_eq!(run(arguments).status.code(), Some(USAGE), "{arguments:?}");
    }
}

#[test]
fn an_argument_that_cannot_be_is_told_with_what_can() {
    let deposit = ["bank.v1.Account/a", "Deposit", "{}"];
    let cases: &[(&[&str], &[&str], &str)] = &[
        (&["send"], &["--delay", "367d"], "held back for 366 days at most"),
        (&["send"], &["--delay", "-5s"], "'-5s' is no length of time; write 500ms, 5s"),
        (&["send"], &["--timeout=-5s"], "'-5s' is no length of time; write 500ms, 5s"),
        (&["call"], &["--parallel", "0"], "a whole number from 1 to 4096 is wanted"),
        (&["call"], &["--parallel", "-1"], "a whole number from 1 to 4096 is wanted"),
        (&["send"], &["--parallel", "4097"], "a whole number from 1 to 4096 is wanted"),
    ];
    for (command, arguments, told) in cases {
        let output = run(&[command, &deposit[..], arguments].concat());
        assert!(stderr(&output).contains(told), "{command:?} {arguments:?}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(USAGE), "{command:?} {arguments:?}");
    }
    let cases: &[(&[&str], &[&str])] = &[
        (&["dead-letter", "retry"], &["--because <TEXT>", "<NAMES|--agent <AGENT>|--type <TYPE>|", "--all>"]),
        (&["dead-letter", "drop", "--dry-run"], &["<NAMES|--agent <AGENT>|--type <TYPE>|"]),
        (&["dead-letter", "drop", "--all", "--because", " "], &["--because is empty"]),
        (&["schedule", "cancel"], &["--reason <REASON>", "<OF|--agent <AGENT>|--type <TYPE>|", "--all>"]),
        (
            &["type", "limit", "T", "turn_ms_max=1e3", "--reason", "x"],
            &["'1e3' is no whole number such as 1000"],
        ),
        (
            &["type", "limit", "T", "turn_ms_max=1,5", "--reason", "x"],
            &["'1,5' is no whole number such as 1000"],
        ),
    ];
    for (arguments, told) in cases {
        let output = run(arguments);
        assert!(told.iter().all(|part| stderr(&output).contains(part)), "{arguments:?}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(USAGE), "{arguments:?}");
    }
}

#[test]
fn a_line_that_cant_be_read_is_told_in_json_where_that_was_asked_for() {
    for arguments in
        [&["status", "-o", "json", "--no-such"][..], &["audit", "list", "--limit", "0", "-o", "json"]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(USAGE), "{arguments:?}");
        let told: serde_json::Value = serde_json::from_str(&stderr(&output)).unwrap();
        assert!(told["message"].as_str().is_some_and(|text| !text.is_empty()), "{told}");
    }
    let output = run(&["status", "--no-such"]);
    assert!(stderr(&output).starts_with("error: unexpected argument '--no-such'"), "{}", stderr(&output));
    let output = run(&["attach", "bank.v1.Account/alice"]);
    assert!(stderr(&output).contains("give METHOD, and ID or --idempotency-key"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(USAGE));
}

#[test]
fn without_a_grid_a_command_says_how_to_get_one() {
    // A port that was free a moment ago, with nobody behind it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = run(&["status", "--endpoint", &format!("http://127.0.0.1:{port}")]);
    assert_eq!(output.status.code(), Some(FAILED));
    assert!(stderr(&output).contains("start one with 'afdg dev'"), "{}", stderr(&output));
}
