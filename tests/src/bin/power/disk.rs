//! What a disk holds after a loss of power, made from what was recorded (`recorder.c`).
//!
//! The model promises as little as POSIX does. What was written to a file is sure once a sync that began
//! after it has ended; until then each write is there or not, in whole or in some of its sectors, whatever
//! came before or after it. A name in a folder is sure once the folder is synced; until then the folder's
//! changes are there up to some point of their order, as a journal has them.

use anyhow::{Context, bail, ensure};
use rand::{Rng, rngs::StdRng};
use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

const SECTOR_BYTES: usize = 512;
/// Where a file's space is reserved ahead, zeros may follow its end.
const RESERVED_BYTES: usize = 4 << 20;
/// Largest write in the middle of a file: a segment of sled's.
const WRITE_BYTES_MAX: usize = 512 * 1024;

type Id = usize;
/// Names that are given, or taken away if there is nothing to name.
type Names = Vec<(String, Option<Id>)>;

#[derive(Clone, Debug)]
enum Node {
    File(File),
    Folder(Folder),
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// Each with the number of its record.
    since: Vec<(u64, Change)>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut { length: usize },
}

#[derive(Clone, Debug, Default)]
struct Folder {
    now: BTreeMap<String, Id>,
    durable: BTreeMap<String, Id>,
    /// Each with the number of its record.
    since: Vec<(u64, Names)>,
}

/// Some files and folders of a folder, with all below them.
#[derive(Clone, Debug)]
pub struct Disk {
    nodes: Vec<Node>,
    /// Of what is there now: numbers are used again.
    by_inode: BTreeMap<u64, Id>,
    /// The numbers of the records that began a sync.
    syncs: BTreeMap<u64, u64>,
    records: u64,
    is_meant: fn(&str) -> bool,
    /// As if nothing had been synced.
    pub forgets_syncs: bool,
}

/// What a loss of power did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    pub writes_lost: usize,
    pub writes_torn: usize,
    pub names_lost: usize,
}

const ROOT: Id = 0;

impl Losses {
    pub fn add(&mut self, more: Losses) {
        self.writes_lost += more.writes_lost;
        self.writes_torn += more.writes_torn;
        self.names_lost += more.names_lost;
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Cut { length } => content.resize(*length, 0),
        }
    }
}

impl Disk {
    /// A disk on which everything is durable that stands in `folder` under a name that `is_meant`.
    pub fn of(folder: &Path, is_meant: fn(&str) -> bool) -> anyhow::Result<Disk> {
        let root = Node::Folder(Folder::default());
        let (by_inode, syncs) = Default::default();
        let mut disk =
            Disk { nodes: vec![root], by_inode, syncs, records: 0, is_meant, forgets_syncs: false };
        disk.by_inode.insert(fs::metadata(folder)?.ino(), ROOT);
        disk.take_in(folder, ROOT)?;
        Ok(disk)
    }

    fn take_in(&mut self, path: &Path, folder: Id) -> anyhow::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if folder == ROOT && !(self.is_meant)(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let is_folder = entry.file_type()?.is_dir();
            let node = if is_folder {
                Node::Folder(Folder::default())
            } else {
                Node::File(File { durable: fs::read(entry.path())?, since: Vec::new() })
            };
            let id = self.add(entry.metadata()?.ino(), node);
            let name = entry.file_name().to_string_lossy().into_owned();
            let Node::Folder(folder) = &mut self.nodes[folder] else {
                bail!("{} is no folder", path.display())
            };
            folder.now.insert(name.clone(), id);
            folder.durable.insert(name, id);
            if is_folder {
                self.take_in(&entry.path(), id)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, inode: u64, node: Node) -> Id {
        self.nodes.push(node);
        self.by_inode.insert(inode, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Takes in what was recorded, up to the last record that is whole.
    pub fn replay(&mut self, mut log: &[u8]) -> anyhow::Result<()> {
        while let Some((length, rest)) = log.split_first_chunk::<4>() {
            let length = u32::from_ne_bytes(*length) as usize;
            let Some((record, rest)) = rest.split_at_checked(length) else { break };
            log = rest;
            self.records += 1;
            self.take_record(record).with_context(|| format!("record {}", self.records))?;
        }
        Ok(())
    }

    fn take_record(&mut self, record: &[u8]) -> anyhow::Result<()> {
        let (kind, rest) = record.split_first().context("it is empty")?;
        let (inode, rest) = rest.split_first_chunk::<8>().context("it has no inode")?;
        let (number, body) = rest.split_first_chunk::<8>().context("it has no number")?;
        let (inode, number) = (u64::from_ne_bytes(*inode), u64::from_ne_bytes(*number));
        let text = || std::str::from_utf8(body).context("its path is no text");
        match kind {
            1 => {
                let id = self.add(inode, Node::File(File::default()));
                self.enter(text()?, Some(id))?;
            }
            2 => {
                let id = self.add(inode, Node::Folder(Folder::default()));
                self.enter(text()?, Some(id))?;
            }
            3 => self.change(inode, Change::Write { at: number.try_into()?, bytes: body.to_vec() })?,
            4 => self.change(inode, Change::Cut { length: number.try_into()? })?,
            5 => drop(self.syncs.insert(number, self.records)),
            6 => {
                let began = self.syncs.remove(&number).context("the sync has no beginning")?;
                if !self.forgets_syncs {
                    self.sync(inode, began)?;
                }
            }
            7 => {
                let (from, to) = text()?.split_once('\0').context("it has one path only")?;
                let id = self.find(from)?;
                let ((from_folder, from), (to_folder, to)) = (self.place(from)?, self.place(to)?);
                if from_folder == to_folder {
                    self.note(from_folder, vec![(from, None), (to, Some(id))])?;
                } else {
                    self.note(to_folder, vec![(to, Some(id))])?;
                    self.note(from_folder, vec![(from, None)])?;
                }
            }
            8 => self.enter(text()?, None)?,
            kind => bail!("kind {kind} is not known"),
        }
        Ok(())
    }

    /// The folder of a path and the last name in it.
    fn place(&self, path: &str) -> anyhow::Result<(Id, String)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.find(folder)?, name.to_owned()))
    }

