//! Faults: which there are, and what of each is drawn from the seed.

mod field;
mod schedule;

pub use field::{Field, Ground, forget_earlier_runs};
pub use schedule::{Event, LeaderDeath, Schedule};

use clap::ValueEnum;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use std::{collections::BTreeMap, fmt, time::Duration};

/// The largest jump of a clock. Larger ones than 15 min would shorten for how long ids are kept, which is
/// counted by servers' clocks.
const JUMP_MS_MAX: i64 = 5 * 60 * 1_000;
const FSYNC_MS: std::ops::Range<u64> = 20..250;
const LOSS_PERCENT: std::ops::Range<u8> = 5..35;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// SIGKILL of any process
    Kill,
    /// SIGKILL of the region node that leads a region
    KillLeader,
    /// SIGKILL of a majority of the region nodes at once
    KillMajority,
    /// SIGKILL of all processes at once
    KillAll,
    /// SIGKILL of the catalog's leader
    KillCatalogLeader,
    /// SIGSTOP of any process, then SIGCONT
    Freeze,
    /// Servers fall into two parts that don't reach each other
    Partition,
    /// A server's frames don't reach others, but theirs reach it
    OneWay,
    /// Packets that reach servers get lost
    Loss,
    /// Packets that servers send are late
    Delay,
    /// A server's time of day jumps, and back
    Clock,
    /// fsync is slow
    SlowFsync,
    /// fsync fails on a region node: it has to end, with exit code 3
    FsyncError,
    /// A region node's disk is full: it has to end, with exit code 3
    FullDisk,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("?", |value| value.get_name()))
    }
}

/// One fault, as it is done. Who leads is found out when it begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    Kill(Vec<String>),
    /// Of the region with this place in the list of regions, counted around.
    KillLeader(usize),
    KillCatalogLeader,
    Freeze(String),
    /// Nothing of what the first sends reaches the second, one by one.
    Cut(Vec<(String, Vec<String>)>),
    Loss {
        servers: Vec<String>,
        percent: u8,
    },
    Delay(Vec<String>),
    Clock {
        server: String,
        ms: i64,
    },
    SlowFsync {
        servers: Vec<String>,
        by: Duration,
    },
    FsyncError(String),
    FullDisk,
}

/// The servers by name.
#[derive(Clone, Debug)]
pub struct Servers {
    pub all: Vec<String>,
    pub nodes: Vec<String>,
    pub catalogs: Vec<String>,
}

impl Servers {
    fn with_data(&self) -> Vec<String> {
        [&self.nodes[..], &self.catalogs[..]].concat()
    }

    /// All but clients, some of whom keep together.
    fn parts(&self, random: &mut StdRng) -> (Vec<String>, Vec<String>) {
        let alone = one(&self.with_data(), random);
        let mut part = vec![alone.clone()];
        // Sometimes a node takes a catalog server along, or an extension.
        if random.random_bool(0.5) {
            let others: Vec<String> =
                self.all.iter().filter(|name| !same_kind(name, &alone)).cloned().collect();
            part.push(one(&others, random));
        }
        let rest = self.all.iter().filter(|name| !part.contains(name)).cloned().collect();
        (part, rest)
    }
}

fn same_kind(one: &str, other: &str) -> bool {
    one.split('-').next() == other.split('-').next()
}

fn one(of: &[String], random: &mut StdRng) -> String {
    of.choose(random).cloned().unwrap_or_default()
}

