//! Dependencies point down, as `docs/ARCHITECTURE.md` draws them. Read from cargo, so an edge that somebody
//! adds fails here before anybody builds on it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

/// Direct dependencies outside of tests, by crate, also those from elsewhere.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// What the machines and `types` may name from elsewhere: no runtime, network, storage, clock or randomness.
const PURE: [&str; 3] = ["afdg-types", "afdg-region-machine", "afdg-catalog-machine"];
const PURE_MAY_NAME: [&str; 5] = ["bytes", "postcard", "serde", "thiserror", "xxhash-rust"];

const SERVERS: [&str; 3] = ["afdg-catalog", "afdg-region-node", "afdg-extension"];
/// Who may have servers below it: what starts them.
const STARTS_SERVERS: [&str; 4] = ["afdg-dev-grid", "afdg-cli", "afdg-example-node", "afdg-tests"];

/// Nobody depends on these.
const TOP: [&str; 3] = ["afdg-cli", "afdg-tests", "afdg-example-node"];

/// Crates from elsewhere that one room owns: the log and the store behind `afdg-replication`, errors
/// without a type in programs and tests.
const OWNED: [(&str, &[&str]); 4] = [
    ("openraft", &["afdg-replication"]),
    ("sled", &["afdg-replication"]),
    ("anyhow", &["afdg-cli", "afdg-tests"]),
    ("clap", &["afdg-cli", "afdg-tests"]),
];

/// Crates that hold what an author of agents writes: they see the framework's face and nothing behind it.
const AUTHORS: [&str; 4] =
    ["afdg-example-bank", "afdg-example-counter", "afdg-example-order", "afdg-example-shop"];

#[test]
fn dependencies_point_down_as_the_architecture_says() -> Result<()> {
    let edges = edges_of_the_workspace()?;
    let wrong = wrong_edges(&edges, &table_of_the_architecture()?);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn each_kind_of_wrong_edge_is_told() -> Result<()> {
    let (edges, table) = (edges_of_the_workspace()?, table_of_the_architecture()?);
    for (from, to) in [
        ("afdg-region-machine", "tokio"),
        ("afdg-types", "rand"),
        ("afdg-catalog-machine", "sled"),
        ("afdg-extension", "afdg-region-node"),
        ("afdg-region-client", "afdg-catalog"),
        ("afdg-proto", "afdg-agent"),
        ("afdg-dev-grid", "afdg-cli"),
        ("afdg-catalog", "sled"),
        ("afdg-router", "anyhow"),
        ("afdg-example-bank", "afdg-region-node"),
        ("afdg-new-crate", "afdg-types"),
    ] {
        let mut edges = edges.clone();
        edges.entry(from.to_owned()).or_default().insert(to.to_owned());
        let wrong = wrong_edges(&edges, &table);
        assert!(wrong.iter().any(|line| line.starts_with(from)), "{from} -> {to} went by: {wrong:?}");
    }
    // Both ways round: a row of the table that names what is not there is as wrong.
    let mut edges = edges;
    edges.get_mut("afdg-router").context("the router is there")?.remove("afdg-proto");
    assert!(!wrong_edges(&edges, &table).is_empty());
    Ok(())
}

/// What breaks a rule, one line each; the first word is the crate.
fn wrong_edges(edges: &Edges, table: &Edges) -> Vec<String> {
    let ours: BTreeSet<&str> = edges.keys().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for (from, all) in edges {
        let own: BTreeSet<&str> = all.iter().map(String::as_str).filter(|to| ours.contains(to)).collect();
        let foreign = all.iter().map(String::as_str).filter(|to| !ours.contains(to));
        let from = from.as_str();

        match table.get(from) {
            None => wrong.push(format!("{from} has no row in the table of docs/ARCHITECTURE.md")),
            Some(row) => {
                let row: BTreeSet<&str> = row.iter().map(String::as_str).collect();
                wrong
                    .extend(own.difference(&row).map(|to| format!("{from} depends on {to}, not in its row")));
                wrong.extend(row.difference(&own).map(|to| format!("{from} has {to} in its row only")));
            }
        }
        for to in foreign {
            if PURE.contains(&from) && !PURE_MAY_NAME.contains(&to) {
                wrong.push(format!("{from} is pure and names {to}"));
            }
            for (_, owners) in OWNED.iter().filter(|(owned, _)| *owned == to) {
                if !owners.contains(&from) {
                    wrong.push(format!("{from} names {to}, which belongs to {owners:?}"));
                }
            }
        }
        wrong.extend(own.iter().filter(|to| TOP.contains(to)).map(|to| format!("{from} stands on {to}")));
        if AUTHORS.contains(&from) {
            let behind = own.iter().filter(|to| !["afdg-agent", "afdg-agent-build"].contains(to));
            wrong.extend(behind.map(|to| format!("{from} is an author's crate and names {to}")));
        }
        if !STARTS_SERVERS.contains(&from) {
            let below = below(from, edges);
            let servers = SERVERS.iter().filter(|server| below.contains(**server));
            wrong.extend(servers.map(|server| format!("{from} has the server {server} below it")));
        }
    }
    wrong
}

/// All that `from` depends on, directly or not.
fn below<'a>(from: &str, edges: &'a Edges) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut todo: Vec<&str> = edges.get(from).into_iter().flatten().map(String::as_str).collect();
    while let Some(next) = todo.pop() {
        if found.insert(next) {
            todo.extend(edges.get(next).into_iter().flatten().map(String::as_str));
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn edges_of_the_workspace() -> Result<Edges> {
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()?;
    ensure!(cargo.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&cargo.stderr));
    let metadata: Value = serde_json::from_slice(&cargo.stdout)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().context("name")?;
            let all = package["dependencies"].as_array().context("dependencies")?;
            let outside_of_tests = all.iter().filter(|one| one["kind"] != "dev");
            let names = outside_of_tests.map(|one| one["name"].as_str().map(str::to_owned));
            Ok((name.to_owned(), names.collect::<Option<_>>().context("a dependency's name")?))
        })
        .collect()
}

/// The rows under `| crate | folder | depends on |`; a name there is a crate's without `afdg-`.
fn table_of_the_architecture() -> Result<Edges> {
    let text = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md"))?;
    let rows = text.lines().skip_while(|line| *line != "| crate | folder | depends on |").skip(2);
    let table: Edges = rows
        .map_while(|line| line.strip_prefix("| ")?.strip_suffix('|'))
        .map(|row| {
            let [name, _, on]: [&str; 3] =
                row.split(" |").collect::<Vec<_>>().try_into().ok().with_context(|| row.to_owned())?;
            // "`afdg-agent`, pure"
            let name = name.split('`').nth(1).with_context(|| row.to_owned())?;
            let on = on.split(',').map(str::trim).filter(|one| !one.is_empty());
            Ok((name.to_owned(), on.map(|one| format!("afdg-{one}")).collect()))
        })
        .collect::<Result<_>>()?;
    ensure!(!table.is_empty(), "docs/ARCHITECTURE.md has no table of crates");
    Ok(table)
}
