//! A host: a machine with a disk, on which a process runs, dies, stands still and is started again.
//!
//! Each process has a runtime of tokio's on this one thread, with time that stands still until the
//! scheduler lets it pass. Taking the runtime away is the death of the process: every task ends at the
//! await point at which it is.

use crate::{
    clock::HostClock,
    disk::{SimDisk, SimThreads},
    events::Events,
    net::{HostId, Network},
    store::SimStore,
    witness::HostWitness,
};
use afdg_replication::Substitutes;
use afdg_runtime::{Entropy, World};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{runtime::Runtime, sync::Notify, time::Instant};

/// What a process runs, and what it says when it ends by itself.
pub type Main = Pin<Box<dyn Future<Output = Ended> + Send>>;
/// Makes the main of a new process.
pub type Program = Box<dyn Fn(Process) -> Main>;

/// What a new process is given.
pub struct Process {
    pub world: World,
    pub substitutes: Substitutes,
    pub phase: Arc<Mutex<Phase>>,
    /// Asks it to stop, as SIGTERM does.
    pub stop: Arc<Notify>,
}

impl Process {
    /// Its server runs: goes on until that fails or is asked to stop.
    pub async fn until_ended(
        phase: &Mutex<Phase>,
        stop: &Notify,
        failed: impl Future<Output = String>,
    ) -> Option<Ended> {
        *phase.lock().unwrap_or_else(PoisonError::into_inner) = Phase::Running;
        tokio::select! {
            why = failed => Some(Ended::Failed(why)),
            () = stop.notified() => None,
        }
    }
}

/// Where a process stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    Ended(Ended),
}

/// How a process ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It could not start.
    NotStarted(String),
    /// It could not go on.
    Failed(String),
    /// It was asked to stop, and did.
    Drained,
}

pub struct Host {
    pub name: String,
    pub id: HostId,
    pub disk: SimDisk,
    pub store: SimStore,
    pub clock: HostClock,
    program: Program,
    witness: Arc<HostWitness>,
    network: Network,
    events: Events,
    seed: u64,
    lives: u64,
    process: Option<Running>,
    /// A process that stands still goes on then.
    pub still_until: Option<u64>,
    /// A process that is down starts again then.
    pub start_at: Option<u64>,
}

struct Running {
    runtime: Runtime,
    phase: Arc<Mutex<Phase>>,
    stop: Arc<Notify>,
    /// Up to where it has run.
    ran_to: Instant,
}

impl Host {
    pub fn new(
        name: &str,
        network: &Network,
        events: &Events,
        origin: Instant,
        seed: u64,
        witness: Arc<HostWitness>,
        program: Program,
    ) -> Self {
        Self {
            name: name.to_owned(),
            id: network.add_host(),
            disk: SimDisk::new(name, seed ^ 0x5eed_d15c, events.clone()),
            store: SimStore::new(name, seed ^ 0x5eed_5708, events.clone()),
            clock: HostClock::new(origin),
            program,
            witness,
            network: network.clone(),
            events: events.clone(),
            seed,
            lives: 0,
            process: None,
            still_until: None,
            start_at: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub fn phase(&self) -> Option<Phase> {
        let process = self.process.as_ref()?;
        Some(process.phase.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Starts a process at the simulation's time.
    pub fn start(&mut self, now: Instant) {
        self.lives += 1;
        self.start_at = None;
        self.events.note(&self.name, format_args!("starts, life {}", self.lives));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            // Looks at the process's main after every poll, so that it can be stopped between any two.
            .event_interval(1)
            .on_thread_start(|| {
                // A second thread would run in no order that a seed decides.
                eprintln!("something under simulation started a thread");
                std::process::abort();
            })
            .build()
            .expect("a runtime without drivers of the system can be built");
        let entropy = HostEntropy(Mutex::new(StdRng::seed_from_u64(
            self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.lives,
        )));
        let world = World {
            serving: Arc::new(afdg_runtime::ServingThreads::with_lent_max(usize::MAX)),
            clock: Arc::new(self.clock.clone()),
            entropy: Arc::new(entropy),
            net: self.network.on(self.id, self.clock.clone()),
            disk: self.disk.for_process(),
            threads: Arc::new(SimThreads(self.disk.clone())),
        };
        let substitutes = Substitutes {
            store: Some(Arc::new(self.store.clone())),
            witness: Arc::clone(&self.witness) as _,
        };
        let phase = Arc::new(Mutex::new(Phase::Starting));
        let stop = Arc::new(Notify::new());
        let process = Process { world, substitutes, phase: Arc::clone(&phase), stop: Arc::clone(&stop) };
        let main = (self.program)(process);
        let noted = Arc::clone(&phase);
        runtime.spawn(async move {
            let ended = main.await;
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = Phase::Ended(ended);
        });
        self.process = Some(Running { runtime, phase, stop, ran_to: now });
    }

    /// Asks the process to stop, as SIGTERM does.
    pub fn ask_to_stop(&self) {
        if let Some(process) = &self.process {
            process.stop.notify_one();
        }
    }

    /// Lets the process run up to `until`.
    pub fn run(&mut self, until: Instant, stood_still: bool) {
        let Some(process) = &mut self.process else { return };
        let missed = until.saturating_duration_since(process.ran_to);
        process.ran_to = until;
        let disk = self.disk.clone();
        process.runtime.block_on(async move {
            if stood_still {
                // Its clock jumps: all timers that were due meanwhile are due at once.
                let last = Duration::from_millis(1);
                tokio::time::advance(missed.saturating_sub(last)).await;
            }
            let slept = tokio::time::sleep_until(until);
            tokio::pin!(slept);
            std::future::poll_fn(|cx| {
                // Dead in the middle of writing: nothing more is polled.
                if disk.is_blown() {
                    return std::task::Poll::Ready(());
                }
                disk.wake_when_blown(cx.waker());
                slept.as_mut().poll(cx)
            })
            .await;
        });
    }

    /// The process ends at once. `silently` if the machine does.
    pub fn kill(&mut self, now_ns: u64, silently: bool) {
        let Some(process) = self.process.take() else { return };
        self.still_until = None;
        // First: what the tasks' destructors do must find a dead host.
        self.network.host_died(self.id, now_ns, silently);
        self.disk.host_died();
        self.witness.process_ended();
        drop(process);
        self.store.host_died();
        self.events
            .note(&self.name, format_args!("is dead{}", if silently { " without a word" } else { "" }));
    }
}

struct HostEntropy(Mutex<StdRng>);

impl Entropy for HostEntropy {
    fn random_u128(&self) -> u128 {
        let mut chance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        u128::from(chance.next_u64()) << 64 | u128::from(chance.next_u64())
    }
}
