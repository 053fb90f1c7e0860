//! An agent for tests of processes that end half way: it keeps each mark that reaches it, and passes others on
//! by calls, sends and schedules, as it is told.

use afdg_agent::{AgentError, AgentType, Call, Context, Missed, Schedule, async_trait};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};
use v1::{
    Errand, GuestAgent, GuestCalls, KeepRequest, Kept, Marks, ReadRequest, RelayAgent, RelayCalls,
    errand::Way,
};

/// The package `relay.v1`: messages, the agents' traits, and callers.
pub mod v1 {
    afdg_agent::include_agent!("relay.v1");
}

/// The agent type `relay.v1.Relay`, for a host.
pub fn relay() -> AgentType {
    v1::relay_agent(Relay)
}

/// The agent type `relay.v1.Guest`, for a host.
pub fn guest() -> AgentType {
    v1::guest_agent(Relay)
}

const MARKS: &str = "marks";
/// Marks that one `Read` returns at most.
const READ_MAX: u64 = 10_000;

#[derive(Serialize, Deserialize)]
struct Mark {
    mark: String,
    message_id: String,
}

struct Relay;

async fn keep(ctx: &mut Context, request: KeepRequest) -> Result<Kept, AgentError> {
    if ctx.now_ms() < request.refused_until_ms {
        return Err(AgentError::refused("NOT_NOW", "the mark is refused for now"));
    }
    if request.takes_ms > 0 {
        tokio::time::sleep(Duration::from_millis(request.takes_ms)).await;
    }
    let mark = Mark { mark: request.mark, message_id: ctx.message_id().to_string() };
    ctx.entity(MARKS).push(&mark).await?;
    let mut called = Vec::new();
    for errand in request.errands {
        called.extend(run(ctx, errand).await?);
    }
    Ok(Kept { marks: ctx.entity(MARKS).len().await?, called })
}

/// How many marks the relay has that was called, if one was.
async fn run(ctx: &mut Context, errand: Errand) -> Result<Option<u64>, AgentError> {
    let way = errand.way();
    let Errand { to, mark, delay_ms, refused_until_ms, times, .. } = errand;
    let to = if to.is_empty() { ctx.key().to_owned() } else { to };
    let delay = Duration::from_millis(delay_ms);
    let request = KeepRequest { mark: mark.clone(), refused_until_ms, ..KeepRequest::default() };
    let keep: Call<Kept> = match way {
        Way::SendToGuest => GuestCalls::keep(&to, request),
        _ => RelayCalls::keep(&to, request),
    };
    match way {
        Way::Unspecified => return Err(AgentError::refused("NO_WAY", "an errand has no way")),
        Way::Call => return Ok(Some(ctx.call(keep).await?.marks)),
        Way::Send | Way::SendToGuest => {
            ctx.send_after(delay, keep)?;
        }
        Way::Schedule => {
            // Half a period more than the last time: rounding leaves none out.
            let last_ms = ctx.now_ms() + delay_ms * u64::from(times) + delay_ms / 2;
            let until = SystemTime::UNIX_EPOCH + Duration::from_millis(last_ms);
            ctx.schedule(mark, Schedule::every(delay).missed(Missed::All).until(until), keep)?;
        }
    }
    Ok(None)
}

async fn read(ctx: &mut Context) -> Result<Marks, AgentError> {
    let kept: Vec<Mark> = ctx.entity(MARKS).range(0..READ_MAX).await?;
    let (marks, message_ids) = kept.into_iter().map(|mark| (mark.mark, mark.message_id)).unzip();
    Ok(Marks { marks, message_ids })
}

#[async_trait]
impl RelayAgent for Relay {
    async fn keep(&self, ctx: &mut Context, request: KeepRequest) -> Result<Kept, AgentError> {
        keep(ctx, request).await
    }

    async fn read(&self, ctx: &mut Context, _: ReadRequest) -> Result<Marks, AgentError> {
        read(ctx).await
    }
}

#[async_trait]
impl GuestAgent for Relay {
    async fn keep(&self, ctx: &mut Context, request: KeepRequest) -> Result<Kept, AgentError> {
        keep(ctx, request).await
    }

    async fn read(&self, ctx: &mut Context, _: ReadRequest) -> Result<Marks, AgentError> {
        read(ctx).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_agent::testing::{NOW_MS_DEFAULT, TestGrid};

    fn errand(way: Way, to: &str, mark: &str) -> Errand {
        let (to, mark) = (to.to_owned(), mark.to_owned());
        Errand { way: way.into(), to, mark, ..Errand::default() }
    }

    async fn marks(grid: &TestGrid, key: &str) -> Vec<String> {
        grid.call(RelayCalls::read(key, ReadRequest::default())).await.unwrap().marks
    }

    #[tokio::test]
    async fn a_mark_is_kept_and_others_are_passed_on_each_in_its_way() {
        let grid = TestGrid::new([relay(), guest()]);
        let ring = Errand { delay_ms: 200, times: 3, ..errand(Way::Schedule, "", "ring") };
        let late = Errand { delay_ms: 900, ..errand(Way::Send, "b", "late") };
        let errands = vec![
            errand(Way::Call, "b", "called"),
            errand(Way::Send, "b", "sent"),
            errand(Way::SendToGuest, "g", "sent"),
            late,
            ring,
        ];
        let request = KeepRequest { mark: "own".to_owned(), errands, ..KeepRequest::default() };
        let kept = grid.call(RelayCalls::keep("a", request)).await.unwrap();
        assert_eq!(kept, Kept { marks: 1, called: vec![1] });
        assert_eq!(marks(&grid, "b").await, ["called", "sent"]);
        for to_ms in [200, 400, 600, 800, 1_000] {
            grid.set_now_ms(NOW_MS_DEFAULT + to_ms);
            grid.deliver_due().await;
        }
        assert_eq!(marks(&grid, "a").await, ["own", "ring", "ring", "ring"]);
        assert_eq!(marks(&grid, "b").await, ["called", "sent", "late"]);
        let guest = grid.call(GuestCalls::read("g", ReadRequest::default())).await.unwrap();
        assert_eq!((guest.marks, guest.message_ids.len()), (vec!["sent".to_owned()], 1));
    }

    #[tokio::test]
    async fn what_is_refused_is_neither_kept_nor_passed_on() {
        let grid = TestGrid::new([relay()]);
        let errands = vec![errand(Way::Send, "b", "sent")];
        let request = KeepRequest { errands, refused_until_ms: u64::MAX, ..KeepRequest::default() };
        let refused = grid.call(RelayCalls::keep("a", request)).await.unwrap_err();
        assert_eq!(refused.reason(), "NOT_NOW");
        assert!(marks(&grid, "a").await.is_empty() && marks(&grid, "b").await.is_empty());
    }
}
