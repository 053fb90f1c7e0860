//! `afdg` and messages that were given up: what those who sent them are told.

#![allow(clippy::unwrap_used)] // Helpers of tests count as tests.

use afdg_tests::grid;
use anyhow::{Result, ensure};
use serde_json::Value;
use std::process::Command;

const BOX: &str = "mail.v1.Box/b";

struct Afdg {
    endpoint: String,
}

impl Afdg {
    /// Its exit code, and all that it says.
    async fn run(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_afdg"));
        command.args(arguments).args(["--endpoint", &self.endpoint]);
        for name in ["AFDG_ACTOR", "USER", "LOGNAME"] {
            command.env_remove(name);
        }
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
        Ok((output.status.code().unwrap_or(-1), text))
    }

    async fn fails_with(&self, arguments: &[&str], code: i32, parts: &[&str]) -> Result<()> {
        let (found, text) = self.run(arguments).await?;
        let told = parts.iter().all(|part| text.contains(part));
        ensure!(
            found == code && told,
            "afdg {}: {found}, not {code} and {parts:?}: {text}",
            arguments.join(" ")
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_message_that_was_given_up_is_told_so() -> Result<()> {
    let (grid, _folder) = grid(|options| options.size.regions = Some(2)).await?;
    let afdg = Afdg { endpoint: grid.endpoint() };
    let letter = format!(r#"{{"number":1,"refusedUntilMs":"{}"}}"#, u64::MAX);
    let send = ["send", BOX, "Receive", &letter, "--idempotency-key", "k"];
    let (code, id) = afdg.run(&send).await?;
    ensure!(code == 0, "{id}");
    let id = id.trim();

    // All its attempts are made while it is waited for.
    let by_key = ["attach", BOX, "Receive", "--idempotency-key", "k", "--timeout", "60s"];
    let given_up =
        ["the message is a dead letter", "'afdg dead-letter show ", &format!("@{BOX}'"), "NOT_NOW"];
    afdg.fails_with(&by_key, 1, &given_up).await?;
    afdg.fails_with(&["attach", BOX, "Receive", id], 1, &given_up).await?;
    afdg.fails_with(&["attach", id], 1, &given_up).await?;
    afdg.fails_with(&send, 1, &given_up).await?;
    let call = ["call", BOX, "Receive", &letter, "--idempotency-key", "k"];
    afdg.fails_with(&call, 1, &given_up).await?;
    afdg.fails_with(&["dead-letter", "show", ""], 2, &["the name is empty"]).await?;
    let (_, json) = afdg.run(&[&send[..], &["-o", "json"]].concat()).await?;
    let name = serde_json::from_str::<Value>(&json)?["dead_letter"].as_str().unwrap_or_default().to_owned();
    let (code, shown) = afdg.run(&["dead-letter", "show", &name]).await?;
    ensure!(code == 0 && shown.contains(id), "{shown}");

    // A shell that does not know its user is no hindrance.
    let uid = format!("uid-{}", rustix::process::getuid());
    let (code, dropped) = afdg.run(&["dead-letter", "drop", &name, "--because", "a test"]).await?;
    ensure!(code == 0, "{dropped}");
    let (_, audit) = afdg.run(&["audit", "list"]).await?;
    ensure!(audit.contains(&format!("  {uid}  ")), "{audit}");
    afdg.fails_with(&by_key, 1, &["NOT_NOW", "it was a call, or it was dropped"]).await?;
    afdg.fails_with(&send, 1, &["NOT_NOW", "it was a call, or it was dropped"]).await?;
    // What nobody knows was not given up.
    let unknown = ["attach", "01980a0e-6c1c-7b60-8b1e-0f4d7c1f2a33", "-o", "json"];
    afdg.fails_with(&unknown, 1, &[r#""reason":"NOT_FOUND""#, r#""dead_letter":null"#]).await?;
    let (_, text) = afdg.run(&unknown[..2]).await?;
    ensure!(!text.contains("dead letter"), "{text}");
    grid.stop().await;
    Ok(())
}
