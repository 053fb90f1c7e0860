//! The command line of a program that is a region node and nothing else.

use afdg_process::SettingsError;
use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// The settings' file, as in `PROGRAM --config FILE`.
pub fn config_file(mut arguments: impl Iterator<Item = OsString>) -> Result<PathBuf, SettingsError> {
    let program = arguments.next();
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(flag), Some(file), None) if flag == "--config" => Ok(file.into()),
        _ => {
            let name = program.as_deref().map(Path::new).and_then(Path::file_name);
            let name = name.unwrap_or(OsStr::new("PROGRAM")).display();
            Err(SettingsError(format!("the command line is wrong; it is: {name} --config FILE")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_the_file_and_nothing_else() {
        let read = |line: &str| config_file(line.split(' ').map(OsString::from));
        assert_eq!(read("/usr/bin/node --config n.toml"), Ok("n.toml".into()));
        for wrong in ["/usr/bin/node", "node --config", "node n.toml", "node --config n.toml --more"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.ends_with("it is: node --config FILE"), "{error}");
        }
    }
}
