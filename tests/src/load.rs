//! Clients that add to counters, one call after the other, and remember what was acknowledged.
//!
//! Each client has counters of its own, all in one region, and repeats every addition under its key until
//! it is answered. So the count that it is answered says at once whether one of its additions was lost
//! (too low) or done twice (too high). After each it reads the counter through another extension: a read
//! that begins after an acknowledgement has to see what was acknowledged.

use crate::{persistent::Persistent, stalls::Stalls};
use afdg_example_counter::v1::{AddRequest, Count, GetRequest};
use afdg_proto::pb::admin::Region;
use afdg_types::{AgentRef, Slot};
use anyhow::{Context, ensure};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

const ADD: &str = "/counter.v1.Counter/Add";
const GET: &str = "/counter.v1.Counter/Get";
/// Of each client, called in turn.
const COUNTERS: usize = 24;
/// How long clients may take to do what is waited for.
const PROGRESS_LIMIT: Duration = Duration::from_secs(90);
/// How often on the way to an answer somebody may have been kept waiting as long as the longest stall: an
/// election and the first entry of a new leader take about ten steps of threads and disks, one after the
/// other. On a machine with time to spare, stalls are a few milliseconds and this is nothing.
const STALLS_IN_A_GAP: u32 = 10;

pub struct Load {
    clients: Vec<AddingClient>,
    stalls: Stalls,
    stop: watch::Sender<bool>,
}

struct AddingClient {
    shared: Arc<Shared>,
    task: JoinHandle<anyhow::Result<()>>,
}

struct Shared {
    name: String,
    region: u64,
    counters: Vec<String>,
    /// Begin with different extensions.
    additions: Persistent,
    reads: Persistent,
    longest_gap: Mutex<Duration>,
    /// Additions; number `n` goes to counter `n` modulo their number.
    acknowledged: watch::Sender<usize>,
}

/// Everything that was acknowledged, after the clients have ended.
pub struct Acknowledged {
    clients: Vec<Arc<Shared>>,
}

impl Load {
    /// Starts clients for every region: one that adds through each of the extensions.
    pub fn start(endpoints: &[String], regions: &[Region]) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut clients = Vec::new();
        for region in regions {
            for extension in 0..endpoints.len() {
                let name = format!("client-{}-{extension}", region.id);
                let shared = Arc::new(Shared {
                    region: region.id,
                    counters: keys_in(region, "counter.v1.Counter", &name).take(COUNTERS).collect(),
                    name,
                    additions: Persistent::new(endpoints, extension)?,
                    reads: Persistent::new(endpoints, extension + 1)?,
                    longest_gap: Mutex::default(),
                    acknowledged: watch::Sender::new(0),
                });
                let task = tokio::spawn(shared.clone().run(stopped.clone()));
                clients.push(AddingClient { shared, task });
            }
        }
        Ok(Self { clients, stalls: Stalls::watch(), stop })
    }

    /// Waits until every client has got `more` additions acknowledged from now on.
    pub async fn go_on(&self, more: usize) -> anyhow::Result<()> {
        self.go_on_in(more, |_| true).await
    }

    /// The same of the clients of some regions only.
    pub async fn go_on_in(&self, more: usize, region: impl Fn(u64) -> bool) -> anyhow::Result<()> {
        let give_up = Instant::now() + PROGRESS_LIMIT;
        let some: Vec<_> = self.clients.iter().filter(|client| region(client.shared.region)).collect();
        ensure!(!some.is_empty(), "no client calls these regions");
        let goals: Vec<_> = some.iter().map(|client| *client.shared.acknowledged.borrow() + more).collect();
        for (AddingClient { shared, task }, goal) in some.into_iter().zip(goals) {
            let mut acknowledged = shared.acknowledged.subscribe();
            let waited = tokio::time::timeout_at(give_up, async {
                tokio::select! {
                    reached = acknowledged.wait_for(|count| *count >= goal) => reached.is_ok(),
                    () = ended(task) => false,
                }
            });
            let why =
                || format!("{} made {} of {goal} additions", shared.name, *shared.acknowledged.borrow());
            ensure!(waited.await.with_context(why)?, "{} has ended early", shared.name);
        }
        Ok(())
    }

    /// Waits for so long, and until every client has got additions acknowledged after that. For what must
    /// not happen within a time.
    pub async fn go_on_for(&self, time: Duration) -> anyhow::Result<()> {
        tokio::time::sleep(time).await;
        self.go_on(2).await
    }

    /// Begins to look for gaps anew. A call that is under way counts with all its time.
    pub fn forget_gaps(&self) {
        self.stalls.forget();
        for client in &self.clients {
            *client.shared.longest_gap() = Duration::ZERO;
        }
    }

    /// The longest time that a client of any region has waited for an answer, repeats included: an error
    /// if it is longer than `max` and the machine's own stalls don't explain it.
    pub fn check_gap(&self, max: Duration, after: &str) -> anyhow::Result<()> {
        let gaps = self.clients.iter().map(|client| *client.shared.longest_gap());
        let (gap, stall) = (gaps.max().unwrap_or_default(), self.stalls.longest());
        let found =
            format!("longest gap after {after}: {gap:.3?}, {max:?} at most; longest stall {stall:.1?}");
        eprintln!("{found}");
        ensure!(gap <= max + STALLS_IN_A_GAP * stall, found);
        Ok(())
    }

    /// Attempts that the clients had to make beyond the first of each call.
    pub fn repeats(&self) -> u64 {
        self.clients.iter().map(|c| c.shared.additions.repeats() + c.shared.reads.repeats()).sum()
    }

    /// Ends the clients, once their last calls are answered.
    pub async fn finish(self) -> anyhow::Result<Acknowledged> {
        self.stop.send_replace(true);
        let mut clients = Vec::new();
        for AddingClient { shared, task } in self.clients {
            task.await?.with_context(|| shared.name.clone())?;
            clients.push(shared);
        }
        Ok(Acknowledged { clients })
    }
}

