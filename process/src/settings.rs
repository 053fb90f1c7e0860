//! A server's settings: from the environment, else from its file, else a default; and which it was.

use crate::{SettingsError, error::wrong};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt::Display, path::Path, path::PathBuf};

/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A kind of value that a setting may have.
pub trait Value: Sized {
    /// Reads what an environment variable holds.
    fn parse(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

macro_rules! plain_value {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|error| format!("{error}"))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

plain_value!(String, u8, u16, u32, u64);

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Vec<String> {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(|part| part.trim().to_owned()).collect())
    }

    fn show(&self) -> String {
        self.join(", ")
    }
}

impl Value for BTreeMap<u64, String> {
    fn parse(_: &str) -> Result<Self, String> {
        Err("it can stand in the file only".to_owned())
    }

    fn show(&self) -> String {
        self.iter().map(|(id, value)| format!("{id} = {value}")).collect::<Vec<_>>().join(", ")
    }
}

/// One setting as it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub name: String,
    pub value: String,
    /// `default`, `file NAME` or `environment VARIABLE`.
    pub from: String,
}

/// Where settings are taken from, and which have been taken.
pub struct Settings<'a> {
    file: String,
    environment: &'a dyn Fn(&str) -> Option<String>,
    shown: Vec<Shown>,
}

impl<'a> Settings<'a> {
    /// `file` is the file's name for errors.
    pub fn new(file: &Path, environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { file: file.display().to_string(), environment, shown: Vec::new() }
    }

    /// All settings taken so far, with their values and origins.
    pub fn into_shown(self) -> Vec<Shown> {
        self.shown
    }

    /// A setting that has to have a value.
    pub fn value<T: Value>(
        &mut self,
        name: &str,
        in_file: Option<T>,
        variable: Option<&'static str>,
        default: Option<T>,
    ) -> Result<T, SettingsError> {
        match self.optional(name, in_file, variable, default)? {
            Some(value) => Ok(value),
            None => self.missing(name, variable),
        }
    }

    /// A setting that may have none.
    pub fn optional<T: Value>(
        &mut self,
        name: &str,
        in_file: Option<T>,
        variable: Option<&'static str>,
        default: Option<T>,
    ) -> Result<Option<T>, SettingsError> {
        let (value, from) = self.find(name, in_file, variable, default)?;
        let value_shown = value.as_ref().map_or("(none)".to_owned(), T::show);
        self.note(name, value_shown, from);
        Ok(value)
    }

    /// A setting whose value is shown nowhere.
    pub fn secret(
        &mut self,
        name: &str,
        in_file: Option<String>,
        variable: &'static str,
    ) -> Result<String, SettingsError> {
        let (value, from) = self.find(name, in_file, Some(variable), None)?;
        let Some(value) = value else { return self.missing(name, Some(variable)) };
        self.note(name, "(hidden)".to_owned(), from);
        Ok(value)
    }

    /// Notes a setting that was found in a way of its own.
    pub fn note(&mut self, name: &str, value: String, from: String) {
        self.shown.push(Shown { name: name.to_owned(), value, from });
    }

    /// The value of an environment variable; one that is empty counts as not set.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|text| !text.is_empty())
    }

    /// An error about the value of setting `name`.
    pub fn wrong<T>(&self, name: &str, problem: impl Display) -> Result<T, SettingsError> {
        let from = self.shown.iter().rev().find(|shown| shown.name == name).map(|shown| shown.from.as_str());
        wrong(format!("{}: the setting '{name}' (from {}) {problem}", self.file, from.unwrap_or("default")))
    }

    /// An error unless the setting reads as `host:port`.
    pub fn check_address(&self, name: &str, address: &str) -> Result<(), SettingsError> {
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
            _ => self.wrong(name, format!("must be host:port; got {address:?}")),
        }
    }

    /// The same of each of a list, which must not be empty.
    pub fn check_addresses(&self, name: &str, addresses: &[String]) -> Result<(), SettingsError> {
        if addresses.is_empty() {
            return self.wrong(name, "must name at least one host:port");
        }
        addresses.iter().try_for_each(|address| self.check_address(name, address))
    }

    pub fn check_folder(&self, name: &str, folder: &Path) -> Result<(), SettingsError> {
        if folder.as_os_str().is_empty() { self.wrong(name, "is empty: give a folder") } else { Ok(()) }
    }

    fn missing<T>(&self, name: &str, variable: Option<&str>) -> Result<T, SettingsError> {
        let or = variable.map_or(String::new(), |variable| format!(", or set {variable}"));
        wrong(format!("{}: the setting '{name}' is missing: give it in this file{or}", self.file))
    }

    fn find<T: Value>(
        &self,
        name: &str,
        in_file: Option<T>,
        variable: Option<&'static str>,
        default: Option<T>,
    ) -> Result<(Option<T>, String), SettingsError> {
        if let Some(variable) = variable
            && let Some(text) = self.variable(variable)
        {
            return match T::parse(&text) {
                Ok(value) => Ok((Some(value), format!("environment {variable}"))),
                Err(error) => {
                    let text = text.escape_debug();
                    wrong(format!("{variable}='{text}' is no value for the setting '{name}': {error}"))
                }
            };
        }
        match in_file {
            Some(value) => Ok((Some(value), format!("file {}", self.file))),
            None => Ok((default, "default".to_owned())),
        }
    }
}

