//! Schedules for people: listed, cancelled.

use crate::{inspect::storage, region::RegionHandle};
use afdg_proto::pb::internal::{
    CancelSchedulesRequest, CancelSchedulesResponse, ListSchedulesRequest, ListSchedulesResponse, Schedule,
};
use afdg_region_machine::{
    op::CancelSchedule,
    table::schedules::{self, Standing},
};
use afdg_types::{AgentRef, GridError, Missed, Reason, Timing, limits};
use bytes::Bytes;

/// Bytes of requests past which a page takes no more schedules.
const PAGE_BYTES_TARGET: usize = limits::FRAME_BYTES_TARGET;
/// Schedules looked at for one page, whether they fit or not.
const LOOKED_AT_MAX: usize = 20_000;
/// Schedules read at once.
const READ_AT_ONCE: usize = 64;
/// A schedule that its agent replaces while it is cancelled is cancelled again, so often.
const CANCEL_AGAIN_MAX: usize = 5;

pub fn list(
    handle: &RegionHandle,
    request: &ListSchedulesRequest,
) -> Result<ListSchedulesResponse, GridError> {
    let limit = request.limit.clamp(1, limits::LIST_SCHEDULES_MAX) as usize;
    let rows = handle.replica.rows();
    let (mut found, mut from, mut bytes) = (Vec::new(), request.from.to_vec(), 0);
    let mut looked_at = 0;
    while found.len() < limit && bytes < PAGE_BYTES_TARGET && looked_at < LOOKED_AT_MAX {
        let start = (!from.is_empty()).then_some(&*from);
        let at_once = READ_AT_ONCE.min(limit - found.len());
        let page = schedules::page(rows.as_ref(), start, at_once).map_err(storage)?;
        looked_at += at_once;
        for standing in page.schedules.into_iter().filter(|standing| fits(request, standing)) {
            bytes += standing.schedule.request.len();
            found.push(shown(standing));
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(ListSchedulesResponse { schedules: found, next: Bytes::new() }),
        }
    }
    Ok(ListSchedulesResponse { schedules: found, next: from.into() })
}

fn fits(request: &ListSchedulesRequest, standing: &Standing) -> bool {
    let fit = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    fit(&request.agent, standing.agent.as_str())
        && fit(&request.r#type, standing.agent.agent_type())
        && standing.name.starts_with(&request.name_prefix)
}

fn shown(standing: Standing) -> Schedule {
    let Standing { agent, name, schedule, progress } = standing;
    let (period_ms, cron, zone) = match schedule.when.timing {
        Timing::Every { period_ms } => (period_ms, String::new(), String::new()),
        Timing::Cron { text, zone } => (0, text, zone),
    };
    let missed = match schedule.missed {
        Missed::Skip => "skip",
        Missed::Once => "once",
        Missed::All => "all",
    };
    Schedule {
        agent: agent.to_string(),
        name,
        to: schedule.to.to_string(),
        method: schedule.method,
        request: schedule.request,
        period_ms,
        cron,
        zone,
        start_ms: schedule.when.start_ms.unwrap_or_default(),
        until_ms: schedule.when.until_ms.unwrap_or_default(),
        missed: missed.to_owned(),
        next_due_ms: progress.due_ms,
        fired: progress.fired,
        set_ms: schedule.set_ms,
    }
}

/// Has schedules cancelled, and waits until that is applied.
pub async fn cancel(
    handle: &RegionHandle,
    request: CancelSchedulesRequest,
) -> Result<CancelSchedulesResponse, GridError> {
    let CancelSchedulesRequest { region: _, schedules } = request;
    let mut cancelled = 0;
    for address in schedules {
        let agent: AgentRef = address.agent.parse().map_err(|error| {
            GridError::new(Reason::KeyMalformed, format!("{error}")).with("field", "schedules.agent")
        })?;
        cancelled += u32::from(cancel_one(handle, &agent, &address.name).await?);
    }
    Ok(CancelSchedulesResponse { cancelled })
}

/// Whether it was there.
async fn cancel_one(handle: &RegionHandle, agent: &AgentRef, name: &str) -> Result<bool, GridError> {
    for _ in 0..CANCEL_AGAIN_MAX {
        let progress = schedules::progress(handle.replica.rows().as_ref(), agent, name).map_err(storage)?;
        let Some(progress) = progress else { return Ok(false) };
        let (agent, name) = (agent.clone(), name.to_owned());
        let op = CancelSchedule { agent, name, generation: progress.generation };
        match handle.cancel_schedule(op).await {
            Some(true) => return Ok(true),
            Some(false) => {}
            None => {
                let text = "this node lost the region's lead before the schedules were cancelled";
                return Err(GridError::new(Reason::OutcomeUnknown, text));
            }
        }
    }
    let text = format!("'{name}' of {agent} is set anew again and again; ask again");
    Err(GridError::new(Reason::Overloaded, text))
}