/// Looked at again and again, since a handle can be awaited only once.
async fn ended(task: &JoinHandle<anyhow::Result<()>>) {
    while !task.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Shared {
    async fn run(self: Arc<Self>, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut number = 0;
        while !*stopped.borrow() {
            let begin = Instant::now();
            let answer = self.add(number).await?;
            self.note_gap(begin);
            self.acknowledged.send_replace(number + 1);
            let begin = Instant::now();
            let seen = self.read(number % COUNTERS).await?;
            self.note_gap(begin);
            let wanted = (number / COUNTERS) as i64 + 1;
            ensure!(
                answer == wanted && seen == wanted,
                "addition {number} made {answer} of {}, and a read after it found {seen}; {wanted} is right",
                self.counters[number % COUNTERS],
            );
            number += 1;
        }
        Ok(())
    }

    async fn add(&self, number: usize) -> anyhow::Result<i64> {
        let request = AddRequest { counter: self.counters[number % COUNTERS].clone(), delta: 1 };
        let key = format!("{}-{number}", self.name);
        Ok(self.additions.call::<_, Count>(ADD, request, &key).await?.value)
    }

    async fn read(&self, counter: usize) -> anyhow::Result<i64> {
        let counter = self.counters[counter].clone();
        Ok(self.reads.read::<_, Count>(GET, GetRequest { counter }).await?.value)
    }

    fn note_gap(&self, begin: Instant) {
        let mut longest = self.longest_gap();
        *longest = longest.max(begin.elapsed());
    }

    fn longest_gap(&self) -> MutexGuard<'_, Duration> {
        self.longest_gap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every counter has to hold exactly what was acknowledged.
    async fn check_sums(&self) -> anyhow::Result<()> {
        let made = *self.acknowledged.borrow();
        for (place, counter) in self.counters.iter().enumerate() {
            let wanted = (made + COUNTERS - 1 - place) / COUNTERS;
            let found = self.read(place).await?;
            ensure!(found == wanted as i64, "{counter} is {found}, and {wanted} additions were acknowledged");
        }
        Ok(())
    }

    /// Repeats the last `most` additions: each has to be answered as it was.
    async fn repeat(&self, most: usize) -> anyhow::Result<()> {
        let made = *self.acknowledged.borrow();
        for number in made.saturating_sub(most)..made {
            let (again, before) = (self.add(number).await?, (number / COUNTERS) as i64 + 1);
            ensure!(again == before, "addition {number} made {before} and, repeated under its key, {again}");
        }
        Ok(())
    }
}

impl Acknowledged {
    pub fn count(&self) -> usize {
        self.clients.iter().map(|client| *client.acknowledged.borrow()).sum()
    }

    /// Checks every counter to be exactly what was acknowledged; then repeats the last `most` additions of
    /// every client under their keys, which has to change nothing, and checks again.
    pub async fn check(&self, most: usize) -> anyhow::Result<()> {
        let mut checks = JoinSet::new();
        for client in &self.clients {
            let client = client.clone();
            checks.spawn(async move {
                client.check_sums().await.with_context(|| client.name.clone())?;
                client.repeat(most).await.with_context(|| client.name.clone())?;
                client.check_sums().await.with_context(|| format!("{} after repeats", client.name))
            });
        }
        while let Some(check) = checks.join_next().await {
            check??;
        }
        Ok(())
    }
}

/// Keys of agents of a type that lie in `region`, all beginning with `prefix`, without end.
pub fn keys_in(region: &Region, agent_type: &str, prefix: &str) -> impl Iterator<Item = String> {
    (0..).map(move |number: u32| format!("{prefix}-{number}")).filter(move |key| {
        let slot = |agent: AgentRef| u32::from(Slot::of(&agent).0);
        let is_here = |slot| region.slots.iter().any(|range| range.first <= slot && slot <= range.last);
        AgentRef::new(agent_type, key).is_ok_and(|agent| is_here(slot(agent)))
    })
}
