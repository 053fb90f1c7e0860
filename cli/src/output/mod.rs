//! Results on standard output: lines, tables, JSON.
//!
//! A reader that has seen enough (`afdg agent list | head`) closes the pipe. From then on writes go
//! nowhere, and a command that would go on for long asks [`Output::is_closed`].

mod table;

pub use table::{Table, plain};

use serde::Serialize;
use std::{fmt, io};

pub struct Output {
    out: Box<dyn io::Write + Send>,
    closed: bool,
}

impl Output {
    pub fn stdout() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    pub fn to(out: Box<dyn io::Write + Send>) -> Self {
        Self { out, closed: false }
    }

    /// The reader has gone: nothing more is worth printing.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn line(&mut self, text: impl fmt::Display) -> io::Result<()> {
        self.write(format!("{text}\n"))
    }

    /// One JSON value over several lines.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line(serde_json::to_string_pretty(value)?)
    }

    /// One JSON value on one line.
    pub fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line(serde_json::to_string(value)?)
    }

    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        self.write(table.to_string())
    }

    fn write(&mut self, text: String) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other,
        }
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;
    use std::sync::{Arc, Mutex};

    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `print` prints.
    pub fn printed(print: impl FnOnce(&mut Output) -> anyhow::Result<()>) -> String {
        let kept = Arc::default();
        print(&mut Output::to(Box::new(Kept(Arc::clone(&kept))))).unwrap();
        String::from_utf8(std::mem::take(&mut *kept.lock().unwrap())).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;

    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let mut output = Output::to(Box::new(Closed));
        assert!(!output.is_closed());
        output.line("one").unwrap();
        assert!(output.is_closed());
        output.json(&serde_json::json!({"a": 1})).unwrap();
    }
}
