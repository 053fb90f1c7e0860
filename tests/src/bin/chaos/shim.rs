//! The library that is loaded into servers (`shim.c`), and the files through which it is steered.

use afdg_tests::preload;
use std::{
    ffi::OsString,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

const SOURCE: &str = include_str!("shim.c");
const EIO: i64 = 5;

/// Where each number stands in a control file.
#[derive(Clone, Copy)]
enum Place {
    ClockNs = 0,
    FsyncUs = 1,
    FsyncErrno = 2,
}

#[derive(Clone)]
pub struct Shim {
    library: PathBuf,
    folder: PathBuf,
}

impl Shim {
    /// Compiles it into `folder`.
    pub fn build(folder: &Path, compiler: &Path) -> anyhow::Result<Self> {
        let library = preload::compile(SOURCE, "shim", folder, compiler)?;
        Ok(Self { library, folder: folder.to_owned() })
    }

    /// What a server has to be started with to have the shim, which does nothing yet.
    pub fn environment(&self, server: &str) -> anyhow::Result<Vec<(String, OsString)>> {
        std::fs::write(self.control(server), [0; 24])?;
        Ok(vec![
            ("LD_PRELOAD".to_owned(), self.library.clone().into()),
            ("CHAOS_CONTROL".to_owned(), self.control(server).into()),
        ])
    }

    /// Moves the time of day by so many milliseconds from the real one.
    pub fn move_clock(&self, server: &str, ms: i64) -> anyhow::Result<()> {
        self.set(server, Place::ClockNs, ms * 1_000_000)
    }

    pub fn slow_fsync(&self, server: &str, by: Duration) -> anyhow::Result<()> {
        self.set(server, Place::FsyncUs, i64::try_from(by.as_micros())?)
    }

    pub fn fail_fsync(&self, server: &str, fail: bool) -> anyhow::Result<()> {
        self.set(server, Place::FsyncErrno, if fail { EIO } else { 0 })
    }

    fn set(&self, server: &str, place: Place, value: i64) -> anyhow::Result<()> {
        // In place: a new file would not be the one that is mapped.
        let file = File::options().write(true).open(self.control(server))?;
        Ok(file.write_all_at(&value.to_ne_bytes(), place as u64 * 8)?)
    }

    fn control(&self, server: &str) -> PathBuf {
        self.folder.join(format!("{server}.control"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Output};

    fn run(shim: &Shim, program: &str, arguments: &[&str]) -> Output {
        let environment = shim.environment("one").unwrap();
        run_again(environment, program, arguments)
    }

    fn run_again(environment: Vec<(String, OsString)>, program: &str, arguments: &[&str]) -> Output {
        Command::new(program).args(arguments).envs(environment).output().unwrap()
    }

    #[test]
    fn a_program_with_the_shim_sees_another_time_and_failing_disks() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(shim) = Shim::build(folder.path(), Path::new("cc")) else {
            eprintln!("NOT RUN: there is no C compiler 'cc'");
            return;
        };
        let year = |output: Output| String::from_utf8(output.stdout).unwrap().trim().parse::<i64>().unwrap();
        let before = year(run(&shim, "date", &["+%s"]));
        let environment = shim.environment("one").unwrap();
        shim.move_clock("one", 7_000_000).unwrap();
        let moved = year(run_again(environment.clone(), "date", &["+%s"]));
        assert!((7_000..7_060).contains(&(moved - before)), "{before}, then {moved}");

        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        let sync = |environment| run_again(environment, "sync", &[file.to_str().unwrap()]).status.success();
        assert!(sync(environment.clone()));
        shim.fail_fsync("one", true).unwrap();
        assert!(!sync(environment));
    }
}
