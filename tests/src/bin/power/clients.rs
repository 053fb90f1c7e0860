//! Clients that add to counters and record purchases, one after the other, and remember how much had been
//! recorded of the disks when each was acknowledged.

use afdg_example_counter::v1::{AddRequest, Count, GetRequest};
use afdg_example_shop::v1::{GetSummaryRequest, RecordPurchaseRequest, RecordPurchaseResponse, Summary};
use afdg_tests::persistent::Persistent;
use anyhow::{Context, ensure};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::task::JoinSet;

/// Of each client, half of them counters and half customers.
const AGENTS: usize = 6;
/// Additions that are repeated under their keys after each loss of power.
const REPEATED: u64 = 3;

pub struct Clients {
    clients: Vec<Arc<Client>>,
    calls: JoinSet<anyhow::Result<()>>,
}

struct Client {
    number: usize,
    grid: Persistent,
    log: PathBuf,
    agents: Mutex<Vec<Agent>>,
}

/// Addition `n` makes it `n`, whatever happens.
#[derive(Clone, Debug, Default)]
struct Agent {
    /// Additions that were begun.
    sent: u64,
    /// Additions that were acknowledged, each with the length of the log then.
    acknowledged: Vec<(u64, u64)>,
}

impl Clients {
    pub fn new(count: usize, endpoints: &[String], log: &std::path::Path) -> anyhow::Result<Self> {
        let client = |number| -> anyhow::Result<_> {
            Ok(Arc::new(Client {
                number,
                grid: Persistent::new(endpoints, number)?,
                log: log.to_owned(),
                agents: Mutex::new(vec![Agent::default(); AGENTS]),
            }))
        };
        Ok(Self { clients: (0..count).map(client).collect::<Result<_, _>>()?, calls: JoinSet::new() })
    }

    pub fn start(&mut self) {
        for client in &self.clients {
            self.calls.spawn(client.clone().run());
        }
    }

    /// An error if a client was answered wrongly.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.calls.abort_all();
        while let Some(ended) = self.calls.join_next().await {
            if let Ok(ended) = ended {
                ended?;
            }
        }
        Ok(())
    }

    pub fn acknowledged(&self) -> u64 {
        let of = |client: &Arc<Client>| {
            client.agents().iter().filter_map(|a| Some(a.acknowledged.last()?.0)).sum()
        };
        self.clients.iter().map(|client| -> u64 { of(client) }).sum()
    }

    /// Power was lost when the log was this long: what was acknowledged later may be gone.
    pub fn forget_after(&self, log_bytes: u64) {
        for client in &self.clients {
            for agent in client.agents().iter_mut() {
                agent.acknowledged.retain(|(_, length)| *length <= log_bytes);
                if let Some(last) = agent.acknowledged.pop() {
                    // The log begins anew.
                    agent.acknowledged = vec![(last.0, 0)];
                }
            }
        }
    }

    /// Everything that was acknowledged has to be there, and nothing that was not sent; additions that are
    /// repeated under their keys have to be answered as they were and change nothing.
    pub async fn check(&self) -> anyhow::Result<()> {
        let mut checks = JoinSet::new();
        for client in &self.clients {
            let client = client.clone();
            checks.spawn(async move {
                for agent in 0..AGENTS {
                    client.check(agent).await.with_context(|| client.name(agent))?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(checked) = checks.join_next().await {
            checked??;
        }
        Ok(())
    }
}

impl Client {
    fn agents(&self) -> MutexGuard<'_, Vec<Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, agent: usize) -> String {
        format!("client-{}-{agent}", self.number)
    }

    async fn run(self: Arc<Self>) -> anyhow::Result<()> {
        for agent in (0..AGENTS).cycle() {
            let next = {
                let agent = &mut self.agents()[agent];
                let next = agent.acknowledged.last().map_or(0, |(number, _)| *number) + 1;
                agent.sent = agent.sent.max(next);
                next
            };
            self.add(agent, next).await.with_context(|| self.name(agent))?;
            // Later than the acknowledgement was sent, so no less.
            let length = std::fs::metadata(&self.log)?.len();
            self.agents()[agent].acknowledged.push((next, length));
        }
        Ok(())
    }

    async fn add(&self, agent: usize, number: u64) -> anyhow::Result<()> {
        let key = format!("{}-{number}", self.name(agent));
        let made = if agent.is_multiple_of(2) {
            let request = AddRequest { counter: self.name(agent), delta: 1 };
            let answer: Count = self.grid.call("/counter.v1.Counter/Add", request, &key).await?;
            u64::try_from(answer.value)?
        } else {
            let request = RecordPurchaseRequest {
                customer: self.name(agent),
                date: "20261125".to_owned(),
                amount_cents: i64::try_from(number)?,
            };
            let answer: RecordPurchaseResponse =
                self.grid.call("/shop.v1.Customer/RecordPurchase", request, &key).await?;
            check_total(answer.count, answer.total_cents)?;
            answer.count
        };
        ensure!(made == number, "addition {number} was answered with {made}");
        Ok(())
    }

    async fn read(&self, agent: usize) -> anyhow::Result<u64> {
        if agent.is_multiple_of(2) {
            let request = GetRequest { counter: self.name(agent) };
            let answer: Count = self.grid.read("/counter.v1.Counter/Get", request).await?;
            return Ok(u64::try_from(answer.value)?);
        }
        let request = GetSummaryRequest { customer: self.name(agent) };
        let answer: Summary = self.grid.read("/shop.v1.Customer/GetSummary", request).await?;
        check_total(answer.count, answer.total_cents)?;
        Ok(answer.count)
    }

    async fn check(&self, agent: usize) -> anyhow::Result<()> {
        let Agent { sent, acknowledged } = self.agents()[agent].clone();
        let least = acknowledged.last().map_or(0, |(number, _)| *number);
        let found = self.read(agent).await?;
        ensure!(least <= found, "{least} additions were acknowledged, and {found} are there");
        ensure!(found <= sent, "{sent} additions were sent, and {found} are there");
        for number in found.saturating_sub(REPEATED) + 1..=found {
            self.add(agent, number).await?;
        }
        let again = self.read(agent).await?;
        ensure!(again == found, "additions were repeated under their keys: {found} became {again}");
        // More than was acknowledged may be there, and is sure only from now on: a loss of power while the
        // servers started may still have taken it.
        if found > least {
            let length = std::fs::metadata(&self.log)?.len();
            self.agents()[agent].acknowledged.push((found, length));
        }
        Ok(())
    }
}

/// Purchase `n` costs `n` cents.
fn check_total(count: u64, total_cents: i64) -> anyhow::Result<()> {
    let wanted = i64::try_from(count * (count + 1) / 2)?;
    ensure!(total_cents == wanted, "{count} purchases cost {total_cents}, not {wanted}");
    Ok(())
}
