//! Clients that add to counters, one call after the other, and remember what was acknowledged.
//!
//! Each client has counters of its own, one in each region or so, and repeats every addition until it is
//! answered. So the count that it is answered says at once whether one of its additions was lost (too
//! low) or done twice (too high).

use crate::persistent::Persistent;
use afdg_example_counter::v1::{AddRequest, Count, GetRequest};
use afdg_types::{AgentRef, Slot};
use anyhow::{Context, ensure};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

const ADD: &str = "/counter.v1.Counter/Add";
const GET: &str = "/counter.v1.Counter/Get";
/// Slots in all.
const SLOTS: usize = 1 << 14;
/// How long clients may take to do what is waited for.
const PROGRESS_LIMIT: Duration = Duration::from_secs(90);

pub struct Load {
    clients: Vec<AddingClient>,
    stop: watch::Sender<bool>,
    endpoints: Vec<String>,
}

struct AddingClient {
    shared: Arc<Shared>,
    task: JoinHandle<anyhow::Result<()>>,
}

struct Shared {
    name: String,
    counters: Vec<String>,
    calls: Persistent,
    progress: Mutex<Progress>,
    acknowledged: watch::Sender<u64>,
}

#[derive(Default)]
struct Progress {
    /// Answers, in order: addition number `n` goes to counter `n` modulo their number.
    counts: Vec<i64>,
    longest_gap: Duration,
}

/// Everything that was acknowledged, after the clients have ended.
pub struct Acknowledged {
    clients: Vec<Arc<Shared>>,
    endpoints: Vec<String>,
}

impl Load {
    /// Starts `clients` clients that add to a counter in each of `regions` regions of equal size.
    pub fn start(endpoints: &[String], clients: usize, regions: u16) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let started: anyhow::Result<Vec<_>> = (0..clients)
            .map(|number| {
                let name = format!("client-{number}");
                let shared = Arc::new(Shared {
                    counters: counters(&name, usize::from(regions)),
                    name,
                    calls: Persistent::new(endpoints, number)?,
                    progress: Mutex::default(),
                    acknowledged: watch::Sender::new(0),
                });
                let task = tokio::spawn(shared.clone().run(stopped.clone()));
                Ok(AddingClient { shared, task })
            })
            .collect();
        Ok(Self { clients: started?, stop, endpoints: endpoints.to_vec() })
    }

    /// Waits until every client has been answered `rounds` more times by each of its counters.
    pub async fn rounds(&self, rounds: u64) -> anyhow::Result<()> {
        for AddingClient { shared, task } in &self.clients {
            let goal = *shared.acknowledged.borrow() + rounds * shared.counters.len() as u64;
            let mut acknowledged = shared.acknowledged.subscribe();
            let reached = acknowledged.wait_for(|count| *count >= goal);
            let waited = tokio::time::timeout(PROGRESS_LIMIT, async {
                tokio::select! {
                    reached = reached => reached.map(|_| ()).context("it is gone"),
                    () = ended(task) => Err(anyhow::anyhow!("it has ended")),
                }
            });
            waited.await.with_context(|| format!("{} made no progress", shared.name))??;
        }
        Ok(())
    }

    /// Begins to look for gaps anew. A call that is under way counts with all its time.
    pub fn forget_gaps(&self) {
        for client in &self.clients {
            client.shared.progress().longest_gap = Duration::ZERO;
        }
    }

    /// The longest time that a client has waited for an answer, repeats included.
    pub fn longest_gap(&self) -> Duration {
        self.clients.iter().map(|client| client.shared.progress().longest_gap).max().unwrap_or_default()
    }

    /// Attempts that the clients had to make beyond the first of each call.
    pub fn repeats(&self) -> u64 {
        self.clients.iter().map(|client| client.shared.calls.repeats()).sum()
    }

    /// Ends the clients, once their last calls are answered.
    pub async fn finish(self) -> anyhow::Result<Acknowledged> {
        self.stop.send_replace(true);
        let mut clients = Vec::new();
        for AddingClient { shared, task } in self.clients {
            task.await?.with_context(|| shared.name.clone())?;
            clients.push(shared);
        }
        Ok(Acknowledged { clients, endpoints: self.endpoints })
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
            let start = Instant::now();
            let count: Count = self.add(&self.calls, number).await?;
            {
                let mut progress = self.progress();
                progress.longest_gap = progress.longest_gap.max(start.elapsed());
                progress.counts.push(count.value);
            }
            self.check(number, count)?;
            number += 1;
            self.acknowledged.send_replace(number as u64);
        }
        Ok(())
    }

    async fn add(&self, calls: &Persistent, number: usize) -> anyhow::Result<Count> {
        let counter = self.counters[number % self.counters.len()].clone();
        calls.call(ADD, AddRequest { counter, delta: 1 }, &format!("{}-{number}", self.name)).await
    }

    fn check(&self, number: usize, answer: Count) -> anyhow::Result<()> {
        let wanted = (number / self.counters.len()) as i64 + 1;
        ensure!(
            answer.value == wanted,
            "addition {number} of {} made {} of {}, where it makes {wanted}",
            self.name,
            self.counters[number % self.counters.len()],
            answer.value,
        );
        Ok(())
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acknowledged {
    pub fn count(&self) -> u64 {
        self.clients.iter().map(|client| client.progress().counts.len() as u64).sum()
    }

    /// Reads every counter: each has to hold exactly what was acknowledged.
    pub async fn check_sums(&self) -> anyhow::Result<()> {
        let calls = Persistent::new(&self.endpoints, 0)?;
        let mut sum = 0;
        for client in &self.clients {
            let made = client.progress().counts.len();
            for (place, counter) in client.counters.iter().enumerate() {
                let wanted = (made + client.counters.len() - 1 - place) / client.counters.len();
                let request = GetRequest { counter: counter.clone() };
                let count: Count = calls.call(GET, request, &format!("read-{counter}")).await?;
                ensure!(
                    count.value == wanted as i64,
                    "{counter} is {}, and {wanted} additions to it were acknowledged",
                    count.value,
                );
                sum += wanted as u64;
            }
        }
        ensure!(sum == self.count(), "{sum} additions were checked of {}", self.count());
        Ok(())
    }

    /// Repeats the last `each` additions of every client under their keys: each has to be answered as it
    /// was, without another effect.
    pub async fn repeat_last(&self, each: usize) -> anyhow::Result<()> {
        let calls = Persistent::new(&self.endpoints, 0)?;
        for client in &self.clients {
            let made = client.progress().counts.len();
            for number in made.saturating_sub(each)..made {
                let again = client.add(&calls, number).await?;
                client.check(number, again).context("repeated under its key")?;
            }
        }
        Ok(())
    }
}

/// Names of counters that lie in `regions` ranges of slots of equal size, one in each.
fn counters(client: &str, regions: usize) -> Vec<String> {
    let mut met = BTreeSet::new();
    let names = (0..).map(|number| format!("{client}-{number}"));
    let in_new_range = names.filter(|name| {
        let agent = AgentRef::new("counter.v1.Counter", name);
        agent.is_ok_and(|agent| met.insert(usize::from(Slot::of(&agent).0) * regions / SLOTS))
    });
    in_new_range.take(regions).collect()
}
