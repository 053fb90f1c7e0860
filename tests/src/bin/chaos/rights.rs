//! Which programs there are, and what this process may do with them. Found out by doing it.

use anyhow::{Context, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Beside the folders of `PATH`, which an ordinary user's lacks.
const MORE_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Everything of its own: network, mounts and processes. All of it is gone with the last process, and all
/// processes are gone with the first.
const OWN_NAMESPACES: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// Grants an ordinary user the same, where the kernel lets it.
const OWN_USERS: [&str; 2] = ["--user", "--map-root-user"];

pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// `unshare` with the arguments that work here; an error says why there is nothing.
pub fn own_namespaces() -> anyhow::Result<(PathBuf, Vec<&'static str>)> {
    let unshare = find("unshare").context("there is no program 'unshare'")?;
    let mut why = String::new();
    for users in [&[][..], &OWN_USERS[..]] {
        let arguments = [users, &OWN_NAMESPACES[..]].concat();
        match run(Command::new(&unshare).args(&arguments).arg("true")) {
            Ok(()) => return Ok((unshare, arguments)),
            Err(error) => why = format!("{error:#}"),
        }
    }
    bail!("no namespaces: {why}")
}

/// Runs to the end; an error holds what was printed.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command.stdin(Stdio::null()).output().context(name.clone())?;
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} {}: {}, {}", arguments.join(" "), output.status, said.trim());
    }
    Ok(())
}
