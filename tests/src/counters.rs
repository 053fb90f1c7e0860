//! Counters on a grid whose additions take their time and are watched.

use crate::{PATIENCE, client::Client, grid, mail};
use afdg_agent::{
    NativeHost, async_trait,
    host::{AgentHost, Turn, TurnFailure, TurnOutput, TurnView, TypeDescription},
};
use afdg_dev_grid::DevGrid;
use afdg_example_counter::v1::{AddRequest, Count, GetRequest};
use afdg_proto::pb::v1::{
    CallManyRequest, CallRequest, ScatterRequest, ScatterResponse, ScatterResult, call_result,
    grid_client::GridClient, scatter_result,
};
use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tempfile::TempDir;
use tonic::{Status, Streaming, transport::Channel};
use tonic_types::StatusExt;

pub const COUNTER: &str = "counter.v1.Counter";

/// Between looks whether additions go on.
const HOLD_PAUSE: Duration = Duration::from_millis(5);

/// What is seen of the turns that add.
#[derive(Clone, Default)]
pub struct Watch {
    pub runs: Arc<AtomicUsize>,
    in_flight: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    held: Arc<AtomicBool>,
}

impl Watch {
    /// From now on additions wait, or go on.
    pub fn hold(&self, held: bool) {
        self.held.store(held, SeqCst);
    }

    pub fn runs(&self) -> usize {
        self.runs.load(SeqCst)
    }

    /// The most that ran at the same time, since this was last asked.
    pub fn take_most(&self) -> usize {
        self.most.swap(0, SeqCst)
    }
}

struct Slow {
    agents: NativeHost,
    watch: Watch,
    takes: Duration,
}

#[async_trait]
impl AgentHost for Slow {
    fn types(&self) -> Vec<TypeDescription> {
        self.agents.types()
    }

    async fn run(&self, turn: Turn, view: Arc<dyn TurnView>) -> Result<TurnOutput, TurnFailure> {
        if turn.method != "Add" {
            return self.agents.run(turn, view).await;
        }
        let watch = &self.watch;
        watch.runs.fetch_add(1, SeqCst);
        watch.most.fetch_max(watch.in_flight.fetch_add(1, SeqCst) + 1, SeqCst);
        tokio::time::sleep(self.takes).await;
        while watch.held.load(SeqCst) {
            tokio::time::sleep(HOLD_PAUSE).await;
        }
        let result = self.agents.run(turn, view).await;
        watch.in_flight.fetch_sub(1, SeqCst);
        result
    }
}

pub struct Counters {
    pub grid: DevGrid,
    pub client: Client,
    pub watch: Watch,
    _folder: TempDir,
}

impl Counters {
    /// A grid of so many regions, whose additions take that long.
    pub async fn open(regions: u16, takes: Duration) -> Result<Self> {
        let watch = Watch::default();
        let agents = NativeHost::new()
            .with(afdg_example_counter::counter())
            .with(afdg_example_counter::fanout())
            .with(mail::mail_box());
        let host = Arc::new(Slow { agents, watch: watch.clone(), takes });
        let (grid, folder) = grid(|options| {
            options.size.regions = Some(regions);
            options.agents = host;
        })
        .await?;
        let client = Client::connect(&grid.endpoint()).await?;
        Ok(Self { grid, client, watch, _folder: folder })
    }

    pub fn service(&self) -> GridClient<Channel> {
        GridClient::new(self.client.channel())
    }

    /// Makes the agents by a message that each gets once.
    pub async fn make(&self, agent_type: &str, method: &str, keys: &[String]) -> Result<()> {
        for part in keys.chunks(1_000) {
            let calls = part.iter().map(|key| CallRequest {
                agent: format!("{agent_type}/{key}"),
                method: method.to_owned(),
                ..CallRequest::default()
            });
            let request = CallManyRequest { calls: calls.collect(), ..CallManyRequest::default() };
            for result in self.service().call_many(request).await?.into_inner().results {
                if let Some(call_result::Result::Error(error)) = result.result {
                    bail!("an agent could not be made: {}", error.message);
                }
            }
        }
        Ok(())
    }

    /// Adds to counters with that prefix.
    pub fn add(&self, key_prefix: &str, idempotency_key: &str) -> ScatterRequest {
        ScatterRequest {
            r#type: COUNTER.to_owned(),
            key_prefix: key_prefix.to_owned(),
            method: "Add".to_owned(),
            request: AddRequest { delta: 1, ..AddRequest::default() }.encode_to_vec().into(),
            idempotency_key: idempotency_key.to_owned(),
            timeout_ms: 120_000,
            ..ScatterRequest::default()
        }
    }

    pub async fn scatter(&self, request: ScatterRequest) -> Result<Streaming<ScatterResponse>, Status> {
        Ok(self.service().scatter(request).await?.into_inner())
    }

    /// All results of a scatter, of which no agent may have two.
    pub async fn all(&self, request: ScatterRequest) -> Result<BTreeMap<String, i64>> {
        let mut counts = BTreeMap::new();
        let mut pages = self.scatter(request).await?;
        while let Some(page) = next(&mut pages).await? {
            add_counts(&mut counts, page.results)?;
        }
        Ok(counts)
    }

    pub async fn value(&self, key: &str) -> Result<i64> {
        let request = GetRequest { counter: key.to_owned() };
        Ok(self.client.call::<_, Count>("/counter.v1.Counter/Get", request).await?.value)
    }
}

pub fn keys(range: std::ops::Range<usize>, prefix: &str) -> Vec<String> {
    range.map(|number| format!("{prefix}{number}")).collect()
}

/// The next page, within the bound of everything that a test waits for.
pub async fn next(pages: &mut Streaming<ScatterResponse>) -> Result<Option<ScatterResponse>> {
    let page = tokio::time::timeout(PATIENCE, pages.message()).await;
    Ok(page.context("waited in vain for a page of results")??)
}

/// Adds results to those of before, by key.
pub fn add_counts(counts: &mut BTreeMap<String, i64>, results: Vec<ScatterResult>) -> Result<()> {
    for result in results {
        let key = result.agent.strip_prefix("counter.v1.Counter/").context("another type's agent")?;
        let value = match result.result.context("a result is empty")? {
            scatter_result::Result::Response(response) => Count::decode(response)?.value,
            scatter_result::Result::Error(error) => bail!("{key}: {}", error.message),
        };
        ensure!(counts.insert(key.to_owned(), value).is_none(), "{key} has two results");
    }
    Ok(())
}

pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
