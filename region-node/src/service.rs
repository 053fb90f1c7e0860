//! What extensions and other nodes ask of this node: decode, hand to the region, encode.

use crate::{
    dead_letters,
    inspect::{self, not_leader},
    region::{Admission, Outgoing, RegionHandle, ReplyTo, Surroundings, of_other_method},
    regions::Regions,
    scatter::{self, Scatters},
    schedules,
};
use afdg_proto::{
    pb::internal::{
        self, CancelSchedulesRequest, CancelSchedulesResponse, FindMessageRequest, FindMessageResponse,
        ForwardFrame, Forwarded, InspectAgentRequest, InspectAgentResponse, ListAgentsRequest,
        ListAgentsResponse, ListBlockedAgentsRequest, ListBlockedAgentsResponse, ListDeadLettersRequest,
        ListDeadLettersResponse, ListSchedulesRequest, ListSchedulesResponse, OutcomeFrame, ScatterRequest,
        ScatterResponse, SettleDeadLettersRequest, SettleDeadLettersResponse, TransferLeaderRequest,
        TransferLeaderResponse, region_node_server::RegionNode,
    },
    status::of_grid_error,
};
use afdg_types::{
    AgentRef, Cancel, GridError, MessageId, NodeId, Probe, ProbeStage, Purpose, Reason, RegionId, Sending,
    Wait, limits,
};
use futures::{Stream, StreamExt};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tonic::{Request, Response, Status, Streaming};

/// Messages of one connection whose outcomes are not written yet; past it, reading pauses.
///
/// More than one region takes, so that a region that is stuck does not stop the others' messages.
const CONNECTION_MESSAGES_MAX: usize = 4 * limits::REGION_IN_FLIGHT_MESSAGES_MAX;
/// Outcomes in one frame at most.
const FRAME_OUTCOMES_MAX: usize = 1_024;

pub struct RegionService {
    pub regions: Regions,
    pub here: Surroundings,
    pub scatters: Scatters,
}

impl RegionService {
    /// The region's handle if this replica leads; who does, if it does not.
    fn leading(&self, region: u64) -> Result<RegionHandle, Box<Status>> {
        let error = |error| Box::new(of_grid_error(&error));
        let handle = self.regions.get(RegionId(region)).ok_or_else(|| error(not_here(region)))?;
        if handle.status().lead.is_mine {
            return Ok(handle);
        }
        let leader = handle.status().lead.leader.unwrap_or(0);
        Err(error(
            GridError::new(Reason::NotLeader, "another replica of the region leads").with("leader", leader),
        ))
    }
}

impl RegionService {
    /// Many reads of stored rows, once it is certain that this replica leads: not on a thread that serves.
    async fn look<T: Send + 'static>(
        &self,
        handle: RegionHandle,
        look: impl FnOnce(&RegionHandle) -> Result<T, GridError> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        handle.replica.linearize().await.map_err(|_| of_grid_error(&not_leader()))?;
        let found = afdg_runtime::blocking(&self.here.world.threads, move || look(&handle)).await;
        let found =
            found.map_err(|error| of_grid_error(&GridError::new(Reason::Internal, error.to_string())))?;
        found.map(Response::new).map_err(|error| of_grid_error(&error))
    }
}

fn not_here(region: u64) -> GridError {
    GridError::new(Reason::StaleRoute, format!("this node has no replica of region {region}"))
}

#[tonic::async_trait]
impl RegionNode for RegionService {
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<OutcomeFrame, Status>> + Send>>;

    async fn forward(
        &self,
        request: Request<Streaming<ForwardFrame>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let (outcomes, waiting) = mpsc::unbounded_channel();
        let (regions, routes) = (self.regions.clone(), self.here.node);
        tokio::spawn(take_in(regions, routes, request.into_inner(), outcomes));
        Ok(Response::new(Box::pin(frames(waiting))))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let request = request.into_inner();
        let handle = self.leading(request.region).map_err(|status| *status)?;
        self.look(handle, move |handle| inspect::list_agents(handle, &request)).await
    }

