//! Requests of one connection reach the replicas in the order in which they were sent.

use crate::peers::{GroupHandler, Links, PeerService, SnapshotHeader};
use afdg_proto::{pb::internal::PeerKind, peer_auth::PeerToken};
use afdg_runtime::{Net, TcpNet, in_order};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

const SERVER: u64 = 1;
const GROUP: u64 = 7;
/// More than fit one frame, and many more than a task takes steps at a time.
const REQUESTS: u64 = 5_000;

/// Hands each request to a queue before it first waits, as a replica does.
struct Arrivals(mpsc::Sender<u64>);

impl GroupHandler for Arrivals {
    fn handle(&self, _: PeerKind, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let arrivals = self.0.clone();
        async move {
            let number = body.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| "not a number")?;
            arrivals.send(number).await.map_err(|_| "nobody reads")?;
            tokio::task::yield_now().await;
            Ok(body)
        }
        .boxed()
    }

    fn install_snapshot(
        &self,
        _: SnapshotHeader,
        _: Vec<Bytes>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        futures::future::ready(Err("this test sends none".to_owned())).boxed()
    }

    fn snapshot(&self) -> crate::row_store::RowSnapshot {
        panic!("this test asks for none")
    }
}

// On one thread the link's queue is full before it is framed.
#[tokio::test]
async fn appends_arrive_in_the_order_in_which_they_were_sent() {
    let token = PeerToken::new("a-token-between-peers").unwrap();
    let (sender, mut arrived) = mpsc::channel(REQUESTS as usize);
    let service = PeerService::default();
    service.add(GROUP, Arc::new(Arrivals(sender)));
    let listener = TcpNet.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap().to_string();
    let stop = CancellationToken::new();
    let server = Server::builder().add_service(service.endpoint(SERVER, token.clone()));
    let serving = tokio::spawn(afdg_runtime::serve(server, listener, stop.clone()));

    let links = Links::new(Arc::new(TcpNet), token);
    let mut answers = Vec::new();
    in_order(async {
        for number in 0..REQUESTS {
            let body = Bytes::copy_from_slice(&number.to_be_bytes());
            answers.push(links.send(&address, SERVER, GROUP, PeerKind::Append, body).await.unwrap());
        }
    })
    .await;
    for answer in answers {
        answer.wait().await.unwrap();
    }
    let mut order = Vec::new();
    arrived.recv_many(&mut order, REQUESTS as usize).await;
    let first_wrong = order.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert_eq!(first_wrong, None, "a later request overtook an earlier one");
    assert_eq!(order.len() as u64, REQUESTS);
    drop(links);
    stop.cancel();
    serving.await.unwrap().unwrap();
}
