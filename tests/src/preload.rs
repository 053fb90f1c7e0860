//! Libraries in C that are loaded into servers with LD_PRELOAD.

use anyhow::{Context, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Compiles `source` to `NAME.so` in `folder`.
pub fn compile(source: &str, name: &str, folder: &Path, compiler: &Path) -> anyhow::Result<PathBuf> {
    let (file, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    std::fs::write(&file, source)?;
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library).arg(&file).arg("-ldl");
    let built = command.output().with_context(|| compiler.display().to_string())?;
    if !built.status.success() {
        let why = String::from_utf8_lossy(&built.stderr).into_owned();
        bail!("{} did not compile {name}: {why}", compiler.display());
    }
    Ok(library)
}