    fn find(&self, path: &str) -> anyhow::Result<Id> {
        path.split('/').filter(|name| !name.is_empty() && *name != ".").try_fold(ROOT, |at, name| {
            let Node::Folder(folder) = &self.nodes[at] else { bail!("{path}: a file is no folder") };
            folder.now.get(name).copied().with_context(|| format!("{path}: there is no {name}"))
        })
    }

    fn enter(&mut self, path: &str, node: Option<Id>) -> anyhow::Result<()> {
        let (folder, name) = self.place(path)?;
        self.note(folder, vec![(name, node)])
    }

    fn note(&mut self, folder: Id, names: Names) -> anyhow::Result<()> {
        let Node::Folder(folder) = &mut self.nodes[folder] else { bail!("a file is no folder") };
        set_names(&mut folder.now, &names);
        folder.since.push((self.records, names));
        Ok(())
    }

    fn change(&mut self, inode: u64, change: Change) -> anyhow::Result<()> {
        let id = self.by_inode.get(&inode).context("the file is not known")?;
        let Node::File(file) = &mut self.nodes[*id] else { bail!("a folder is no file") };
        file.since.push((self.records, change));
        Ok(())
    }

    fn sync(&mut self, inode: u64, began: u64) -> anyhow::Result<()> {
        let id = self.by_inode.get(&inode).context("the file is not known")?;
        match &mut self.nodes[*id] {
            Node::File(file) => {
                let covered = file.since.partition_point(|(number, _)| *number < began);
                for (_, change) in file.since.drain(..covered) {
                    change.apply(&mut file.durable);
                }
            }
            Node::Folder(folder) => {
                let covered = folder.since.partition_point(|(number, _)| *number < began);
                for (_, names) in folder.since.drain(..covered) {
                    set_names(&mut folder.durable, &names);
                }
            }
        }
        Ok(())
    }

    /// Writes what power was lost with to `folder`, which must be empty.
    pub fn after_power_loss(&self, folder: &Path, chance: &mut StdRng) -> anyhow::Result<Losses> {
        let mut losses = Losses::default();
        self.write_lossy(ROOT, folder, chance, &mut losses)?;
        Ok(losses)
    }

    fn write_lossy(
        &self,
        id: Id,
        path: &Path,
        chance: &mut StdRng,
        losses: &mut Losses,
    ) -> anyhow::Result<()> {
        match &self.nodes[id] {
            Node::File(file) => {
                let mut content = file.after_power_loss(chance, losses);
                let is_log = path.extension().is_some_and(|extension| extension == "log");
                if is_log && chance.random_ratio(1, 2) {
                    content.resize(content.len().next_multiple_of(RESERVED_BYTES), 0);
                }
                fs::write(path, content)?;
            }
            Node::Folder(folder) => {
                fs::create_dir_all(path)?;
                let mut names = folder.durable.clone();
                let kept = chance.random_range(0..=folder.since.len());
                folder.since[..kept].iter().for_each(|(_, change)| set_names(&mut names, change));
                losses.names_lost += folder.since.len() - kept;
                for (name, id) in names {
                    self.write_lossy(id, &path.join(name), chance, losses)?;
                }
            }
        }
        Ok(())
    }

    /// An error unless the recorded changes, if nothing of them is lost, make what the files below `folder`
    /// begin with, but for one write to each.
    pub fn check_whole(&self, folder: &Path) -> anyhow::Result<()> {
        self.check_node(ROOT, folder)
    }

