//! An agent for tests of schedules: it sets them as it is asked to, and keeps when it rang.

use afdg_agent::{AgentError, AgentType, Context, Missed, Schedule, async_trait};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};
use v1::{
    AlarmAgent, AlarmCalls, ReadRequest, RingRequest, RingResponse, Rings, Rung, SetRequest, SetResponse,
    UnsetRequest, UnsetResponse,
};

/// The package `alarm.v1`: messages, the agent's trait, and callers.
pub mod v1 {
    afdg_agent::include_agent!("alarm.v1");
}

/// The agent type `alarm.v1.Alarm`, for a host.
pub fn alarm() -> AgentType {
    v1::alarm_agent(Alarm)
}

const RINGS: &str = "rings";
/// Rings that one `Read` returns at most.
const READ_MAX: u64 = 100_000;

#[derive(Serialize, Deserialize)]
struct Kept {
    from: String,
    name: String,
    mark: u64,
    message_id: String,
    at_ms: u64,
}

struct Alarm;

fn time(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

fn schedule(request: &SetRequest) -> Schedule {
    let mut schedule = match request.cron.as_str() {
        "" => Schedule::every(Duration::from_millis(request.period_ms)),
        cron => Schedule::cron(cron, &request.zone),
    };
    schedule = match request.missed.as_str() {
        "skip" => schedule.missed(Missed::Skip),
        "all" => schedule.missed(Missed::All),
        _ => schedule,
    };
    if request.start_ms > 0 {
        schedule = schedule.starting_at(time(request.start_ms));
    }
    if request.until_ms > 0 {
        schedule = schedule.until(time(request.until_ms));
    }
    schedule
}

#[async_trait]
impl AlarmAgent for Alarm {
    async fn set(&self, ctx: &mut Context, request: SetRequest) -> Result<SetResponse, AgentError> {
        let from = ctx.key().to_owned();
        let to = if request.to.is_empty() { from.clone() } else { request.to.clone() };
        for number in 0..request.count.max(1) {
            let name = match request.count {
                0 | 1 => request.name.clone(),
                _ => format!("{}-{number}", request.name),
            };
            let ring = RingRequest {
                from: from.clone(),
                name: name.clone(),
                mark: request.mark,
                refused_until_ms: request.refused_until_ms,
                ..RingRequest::default()
            };
            ctx.schedule(name, schedule(&request), AlarmCalls::ring(&to, ring))?;
        }
        match request.refuse {
            true => Err(AgentError::refused("AFTER_ALL_NOT", "nothing is set after all")),
            false => Ok(SetResponse { at_ms: ctx.now_ms() }),
        }
    }

    async fn unset(&self, ctx: &mut Context, request: UnsetRequest) -> Result<UnsetResponse, AgentError> {
        ctx.cancel_schedule(request.name)?;
        Ok(UnsetResponse {})
    }

    async fn ring(&self, ctx: &mut Context, ring: RingRequest) -> Result<RingResponse, AgentError> {
        let (at_ms, message_id) = (ctx.now_ms(), ctx.message_id().to_string());
        if at_ms < ring.refused_until_ms {
            return Err(AgentError::refused("NOT_NOW", "the ring is refused for now"));
        }
        let kept = Kept { from: ring.from, name: ring.name, mark: ring.mark, message_id, at_ms };
        ctx.entity(RINGS).push(&kept).await?;
        Ok(RingResponse {})
    }

    async fn read(&self, ctx: &mut Context, _: ReadRequest) -> Result<Rings, AgentError> {
        let kept: Vec<Kept> = ctx.entity(RINGS).range(0..READ_MAX).await?;
        let rings = kept.into_iter().map(|kept| Rung {
            from: kept.from,
            name: kept.name,
            mark: kept.mark,
            message_id: kept.message_id,
            at_ms: kept.at_ms,
        });
        Ok(Rings { rings: rings.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_agent::testing::{NOW_MS_DEFAULT, TestGrid};
    use std::collections::BTreeSet;

    fn every(period_ms: u64) -> SetRequest {
        SetRequest { name: "n".to_owned(), period_ms, ..SetRequest::default() }
    }

    async fn rings(grid: &TestGrid, key: &str) -> Vec<u64> {
        let read = grid.call(AlarmCalls::read(key, ReadRequest::default())).await.unwrap();
        let ids: BTreeSet<_> = read.rings.iter().map(|ring| &ring.message_id).collect();
        assert_eq!(ids.len(), read.rings.len(), "each due time has an id of its own");
        read.rings.iter().map(|ring| ring.mark).collect()
    }

    async fn pass(grid: &TestGrid, to_ms: u64) {
        grid.set_now_ms(NOW_MS_DEFAULT + to_ms);
        grid.deliver_due().await;
    }

    #[tokio::test]
    async fn a_schedule_rings_at_each_period_until_it_is_cancelled() {
        let grid = TestGrid::new([alarm()]);
        grid.call(AlarmCalls::set("a", every(1_000))).await.unwrap();
        for (to_ms, rung) in [(999, 0), (1_000, 1), (1_999, 1), (2_000, 2)] {
            pass(&grid, to_ms).await;
            assert_eq!(rings(&grid, "a").await.len(), rung, "after {to_ms} ms");
        }
        let unset = UnsetRequest { name: "n".to_owned(), ..UnsetRequest::default() };
        grid.call(AlarmCalls::unset("a", unset)).await.unwrap();
        pass(&grid, 9_000).await;
        assert_eq!(rings(&grid, "a").await.len(), 2);
    }

    #[tokio::test]
    async fn one_that_is_set_again_keeps_its_due_time_unless_its_times_are_others() {
        let grid = TestGrid::new([alarm()]);
        let agent = "alarm.v1.Alarm/a".parse().unwrap();
        grid.call(AlarmCalls::set("a", every(1_000))).await.unwrap();
        grid.set_now_ms(NOW_MS_DEFAULT + 700);
        grid.call(AlarmCalls::set("a", SetRequest { mark: 7, ..every(1_000) })).await.unwrap();
        assert_eq!(grid.schedules(&agent), [("n".to_owned(), NOW_MS_DEFAULT + 1_000)]);
        pass(&grid, 1_000).await;
        assert_eq!(rings(&grid, "a").await, [7]);
        grid.call(AlarmCalls::set("a", every(500))).await.unwrap();
        assert_eq!(grid.schedules(&agent), [("n".to_owned(), NOW_MS_DEFAULT + 1_500)]);
    }

    #[tokio::test]
    async fn missed_due_times_ring_as_the_schedule_says() {
        let grid = TestGrid::new([alarm()]);
        for (key, missed) in [("skip", "skip"), ("once", "once"), ("all", "all")] {
            let request = SetRequest { missed: missed.to_owned(), ..every(100_000) };
            grid.call(AlarmCalls::set(key, request)).await.unwrap();
        }
        pass(&grid, 390_000).await;
        let rung = [rings(&grid, "skip").await, rings(&grid, "once").await, rings(&grid, "all").await];
        assert_eq!(rung.map(|rings| rings.len()), [0, 1, 3]);
        pass(&grid, 400_000).await;
        assert_eq!(rings(&grid, "skip").await.len(), 1);
    }

    #[tokio::test]
    async fn what_is_no_schedule_and_one_too_many_are_refused_and_nothing_is_set() {
        let grid = TestGrid::new([alarm()]);
        let agent = "alarm.v1.Alarm/a".parse().unwrap();
        let wrong = [
            SetRequest { cron: "0 9 * *".to_owned(), zone: "UTC".to_owned(), ..every(0) },
            SetRequest { cron: "0 9 * * *".to_owned(), zone: "Mars/Olympus".to_owned(), ..every(0) },
            SetRequest { until_ms: 1, ..every(1_000) },
            SetRequest { name: String::new(), ..every(1_000) },
            every(1),
        ];
        for request in wrong {
            let error = grid.call(AlarmCalls::set("a", request.clone())).await.unwrap_err();
            assert_eq!(error.reason(), "SCHEDULE_MALFORMED", "{request:?}: {error}");
        }
        let many = SetRequest { count: 65, ..every(1_000) };
        let error = grid.call(AlarmCalls::set("a", many)).await.unwrap_err();
        assert_eq!(error.reason(), "TURN_TOO_LARGE", "{error}");
        grid.call(AlarmCalls::set("a", SetRequest { refuse: true, ..every(1_000) })).await.unwrap_err();
        assert!(grid.schedules(&agent).is_empty());
    }
}
