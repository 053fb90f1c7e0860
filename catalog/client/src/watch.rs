//! Keeping routes fresh.

use crate::{CatalogClient, Routes, client::PeerChannel, nodes::stub};
use afdg_proto::pb::internal::WatchRequest;
use afdg_runtime::{OnEnd, Tasks};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

/// A catalog server sends its table at least once a second; after this long without one, the stream is
/// taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl CatalogClient {
    /// The routes, kept fresh by a task of `tasks` until they drain. Empty until the first table is
    /// heard. `watcher` says who watches, for the catalog's log.
    pub fn watch_routes(&self, tasks: &Tasks, watcher: &str) -> watch::Receiver<Arc<Routes>> {
        let (sender, receiver) = watch::channel(Arc::new(Routes::default()));
        tasks.spawn("watch routes", OnEnd::StopServer, keep_fresh(self.clone(), watcher.to_owned(), sender));
        receiver
    }
}

async fn keep_fresh(client: CatalogClient, watcher: String, routes: watch::Sender<Arc<Routes>>) {
    // Watchers start at different servers, as their names have it.
    let mut place = watcher.bytes().fold(0_usize, |sum, byte| sum.wrapping_add(usize::from(byte)));
    let mut pause = PAUSE_MIN;
    // Once for each time of silence.
    let mut told = false;
    loop {
        if let Some((address, channel)) = client.server(place) {
            let (heard, why) = follow(channel, &watcher, &routes).await;
            tracing::debug!(%address, %why, "a stream of routes has ended");
            if heard {
                pause = PAUSE_MIN;
                told = false;
            } else if pause == PAUSE_MAX && !told {
                told = true;
                tracing::warn!(%address, %why, "no catalog server sends its routing table; trying on");
            }
        }
        place = place.wrapping_add(1);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Takes tables from one server until the stream ends; returns whether one was usable, and why it ended.
async fn follow(channel: PeerChannel, watcher: &str, routes: &watch::Sender<Arc<Routes>>) -> (bool, String) {
    let mut heard = false;
    let mut stub = stub(channel);
    let request = WatchRequest { watcher: watcher.to_owned() };
    let mut stream = match timeout(SILENCE_MAX, stub.watch(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return (heard, status.to_string()),
        Err(_) => return (heard, "the server does not answer".to_owned()),
    };
    loop {
        let table = match timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(table))) => table,
            Ok(Ok(None)) => return (heard, "the server has ended it".to_owned()),
            Ok(Err(status)) => return (heard, status.to_string()),
            Err(_) => return (heard, "the server is silent".to_owned()),
        };
        let next = routes.borrow().next(table);
        match next {
            Ok(next) => {
                heard = true;
                if let Some(next) = next {
                    routes.send_replace(Arc::new(next));
                }
            }
            Err(refused) => {
                tracing::warn!(%refused, "a routing table was refused");
                return (heard, refused.to_string());
            }
        }
    }
}
