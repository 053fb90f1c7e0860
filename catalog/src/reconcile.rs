//! What the catalog's leader does by itself: forms the cluster, places its regions, notes which have a
//! leader, and which nodes have missed their lease or are back.
//!
//! It takes no input but the state: after every change and at every tick it asks for the next command
//! that the state calls for, and proposes it. Every command is checked again when it is applied, so a
//! proposal from an outdated view changes nothing.

use crate::{
    config::Bootstrap,
    log::CatalogLog,
    soft::{Soft, View},
};
use afdg_catalog_machine::{
    CatalogState, Command, FormCluster, NodeState, Outcome, PlaceRegions, RegionPhase, RegionReady,
    SetNodeState,
};
use afdg_runtime::World;
use afdg_types::ClusterId;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// One proposal. Past it the reconciler looks again; the proposal may still take effect.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// Proposals in one go; the next go comes with the next tick.
const PROPOSALS_MAX: usize = 10_000;

/// When a silent node changes its state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) lease: Duration,
    pub(crate) dead_after: Duration,
}

pub(crate) struct Reconciler {
    pub(crate) log: Arc<dyn CatalogLog>,
    pub(crate) state: watch::Receiver<Arc<CatalogState>>,
    pub(crate) soft: Arc<Soft>,
    pub(crate) world: World,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) patience: Patience,
}

impl Reconciler {
    pub(crate) async fn run(self) {
        // Drawn once, so that a proposal with an unknown outcome is repeated with the same id.
        let cluster = ClusterId(self.world.entropy.random_name());
        let mut lead = self.log.lead();
        let mut state = self.state.clone();
        let period = (self.patience.lease / 4).max(Duration::from_millis(10));
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_go = Instant::now();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = self.soft.changed() => {}
                changed = lead.changed() => if changed.is_err() { return },
                changed = state.changed() => if changed.is_err() { return },
            }
            // A process that was stopped for a while finds heartbeats waiting that it has not read yet.
            if last_go.elapsed() > self.patience.lease / 2 {
                self.soft.forgive_silence(Instant::now());
            }
            self.go(&cluster).await;
            last_go = Instant::now();
        }
    }

    /// Proposes until nothing is left to propose, or a proposal fails.
    async fn go(&self, cluster: &ClusterId) {
        for _ in 0..PROPOSALS_MAX {
            let lead = *self.log.lead().borrow();
            if !lead.is_mine {
                return self.soft.end();
            }
            let now = Instant::now();
            self.soft.begin(lead.term, now);
            let Some(view) = self.soft.view() else { return };
            let state = Arc::clone(&self.state.borrow());
            let at_ms = self.world.clock.now_ms();
            let next = next_command(&state, &view, now, self.patience, self.bootstrap, cluster, at_ms);
            let Some(command) = next else { return };
            if !self.propose(&command).await {
                return;
            }
        }
    }

    async fn propose(&self, command: &Command) -> bool {
        let bytes = match command.encode() {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%error, ?command, "a proposal of the catalog is broken");
                return false;
            }
        };
        match timeout(WRITE_LIMIT, self.log.write(bytes)).await {
            Ok(Ok(Outcome::Done(reply))) => {
                tracing::info!(?reply, "the catalog has changed its state");
                true
            }
            Ok(Ok(Outcome::Refused(refusal))) => {
                tracing::debug!(%refusal, ?command, "a proposal was overtaken");
                false
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, ?command, "a proposal failed");
                false
            }
            Err(_) => {
                tracing::debug!(?command, "a proposal takes long");
                false
            }
        }
    }
}

/// The next change that the state calls for.
fn next_command(
    state: &CatalogState,
    view: &View,
    now: Instant,
    patience: Patience,
    bootstrap: Bootstrap,
    cluster: &ClusterId,
    at_ms: u64,
) -> Option<Command> {
    if state.cluster.is_none() {
        let Bootstrap { regions, replicas, .. } = bootstrap;
        return Some(Command::FormCluster(FormCluster {
            cluster: cluster.clone(),
            regions,
            replicas,
            at_ms,
        }));
    }
    if let Some(command) = next_node_state(state, view, now, patience, at_ms) {
        return Some(command);
    }
    let nodes_min = bootstrap.nodes;
    if !state.is_placed() {
        let enough = state.nodes_live().count() >= usize::try_from(nodes_min).unwrap_or(usize::MAX).max(1);
        return enough.then_some(Command::PlaceRegions(PlaceRegions { nodes_min, at_ms }));
    }
    let creating = state.regions.iter().filter(|(_, region)| region.phase == RegionPhase::Creating);
    let formed = creating.map(|(id, _)| *id).find(|id| view.leader_of(*id).is_some());
    formed.map(|region| Command::RegionReady(RegionReady { region, at_ms }))
}

