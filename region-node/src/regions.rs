//! The regions of this node: which there are is the catalog's word, which a reconciler follows.

use crate::{
    region::{self, RegionHandle, Surroundings},
    replica::{CachedRegionMachine, NoObserver},
};
use afdg_catalog_client::{RouteRegion, Routes};
use afdg_replication::ReplicaHost;
use afdg_runtime::OnEnd;
use afdg_types::{NodeId, RegionId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::time::Instant;

/// Pause between looks, and after a change of the routes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A preferred leader that is in step for this long gets the lead back.
const IN_STEP_BEFORE_TRANSFER: Duration = Duration::from_secs(5);
/// The catalog counts as heard for this long after it answered: several heartbeats.
const HEARD_FOR: Duration = Duration::from_secs(2);

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Regions {
    handles: Arc<RwLock<BTreeMap<RegionId, RegionHandle>>>,
}

impl Regions {
    pub fn get(&self, region: RegionId) -> Option<RegionHandle> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner).get(&region).cloned()
    }

    pub fn all(&self) -> Vec<(RegionId, RegionHandle)> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.iter().map(|(region, handle)| (*region, handle.clone())).collect()
    }

    /// Lets go of all regions: their replicas are shut down.
    pub fn clear(&self) {
        self.handles.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn insert(&self, region: RegionId, handle: RegionHandle) {
        self.handles.write().unwrap_or_else(PoisonError::into_inner).insert(region, handle);
    }
}

/// When the catalog last answered this node. Cheap to clone.
#[derive(Clone, Default)]
pub struct CatalogHeard(Arc<Mutex<Option<Instant>>>);

impl CatalogHeard {
    pub fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_recent(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < HEARD_FOR)
    }
}

/// Brings this node's replicas in line with the routes, for ever.
pub async fn reconcile(regions: Regions, replicas: ReplicaHost, here: Surroundings, heard: CatalogHeard) {
    let mut routes = here.routes.clone();
    let mut in_step_since: BTreeMap<RegionId, Instant> = BTreeMap::new();
    let mut begun: BTreeSet<RegionId> = BTreeSet::new();
    // A replica that was here before the restart starts before the catalog is heard: it is needed to
    // elect leaders even while the catalog is down.
    for region in replicas.recovered_groups().into_iter().map(RegionId) {
        begun.insert(region);
        start(&regions, &replicas, &here, region).await;
    }
    loop {
        let now = Arc::clone(&routes.borrow_and_update());
        for route in now.regions.values().filter(|route| route.replicas.contains(&here.node)) {
            if !here.tasks.is_failing() && begun.insert(route.id) {
                start(&regions, &replicas, &here, route.id).await;
            }
            form(&regions, &here, &now, route).await;
            let is_live = |node: &NodeId| now.nodes.get(node).is_some_and(|node| node.live);
            let may_lead = heard.is_recent() && route.replicas.first().is_some_and(is_live);
            hand_back_lead(&regions, &here, route, may_lead, &mut in_step_since).await;
        }
        // The routes end when the node drains, and this task with it.
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, routes.changed()).await {
            return;
        }
    }
}

/// Starts the replica, at once or, if this node has lost its rows, once they are fetched.
async fn start(regions: &Regions, replicas: &ReplicaHost, here: &Surroundings, region: RegionId) {
    match replicas.lacks_rows(region.0) {
        Ok(false) => start_replica(regions, replicas, here, region).await,
        Ok(true) => {
            let rebuilt = rebuild(regions.clone(), replicas.clone(), here.clone(), region);
            here.tasks.spawn("rebuild a replica", OnEnd::PanicStopsServer, rebuilt);
        }
        Err(error) => here.tasks.fail(error.to_string()),
    }
}

async fn start_replica(regions: &Regions, replicas: &ReplicaHost, here: &Surroundings, region: RegionId) {
    let machine = CachedRegionMachine::new(region, Arc::clone(&here.cache));
    match afdg_replication::Replica::start(replicas, region.0, machine, Box::new(NoObserver)).await {
        Ok(replica) => regions.insert(region, region::start(region, replica, here.clone())),
        Err(error) => {
            tracing::error!(%region, %error, "a replica can't start");
            here.tasks.fail(error.to_string());
        }
    }
}

