//! A send takes effect once, and its result is there for whoever knows its id.

use crate::mail::{Mail, agent, letter, reason};
use afdg_proto::pb::v1::{PipeRequest, SendRequest, call_result, pipe_request};
use afdg_tests::{client::with_key, mail::v1::Received};
use anyhow::Result;
use prost::Message;

#[tokio::test(flavor = "multi_thread")]
async fn a_send_takes_effect_once_and_can_be_attached_to() -> Result<()> {
    let mail = Mail::open(3).await?;
    let first = mail.send("b", addressed("b", 1), "k1", 0).await?;
    for _ in 0..3 {
        assert_eq!(mail.send("b", addressed("b", 1), "k1", 0).await?, first);
    }
    assert_eq!(mail.attach("b", &first, 10_000).await?.letters, 1);
    let other = mail.send("b", addressed("b", 2), "k1", 0).await.unwrap_err();
    assert_eq!(reason(&other), "ID_REUSED");
    assert!(other.message().contains("what differs: request"), "{other:?}");
    let unknown = mail.attach("b", "01980a0e-6c1c-7b60-8b1e-0f4d7c1f2a33", 10_000).await.unwrap_err();
    assert_eq!(reason(&unknown), "NOT_FOUND");
    // A call under the key of a send, and the other way round, is the same message.
    let call: Received = mail.client.call_once("/mail.v1.Box/Receive", addressed("b", 1), "k1").await?;
    assert_eq!(call.letters, 1);
    let called: Received = mail.client.call_once("/mail.v1.Box/Receive", addressed("b", 3), "k3").await?;
    assert_eq!(called.letters, 2);
    let sent = mail.send("b", addressed("b", 3), "k3", 0).await?;
    assert_eq!(mail.attach("b", &sent, 10_000).await?.letters, 2);
    assert_eq!(mail.numbers("b", 2).await?, [1, 3]);
    mail.grid.stop().await;
    Ok(())
}

fn addressed(key: &str, number: u64) -> afdg_tests::mail::v1::Letter {
    afdg_tests::mail::v1::Letter { r#box: key.to_owned(), ..letter(number) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_service_and_a_pipe_send_too() -> Result<()> {
    let mail = Mail::open(3).await?;
    let mut request = with_key(addressed("c", 1), "k1")?;
    request.metadata_mut().insert("afdg-mode", "send".parse()?);
    let nothing: Received = mail.client.request("/mail.v1.Box/Receive", request).await?;
    assert_eq!(nothing, Received::default());

    let piped = (2..=200).map(|number| PipeRequest {
        id: number,
        message: Some(pipe_request::Message::Send(SendRequest {
            agent: agent("c"),
            method: "Receive".to_owned(),
            request: letter(number).encode_to_vec().into(),
            ..SendRequest::default()
        })),
    });
    let mut results = mail.service().pipe(futures::stream::iter(piped)).await?.into_inner();
    let mut accepted = 0;
    while let Some(result) = results.message().await? {
        let Some(call_result::Result::Response(response)) = result.result.and_then(|result| result.result)
        else {
            panic!("a send was refused")
        };
        assert!(response.response.is_empty() && !response.message_id.is_empty());
        accepted += 1;
    }
    assert_eq!(accepted, 199);
    let mut numbers = mail.numbers("c", 200).await?;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    mail.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_outlasts_a_restart_of_every_node() -> Result<()> {
    let mut mail = Mail::open(1).await?;
    // Held back, and failing for a while: neither has had its turn when the nodes stop.
    let soon = crate::mail::now_ms() + 2_000;
    let held_back = mail.send("d", letter(1), "k1", 2_000).await?;
    let failing = afdg_tests::mail::v1::Letter { refused_until_ms: soon, ..letter(2) };
    let failing = mail.send("d", failing, "k2", 0).await?;
    for name in mail.grid.node_names() {
        mail.grid.stop_node(&name).await?;
    }
    for name in mail.grid.node_names() {
        mail.grid.start_node(&name).await?;
    }
    mail.grid.until_well(afdg_tests::PATIENCE).await?;
    assert!(mail.attach("d", &held_back, 30_000).await?.letters > 0);
    assert!(mail.attach("d", &failing, 30_000).await?.letters > 0);
    let mut numbers = mail.numbers("d", 2).await?;
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
    mail.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_message_is_told_what_is_so() -> Result<()> {
    let mail = Mail::open(1).await?;
    let sent = mail.send("e", letter(1), "k1", 0).await?;
    assert_eq!(mail.attach("e", &sent, 10_000).await?.letters, 1);
    // Another agent has no such message, though it lives in the same region.
    assert_eq!(reason(&mail.attach("f", &sent, 10_000).await.unwrap_err()), "NOT_FOUND");
    let held_back = mail.send("e", letter(2), "k2", 60_000).await?;
    assert_eq!(reason(&mail.attach("f", &held_back, 10_000).await.unwrap_err()), "NOT_FOUND");
    let waiting = mail.attach("e", &held_back, 2_000).await.unwrap_err();
    assert_eq!(reason(&waiting), "DEADLINE_EXCEEDED");
    assert!(waiting.message().contains("has not ended in this time"), "{waiting:?}");

    // A message that was refused for good is not said to be accepted when it is sent again.
    let refused = afdg_tests::mail::v1::Letter { refused_until_ms: u64::MAX, ..addressed("e", 3) };
    let call = mail.client.call_once::<_, Received>("/mail.v1.Box/Receive", refused.clone(), "k3").await;
    assert_eq!(reason(&call.unwrap_err()), "NOT_NOW");
    assert_eq!(reason(&mail.send("e", refused, "k3", 0).await.unwrap_err()), "NOT_NOW");
    mail.grid.stop().await;
    Ok(())
}
