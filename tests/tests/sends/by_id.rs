//! Who knows nothing but a message's id gets its result, whichever region has it.

use crate::mail::{Mail, agent, letter, reason};
use afdg_proto::pb::v1::{AttachRequest, attach_request::Message};
use afdg_tests::mail::v1::Letter;
use anyhow::{Context, Result};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const UNKNOWN: &str = "01980a0e-6c1c-7b60-8b1e-0f4d7c1f2a33";

#[tokio::test(flavor = "multi_thread")]
async fn the_id_alone_is_enough_to_wait_for_a_result_in_any_region() -> Result<()> {
    let mut mail = Mail::open(4).await?;
    let mut ids = Vec::new();
    for number in 0..12 {
        ids.push(mail.send(&format!("b{number}"), letter(1), "k", 0).await?);
    }
    for id in &ids {
        assert_eq!(mail.attach_by_id(id, 10_000).await?.letters, 1);
    }
    // One that is held back is known, and ends while it is waited for.
    let late = mail.send("late", letter(1), "", 2_000).await?;
    let not_yet = mail.attach_by_id(&late, 300).await.unwrap_err();
    assert_eq!(reason(&not_yet), "DEADLINE_EXCEEDED", "{not_yet:?}");
    assert!(not_yet.message().contains("has not ended in this time"), "{not_yet:?}");
    assert_eq!(mail.attach_by_id(&late, 60_000).await?.letters, 1);
    // A failure is a result, too.
    let fails = Letter { refused_until_ms: u64::MAX, ..letter(2) };
    let failed = mail.send("b0", fails, "", 0).await?;
    let refused = mail.attach_by_id(&failed, 60_000).await.unwrap_err();
    let info = refused.get_details_error_info().context("a refusal has its facts")?;
    assert_eq!((&*info.reason, &*info.domain), ("NOT_NOW", "agent"), "{refused:?}");

    let unknown = mail.attach_by_id(UNKNOWN, 10_000).await.unwrap_err();
    assert_eq!(reason(&unknown), "NOT_FOUND", "{unknown:?}");
    // Regions that can't be asked may know it.
    for name in mail.grid.node_names().into_iter().skip(1) {
        mail.grid.stop_node(&name).await?;
    }
    let silent = mail.attach_by_id(UNKNOWN, 3_000).await.unwrap_err();
    assert_eq!((silent.code(), &*reason(&silent)), (Code::Unavailable, "NO_LEADER"), "{silent:?}");
    assert!(silent.message().contains("could not be asked"), "{silent:?}");
    mail.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_to_attach_is_said() -> Result<()> {
    let mail = Mail::open(1).await?;
    let id = || Some(Message::MessageId(UNKNOWN.to_owned()));
    let key = || Some(Message::IdempotencyKey("k".to_owned()));
    let long = format!("mail.v1.Box/{}", "k".repeat(10_000));
    for (to, message, wanted, text) in [
        ("mail.v1.Nothing/b", id(), "UNKNOWN_TYPE", "mail.v1.Nothing"),
        ("mail.v1.Box", id(), "REQUEST_MALFORMED", "has no '/'"),
        (&long, id(), "KEY_MALFORMED", "512"),
        ("", key(), "REQUEST_MALFORMED", "name the agent"),
        ("", None, "REQUEST_MALFORMED", "TYPE/KEY"),
        ("", Some(Message::MessageId("x".to_owned())), "REQUEST_MALFORMED", "id"),
        (&agent("b"), Some(Message::MessageId(String::new())), "REQUEST_MALFORMED", "id"),
        (&agent("b"), None, "REQUEST_MALFORMED", "missing"),
        (&agent("b"), Some(Message::IdempotencyKey(String::new())), "REQUEST_MALFORMED", "key"),
    ] {
        let request = AttachRequest {
            agent: to.to_owned(),
            message: message.clone(),
            timeout_ms: 5_000,
            method: String::new(),
        };
        let refused: Status = mail.service().attach(request).await.unwrap_err();
        let shown: String = to.chars().take(40).collect();
        assert_eq!(reason(&refused), wanted, "{shown} {message:?}: {refused:?}");
        assert!(refused.message().contains(text), "{shown} {message:?}: {refused:?}");
    }
    mail.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_not_awaited_as_one_of_another_method() -> Result<()> {
    let mail = Mail::open(2).await?;
    let done = mail.send("b", letter(1), "k", 0).await?;
    mail.attach_by_id(&done, 10_000).await?;
    let held_back = mail.send("b", letter(2), "later", 3_600_000).await?;
    for (id, ended) in [(&done, true), (&held_back, false)] {
        for to in [agent("b"), String::new()] {
            let attach = async |method: &str| {
                let message = Some(Message::MessageId(id.clone()));
                let method = method.to_owned();
                let request = AttachRequest { agent: to.clone(), message, timeout_ms: 2_000, method };
                mail.service().attach(request).await
            };
            let refused = attach("Spread").await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{to} {refused:?}");
            assert!(refused.message().contains("another method than 'Spread'"), "{to} {refused:?}");
            for method in ["Receive", ""] {
                match attach(method).await {
                    Ok(_) => assert!(ended, "{to} '{method}'"),
                    Err(status) => {
                        assert!(!ended && reason(&status) == "DEADLINE_EXCEEDED", "{to} {status:?}")
                    }
                }
            }
        }
    }
    mail.grid.stop().await;
    Ok(())
}
