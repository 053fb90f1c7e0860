//! What a link says of messages whose node answers, is silent, breaks off or is not there.

#![allow(clippy::unwrap_used)]

use afdg_proto::{
    pb::internal::{Forwarded, outcome},
    peer_auth::PeerToken,
};
use afdg_region_client::{Answer, ForwardError, RegionClients, testing::FakeNode};
use afdg_runtime::{Tasks, TcpNet};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

fn clients() -> RegionClients {
    RegionClients::new(Arc::new(TcpNet), PeerToken::new("secret").unwrap(), Tasks::new())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn message(text: &str) -> Forwarded {
    Forwarded { request: text.to_owned().into(), ..Forwarded::default() }
}

fn echo(message: &Forwarded) -> Option<outcome::Result> {
    Some(outcome::Result::Response(message.request.clone()))
}

async fn until(condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.expect("the condition did not come true");
}

#[tokio::test]
async fn answers_come_to_those_who_asked() {
    let node = FakeNode::start(echo).await.unwrap();
    let clients = clients();
    let calls = (0..2_000).map(|n| {
        let (clients, address) = (clients.clone(), node.address.clone());
        tokio::spawn(async move { clients.forward(&address, message(&n.to_string()), soon()).await })
    });
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), Ok(Answer::Response(n.to_string().into())));
    }
}

#[tokio::test]
async fn a_node_that_is_not_there_is_not_sent_to() {
    let address = {
        let node = FakeNode::start(echo).await.unwrap();
        node.address.clone()
    };
    let clients = clients();
    // The aborted server's socket closes a moment later.
    let mut refused = false;
    for _ in 0..200 {
        let result = clients.forward(&address, message("x"), soon()).await;
        refused = matches!(result, Err(ForwardError::NotSent(_)));
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(refused);
    // In the pause after a failure the answer comes at once.
    let result = clients.node(&address).unwrap().start(message("x"));
    assert!(matches!(result, Err(ForwardError::NotSent(_))));
    assert!(matches!(clients.node("no address"), Err(ForwardError::NotSent(_))));
}

#[tokio::test]
async fn a_broken_stream_loses_what_was_sent_and_the_next_message_connects_again() {
    let node = FakeNode::start(|_| None).await.unwrap();
    let client = clients().node(&node.address).unwrap();
    let in_flight: Vec<_> = (0..10).map(|_| client.start(message("x")).unwrap()).collect();
    until(|| node.received().len() == 10).await;
    node.cut();
    for one in in_flight {
        let result = one.await;
        assert!(matches!(result, Err(ForwardError::Lost(_))), "{result:?}");
    }
    node.answer(echo);
    let mut result = client.forward(message("y"), soon()).await;
    while matches!(result, Err(ForwardError::NotSent(_))) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        result = client.forward(message("y"), soon()).await;
    }
    assert_eq!(result, Ok(Answer::Response("y".into())));
}

#[tokio::test]
async fn a_silent_node_is_given_up_and_a_dropped_message_is_forgotten() {
    let node =
        FakeNode::start(|message| (message.request != "silent").then(|| echo(message))?).await.unwrap();
    let client = clients().node(&node.address).unwrap();
    let result = client.forward(message("silent"), Instant::now() + Duration::from_millis(200)).await;
    assert!(matches!(result, Err(ForwardError::Lost(_))), "{result:?}");

    // Dropped before the transport could take it: it is never sent.
    drop(client.start(message("dropped")).unwrap());
    assert_eq!(client.forward(message("z"), soon()).await, Ok(Answer::Response("z".into())));
    assert!(node.received().iter().all(|message| message.request != "dropped"));
}

#[tokio::test]
async fn a_node_that_left_the_table_answers_what_is_in_flight() {
    let node = FakeNode::start(echo).await.unwrap();
    let clients = clients();
    let client = clients.node(&node.address).unwrap();
    let in_flight = client.start(message("x")).unwrap();
    clients.retain(&Default::default());
    assert!(matches!(client.start(message("y")), Err(ForwardError::NotSent(_))));
    assert_eq!(in_flight.await, Ok(Answer::Response("x".into())));
}
