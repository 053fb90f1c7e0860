//! How a server that does not lead hears who leads the regions: it watches the catalog's leader.
//!
//! Only the leader gets heartbeats. Watchers of the other servers would go without hints, so those
//! servers watch the leader themselves and take the hints from its table. Nothing else: the rest of
//! their own tables is replicated.

use crate::{
    hints::{Hint, HintTable},
    log::CatalogLog,
};
use afdg_proto::{
    pb::internal::{RoutingTable, WatchRequest, catalog_client::CatalogClient},
    peer_auth::{PeerToken, ShowToken},
};
use afdg_runtime::{Net, channel_to};
use afdg_types::{NodeId, RegionId, Term, limits::FRAME_BYTES_MAX};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tonic::service::interceptor::InterceptedService;

/// One connection attempt, and one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The leader sends its table at least once a second.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct Relay {
    pub(crate) log: Arc<dyn CatalogLog>,
    pub(crate) servers: BTreeMap<u64, String>,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) token: PeerToken,
    pub(crate) hints: Arc<HintTable>,
    /// Who this is, for the leader's log.
    pub(crate) name: String,
}

impl Relay {
    pub(crate) async fn run(self) {
        let mut lead = self.log.lead();
        loop {
            let now = *lead.borrow_and_update();
            let leader = now.leader.filter(|_| !now.is_mine).and_then(|id| self.servers.get(&id));
            let changed = match leader {
                Some(address) => tokio::select! {
                    changed = lead.changed() => changed,
                    () = self.follow(address) => {
                        sleep(PAUSE).await;
                        Ok(())
                    }
                },
                None => lead.changed().await,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Takes hints from the leader's tables until there are no more.
    async fn follow(&self, address: &str) {
        let mut stream = match watch(&self.net, &self.token, address, &self.name).await {
            Ok(stream) => stream,
            Err(why) => return tracing::debug!(address, why, "the catalog's leader can't be watched"),
        };
        while let Ok(Ok(Some(table))) = timeout(SILENCE_MAX, stream.message()).await {
            let heard = table.regions.iter().map(|region| {
                (RegionId(region.id), Hint { term: Term(region.term), leader: NodeId(region.leader) })
            });
            self.hints.merge(heard);
        }
    }
}

/// Watches another catalog server.
async fn watch(
    net: &Arc<dyn Net>,
    token: &PeerToken,
    address: &str,
    watcher: &str,
) -> Result<tonic::Streaming<RoutingTable>, String> {
    let channel = channel_to(net, address, ANSWER_LIMIT).map_err(|error| error.to_string())?;
    let channel = InterceptedService::new(channel, ShowToken(token.clone()));
    let mut client = CatalogClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
    let request = WatchRequest { watcher: watcher.to_owned() };
    match timeout(ANSWER_LIMIT, client.watch(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// The first table of another catalog server; none if it can't be had.
pub(crate) async fn table_of(
    net: &Arc<dyn Net>,
    token: &PeerToken,
    address: &str,
    watcher: &str,
) -> Option<RoutingTable> {
    let mut stream = watch(net, token, address, watcher).await.ok()?;
    timeout(ANSWER_LIMIT, stream.message()).await.ok()?.ok()?
}
