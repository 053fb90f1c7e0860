//! What a run has found: text for every run, a page with a timeline for each history that is wrong.

mod page;
mod text;

use crate::{
    caller::Counts,
    check::Checked,
    nemesis::{Event, Kind},
    probes::{Answered, unavailable_after},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// Everything that is told of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub lasted: Duration,
    /// Faults that were left out because they can't be done here, and why.
    pub left_out: BTreeMap<Kind, String>,
    pub counts: Counts,
    pub checked: Vec<Checked>,
    /// What clients were told and should not have been, processes that ended, a grid that did not recover.
    pub wrong: Vec<String>,
    pub events: Vec<Event>,
    /// Of the probe of each region.
    pub answers: BTreeMap<u64, Vec<Answered>>,
    /// How long the machine kept a thread waiting at worst.
    pub longest_stall: Duration,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.wrong.is_empty() && self.checked.iter().all(|checked| checked.findings.is_empty())
    }

    /// How long each region was without service that lost its leader, shortest first.
    fn unavailable(&self) -> Vec<Duration> {
        let deaths = self.events.iter().filter_map(|event| event.death.as_ref());
        let mut times: Vec<Duration> = deaths
            .flat_map(|death| {
                let answers = death.regions.iter().filter_map(|region| self.answers.get(region));
                answers.filter_map(|answers| unavailable_after(answers, death.at))
            })
            .collect();
        times.sort_unstable();
        times
    }

    /// Writes a page for every finding into `folder`, in place of those of earlier runs.
    pub fn write_pages(&self, folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(PAGE) && name.ends_with(".html") {
                std::fs::remove_file(path)?;
            }
        }
        let mut pages = Vec::new();
        for checked in &self.checked {
            for finding in &checked.findings {
                let path = folder.join(format!("{PAGE}{}.html", finding.agent));
                std::fs::write(&path, page::of(finding, &self.events, self.seed))?;
                pages.push(path);
            }
        }
        Ok(pages)
    }
}

/// Begins the names of pages.
const PAGE: &str = "violation-";

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

#[cfg(test)]
mod tests;