    async fn inspect_agent(
        &self,
        request: Request<InspectAgentRequest>,
    ) -> Result<Response<InspectAgentResponse>, Status> {
        let request = request.into_inner();
        let handle = self.leading(request.region).map_err(|status| *status)?;
        handle.replica.linearize().await.map_err(|_| of_grid_error(&not_leader()))?;
        let inspected = inspect::inspect_agent(RegionId(request.region), &handle, &self.here, &request).await;
        inspected.map(Response::new).map_err(|error| of_grid_error(&error))
    }

    async fn list_blocked_agents(
        &self,
        request: Request<ListBlockedAgentsRequest>,
    ) -> Result<Response<ListBlockedAgentsResponse>, Status> {
        let request = request.into_inner();
        let handle = self.leading(request.region).map_err(|status| *status)?;
        handle.replica.linearize().await.map_err(|_| of_grid_error(&not_leader()))?;
        let limit = request.limit.clamp(1, limits::LIST_BLOCKED_AGENTS_MAX) as usize;
        let blocked = handle.blocked_agents(request.r#type, limit).await;
        blocked.map(Response::new).ok_or_else(|| of_grid_error(&not_leader()))
    }

    async fn find_message(
        &self,
        request: Request<FindMessageRequest>,
    ) -> Result<Response<FindMessageResponse>, Status> {
        let request = request.into_inner();
        let handle = self.leading(request.region).map_err(|status| *status)?;
        let id = MessageId::from_bytes(&request.message_id)
            .map_err(|error| of_grid_error(&malformed("message_id", &error)))?;
        handle.replica.linearize().await.map_err(|_| of_grid_error(&not_leader()))?;
        let wait = Duration::from_millis(request.wait_ms.min(limits::CALL_TIMEOUT_MS_MAX));
        let (known, outcome) =
            handle.find(id, &request.method, wait).await.ok_or_else(|| of_grid_error(&not_leader()))?;
        if let Some(error) = known.and_then(|known| of_other_method(id, known.digest, &request.method)) {
            return Err(of_grid_error(&error));
        }
        Ok(Response::new(FindMessageResponse {
            known: known.is_some(),
            slot: known.map_or(0, |known| known.slot.0.into()),
            digest: known.map(|known| known.digest.to_be_bytes().to_vec().into()).unwrap_or_default(),
            outcome,
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let handle = self.leading(request.region).map_err(|status| *status)?;
        if !handle.replica.members().contains(&request.to_node) {
            let text = format!("node {} has no replica of region {}", request.to_node, request.region);
            return Err(of_grid_error(
                &GridError::new(Reason::InvalidRequest, text).with("field", "to_node"),
            ));
        }
        let asked = handle.replica.transfer_leader(request.to_node).await;
        asked.map_err(|error| of_grid_error(&GridError::new(Reason::NoLeader, error.to_string())))?;
        Ok(Response::new(TransferLeaderResponse {}))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let handle = self.leading(request.region).map_err(|status| *status)?;
        self.look(handle, move |handle| dead_letters::list(handle, &request)).await
    }

    async fn settle_dead_letters(
        &self,
        request: Request<SettleDeadLettersRequest>,
    ) -> Result<Response<SettleDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let handle = self.leading(request.region).map_err(|status| *status)?;
        handle.replica.linearize().await.map_err(|_| of_grid_error(&not_leader()))?;
        let settled = dead_letters::settle(&handle, &self.here.world, request).await;
        settled.map(Response::new).map_err(|error| of_grid_error(&error))
    }

    type ScatterStream = Pin<Box<dyn Stream<Item = Result<ScatterResponse, Status>> + Send>>;

    async fn scatter(
        &self,
        request: Request<Streaming<ScatterRequest>>,
    ) -> Result<Response<Self::ScatterStream>, Status> {
        let place = self.scatters.enter().map_err(|error| of_grid_error(&error))?;
        let (start, asked) = begun(request.into_inner()).await?;
        let handle = self.leading(start.region).map_err(|status| *status)?;
        let pages = scatter::pages(handle, self.here.clone(), start, asked, place);
        let pages = pages.map_err(|error| of_grid_error(&error))?;
        Ok(Response::new(Box::pin(pages.map(|page| page.map_err(|error| of_grid_error(&error))))))
    }

    async fn list_schedules(
        &self,
        request: Request<ListSchedulesRequest>,
    ) -> Result<Response<ListSchedulesResponse>, Status> {
        let request = request.into_inner();
        let handle = self.leading(request.region).map_err(|status| *status)?;
        self.look(handle, move |handle| schedules::list(handle, &request)).await
    }

    async fn cancel_schedules(
        &self,
        request: Request<CancelSchedulesRequest>,
    ) -> Result<Response<CancelSchedulesResponse>, Status> {
        let request = request.into_inner();
        let handle = self.leading(request.region).map_err(|status| *status)?;
        handle.replica.linearize().await.map_err(|_| of_grid_error(&not_leader()))?;
        let cancelled = schedules::cancel(&handle, request).await;
        cancelled.map(Response::new).map_err(|error| of_grid_error(&error))
    }
}

/// How long the first message of a stream may take to come.
const STREAM_BEGINS_WITHIN: Duration = Duration::from_secs(5);

/// What a scatter is to do, and that which follows it.
async fn begun(mut requests: Streaming<ScatterRequest>) -> Result<(internal::ScatterStart, Asked), Status> {
    let first = tokio::time::timeout(STREAM_BEGINS_WITHIN, requests.message()).await;
    let first = first.map_err(|_| of_grid_error(&malformed("start", &"it has not come")))??;
    let start = first.and_then(|first| first.start);
    let start = start.ok_or_else(|| of_grid_error(&malformed("start", &"it is missing")))?;
    let further = requests.take_while(|request| std::future::ready(request.is_ok())).map(|_| ());
    Ok((start, futures::stream::iter([()]).chain(further).boxed()))
}

type Asked = futures::stream::BoxStream<'static, ()>;

/// Reads messages until the connection ends, and hands each to its region.
async fn take_in(
    regions: Regions,
    _node: NodeId,
    mut frames: Streaming<ForwardFrame>,
    outcomes: mpsc::UnboundedSender<Outgoing>,
) {
    let places = Arc::new(Semaphore::new(CONNECTION_MESSAGES_MAX));
    while let Ok(Some(frame)) = frames.message().await {
        let mut handle: Option<(u64, RegionHandle)> = None;
        for message in frame.messages {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let reply_to = ReplyTo::new(message.request_id, outcomes.clone(), place);
            // Neighbours in a frame are often of one region.
            if handle.as_ref().is_none_or(|(region, _)| *region != message.region) {
                handle = regions.get(RegionId(message.region)).map(|found| (message.region, found));
            }
            match &handle {
                Some((_, handle)) => hand_over(handle, message, reply_to),
                None => reply_to.refuse(not_here(message.region)),
            }
        }
    }
}

fn hand_over(handle: &RegionHandle, message: Forwarded, reply_to: ReplyTo) {
    let agent = match AgentRef::new(&message.r#type, &message.key) {
        Ok(agent) => agent,
        Err(error) => {
            return reply_to
                .refuse(GridError::new(Reason::KeyMalformed, error.to_string()).with("field", "key"));
        }
    };
    let message_id = match MessageId::from_bytes(&message.message_id) {
        Ok(id) => id,
        Err(error) => return reply_to.refuse(malformed("message_id", &error)),
    };
    let chain: Result<Vec<AgentRef>, _> = message.chain.iter().map(|agent| agent.parse()).collect();
    let chain = match chain {
        Ok(chain) if chain.len() <= limits::CALL_CHAIN_AGENTS_MAX => chain,
        Ok(chain) => {
            let text = format!("{} agents wait for one another", chain.len());
            return reply_to.refuse(malformed("chain", &text));
        }
        Err(error) => return reply_to.refuse(malformed("chain", &error)),
    };
    let reentries: Result<Vec<MessageId>, _> =
        message.reentries.iter().map(|id| MessageId::from_bytes(id)).collect();
    let reentries = match reentries {
        Ok(reentries) if reentries.len() <= chain.len() => reentries,
        Ok(reentries) => {
            let text = format!("{} calls of {} agents that wait", reentries.len(), chain.len());
            return reply_to.refuse(malformed("reentries", &text));
        }
        Err(error) => return reply_to.refuse(malformed("reentries", &error)),
    };
    if message.request.len() > limits::MESSAGE_BYTES_MAX {
        let text = format!(
            "the request has {} bytes; at most {} fit",
            message.request.len(),
            limits::MESSAGE_BYTES_MAX
        );
        return reply_to.refuse(GridError::new(Reason::MessageTooLarge, text));
    }
    let purpose = match purpose_of(&message) {
        Ok(purpose) => purpose,
        Err(error) => return reply_to.refuse(error),
    };
    let now = Instant::now();
    let timeout = Duration::from_millis(message.timeout_ms.min(limits::CALL_TIMEOUT_MS_MAX));
    handle.admit(Admission {
        agent,
        method: message.method,
        message_id,
        request: message.request,
        deadline: (message.timeout_ms > 0).then(|| now + timeout),
        chain,
        reentries,
        caller: message.caller,
        purpose,
        arrived: now,
        reply_to,
    });
}

fn purpose_of(message: &Forwarded) -> Result<Purpose, GridError> {
    if message.attach {
        return Ok(Purpose::Attach);
    }
    if let Some(probe) = &message.probe {
        return probe_of(probe).map(Purpose::Probe);
    }
    match message.cancel {
        Some(internal::Cancel { caller: 0 }) => return Ok(Purpose::Cancel(Cancel::Turn)),
        Some(internal::Cancel { caller }) => return Ok(Purpose::Cancel(Cancel::Caller(caller))),
        None => {}
    }
    let Some(send) = &message.send else { return Ok(Purpose::Call) };
    let sender = match send.sender.as_str() {
        "" => None,
        sender => Some(sender.parse().map_err(|error| malformed("send.sender", &error))?),
    };
    let after = match &*send.after {
        [] => None,
        after => Some(MessageId::from_bytes(after).map_err(|error| malformed("send.after", &error))?),
    };
    Ok(Purpose::Send(Sending { sender, due_ms: send.due_ms, after }))
}

fn probe_of(probe: &internal::Probe) -> Result<Probe, GridError> {
    let id = |bytes: &[u8]| MessageId::from_bytes(bytes).map_err(|error| malformed("probe", &error));
    let agent = |text: &str| text.parse::<AgentRef>().map_err(|error| malformed("probe", &error));
    if probe.waits.is_empty() || probe.waits.len() > limits::CALL_CHAIN_AGENTS_MAX {
        return Err(malformed("probe", &format!("{} agents wait", probe.waits.len())));
    }
    let at = probe.at as usize;
    let stage = match probe.stage() {
        internal::probe::Stage::Search => ProbeStage::Search,
        internal::probe::Stage::Confirm if at < probe.waits.len() => ProbeStage::Confirm(at),
        internal::probe::Stage::Break => ProbeStage::Break,
        stage => return Err(malformed("probe", &format!("{stage:?} at {at}"))),
    };
    let waits = probe.waits.iter().map(|wait| {
        Ok(Wait {
            agent: agent(&wait.agent)?,
            turn: id(&wait.turn)?,
            call: id(&wait.call)?,
            callee: agent(&wait.callee)?,
            queued: wait.queued,
        })
    });
    Ok(Probe { waits: waits.collect::<Result<_, GridError>>()?, stage })
}

fn malformed(field: &str, why: &dyn std::fmt::Display) -> GridError {
    GridError::new(Reason::RequestMalformed, why.to_string()).with("field", field)
}

/// Outcomes that wait, in frames; the messages' places are free once their frame is taken.
fn frames(
    waiting: mpsc::UnboundedReceiver<Outgoing>,
) -> impl Stream<Item = Result<OutcomeFrame, Status>> + Send {
    futures::stream::unfold(waiting, |mut waiting| async move {
        let first = waiting.recv().await?;
        afdg_runtime::gather().await;
        let mut outcomes = Vec::with_capacity(16);
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(Outgoing { outcome, place }) = next {
            bytes += prost::Message::encoded_len(&outcome);
            outcomes.push(outcome);
            drop(place);
            let full = bytes >= limits::FRAME_BYTES_TARGET || outcomes.len() >= FRAME_OUTCOMES_MAX;
            next = if full { None } else { waiting.try_recv().ok() };
        }
        Some((Ok(OutcomeFrame { outcomes }), waiting))
    })
}
