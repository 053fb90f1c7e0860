//! What goes wrong, drawn from the seed.

use crate::{
    cluster::{CATALOGS, EXTENSIONS, NODES},
    events::Events,
    host::{Ended, Host, Phase},
    net::{Network, Weather},
    referee::Referee,
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use std::{io, ops::Range, time::Duration};

const MS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillOne,
    Drain,
    KillInWrite,
    KillSome,
    KillAll,
    StandStill,
    Isolate,
    CutFromPeers,
    CutOneWay,
    CutBridge,
    Weather,
    Reset,
    DiskErrors,
    SlowDisk,
    LoseRows,
    ClockJump,
}

const FAULTS: &[(Fault, u32, &str)] = &[
    (Fault::KillOne, 6, "kills of one"),
    (Fault::Drain, 3, "drains"),
    (Fault::KillInWrite, 5, "kills in the middle of a write"),
    (Fault::KillSome, 2, "kills of several"),
    (Fault::KillAll, 1, "kills of all"),
    (Fault::StandStill, 4, "processes that stand still"),
    (Fault::Isolate, 4, "isolations"),
    (Fault::CutFromPeers, 4, "nodes cut from their peers only"),
    (Fault::CutOneWay, 3, "one-way cuts"),
    (Fault::CutBridge, 2, "bridges"),
    (Fault::Weather, 3, "delay and loss"),
    (Fault::Reset, 2, "resets"),
    (Fault::DiskErrors, 2, "disks that fail"),
    (Fault::SlowDisk, 2, "slow disks"),
    (Fault::LoseRows, 2, "rows lost"),
    (Fault::ClockJump, 3, "clock jumps"),
];

pub struct Faults {
    chance: StdRng,
    referee: Referee,
    next_at: u64,
    /// Links are healed then.
    heal_at: Option<u64>,
    /// Only once: peers have what one server lost, and nobody has what all have lost.
    has_lost_rows: bool,
}

impl Faults {
    pub fn new(chance: StdRng, referee: Referee) -> Self {
        Self { chance, referee, next_at: 0, heal_at: None, has_lost_rows: false }
    }

    fn ms(&mut self, range: Range<u64>) -> u64 {
        self.chance.random_range(range) * MS
    }

    /// Brings about what is due.
    pub fn step(&mut self, now_ns: u64, hosts: &mut [Host], network: &Network, events: &Events) {
        if self.heal_at.is_some_and(|at| at <= now_ns) {
            self.heal_at = None;
            events.note("network", format_args!("heals"));
            network.with_links(now_ns, |links| {
                links.heal_all();
                links.set_weather(Weather::FAIR);
            });
        }
        if now_ns < self.next_at {
            return;
        }
        let first = self.next_at == 0;
        self.next_at = now_ns + self.ms(100..1_400);
        if first {
            return;
        }
        let chosen = FAULTS.choose_weighted(&mut self.chance, |(_, weight, _)| *weight);
        let Ok((fault, _, name)) = chosen.copied() else { return };
        events.count(name);
        self.bring(fault, now_ns, hosts, network, events);
    }