/// Has the replica's rows fetched from the region's other replicas, which the catalog knows.
async fn rebuild(regions: Regions, replicas: ReplicaHost, here: Surroundings, region: RegionId) {
    tracing::warn!(%region, "this node's rows of the region are lost or damaged: they will be a peer's");
    let mut routes = here.routes.clone();
    let placed = |routes: &Arc<Routes>| routes.regions.get(&region).map(|route| route.replicas.len());
    let Ok(replica_count) = routes.wait_for(|routes| placed(routes).is_some()).await.map(|now| placed(&now))
    else {
        return;
    };
    let others = || -> BTreeMap<u64, String> {
        let routes = here.routes.borrow();
        let replicas = routes.regions.get(&region).into_iter().flat_map(|route| &route.replicas);
        let others = replicas.filter(|node| **node != here.node);
        others.filter_map(|node| Some((node.0, routes.address_of(*node)?.to_owned()))).collect()
    };
    // The only replica has nobody to ask, and says so when it starts.
    if replica_count > Some(1)
        && let Err(error) = replicas.fetch_rows(region.0, others).await
    {
        return here.tasks.fail(error.to_string());
    }
    start_replica(&regions, &replicas, &here, region).await;
}

/// Forms the group of a new region. Only the preferred leader does, which makes it lead at once.
async fn form(regions: &Regions, here: &Surroundings, routes: &Routes, route: &RouteRegion) {
    if !route.creating || route.replicas.first() != Some(&here.node) {
        return;
    }
    let Some(handle) = regions.get(route.id) else { return };
    if handle.replica.is_initialized().await {
        return;
    }
    let address = |node: &afdg_types::NodeId| Some((node.0, routes.address_of(*node)?.to_owned()));
    let members: Option<BTreeMap<u64, String>> = route.replicas.iter().map(address).collect();
    let Some(members) = members else { return };
    if let Err(error) = handle.replica.initialize(members).await {
        tracing::warn!(region = %route.id, %error, "a region's group could not be formed");
    }
}

/// Leaders are spread over nodes by the catalog; after a restart they drift. A leader that is not the
/// preferred one hands the lead over once the preferred one has been in step for a while, and may lead: the
/// catalog runs and has heard it. One that has come back while the catalog is down refuses every message,
/// since it can't know which slots are its regions'; as a follower it is of use, as a leader it is none.
async fn hand_back_lead(
    regions: &Regions,
    here: &Surroundings,
    route: &RouteRegion,
    may_lead: bool,
    in_step_since: &mut BTreeMap<RegionId, Instant>,
) {
    let Some(preferred) = route.replicas.first().filter(|preferred| **preferred != here.node) else { return };
    let Some(handle) = regions.get(route.id) else { return };
    let leads = handle.status().lead.is_mine && handle.status().ready;
    if !leads || !may_lead || !handle.replica.followers_in_step().contains(&preferred.0) {
        in_step_since.remove(&route.id);
        return;
    }
    let since = *in_step_since.entry(route.id).or_insert_with(Instant::now);
    if since.elapsed() >= IN_STEP_BEFORE_TRANSFER {
        in_step_since.remove(&route.id);
        if let Err(error) = handle.replica.transfer_leader(preferred.0).await {
            tracing::debug!(region = %route.id, %error, "the lead could not be handed back");
        }
    }
}

/// Hands all leads to other replicas, for a node that stops; returns when none is left or at `until`.
pub async fn give_up_leads(regions: &Regions, until: Instant) {
    const LOOK_AGAIN: Duration = Duration::from_millis(50);
    for (_, handle) in regions.all() {
        handle.drain();
    }
    loop {
        let mut leads = 0;
        for (region, handle) in regions.all() {
            if !handle.status().lead.is_mine {
                continue;
            }
            // The only replica of its region has nobody to hand over to.
            let Some(to) = handle.replica.followers_in_step().first().copied() else { continue };
            leads += 1;
            if let Err(error) = handle.replica.transfer_leader(to).await {
                tracing::debug!(%region, %error, "a lead could not be handed over");
            }
        }
        if leads == 0 || Instant::now() >= until {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