    fn check_node(&self, id: Id, path: &Path) -> anyhow::Result<()> {
        match &self.nodes[id] {
            Node::File(file) => {
                let mut content = file.durable.clone();
                file.since.iter().for_each(|(_, change)| change.apply(&mut content));
                let real = fs::read(path).with_context(|| path.display().to_string())?;
                // A process may have been killed before its last write was written down. Past the end there
                // may be reserved space too.
                let mut both = content.iter().zip(&real);
                let first = both.position(|(recorded, real)| recorded != real).unwrap_or(content.len());
                let last = content.iter().zip(&real).rposition(|(recorded, real)| recorded != real);
                let other = last.map_or(0, |last| last + 1 - first);
                ensure!(
                    other <= WRITE_BYTES_MAX && real.len() >= content.len(),
                    "{} has {} bytes, of which {} were recorded, and {other} from byte {first} on are others",
                    path.display(),
                    real.len(),
                    content.len(),
                );
            }
            Node::Folder(folder) => {
                for (name, id) in &folder.now {
                    self.check_node(*id, &path.join(name))?;
                }
                let count = fs::read_dir(path)?.count();
                ensure!(
                    id == ROOT || count == folder.now.len(),
                    "{}: {count} names, not {}",
                    path.display(),
                    folder.now.len()
                );
            }
        }
        Ok(())
    }
}

/// Where each record of what was recorded ends, but for one that is not whole.
pub fn record_ends(log: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), 0);
    while let Some((length, _)) = log[at..].split_first_chunk::<4>() {
        at += 4 + u32::from_ne_bytes(*length) as usize;
        if at > log.len() {
            break;
        }
        ends.push(at);
    }
    ends
}

fn set_names(names: &mut BTreeMap<String, Id>, changes: &[(String, Option<Id>)]) {
    for (name, id) in changes {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

impl File {
    fn after_power_loss(&self, chance: &mut StdRng, losses: &mut Losses) -> Vec<u8> {
        let mut content = self.durable.clone();
        // Of some files everything reached the disk, of others nothing, of most a part.
        let kept_percent = [0, 100, 50, 90][chance.random_range(0..4)];
        for (_, change) in &self.since {
            if chance.random_range(0..100) < kept_percent {
                change.apply(&mut content);
            } else if let Change::Write { at, bytes } = change
                && chance.random_ratio(1, 2)
            {
                losses.writes_torn += 1;
                for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    let at = at + number * SECTOR_BYTES;
                    // A sector that did not make it is as it was, or zeros where the file has grown.
                    let bytes = if chance.random_ratio(1, 2) { sector } else { &[] };
                    Change::Write { at, bytes: bytes.to_vec() }.apply(&mut content);
                }
            } else {
                losses.writes_lost += 1;
            }
        }
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn record(kind: u8, inode: u64, number: u64, body: &[u8]) -> Vec<u8> {
        let length = (17 + body.len()) as u32;
        [&length.to_ne_bytes()[..], &[kind], &inode.to_ne_bytes(), &number.to_ne_bytes(), body].concat()
    }

    /// Every content of the file `a` and every set of names that a loss of power can leave.
    fn ends(log: &[Vec<u8>]) -> std::collections::BTreeSet<(Vec<String>, Option<String>)> {
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut disk = Disk::of(before.path(), |_| true).unwrap();
        disk.replay(&log.concat()).unwrap();
        (0..200)
            .map(|seed| {
                let folder = after.path().join(seed.to_string());
                disk.after_power_loss(&folder, &mut StdRng::seed_from_u64(seed)).unwrap();
                let names = fs::read_dir(&folder).unwrap();
                let mut names: Vec<_> =
                    names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
                names.sort();
                (names, fs::read_to_string(folder.join("a")).ok())
            })
            .collect()
    }

    #[test]
    fn what_is_not_synced_may_be_lost_and_what_is_synced_is_not() {
        let (file, other) = (u64::MAX, u64::MAX - 1);
        let mut log = vec![record(1, file, 0, b"a"), record(3, file, 0, b"one")];
        let text = |text: &str| Some(text.to_owned());
        let name = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let found = ends(&log);
        assert!(found.contains(&(name(&[]), None)), "the name was never synced: {found:?}");
        assert!(found.contains(&(name(&["a"]), text(""))) && found.contains(&(name(&["a"]), text("one"))));

        // A sync stands for what was written before it began.
        log.extend([record(5, file, 1, b""), record(3, file, 3, b"two"), record(6, file, 1, b"")]);
        let found = ends(&log);
        let contents: Vec<_> = found.iter().filter_map(|(_, content)| content.as_deref()).collect();
        assert!(contents.contains(&"one") && contents.contains(&"onetwo"), "{contents:?}");
        assert!(contents.iter().all(|content| content.starts_with("one")), "{contents:?}");

        // A file that is written anew and renamed is the old one or the new one.
        log.extend([record(1, other, 0, b"b"), record(3, other, 0, b"new"), record(5, other, 2, b"")]);
        log.extend([record(6, other, 2, b""), record(7, 0, 0, b"b\0a")]);
        let found = ends(&log);
        for (names, content) in &found {
            assert!(names.len() < 3);
            let content = content.as_deref().unwrap_or_default();
            assert!(
                ["", "one", "onetwo", "new"].contains(&content) || content.starts_with("one"),
                "{content:?}"
            );
        }
        assert!(found.contains(&(name(&["a"]), text("new"))));
    }
}