fn next_node_state(
    state: &CatalogState,
    view: &View,
    now: Instant,
    patience: Patience,
    at_ms: u64,
) -> Option<Command> {
    state.nodes.iter().filter(|(_, node)| node.replaced_by.is_none()).find_map(|(id, node)| {
        let seen = view.nodes.get(id).map(|seen| seen.at);
        let silent = now.saturating_duration_since(seen.map_or(view.since, |at| at.max(view.since)));
        let is_back = seen.is_some_and(|at| now.saturating_duration_since(at) <= patience.lease);
        let to = match node.state {
            NodeState::Live if silent > patience.lease => NodeState::Suspect,
            NodeState::Suspect if is_back => NodeState::Live,
            NodeState::Suspect if silent > patience.dead_after => NodeState::Dead,
            NodeState::Dead if is_back => NodeState::Live,
            NodeState::Live | NodeState::Suspect | NodeState::Dead => return None,
        };
        Some(Command::SetNodeState(SetNodeState { node: *id, from: node.state, to, at_ms }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::testing::MemoryLog,
        soft::{Report, Seen},
    };
    use afdg_catalog_machine::RegisterNode;
    use afdg_types::{NodeId, RegionId, Term};
    use std::collections::BTreeMap;

    const PATIENCE: Patience =
        Patience { lease: Duration::from_millis(2_000), dead_after: Duration::from_millis(60_000) };
    const BOOTSTRAP: Bootstrap = Bootstrap { regions: 2, replicas: 3, nodes: 2 };

    /// A catalog whose clock is set by hand.
    struct Catalog {
        log: Arc<MemoryLog>,
        view: View,
        start: Instant,
    }

    impl Catalog {
        fn new() -> Self {
            let start = Instant::now();
            Self { log: MemoryLog::new(), view: View { since: start, nodes: BTreeMap::new() }, start }
        }

        fn register(&self, name: &str) {
            self.log.apply(Command::RegisterNode(RegisterNode {
                cluster: None,
                node: None,
                name: name.to_owned(),
                incarnation: format!("i{name}"),
                address: format!("{name}:1"),
                zone: String::new(),
                types: Vec::new(),
                at_ms: 1,
            }));
        }

        fn hear(&mut self, node: u64, at_ms: u64, leads: &[u64]) {
            let report = Report { term: Term(1), leads: true, applied_index: 1, agents_active: 0 };
            let replicas = leads.iter().map(|region| (RegionId(*region), report)).collect();
            let at = self.start + Duration::from_millis(at_ms);
            self.view.nodes.insert(NodeId(node), Seen { at, wal_bytes: 0, replicas });
        }

        /// Carries out all that is called for at `at_ms`, and returns it.
        fn go(&self, at_ms: u64) -> Vec<String> {
            let mut done = Vec::new();
            loop {
                let state = Arc::clone(&self.log.state.borrow());
                let now = self.start + Duration::from_millis(at_ms);
                let cluster = ClusterId("0123456789abcdef0123456789abcdef".to_owned());
                let next = next_command(&state, &self.view, now, PATIENCE, BOOTSTRAP, &cluster, at_ms);
                let Some(command) = next else { return done };
                let text = match &command {
                    Command::FormCluster(_) => "form".to_owned(),
                    Command::RegisterNode(_) => "register".to_owned(),
                    Command::SetNodeState(set) => format!("{} {} -> {}", set.node, set.from, set.to),
                    Command::PlaceRegions(_) => "place".to_owned(),
                    Command::RegionReady(ready) => format!("ready {}", ready.region),
                    Command::SetTypeLimits(_) | Command::RecordAction(_) => "record".to_owned(),
                };
                assert!(matches!(self.log.apply(command), Outcome::Done(_)), "{text} was refused");
                done.push(text);
                assert!(done.len() < 100, "no end of proposals");
            }
        }
    }

    #[test]
    fn a_cluster_comes_up_step_by_step() {
        let mut catalog = Catalog::new();
        assert_eq!(catalog.go(0), ["form"]);
        catalog.register("a");
        assert!(catalog.go(10).is_empty());
        catalog.register("b");
        assert_eq!(catalog.go(20), ["place"]);
        catalog.hear(1, 30, &[1]);
        assert_eq!(catalog.go(30), ["ready 1"]);
        catalog.hear(2, 40, &[2]);
        assert_eq!(catalog.go(40), ["ready 2"]);
        assert!(catalog.log.state.borrow().is_ready());
    }

    #[test]
    fn a_silent_node_is_suspected_then_dead_then_back() {
        let mut catalog = Catalog::new();
        catalog.go(0);
        catalog.register("a");
        catalog.hear(1, 1_000, &[]);
        assert!(catalog.go(3_000).is_empty());
        assert_eq!(catalog.go(3_001), ["1 live -> suspect"]);
        assert!(catalog.go(61_000).is_empty());
        assert_eq!(catalog.go(61_001), ["1 suspect -> dead"]);
        catalog.hear(1, 70_000, &[]);
        assert_eq!(catalog.go(70_100), ["1 dead -> live"]);
        catalog.hear(1, 80_000, &[]);
        assert!(catalog.go(80_000).is_empty());
        assert_eq!(catalog.go(82_001), ["1 live -> suspect"]);
        catalog.hear(1, 82_100, &[]);
        assert_eq!(catalog.go(82_100), ["1 suspect -> live"]);
    }

    #[test]
    fn a_new_leader_grants_one_lease_before_it_suspects() {
        let mut catalog = Catalog::new();
        catalog.go(0);
        catalog.register("a");
        catalog.view.since = catalog.start + Duration::from_millis(500_000);
        assert!(catalog.go(502_000).is_empty());
        assert_eq!(catalog.go(502_001), ["1 live -> suspect"]);
        assert!(catalog.go(560_000).is_empty(), "nor is it dead before the whole grace time");
        assert_eq!(catalog.go(560_001), ["1 suspect -> dead"]);
    }

    #[test]
    fn a_replaced_node_is_left_dead() {
        let mut catalog = Catalog::new();
        catalog.go(0);
        catalog.register("a");
        let again = RegisterNode {
            cluster: None,
            node: None,
            name: "a".to_owned(),
            incarnation: "another disk".to_owned(),
            address: "a:1".to_owned(),
            zone: String::new(),
            types: Vec::new(),
            at_ms: 2,
        };
        let (node, from, to) = (NodeId(1), NodeState::Live, NodeState::Suspect);
        catalog.log.apply(Command::SetNodeState(SetNodeState { node, from, to, at_ms: 1 }));
        catalog.log.apply(Command::RegisterNode(again));
        assert_eq!(catalog.log.state.borrow().nodes[&NodeId(1)].state, NodeState::Dead);
        catalog.hear(1, 10, &[]);
        catalog.hear(2, 10, &[]);
        assert!(catalog.go(20).is_empty());
    }

    #[tokio::test]
    async fn the_reconciler_runs_only_where_the_catalog_is_led() {
        let log = MemoryLog::new();
        log.lead.send_modify(|lead| lead.is_mine = false);
        let reconciler = Reconciler {
            log: log.clone(),
            state: log.state.clone(),
            soft: Arc::new(Soft::default()),
            world: World::real(),
            bootstrap: BOOTSTRAP,
            patience: PATIENCE,
        };
        let cluster = ClusterId("0123456789abcdef0123456789abcdef".to_owned());
        reconciler.go(&cluster).await;
        assert!(log.state.borrow().cluster.is_none());
        log.lead.send_modify(|lead| lead.is_mine = true);
        let running = tokio::spawn(reconciler.run());
        let mut state = log.state.clone();
        let formed = state.wait_for(|state| state.cluster.is_some());
        timeout(Duration::from_secs(10), formed).await.unwrap().unwrap();
        running.abort();
    }
}