impl Fault {
    pub fn draw(kind: Kind, servers: &Servers, random: &mut StdRng) -> Self {
        // One server, or all of a kind.
        let some = |random: &mut StdRng, of: &[String]| match random.random_bool(0.5) {
            true => vec![one(of, random)],
            false => of.to_vec(),
        };
        match kind {
            Kind::Kill => Self::Kill(vec![one(&servers.all, random)]),
            Kind::KillLeader => Self::KillLeader(random.random_range(0..1_000)),
            Kind::KillMajority => {
                let most = servers.nodes.len() / 2 + 1;
                Self::Kill(servers.nodes.choose_multiple(random, most).cloned().collect())
            }
            Kind::KillAll => Self::Kill(servers.all.clone()),
            Kind::KillCatalogLeader => Self::KillCatalogLeader,
            Kind::Freeze => Self::Freeze(one(&servers.all, random)),
            Kind::Partition => {
                let (part, rest) = servers.parts(random);
                let out = part.iter().map(|server| (server.clone(), rest.clone()));
                let back = rest.iter().map(|server| (server.clone(), part.clone()));
                Self::Cut(out.chain(back).collect())
            }
            Kind::OneWay => {
                let (part, rest) = servers.parts(random);
                let (from, to) = if random.random_bool(0.5) { (part, rest) } else { (rest, part) };
                Self::Cut(from.into_iter().map(|server| (server, to.clone())).collect())
            }
            Kind::Loss => {
                let percent = random.random_range(LOSS_PERCENT);
                Self::Loss { servers: some(random, &servers.all), percent }
            }
            Kind::Delay => Self::Delay(some(random, &servers.all)),
            Kind::Clock => {
                let ms = random.random_range(1_000..JUMP_MS_MAX);
                let ms = if random.random_bool(0.5) { ms } else { -ms };
                Self::Clock { server: one(&servers.all, random), ms }
            }
            Kind::SlowFsync => {
                let by = Duration::from_millis(random.random_range(FSYNC_MS));
                Self::SlowFsync { servers: some(random, &servers.nodes), by }
            }
            // A catalog server may have nothing to write for long, and then it notices nothing.
            Kind::FsyncError => Self::FsyncError(one(&servers.nodes, random)),
            Kind::FullDisk => Self::FullDisk,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(names) => write!(f, "{} killed", names.join(", ")),
            Self::KillLeader(_) => write!(f, "a region's leader killed"),
            Self::KillCatalogLeader => write!(f, "the catalog's leader killed"),
            Self::Freeze(name) => write!(f, "{name} frozen"),
            Self::Cut(cuts) => {
                let mut senders: BTreeMap<String, Vec<&str>> = BTreeMap::new();
                for (from, to) in cuts {
                    senders.entry(to.join(" ")).or_default().push(from);
                }
                let told = senders.iter().map(|(to, from)| format!("{} -> {to}", from.join(" ")));
                write!(f, "cut: {}", told.collect::<Vec<_>>().join(", "))
            }
            Self::Loss { servers, percent } => {
                write!(f, "{percent} % lost on the way to {}", servers.join(", "))
            }
            Self::Delay(servers) => write!(f, "{} send late", servers.join(", ")),
            Self::Clock { server, ms } => write!(f, "the clock of {server} is {ms} ms off"),
            Self::SlowFsync { servers, by } => {
                write!(f, "fsync takes {by:?} longer on {}", servers.join(", "))
            }
            Self::FsyncError(name) => write!(f, "fsync fails on {name}"),
            Self::FullDisk => write!(f, "a region node's disk is full"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn servers() -> Servers {
        let names = |kind: &str| (1..=3).map(|number| format!("{kind}-{number}")).collect::<Vec<_>>();
        let (nodes, catalogs) = (names("node"), names("catalog"));
        Servers { all: [&nodes[..], &catalogs[..], &names("extension")[..2]].concat(), nodes, catalogs }
    }

    #[test]
    fn a_seed_draws_the_same_faults_again_and_another_seed_others() {
        let draw = |seed| -> Vec<Fault> {
            let mut random = StdRng::seed_from_u64(seed);
            let kinds = Kind::value_variants().iter().cycle().take(100);
            kinds.map(|kind| Fault::draw(*kind, &servers(), &mut random)).collect()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_partition_cuts_both_ways_and_leaves_each_part_whole() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..50 {
            let Fault::Cut(cuts) = Fault::draw(Kind::Partition, &servers(), &mut random) else {
                panic!("a partition is a cut");
            };
            for (from, to) in &cuts {
                assert!(!to.is_empty() && !to.contains(from));
                for other in to {
                    let back = cuts.iter().find(|(name, _)| name == other).unwrap();
                    assert!(back.1.contains(from), "{other} still reaches {from}");
                }
            }
            assert_eq!(cuts.len(), servers().all.len());
        }
    }
}
