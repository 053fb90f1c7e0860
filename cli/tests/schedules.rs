//! `afdg schedule` against a grid whose agents set schedules.

#![allow(clippy::unwrap_used)] // Helpers of tests count as tests.

use afdg_tests::{
    alarm::v1::{SetRequest, SetResponse},
    client::Client,
    grid,
};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::process::Command;

struct Afdg {
    endpoint: String,
}

impl Afdg {
    async fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_afdg"));
        command.args(arguments).args(["--endpoint", &self.endpoint]).env("AFDG_ACTOR", "a test");
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
        Ok((output.status.success(), text))
    }

    async fn well(&self, arguments: &[&str]) -> Result<String> {
        let (well, text) = self.run(arguments).await?;
        ensure!(well, "afdg {}: {text}", arguments.join(" "));
        Ok(text)
    }

    async fn json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let text = self.well(&[arguments, &["-o", "json"]].concat()).await?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_schedules_of_all_regions_and_cancels_them() -> Result<()> {
    let (grid, _folder) = grid(|options| options.size.regions = Some(3)).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    let set = async |alarm: &str, request: SetRequest| {
        let request = SetRequest { alarm: alarm.to_owned(), ..request };
        client.call::<_, SetResponse>("/alarm.v1.Alarm/Set", request).await
    };
    let afdg = Afdg { endpoint: grid.endpoint() };
    for number in 0..12 {
        let name = format!("{}-x", if number % 3 == 0 { "rent" } else { "heat" });
        set(&format!("a-{number}"), SetRequest { name, period_ms: 90_000, ..SetRequest::default() }).await?;
    }
    let calendar = SetRequest {
        name: "mornings".to_owned(),
        cron: "0 9 * * MON-FRI".to_owned(),
        zone: "Europe/Berlin".to_owned(),
        missed: "all".to_owned(),
        to: "b".to_owned(),
        ..SetRequest::default()
    };
    set("a-0", calendar).await?;

    let all = afdg.json(&["schedule", "list", "--type", "alarm.v1.Alarm"]).await?;
    assert_eq!(all.len(), 13);
    let mornings = all.iter().find(|schedule| schedule["name"] == "mornings").expect("it is listed");
    let told =
        ["agent", "to", "cron", "zone", "missed"].map(|key| mornings[key].as_str().unwrap_or_default());
    let expected = ["alarm.v1.Alarm/a-0", "alarm.v1.Alarm/b", "0 9 * * MON-FRI", "Europe/Berlin", "all"];
    assert_eq!(told, expected);
    assert!(
        mornings["next_due_ms"].as_u64() > mornings["set_ms"].as_u64() && mornings["period_ms"].is_null()
    );
    let table = afdg.well(&["schedule", "list", "--agent", "alarm.v1.Alarm/a-0"]).await?;
    assert!(table.contains("every 90s") && table.contains("0 9 * * MON-FRI Europe/Berlin"), "{table}");
    let first = afdg.well(&["schedule", "list", "--limit", "5"]).await?;
    assert!(first.contains("the first 5 are shown"), "{first}");
    let inspected = afdg.well(&["agent", "inspect", "alarm.v1.Alarm/a-0"]).await?;
    assert!(inspected.contains("2; see 'afdg schedule list --agent alarm.v1.Alarm/a-0'"), "{inspected}");

    let (well, text) =
        afdg.run(&["schedule", "cancel", "alarm.v1.Alarm/a-0", "none", "--reason", "x"]).await?;
    assert!(!well && text.contains("has no schedule 'none'"), "{text}");
    let dry = ["schedule", "cancel", "--name-prefix", "rent", "--dry-run"];
    assert!(afdg.well(&dry).await?.contains("4 would be cancelled"));
    let one = ["schedule", "cancel", "alarm.v1.Alarm/a-0", "mornings", "--reason", "she sleeps late"];
    assert!(afdg.well(&one).await?.contains("1 cancelled"));
    let rents = ["schedule", "cancel", "--name-prefix", "rent", "--reason", "all moved out"];
    assert!(afdg.well(&rents).await?.contains("4 cancelled"));
    let audit = afdg.well(&["audit", "list"]).await?;
    for line in ["cancel 1 schedule: mornings of alarm.v1.Alarm/a-0", "names that begin with rent"] {
        assert!(audit.contains(line) && audit.contains("a test"), "{audit}");
    }
    let left = afdg.json(&["schedule", "list"]).await?;
    assert_eq!(left.len(), 8);
    assert!(left.iter().all(|schedule| schedule["name"] == "heat-x"), "{left:?}");
    grid.stop().await;
    Ok(())
}