/// Reads a TOML file strictly: a key that is unknown or wrong is told with its line.
pub fn read_file<T: DeserializeOwned>(file: &Path) -> Result<T, SettingsError> {
    let name = file.display();
    match std::fs::metadata(file) {
        Err(error) => return wrong(format!("the configuration file {name} can't be read: {error}")),
        Ok(facts) if facts.len() > FILE_BYTES_MAX => {
            return wrong(format!("the configuration file {name} has more than {FILE_BYTES_MAX} bytes"));
        }
        Ok(_) => {}
    }
    match std::fs::read_to_string(file) {
        Ok(text) => parse(&name.to_string(), &text),
        Err(error) => wrong(format!("the configuration file {name} can't be read: {error}")),
    }
}

fn parse<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, SettingsError> {
    match toml::from_str(text) {
        Ok(parsed) => Ok(parsed),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            let shown = text.lines().nth(line - 1).unwrap_or_default().trim();
            wrong(format!("{name}:{line}: {}\n  {line} | {shown}", error.message().trim()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        listen: Option<String>,
        lease_ms: Option<u64>,
    }

    #[test]
    fn the_environment_stands_over_the_file_and_the_file_over_the_default() {
        let environment = |name: &str| match name {
            "LISTEN" => Some("env:1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut settings = Settings::new(Path::new("c.toml"), &environment);
        let file = || Some("file:1".to_owned());
        assert_eq!(settings.value("listen", file(), Some("LISTEN"), None).unwrap(), "env:1");
        assert_eq!(settings.value("other", file(), Some("EMPTY"), None).unwrap(), "file:1");
        assert_eq!(settings.value("lease_ms", None, None, Some(7u64)).unwrap(), 7);
        assert_eq!(settings.optional::<String>("zone", None, None, None).unwrap(), None);
        assert_eq!(settings.secret("token", Some("s3cret".into()), "TOKEN").unwrap(), "s3cret");
        let shown: Vec<_> =
            settings.into_shown().into_iter().map(|one| [one.name, one.value, one.from].join("|")).collect();
        assert_eq!(
            shown,
            [
                "listen|env:1|environment LISTEN",
                "other|file:1|file c.toml",
                "lease_ms|7|default",
                "zone|(none)|default",
                "token|(hidden)|file c.toml",
            ]
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_told_with_where_and_what_to_do() {
        let environment = |name: &str| (name == "N").then(|| "x".to_owned());
        let mut settings = Settings::new(Path::new("c.toml"), &environment);
        let error = settings.value::<String>("data", None, Some("DATA"), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "c.toml: the setting 'data' is missing: give it in this file, or set DATA"
        );
        let error = settings.value::<u64>("n", None, Some("N"), None).unwrap_err();
        assert!(error.to_string().starts_with("N='x' is no value for the setting 'n'"), "{error}");
    }

    #[test]
    fn a_file_is_read_strictly_and_errors_name_the_line() {
        let read: File = parse("c.toml", "listen = \"a:1\"\nlease_ms = 5\n").unwrap();
        assert_eq!((read.listen.as_deref(), read.lease_ms), (Some("a:1"), Some(5)));
        let error = |text: &str| parse::<File>("c.toml", text).unwrap_err().to_string();
        let unknown = error("listen = \"a:1\"\nlisen = \"b:1\"\n");
        assert!(unknown.starts_with("c.toml:2: unknown field `lisen`"), "{unknown}");
        assert!(error("\n\nlease_ms = \"x\"\n").starts_with("c.toml:3: invalid type"));
        assert!(error("listen = ").starts_with("c.toml:1:"));
        assert!(error("lease_ms = -1").contains("invalid value"));
    }
}
