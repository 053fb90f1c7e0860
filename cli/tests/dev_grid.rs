//! `afdg dev` as a process: calls reach agents, the data outlasts a restart, nothing is left behind.

#![allow(clippy::unwrap_used)] // Helpers of tests count as tests.

use serde_json::Value;
use std::{
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);

fn afdg() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afdg"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AFDG_")) {
        command.env_remove(name);
    }
    command
}

/// Ends with the test, however that ends: it watches its standard input.
struct Grid {
    child: Child,
    endpoint: String,
}

impl Grid {
    fn start(arguments: &[&str], ready_file: &Path) -> Self {
        let mut child = afdg()
            .args(["dev", "--listen", "127.0.0.1:0", "--nodes", "1", "--catalogs", "1", "--regions", "2"])
            .args(["--until-stdin-closes", "--ready-file"])
            .arg(ready_file)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let give_up = Instant::now() + START_LIMIT;
        loop {
            if let Ok(text) = std::fs::read(ready_file) {
                let ready: Value = serde_json::from_slice(&text).unwrap();
                assert_eq!(ready["pid"], child.id());
                let endpoint = ready["endpoint"].as_str().unwrap().to_owned();
                return Self { child, endpoint };
            }
            if child.try_wait().unwrap().is_some() || Instant::now() > give_up {
                let _ = child.kill();
                let mut log = String::new();
                child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
                panic!("the grid did not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = afdg().args(arguments).args(["--endpoint", &self.endpoint]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    fn stop(mut self) {
        drop(self.child.stdin.take());
        self.ends("standard input was closed");
    }

    fn terminate(self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.ends("SIGTERM");
    }

    fn ends(mut self, why: &str) {
        let give_up = Instant::now() + STOP_LIMIT;
        while Instant::now() < give_up {
            if let Some(status) = self.child.try_wait().unwrap() {
                let mut log = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
                assert_eq!(status.code(), Some(0), "{log}");
                assert!(log.ends_with(&format!("stopped ({why})\n")), "{log}");
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        panic!("the grid did not end by itself");
    }
}

#[test]
fn a_grid_serves_calls_and_its_data_outlasts_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (data, ready) = (folder.path().join("grid"), folder.path().join("ready.json"));
    let arguments = ["--data", data.to_str().unwrap()];
    let grid = Grid::start(&arguments, &ready);
    let alice = "bank.v1.Account/alice";

    let deposit = ["call", alice, "Deposit", r#"{"cents":500}"#, "--idempotency-key", "once"];
    assert_eq!(grid.json(&deposit)["cents"], "500");
    assert_eq!(grid.json(&deposit)["cents"], "500", "a repeated call took effect twice");
    let (code, _, stderr) = grid.run(&["call", alice, "Withdraw", r#"{"cents":900}"#]);
    assert_eq!(code, Some(1));
    for part in ["FAILED_PRECONDITION", "BALANCE_SHORT", "short_by_cents = 400", "the agent has refused it"] {
        assert!(stderr.contains(part), "{stderr}");
    }
    let (code, _, stderr) = grid.run(&["call", alice, "Deposit", r#"{"cent":1}"#]);
    assert!(code == Some(2) && stderr.contains("its fields are: cents (int64)"), "{stderr}");

    assert_eq!(grid.json(&["status", "-o", "json"])["regions_with_leader"], 2);
    assert_eq!(grid.json(&["node", "list", "-o", "json"])[0]["name"], "node-1");
    assert_eq!(grid.json(&["region", "describe", "2", "-o", "json"])["state"], "ready");
    assert_eq!(grid.json(&["agent", "list", "-o", "json"]), alice);
    assert_eq!(grid.json(&["agent", "inspect", alice, "-o", "json"])["entities"][0]["items"][0], 500);
    let (_, described, _) = grid.run(&["type", "describe", "bank.v1.Account"]);
    assert!(described.contains("account: string (the key), cents: int64"), "{described}");
    let (code, report, stderr) = grid.run(&["demo", "--customers", "50", "--purchases", "150"]);
    assert!(code == Some(0) && report.contains("EXACT:"), "{report}{stderr}");

    grid.stop();
    assert!(!ready.exists());
    let again = Grid::start(&arguments, &ready);
    assert_eq!(again.json(&["call", alice, "GetBalance"])["cents"], "500");
    again.stop();
}

#[test]
fn a_mistake_in_a_command_is_told_and_ends_it_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(&[], &folder.path().join("ready.json"));
    let misspelt = "no agent type 'bank.v1.Acount'; it has: bank.v1.Account, counter.v1.Counter";
    let cases: &[(&[&str], &str)] = &[
        (&["dead-letter", "list", "--type", "bank.v1.Acount"], misspelt),
        (&["dead-letter", "list", "--agent", "bank.v1.Acount/alice"], misspelt),
        (&["dead-letter", "list", "--type", "bank.v1.Account", "--method", "Deposits"], "it has: Deposit, "),
        (
            &["dead-letter", "list", "--method", "Deposits"],
            "no agent type of the grid has a method 'Deposits'",
        ),
        (&["dead-letter", "retry", "--type", "bank.v1.Acount", "--dry-run"], misspelt),
        (&["schedule", "list", "--type", "bank.v1.Acount"], misspelt),
        (&["schedule", "cancel", "--agent", "bank.v1.Acount/alice", "--dry-run"], misspelt),
        (&["agent", "list", "--type", "bank.v1.Acount"], misspelt),
        (&["agent", "blocked", "--type", "bank.v1.Acount"], misspelt),
        (&["agent", "inspect", "bank.v1.Acount/alice"], misspelt),
        (&["agent", "describe", "bank.v1.Acount/alice"], misspelt),
        (&["type", "limit", "bank.v1.Acount", "turn_ms_max=5", "--reason", "x"], misspelt),
        (&["dead-letter", "show", "17@bank.v1.Acount/alice"], misspelt),
        (&["dead-letter", "show", "17@bank.v1.Account/alice"], "there is no dead letter '17@"),
        (&["dead-letter", "show", "nonsense"], "'nonsense' names no dead letter"),
        (
            &["region", "transfer-leader", "9", "node-1", "--reason", "x"],
            "there is no region 9; there are: 1,2",
        ),
    ];
    for (arguments, told) in cases {
        let (code, stdout, stderr) = grid.run(arguments);
        assert!(
            (code, &*stdout) == (Some(2), "") && stderr.contains(told),
            "{arguments:?}: {stdout}{stderr}"
        );
    }
    // A name that is right and has nothing is no mistake.
    for command in ["dead-letter", "schedule"] {
        let (code, stdout, _) = grid.run(&[command, "list", "--agent", "bank.v1.Account/alice"]);
        assert_eq!((code, stdout.as_str()), (Some(0), "there are none\n"));
    }
    grid.terminate();
}

#[test]
fn the_result_of_a_message_is_not_read_as_another_methods() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(&[], &folder.path().join("ready.json"));
    let alice = "bank.v1.Account/alice";
    let send = ["send", alice, "Deposit", r#"{"cents":5}"#, "--idempotency-key", "k"];
    let (code, id, stderr) = grid.run(&send);
    assert_eq!(code, Some(0), "{stderr}");
    let id = id.trim();
    let attach: [&[&str]; 3] = [
        &["attach", alice, "Deposit", id],
        &["attach", alice, "Deposit", "--idempotency-key", "k"],
        &["attach", id, "--as", "bank.v1.Account/Deposit"],
    ];
    for arguments in attach {
        assert_eq!(grid.json(arguments)["cents"], "5");
        let other = |part: &&str| part.replace("Deposit", "Withdraw");
        let arguments: Vec<_> = arguments.iter().map(other).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (code, stdout, stderr) = grid.run(&arguments);
        assert!(code != Some(0) && stdout.is_empty(), "{arguments:?}: {stdout}");
        assert!(stderr.contains("was for another method than 'Withdraw'"), "{arguments:?}: {stderr}");
    }
    grid.stop();
}

#[test]
fn a_pattern_reaches_all_agents_and_tells_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(&[], &folder.path().join("ready.json"));
    for (key, cents) in [("de-1", 500), ("de-2", 50), ("fr-1", 70)] {
        let agent = format!("bank.v1.Account/{key}");
        grid.json(&["call", &agent, "Deposit", &format!(r#"{{"cents":{cents}}}"#)]);
    }
    let lines = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (code, stdout, stderr) = grid.run(&["call", "bank.v1.Account/*", "GetBalance"]);
    assert_eq!((code, stderr.as_str()), (Some(0), "3 agents: 3 ok, 0 failed\n"));
    let all = [("de-1", 500), ("de-2", 50), ("fr-1", 70)];
    let shown = all.map(|(key, cents)| format!(r#"bank.v1.Account/{key}  {{"cents":"{cents}"}}"#));
    assert_eq!(lines(&stdout), shown);

    // One of them can't, which is told, and decides the exit code; a repeat says the same.
    let withdraw = ["call", "bank.v1.Account/de-*", "Withdraw", r#"{"cents":100}"#, "--idempotency-key", "k"];
    for _ in 0..2 {
        let (code, stdout, stderr) = grid.run(&[&withdraw[..], &["--parallel", "1", "-o", "json"]].concat());
        assert_eq!((code, stderr.as_str()), (Some(1), "2 agents: 1 ok, 1 failed\n"));
        let [one, two] = &lines(&stdout)[..] else { panic!("{stdout}") };
        let (one, two): (Value, Value) =
            (serde_json::from_str(one).unwrap(), serde_json::from_str(two).unwrap());
        assert_eq!(
            (&one["agent"], &one["response"]["cents"]),
            (&"bank.v1.Account/de-1".into(), &"400".into())
        );
        assert_eq!(
            (&two["agent"], &two["error"]["reason"]),
            (&"bank.v1.Account/de-2".into(), &"BALANCE_SHORT".into())
        );
    }
    // Of each message that is sent the id is told, with which its result is there.
    let send = ["send", "bank.v1.Account/fr-*", "Deposit", r#"{"cents":1}"#, "--idempotency-key", "s"];
    let (code, stdout, stderr) = grid.run(&send);
    let id = stdout.strip_prefix("bank.v1.Account/fr-1  ").unwrap_or_default().trim();
    assert_eq!((code, stderr.as_str()), (Some(0), "1 agent: 1 ok, 0 failed\n"));
    assert_eq!(grid.json(&["attach", "bank.v1.Account/fr-1", "Deposit", id])["cents"], "71", "{stdout}");
    assert_eq!(grid.json(&[&send[..], &["-o", "json"]].concat())["message_id"], id);
    let (code, stdout, stderr) = grid.run(&["call", "bank.v1.Account/none*", "GetBalance"]);
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (Some(0), "", "no agent answered to bank.v1.Account/none*\n")
    );

    // A key that ends with a star is one agent's where it is meant so.
    assert_eq!(grid.json(&["call", "bank.v1.Account/fr-*", "GetBalance", "--exact"])["cents"], "0");
    for (arguments, told) in [
        (&["call", "bank.v1.Account/*-1", "GetBalance"][..], "can only be the last character"),
        (&["call", "bank.v1.Account/*", "Deposit", r#"{"account":"de-1"}"#], "leave 'account' out"),
        (&["call", "bank.v1.Account/de-1", "GetBalance", "--parallel", "2"], "goes with a pattern"),
        (&["send", "bank.v1.Account/*", "Deposit", "{}", "--delay", "5s"], "goes with one agent"),
        (&["call", "bank.v1.Acount/*", "GetBalance"], "it has: "),
    ] {
        let (code, _, stderr) = grid.run(arguments);
        assert!(code == Some(2) && stderr.contains(told), "{arguments:?}: {stderr}");
    }
    grid.stop();
}
