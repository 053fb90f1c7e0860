//! `afdg.admin.v1.DeadLetters`: messages that were given up, asked of the nodes that lead their regions.

use crate::{
    cluster_admin::time_for,
    region_questions::{ask_leader, bounded, listing},
};
use afdg_catalog_client::CatalogClient;
use afdg_proto::{
    pb::{
        admin::{
            DeadLetter, DeadLetterFilter, ListDeadLettersRequest, ListDeadLettersResponse,
            SettleDeadLettersRequest, SettleDeadLettersResponse, dead_letters_server::DeadLetters,
            settle_dead_letters_request::Action,
        },
        internal::{self, DeadLetterAddress, SettleDeadLettersAction},
    },
    status::of_call_error,
};
use afdg_region_client::RegionClient;
use afdg_router::Router;
use afdg_types::{
    AgentRef, CallError, GridError, MessageId, Reason, RegionId, limits::LIST_DEAD_LETTERS_MAX,
};
use std::collections::BTreeMap;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

const PAGE_SIZE_DEFAULT: u32 = 100;

pub(crate) struct DeadLettersAdmin {
    pub(crate) catalog: CatalogClient,
    pub(crate) router: Router,
}

#[tonic::async_trait]
impl DeadLetters for DeadLettersAdmin {
    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let until = Instant::now() + time_for(request.metadata())?;
        let response = self.list(request.into_inner(), until).await;
        response.map(Response::new).map_err(|error| of_call_error(&error, ""))
    }

    async fn settle_dead_letters(
        &self,
        request: Request<SettleDeadLettersRequest>,
    ) -> Result<Response<SettleDeadLettersResponse>, Status> {
        let until = Instant::now() + time_for(request.metadata())?;
        let response = self.settle(request.into_inner(), until).await;
        response.map(Response::new).map_err(|error| of_call_error(&error, ""))
    }
}

impl DeadLettersAdmin {
    async fn list(
        &self,
        request: ListDeadLettersRequest,
        until: Instant,
    ) -> Result<ListDeadLettersResponse, CallError> {
        if !request.name.is_empty() {
            return self.named(&request.name, until).await;
        }
        let wanted = bounded("page_size", request.page_size, PAGE_SIZE_DEFAULT, LIST_DEAD_LETTERS_MAX)?;
        let filter = request.filter.unwrap_or_default();
        let ask = |node: RegionClient, time, region: RegionId, from, limit| {
            let filter = filter.clone();
            async move {
                let ask = internal::ListDeadLettersRequest { region: region.0, from, limit, only: None };
                let mut page = node.list_dead_letters(ask, time).await?;
                // No more than asked for, whatever the node says.
                page.letters.truncate(limit as usize);
                let letters = page.letters.into_iter().map(shown).filter(|letter| fits(&filter, letter));
                Ok((letters.collect(), page.next))
            }
        };
        let (letters, next_page_token) =
            listing(&self.router, &request.page_token, wanted, until, ask).await?;
        Ok(ListDeadLettersResponse { letters, next_page_token })
    }

    async fn settle(
        &self,
        request: SettleDeadLettersRequest,
        until: Instant,
    ) -> Result<SettleDeadLettersResponse, CallError> {
        let retry = match request.action() {
            Action::Retry => true,
            Action::Drop => false,
            Action::Unspecified => {
                return Err(invalid("action", "the action is missing: retry or drop").into());
            }
        };
        if request.names.len() > LIST_DEAD_LETTERS_MAX as usize {
            let text =
                format!("{} dead letters are more than {LIST_DEAD_LETTERS_MAX} at once", request.names.len());
            return Err(invalid("names", &text).into());
        }
        let mut by_region: BTreeMap<_, Vec<DeadLetterAddress>> = BTreeMap::new();
        for name in &request.names {
            let (agent, number) = parse_name(name)?;
            let Some(region) = self.router.region_of(&agent) else {
                return Err(GridError::new(Reason::NoLeader, "the agent's slot is in no region yet").into());
            };
            let address = DeadLetterAddress { agent: agent.to_string(), number };
            by_region.entry(region).or_default().push(address);
        }
        self.record(&request, retry, until).await?;
        let mut settled = 0;
        for (region, letters) in by_region {
            let ask = internal::SettleDeadLettersRequest { region: region.0, letters, retry };
            let ask = |node: RegionClient, time| {
                let ask = ask.clone();
                async move { node.settle_dead_letters(ask, time).await }
            };
            settled += ask_leader(&self.router, region, until, ask).await?.1.settled;
        }
        Ok(SettleDeadLettersResponse { settled })
    }
}

impl DeadLettersAdmin {
    /// The dead letter of a name, if it is there.
    async fn named(&self, name: &str, until: Instant) -> Result<ListDeadLettersResponse, CallError> {
        let (agent, number) = parse_name(name)?;
        let Some(region) = self.router.region_of(&agent) else {
            return Err(GridError::new(Reason::NoLeader, "the agent's slot is in no region yet").into());
        };
        let only = Some(DeadLetterAddress { agent: agent.to_string(), number });
        let ask = internal::ListDeadLettersRequest { region: region.0, only, ..Default::default() };
        let ask = |node: RegionClient, time| {
            let ask = ask.clone();
            async move { node.list_dead_letters(ask, time).await }
        };
        let (_, page) = ask_leader(&self.router, region, until, ask).await?;
        let letters = page.letters.into_iter().take(1).map(shown).collect();
        Ok(ListDeadLettersResponse { letters, next_page_token: String::new() })
    }

