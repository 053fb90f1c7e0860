//! One seed from its start to its verdict.

use crate::{
    clients::{self, Board, Stage},
    cluster::{self, Shape},
    events::Events,
    faults::Faults,
    host::{Ended, Host, Main, Process},
    invariants::answers,
    net::{LATENCY_NS_MIN, Network},
    referee::Referee,
    witness::HostWitness,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

const SECOND: u64 = 1_000_000_000;
/// How long everything may take to start, and to be well again after the last fault.
const START_LIMIT: u64 = 60 * SECOND;
const SETTLE_LIMIT: u64 = 120 * SECOND;

pub struct Simulation {
    events: Events,
    network: Network,
    hosts: Vec<Host>,
    faults: Faults,
    board: Board,
    origin: Instant,
    now_ns: u64,
}

impl Simulation {
    pub fn new(seed: u64, events: Events) -> Self {
        let origin = Instant::now();
        let mut chance = StdRng::seed_from_u64(seed);
        let network = Network::new(chance.random());
        let referee = Referee::new(events.clone());
        let shape = Shape {
            regions: chance.random_range(1..=3),
            checkpoint_bytes: *[2_000, 8_000, 40_000].get(chance.random_range(0..3)).unwrap_or(&8_000),
        };
        events.note("seed", format_args!("{seed}: {shape:?}"));
        let mut hosts = cluster::hosts(&network, &events, &referee, origin, chance.random(), shape);
        let board = Board::new(events.clone());
        hosts.push(clients_host(&network, &events, &referee, origin, chance.random(), &board));
        let faults = Faults::new(StdRng::seed_from_u64(chance.random()), referee);
        Self { events, network, hosts, faults, board, origin, now_ns: 0 }
    }

    pub fn run(&mut self) {
        self.start();
        if !self.until(START_LIMIT, Self::stage_is_done) {
            return self.violation("the grid does not become ready");
        }
        self.board.set_stage(Stage::Load);
        let load_until = self.now_ns + 8 * SECOND;
        while self.now_ns < load_until && !self.events.has_violation() {
            self.faults.step(self.now_ns, &mut self.hosts, &self.network, &self.events);
            self.step();
        }
        self.faults.end(self.now_ns, &mut self.hosts, &self.network, &self.events);
        self.board.set_stage(Stage::Settle);
        if !self.until(SETTLE_LIMIT, Self::stage_is_done) {
            return self.violation("calls do not succeed again after the faults have ended");
        }
        self.board.set_stage(Stage::Audit);
        if !self.until(SETTLE_LIMIT, Self::stage_is_done) {
            return self.violation("reads do not succeed after the faults have ended");
        }
        let balances = self.board.balances();
        if balances.iter().sum::<i64>() != Board::money() {
            let what = format_args!("{balances:?} are not {} in all", Board::money());
            self.events.violation("money is neither made nor lost", what);
        }
        answers::check(&self.board.history(), &self.events);
        self.events.add("simulated seconds", self.now_ns / SECOND);
        self.events.count("seeds");
    }

    fn start(&mut self) {
        let now = self.instant();
        for host in &mut self.hosts {
            host.start(now);
        }
    }

    fn stage_is_done(&self) -> bool {
        self.board.is_done()
    }

    /// Goes on until it holds; false if the time is over first, or something was violated.
    fn until(&mut self, limit: u64, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now_ns + limit;
        while !holds(self) {
            if self.now_ns >= end || self.events.has_violation() {
                return false;
            }
            self.step();
        }
        true
    }

    fn violation(&self, what: &str) {
        if !self.events.has_violation() {
            self.events.violation("availability", format_args!("{what}"));
        }
    }

    fn instant(&self) -> Instant {
        self.origin + Duration::from_nanos(self.now_ns)
    }

    /// Lets every host run for as long as none can hear of another.
    fn step(&mut self) {
        self.network.deliver(self.now_ns);
        self.faults.look_after(self.now_ns, &mut self.hosts, &self.events);
        let until_ns = self.now_ns + LATENCY_NS_MIN;
        let (now, until) = (self.instant(), self.origin + Duration::from_nanos(until_ns));
        for host in &mut self.hosts {
            if host.start_at.is_some_and(|at| at <= self.now_ns) {
                host.start(now);
            }
            let stood_still = match host.still_until {
                Some(still) if still > self.now_ns => continue,
                still => still.is_some(),
            };
            host.still_until = None;
            host.run(until, stood_still);
        }
        self.now_ns = until_ns;
        self.events.set_now(until_ns);
        crate::determinism::set_now(until_ns);
    }
}

fn clients_host(
    network: &Network,
    events: &Events,
    referee: &Referee,
    origin: Instant,
    seed: u64,
    board: &Board,
) -> Host {
    let witness = Arc::new(HostWitness { host: "clients".to_owned(), referee: referee.clone() });
    let board = board.clone();
    let program = Box::new(move |Process { world, .. }| -> Main {
        let board = board.clone();
        Box::pin(async move {
            clients::run(world, cluster::endpoints(), board).await;
            // The host stays: nobody starts it again.
            std::future::pending::<Ended>().await
        })
    });
    Host::new("clients", network, events, origin, seed, witness, program)
}
