//! Finds the program `afdg`.

use anyhow::{Context, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The one that is named, or else the one beside this program. Under cargo that one is built first, which
/// takes no time if it is up to date: another than the sources' would prove nothing.
pub fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        ensure!(named.is_file(), "there is no program {}", named.display());
        return Ok(named.canonicalize()?);
    }
    let this = std::env::current_exe()?;
    let folder = this.parent().context("this program lies nowhere")?;
    let afdg = folder.join("afdg");
    if std::env::var_os("CARGO").is_some() || !afdg.is_file() {
        build(folder)?;
    }
    ensure!(afdg.is_file(), "{} was not built", afdg.display());
    Ok(afdg)
}

fn build(folder: &Path) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--manifest-path"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/Cargo.toml"));
    command.arg("--target-dir").arg(folder.parent().context("no target folder")?);
    if folder.file_name().is_some_and(|name| name == "release") {
        command.arg("--release");
    }
    let status = command.status().context("cargo can't be started")?;
    ensure!(status.success(), "cargo could not build afdg: {status}");
    Ok(())
}
