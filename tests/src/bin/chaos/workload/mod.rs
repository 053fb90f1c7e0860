//! What clients do: five workloads, each with a few clients that make one call after the other.

mod bank;
mod counter;
mod list;
mod register;
mod retry;

use crate::{caller::Caller, history::Book};
use afdg_tests::linearizability::{Counter, List, Register};
use bank::Bank;
use rand::{Rng, SeedableRng, rngs::StdRng};
use retry::Retries;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// Clients of each workload.
const CLIENTS: u32 = 4;
/// How long a client thinks between two calls, in milliseconds.
const THINK_MS: std::ops::Range<u64> = 10..60;
/// Of last reads and repeats, at a time.
const LAST_CALLS: usize = 24;
/// Makes the last reads.
const LAST_READER: u32 = 1_000;

/// Everything that clients share.
pub struct Workloads {
    pub caller: Caller,
    pub registers: Book<Register>,
    pub counters: Book<Counter>,
    pub lists: Book<List>,
    pub bank: Bank,
    pub retries: Retries,
}

#[derive(Clone, Copy)]
enum Kind {
    Register,
    Counter,
    List,
    Bank,
    Retry,
}

/// One client.
struct Client {
    number: u32,
    /// Keys are named after it and its own count.
    calls: u64,
    random: StdRng,
}

impl Client {
    fn key(&mut self) -> String {
        self.calls += 1;
        format!("client-{}-{}", self.number, self.calls)
    }

    /// Any extension.
    fn extension(&mut self) -> usize {
        self.random.random_range(0..64)
    }

    fn chance(&mut self, of_100: u32) -> bool {
        self.random.random_range(0..100) < of_100
    }
}

impl Workloads {
    pub fn new(caller: Caller) -> Self {
        Self {
            caller,
            registers: Book::new(register::LIMITS),
            counters: Book::new(counter::LIMITS),
            lists: Book::new(list::LIMITS),
            bank: Bank::new(),
            retries: Retries::new(),
        }
    }

    /// Starts all clients, which go on until told to stop.
    pub fn start(self: &Arc<Self>, seed: u64, stop: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        let kinds = [Kind::Register, Kind::Counter, Kind::List, Kind::Bank, Kind::Retry];
        for (number, kind) in (0..).zip(kinds.into_iter().flat_map(|kind| [kind; CLIENTS as usize])) {
            let random = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(u64::from(number)));
            let client = Client { number, calls: 0, random };
            clients.spawn(self.clone().run(kind, client, stop.clone()));
        }
        clients
    }

    async fn run(self: Arc<Self>, kind: Kind, mut client: Client, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            match kind {
                Kind::Register => register::call(&self, &mut client).await,
                Kind::Counter => counter::call(&self, &mut client).await,
                Kind::List => list::call(&self, &mut client).await,
                Kind::Bank => bank::call(&self, &mut client).await,
                Kind::Retry => retry::call(&self, &mut client).await,
            }
            let think = client.random.random_range(THINK_MS);
            tokio::time::sleep(Duration::from_millis(think)).await;
        }
    }

    /// With the grid well and all clients gone: repeats what was not answered or may be repeated, and then
    /// reads every agent once more, so that nothing that was acknowledged can be missing unseen.
    pub async fn finish(self: &Arc<Self>) {
        let mut calls = LastCalls { running: JoinSet::new(), room: Arc::new(Semaphore::new(LAST_CALLS)) };
        bank::repeat(self, &mut calls);
        retry::repeat(self, &mut calls);
        calls.all().await;
        for agent in self.registers.agents() {
            calls.spawn(register::read(self.clone(), agent));
        }
        for agent in self.counters.agents() {
            calls.spawn(counter::read(self.clone(), counter::in_counters, agent));
        }
        for agent in self.retries.book.agents() {
            calls.spawn(counter::read(self.clone(), retry::in_retries, agent));
        }
        for agent in self.lists.agents() {
            calls.spawn(list::read(self.clone(), agent));
        }
        for agent in self.bank.book.agents() {
            calls.spawn(bank::read(self.clone(), agent));
        }
        calls.all().await;
        bank::check_totals(self);
    }
}

/// Some calls side by side.
struct LastCalls {
    running: JoinSet<()>,
    room: Arc<Semaphore>,
}

impl LastCalls {
    fn spawn(&mut self, call: impl Future<Output = ()> + Send + 'static) {
        let room = self.room.clone();
        self.running.spawn(async move {
            let _held = room.acquire().await;
            call.await;
        });
    }

    async fn all(&mut self) {
        while let Some(ended) = self.running.join_next().await {
            // A client that panics is a defect of this program.
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}