    fn bring(&mut self, fault: Fault, now_ns: u64, hosts: &mut [Host], network: &Network, events: &Events) {
        let servers = CATALOGS + NODES + EXTENSIONS;
        // Those that lead more often than others: there most is under way.
        let leader = self.a_leader(hosts);
        let one = match self.chance.random_range(0..10) {
            0..=4 => leader,
            5..=7 => CATALOGS + self.chance.random_range(0..NODES),
            _ => self.chance.random_range(0..servers),
        };
        match fault {
            Fault::KillOne => self.kill(&mut hosts[one], now_ns),
            Fault::Drain => {
                events.note(&hosts[one].name, format_args!("is asked to stop"));
                hosts[one].ask_to_stop();
            }
            Fault::KillInWrite => {
                let calls = self.chance.random_range(1..12);
                events.note(&hosts[one].name, format_args!("will die in write {calls} from now"));
                hosts[one].disk.set_fuse(calls);
            }
            Fault::KillSome => {
                for host in hosts.iter_mut().take(servers) {
                    if self.chance.random_ratio(2, 5) {
                        self.kill(host, now_ns);
                    }
                }
            }
            Fault::KillAll => {
                for host in hosts.iter_mut().take(servers) {
                    self.kill(host, now_ns);
                }
            }
            Fault::StandStill => {
                let until = now_ns + self.ms(50..3_000);
                if hosts[one].is_up() {
                    events
                        .note(&hosts[one].name, format_args!("stands still until {:.3}", until as f64 / 1e6));
                    hosts[one].still_until = Some(until);
                }
            }
            Fault::Isolate => {
                events.note(&hosts[one].name, format_args!("is isolated"));
                let others: Vec<_> = (0..hosts.len()).filter(|other| *other != one).collect();
                network.with_links(now_ns, |links| {
                    for other in others {
                        links.cut(one, other);
                        links.cut(other, one);
                    }
                });
                self.heal_later(now_ns);
            }
            Fault::CutFromPeers => {
                // Clients still reach it, so it goes on as if it led.
                let node = leader;
                events.note(&hosts[node].name, format_args!("is cut from its peers"));
                network.with_links(now_ns, |links| {
                    for other in (CATALOGS..CATALOGS + NODES).filter(|other| *other != node) {
                        links.cut(node, other);
                        links.cut(other, node);
                    }
                });
                self.heal_later(now_ns);
            }
            Fault::CutOneWay => {
                let other = (one + self.chance.random_range(1..servers)) % servers;
                events.note(&hosts[one].name, format_args!("is not heard by {}", hosts[other].name));
                network.with_links(now_ns, |links| links.cut(one, other));
                self.heal_later(now_ns);
            }
            Fault::CutBridge => {
                // Two nodes see each other only by way of the third.
                let bridge = self.chance.random_range(0..NODES);
                let ends: Vec<_> =
                    (0..NODES).filter(|node| *node != bridge).map(|node| CATALOGS + node).collect();
                events.note(&hosts[CATALOGS + bridge].name, format_args!("is a bridge"));
                network.with_links(now_ns, |links| {
                    links.cut(ends[0], ends[1]);
                    links.cut(ends[1], ends[0]);
                });
                self.heal_later(now_ns);
            }
            Fault::Weather => {
                let weather =
                    Weather { jitter_ns: self.ms(1..120), loss_per_mille: self.chance.random_range(0..150) };
                events.note("network", format_args!("{weather:?}"));
                network.with_links(now_ns, |links| links.set_weather(weather));
                self.heal_later(now_ns);
            }
            Fault::Reset => network.reset_one(now_ns),
            Fault::DiskErrors => {
                let kind = if self.chance.random_ratio(1, 2) {
                    io::ErrorKind::StorageFull
                } else {
                    io::ErrorKind::Other
                };
                let calls = self.chance.random_range(1..6);
                events.note(&hosts[one].name, format_args!("the disk fails {calls} times with {kind:?}"));
                hosts[one].disk.fail(calls, kind);
            }
            Fault::SlowDisk => {
                let latency = Duration::from_nanos(self.ms(5..150));
                events.note(&hosts[one].name, format_args!("the disk takes {latency:?}"));
                hosts[one].disk.set_latency(latency);
            }
            Fault::LoseRows => {
                if one < CATALOGS + NODES && !std::mem::replace(&mut self.has_lost_rows, true) {
                    self.kill(&mut hosts[one], now_ns);
                    events.note(&hosts[one].name, format_args!("loses its rows"));
                    self.referee.rows_lost(&hosts[one].name);
                    hosts[one].store.lose();
                }
            }
            Fault::ClockJump => {
                let offset = self.chance.random_range(-20_000..20_000);
                events.note(&hosts[one].name, format_args!("the wall clock is {offset} ms off"));
                hosts[one].clock.set_wall_offset_ms(offset);
            }
        }
    }

    /// The node that was the last to lead some region.
    fn a_leader(&mut self, hosts: &[Host]) -> usize {
        let leaders = self.referee.leaders();
        let leader = leaders.choose(&mut self.chance);
        let host = leader.and_then(|name| hosts.iter().position(|host| host.name == *name));
        host.unwrap_or(CATALOGS)
    }

    fn heal_later(&mut self, now_ns: u64) {
        let at = now_ns + self.ms(100..5_000);
        self.heal_at = Some(self.heal_at.map_or(at, |before| before.max(at)));
    }

    fn kill(&mut self, host: &mut Host, now_ns: u64) {
        if host.is_up() {
            host.kill(now_ns, self.chance.random_ratio(1, 3));
            host.start_at = Some(now_ns + self.ms(20..3_000));
        }
    }

    /// Processes that ended by themselves, or died in a write, are started again, as their keeper would.
    pub fn look_after(&mut self, now_ns: u64, hosts: &mut [Host], events: &Events) {
        for host in hosts {
            if host.disk.is_blown() {
                self.kill(host, now_ns);
            }
            if let Some(Phase::Ended(ended)) = host.phase() {
                events.note(&host.name, format_args!("ended: {ended:?}"));
                if let Some(why) = unexpected(&ended) {
                    events.violation("servers start and go on", format_args!("{}: {why}", host.name));
                }
                if ended != Ended::Drained {
                    events.count("processes that ended by themselves");
                }
                self.kill(host, now_ns);
            }
        }
    }

    /// Puts an end to all that goes wrong.
    pub fn end(&mut self, now_ns: u64, hosts: &mut [Host], network: &Network, events: &Events) {
        events.note("faults", format_args!("end"));
        network.with_links(now_ns, |links| {
            links.heal_all();
            links.set_weather(Weather::FAIR);
        });
        for host in hosts {
            host.disk.fail(0, io::ErrorKind::Other);
            host.disk.set_latency(Duration::from_micros(800));
            host.clock.set_wall_offset_ms(0);
            if let Some(at) = &mut host.start_at {
                *at = (*at).min(now_ns + 100 * MS);
            }
        }
    }
}

/// Why a process must not have ended so.
fn unexpected(ended: &Ended) -> Option<&str> {
    let (Ended::NotStarted(why) | Ended::Failed(why)) = ended else { return None };
    // What the faults of disks and networks cause.
    let expected = [
        "storage full",
        "no storage space",
        "other error",
        "the catalog does not take this node",
        "broken pipe",
    ];
    (!expected.iter().any(|cause| why.contains(cause))).then_some(why)
}