    /// Puts the request into the audit log: nothing is done that is not there.
    async fn record(
        &self,
        request: &SettleDeadLettersRequest,
        retry: bool,
        until: Instant,
    ) -> Result<(), GridError> {
        let Some(first) = request.names.first().cloned() else { return Ok(()) };
        let filter = request.filter.as_ref().map(in_words).unwrap_or_default();
        let letters = SettleDeadLettersAction { retry, count: request.names.len() as u32, first, filter };
        let within = until.saturating_duration_since(Instant::now());
        let (actor, reason) = (request.actor.clone(), request.reason.clone());
        self.catalog.record_settled_letters(actor, reason, letters, within).await
    }
}

/// `type bank.v1.Account, reason HANDLER_PANICKED`; `all` if nothing is left out.
fn in_words(filter: &DeadLetterFilter) -> String {
    let DeadLetterFilter { agent, r#type, method, reason } = filter;
    let parts = [("agent", agent), ("type", r#type), ("method", method), ("reason", reason)];
    let given = parts.into_iter().filter(|(_, value)| !value.is_empty());
    let words: Vec<String> = given.map(|(name, value)| format!("{name} {value}")).collect();
    if words.is_empty() { "all".to_owned() } else { words.join(", ") }
}

fn invalid(field: &str, text: &str) -> GridError {
    GridError::new(Reason::InvalidRequest, text).with("field", field)
}

/// `17@bank.v1.Account/alice`: an agent's key may hold anything, so the number comes first.
fn name(agent: &str, number: u64) -> String {
    format!("{number}@{agent}")
}

fn parse_name(name: &str) -> Result<(AgentRef, u64), GridError> {
    let parsed =
        name.split_once('@').and_then(|(number, agent)| Some((agent.parse().ok()?, number.parse().ok()?)));
    parsed.ok_or_else(|| {
        let shown = name.chars().take(80).collect::<String>().escape_debug().to_string();
        invalid(
            "names",
            &format!("'{shown}' names no dead letter; names are as listed, such as 17@bank.v1.Account/alice"),
        )
    })
}

fn shown(letter: internal::DeadLetter) -> DeadLetter {
    DeadLetter {
        name: name(&letter.agent, letter.number),
        agent: letter.to,
        method: letter.method,
        sender: letter.from,
        message_id: MessageId::from_bytes(&letter.message_id).map(|id| id.to_string()).unwrap_or_default(),
        request: letter.request,
        attempts: letter.attempts,
        sent_ms: letter.sent_ms,
        died_ms: letter.died_ms,
        reason: letter.reason,
        error: letter.error,
        undelivered: letter.undelivered,
    }
}

fn fits(filter: &DeadLetterFilter, letter: &DeadLetter) -> bool {
    let agent_type = letter.agent.split('/').next().unwrap_or_default();
    let fit = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    fit(&filter.agent, &letter.agent)
        && fit(&filter.r#type, agent_type)
        && fit(&filter.method, &letter.method)
        && fit(&filter.reason, &letter.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_refused() {
        let agent: AgentRef = "bank.v1.Account/a@b 1".parse().unwrap();
        assert_eq!(parse_name(&name(agent.as_str(), 17)), Ok((agent, 17)));
        for bad in ["", "17", "@bank.v1.Account/a", "x@bank.v1.Account/a", "17@Account", "17@"] {
            assert_eq!(parse_name(bad).unwrap_err().reason, Reason::InvalidRequest, "{bad}");
        }
    }

    #[test]
    fn a_filter_fits_what_it_names() {
        let letter = DeadLetter {
            agent: "bank.v1.Account/alice".to_owned(),
            method: "Deposit".to_owned(),
            reason: "HANDLER_PANICKED".to_owned(),
            ..DeadLetter::default()
        };
        let filter = |agent: &str, agent_type: &str, method: &str, reason: &str| DeadLetterFilter {
            agent: agent.to_owned(),
            r#type: agent_type.to_owned(),
            method: method.to_owned(),
            reason: reason.to_owned(),
        };
        assert!(fits(&DeadLetterFilter::default(), &letter));
        assert!(fits(
            &filter("bank.v1.Account/alice", "bank.v1.Account", "Deposit", "HANDLER_PANICKED"),
            &letter
        ));
        assert!(!fits(&filter("bank.v1.Account/bob", "", "", ""), &letter));
        assert!(!fits(&filter("", "bank.v1", "", ""), &letter));
        assert!(!fits(&filter("", "", "Withdraw", ""), &letter));
        assert!(!fits(&filter("", "", "", "OTHER"), &letter));
        assert_eq!(in_words(&filter("", "bank.v1.Account", "", "X")), "type bank.v1.Account, reason X");
        assert_eq!(in_words(&DeadLetterFilter::default()), "all");
    }
}
