//! `afdg.admin.v1.Schedules`: what agents are sent at set times, asked of the nodes that lead their regions.

use crate::{
    cluster_admin::time_for,
    region_questions::{ask_leader, bounded, listing},
};
use afdg_catalog_client::CatalogClient;
use afdg_proto::{
    pb::{
        admin::{
            Calendar, CancelSchedulesRequest, CancelSchedulesResponse, ListSchedulesRequest,
            ListSchedulesResponse, Schedule, ScheduleFilter, schedule::Timing, schedules_server::Schedules,
        },
        internal::{self, CancelSchedulesAction, ScheduleAddress},
    },
    status::of_call_error,
};
use afdg_region_client::RegionClient;
use afdg_router::Router;
use afdg_types::{AgentRef, CallError, GridError, Reason, RegionId, limits::LIST_SCHEDULES_MAX};
use std::collections::BTreeMap;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

const PAGE_SIZE_DEFAULT: u32 = 100;

pub(crate) struct SchedulesAdmin {
    pub(crate) catalog: CatalogClient,
    pub(crate) router: Router,
}

#[tonic::async_trait]
impl Schedules for SchedulesAdmin {
    async fn list_schedules(
        &self,
        request: Request<ListSchedulesRequest>,
    ) -> Result<Response<ListSchedulesResponse>, Status> {
        let until = Instant::now() + time_for(request.metadata())?;
        let response = self.list(request.into_inner(), until).await;
        response.map(Response::new).map_err(|error| of_call_error(&error, ""))
    }

    async fn cancel_schedules(
        &self,
        request: Request<CancelSchedulesRequest>,
    ) -> Result<Response<CancelSchedulesResponse>, Status> {
        let until = Instant::now() + time_for(request.metadata())?;
        let response = self.cancel(request.into_inner(), until).await;
        response.map(Response::new).map_err(|error| of_call_error(&error, ""))
    }
}

impl SchedulesAdmin {
    async fn list(
        &self,
        request: ListSchedulesRequest,
        until: Instant,
    ) -> Result<ListSchedulesResponse, CallError> {
        let wanted = bounded("page_size", request.page_size, PAGE_SIZE_DEFAULT, LIST_SCHEDULES_MAX)?;
        let filter = request.filter.unwrap_or_default();
        let ask = |node: RegionClient, time, region: RegionId, from, limit| {
            let ask = internal::ListSchedulesRequest {
                region: region.0,
                from,
                limit,
                agent: filter.agent.clone(),
                r#type: filter.r#type.clone(),
                name_prefix: filter.name_prefix.clone(),
            };
            async move {
                let mut page = node.list_schedules(ask, time).await?;
                // No more than asked for, whatever the node says.
                page.schedules.truncate(limit as usize);
                Ok((page.schedules.into_iter().map(shown).collect(), page.next))
            }
        };
        let (schedules, next_page_token) =
            listing(&self.router, &request.page_token, wanted, until, ask).await?;
        Ok(ListSchedulesResponse { schedules, next_page_token })
    }

    async fn cancel(
        &self,
        request: CancelSchedulesRequest,
        until: Instant,
    ) -> Result<CancelSchedulesResponse, CallError> {
        let CancelSchedulesRequest { schedules, actor, reason, filter } = request;
        if schedules.len() > LIST_SCHEDULES_MAX as usize {
            let text = format!("{} schedules are more than {LIST_SCHEDULES_MAX} at once", schedules.len());
            return Err(invalid("schedules", text).into());
        }
        let Some(first) = schedules.first() else { return Ok(CancelSchedulesResponse { cancelled: 0 }) };
        let action = CancelSchedulesAction {
            count: schedules.len() as u32,
            first: format!("{} of {}", first.name, first.agent),
            filter: filter.as_ref().map(in_words).unwrap_or_default(),
        };
        let mut by_region: BTreeMap<_, Vec<ScheduleAddress>> = BTreeMap::new();
        for name in schedules {
            let agent: AgentRef =
                name.agent.parse().map_err(|error| invalid("schedules.agent", format!("{error}")))?;
            let Some(region) = self.router.region_of(&agent) else {
                return Err(GridError::new(Reason::NoLeader, "the agent's slot is in no region yet").into());
            };
            let address = ScheduleAddress { agent: name.agent, name: name.name };
            by_region.entry(region).or_default().push(address);
        }
        // Nothing is done that is not in the audit log.
        let within = until.saturating_duration_since(Instant::now());
        self.catalog.record_cancelled_schedules(actor, reason, action, within).await?;
        let mut cancelled = 0;
        for (region, schedules) in by_region {
            let ask = internal::CancelSchedulesRequest { region: region.0, schedules };
            let ask = |node: RegionClient, time| {
                let ask = ask.clone();
                async move { node.cancel_schedules(ask, time).await }
            };
            cancelled += ask_leader(&self.router, region, until, ask).await?.1.cancelled;
        }
        Ok(CancelSchedulesResponse { cancelled })
    }
}

fn invalid(field: &str, text: String) -> GridError {
    GridError::new(Reason::InvalidRequest, text).with("field", field)
}

/// `type bank.v1.Account, name rent...`; `all` if nothing is left out.
fn in_words(filter: &ScheduleFilter) -> String {
    let ScheduleFilter { agent, r#type, name_prefix } = filter;
    let parts = [("agent", agent), ("type", r#type), ("names that begin with", name_prefix)];
    let given = parts.into_iter().filter(|(_, value)| !value.is_empty());
    let words: Vec<String> = given.map(|(name, value)| format!("{name} {value}")).collect();
    if words.is_empty() { "all".to_owned() } else { words.join(", ") }
}

fn shown(schedule: internal::Schedule) -> Schedule {
    let timing = match schedule.period_ms {
        0 => Timing::Calendar(Calendar { cron: schedule.cron, zone: schedule.zone }),
        period_ms => Timing::PeriodMs(period_ms),
    };
    Schedule {
        agent: schedule.agent,
        name: schedule.name,
        to: schedule.to,
        method: schedule.method,
        request: schedule.request,
        timing: Some(timing),
        start_ms: schedule.start_ms,
        until_ms: schedule.until_ms,
        missed: schedule.missed,
        next_due_ms: schedule.next_due_ms,
        fired: schedule.fired,
        set_ms: schedule.set_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_told_in_words() {
        let filter = ScheduleFilter {
            agent: String::new(),
            r#type: "bank.v1.Account".to_owned(),
            name_prefix: "rent".to_owned(),
        };
        assert_eq!(in_words(&filter), "type bank.v1.Account, names that begin with rent");
        assert_eq!(in_words(&ScheduleFilter::default()), "all");
    }
}
