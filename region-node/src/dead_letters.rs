//! Dead letters for people: listed, tried again, dropped.

use crate::{inspect::storage, region::RegionHandle};
use afdg_proto::pb::internal::{
    DeadLetter, DeadLetterAddress, ListDeadLettersRequest, ListDeadLettersResponse, SettleDeadLettersRequest,
    SettleDeadLettersResponse,
};
use afdg_region_machine::{
    op::{LetterVerdict, SettleDeadLetter},
    table::{
        dead_letters::{self, Side},
        replies::TurnReply,
    },
};
use afdg_runtime::World;
use afdg_types::{AgentRef, GridError, Reason, limits};
use bytes::Bytes;
use futures::future::join_all;

/// Bytes of requests past which a page takes no more dead letters.
const PAGE_BYTES_TARGET: usize = limits::FRAME_BYTES_TARGET;

pub fn list(
    handle: &RegionHandle,
    request: &ListDeadLettersRequest,
) -> Result<ListDeadLettersResponse, GridError> {
    let limit = request.limit.clamp(1, limits::LIST_DEAD_LETTERS_MAX) as usize;
    let rows = handle.replica.rows();
    if let Some(only) = &request.only {
        let agent = address_of(only)?;
        let letter = dead_letters::get(rows.as_ref(), &agent, only.number).map_err(storage)?;
        let letters = letter.into_iter().map(|letter| shown(&agent, only.number, letter)).collect();
        return Ok(ListDeadLettersResponse { letters, next: Bytes::new() });
    }
    let (mut letters, mut from, mut bytes) = (Vec::new(), request.from.to_vec(), 0);
    // One at a time: a request may be large, and a page is bounded.
    while letters.len() < limit && bytes < PAGE_BYTES_TARGET {
        let start = (!from.is_empty()).then_some(&*from);
        let page = dead_letters::page(rows.as_ref(), start, 1).map_err(storage)?;
        for (agent, number, letter) in page.letters {
            bytes += letter.send.request.len();
            letters.push(shown(&agent, number, letter));
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(ListDeadLettersResponse { letters, next: Bytes::new() }),
        }
    }
    Ok(ListDeadLettersResponse { letters, next: from.into() })
}

fn shown(agent: &AgentRef, number: u64, letter: dead_letters::DeadLetter) -> DeadLetter {
    let dead_letters::DeadLetter { to, side, send, died_ms } = letter;
    let (reason, error) = match send.last_failure {
        Some(TurnReply::Refused(error)) => (error.reason, error.message),
        Some(TurnReply::Failed { reason, message }) => (reason.as_str().to_owned(), message),
        Some(TurnReply::Response(_)) | None => Default::default(),
    };
    DeadLetter {
        agent: agent.to_string(),
        number,
        to: to.to_string(),
        from: send.sender.map(|sender| sender.to_string()).unwrap_or_default(),
        method: send.method,
        message_id: Bytes::copy_from_slice(send.message_id.as_bytes()),
        request: send.request,
        attempts: send.attempts,
        sent_ms: send.accepted_ms,
        died_ms,
        reason,
        error,
        undelivered: side == Side::Sender,
    }
}

fn address_of(address: &DeadLetterAddress) -> Result<AgentRef, GridError> {
    address.agent.parse().map_err(|error| {
        GridError::new(Reason::KeyMalformed, format!("{error}")).with("field", "letters.agent")
    })
}

/// Has what was decided put into the log, and waits until it is applied.
pub async fn settle(
    handle: &RegionHandle,
    world: &World,
    request: SettleDeadLettersRequest,
) -> Result<SettleDeadLettersResponse, GridError> {
    let verdict = if request.retry { LetterVerdict::TryAgain } else { LetterVerdict::Drop };
    let mut settling = Vec::new();
    for letter in request.letters {
        let agent = address_of(&letter)?;
        let there = dead_letters::get(handle.replica.rows().as_ref(), &agent, letter.number);
        if there.map_err(storage)?.is_none() {
            continue;
        }
        let now_ms = world.clock.now_ms();
        let op = SettleDeadLetter { agent, number: letter.number, verdict, now_ms };
        settling.push(handle.settle_letter(op));
    }
    // In this order, and in as few entries as they fit into.
    let settled = join_all(settling).await;
    if settled.contains(&None) {
        let text = "this node lost the region's lead before the dead letters were settled";
        return Err(GridError::new(Reason::OutcomeUnknown, text));
    }
    // Others have been settled by somebody else's decision meanwhile.
    let settled = settled.into_iter().filter(|by_this| *by_this == Some(true)).count();
    Ok(SettleDeadLettersResponse { settled: settled as u32 })
}
