//! A region node that answers as a test tells it to.

use afdg_proto::pb::internal::{
    CancelSchedulesRequest, CancelSchedulesResponse, FindMessageRequest, FindMessageResponse, ForwardFrame,
    Forwarded, InspectAgentRequest, InspectAgentResponse, ListAgentsRequest, ListAgentsResponse,
    ListBlockedAgentsRequest, ListBlockedAgentsResponse, ListDeadLettersRequest, ListDeadLettersResponse,
    ListSchedulesRequest, ListSchedulesResponse, Outcome, OutcomeFrame, ScatterRequest, ScatterResponse,
    ScatterStart, SettleDeadLettersRequest, SettleDeadLettersResponse, TransferLeaderRequest,
    TransferLeaderResponse, outcome,
    region_node_server::{RegionNode, RegionNodeServer},
};
use afdg_runtime::{Incoming, Net, TcpNet};
use afdg_types::limits::FRAME_BYTES_MAX;
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// What a fake node does with one message; none leaves it without an answer.
pub type Answering = dyn Fn(&Forwarded) -> Option<outcome::Result> + Send + Sync;

/// What a fake node answers to a scatter: its pages, one for each that is asked for.
pub type Scattering = dyn Fn(&ScatterStart) -> Vec<Result<ScatterResponse, Status>> + Send + Sync;

/// A region node in this process.
pub struct FakeNode {
    pub address: String,
    state: Arc<State>,
    server: tokio::task::JoinHandle<()>,
}

struct State {
    answering: Mutex<Arc<Answering>>,
    received: Mutex<Vec<Forwarded>>,
    scattering: Mutex<Arc<Scattering>>,
    scatters: Mutex<Vec<ScatterStart>>,
    pages_asked: AtomicUsize,
    cut: broadcast::Sender<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeNode {
    pub async fn start(
        answering: impl Fn(&Forwarded) -> Option<outcome::Result> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpNet.bind("127.0.0.1:0").await?;
        let address = listener.local_address()?.to_string();
        let state = Arc::new(State {
            answering: Mutex::new(Arc::new(answering)),
            received: Mutex::default(),
            scattering: Mutex::new(Arc::new(|_| Vec::new())),
            scatters: Mutex::default(),
            pages_asked: AtomicUsize::new(0),
            cut: broadcast::Sender::new(1),
        });
        let service = RegionNodeServer::new(Service(Arc::clone(&state)))
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        let server = tokio::spawn(async move {
            let served = tonic::transport::Server::builder().add_service(service);
            let _ = served.serve_with_incoming(Incoming::new(listener)).await;
        });
        Ok(Self { address, state, server })
    }

    /// Answers differently from now on.
    pub fn answer(&self, answering: impl Fn(&Forwarded) -> Option<outcome::Result> + Send + Sync + 'static) {
        *lock(&self.state.answering) = Arc::new(answering);
    }

    /// The messages that have come, in order.
    pub fn received(&self) -> Vec<Forwarded> {
        lock(&self.state.received).clone()
    }

    /// Answers scatters so from now on.
    pub fn scatter(
        &self,
        scattering: impl Fn(&ScatterStart) -> Vec<Result<ScatterResponse, Status>> + Send + Sync + 'static,
    ) {
        *lock(&self.state.scattering) = Arc::new(scattering);
    }

    /// The scatters that have come, in order, and how many pages were asked for in all of them.
    pub fn scatters(&self) -> (Vec<ScatterStart>, usize) {
        (lock(&self.state.scatters).clone(), self.state.pages_asked.load(Ordering::SeqCst))
    }

    /// Breaks all connections' streams.
    pub fn cut(&self) {
        let _ = self.state.cut.send(());
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.cut();
        self.server.abort();
    }
}

struct Service(Arc<State>);

#[tonic::async_trait]
impl RegionNode for Service {
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<OutcomeFrame, Status>> + Send>>;

    async fn forward(
        &self,
        request: Request<Streaming<ForwardFrame>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let mut frames = request.into_inner();
        let state = Arc::clone(&self.0);
        let mut cut = state.cut.subscribe();
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let frame = tokio::select! {
                    _ = cut.recv() => {
                        let _ = sender.send(Err(Status::unavailable("cut by the test"))).await;
                        return;
                    }
                    frame = frames.message() => frame,
                };
                let Ok(Some(frame)) = frame else { return };
                lock(&state.received).extend(frame.messages.iter().cloned());
                let answering = Arc::clone(&lock(&state.answering));
                let outcomes: Vec<Outcome> = frame
                    .messages
                    .iter()
                    .filter_map(|message| {
                        let result = answering(message)?;
                        Some(Outcome { request_id: message.request_id, result: Some(result) })
                    })
                    .collect();
                if !outcomes.is_empty() && sender.send(Ok(OutcomeFrame { outcomes })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver).map(|frame| frame))))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let request = request.into_inner();
        let agents = vec![format!("{}/of-region-{}", request.r#type, request.region)];
        Ok(Response::new(ListAgentsResponse { agents, last: Default::default() }))
    }

    async fn inspect_agent(
        &self,
        _: Request<InspectAgentRequest>,
    ) -> Result<Response<InspectAgentResponse>, Status> {
        Ok(Response::new(InspectAgentResponse { activity: "idle".to_owned(), ..Default::default() }))
    }

    async fn list_blocked_agents(
        &self,
        _: Request<ListBlockedAgentsRequest>,
    ) -> Result<Response<ListBlockedAgentsResponse>, Status> {
        Ok(Response::new(ListBlockedAgentsResponse::default()))
    }

    async fn find_message(
        &self,
        _: Request<FindMessageRequest>,
    ) -> Result<Response<FindMessageResponse>, Status> {
        Ok(Response::new(FindMessageResponse::default()))
    }

    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        Ok(Response::new(TransferLeaderResponse {}))
    }

    async fn list_dead_letters(
        &self,
        _: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        Ok(Response::new(ListDeadLettersResponse::default()))
    }

    async fn list_schedules(
        &self,
        _: Request<ListSchedulesRequest>,
    ) -> Result<Response<ListSchedulesResponse>, Status> {
        Ok(Response::new(ListSchedulesResponse::default()))
    }

    async fn cancel_schedules(
        &self,
        _: Request<CancelSchedulesRequest>,
    ) -> Result<Response<CancelSchedulesResponse>, Status> {
        Ok(Response::new(CancelSchedulesResponse::default()))
    }

    async fn settle_dead_letters(
        &self,
        _: Request<SettleDeadLettersRequest>,
    ) -> Result<Response<SettleDeadLettersResponse>, Status> {
        Ok(Response::new(SettleDeadLettersResponse::default()))
    }

    type ScatterStream = Pin<Box<dyn Stream<Item = Result<ScatterResponse, Status>> + Send>>;

    async fn scatter(
        &self,
        request: Request<Streaming<ScatterRequest>>,
    ) -> Result<Response<Self::ScatterStream>, Status> {
        let mut requests = request.into_inner();
        let start = requests.message().await?.and_then(|first| first.start);
        let start = start.ok_or_else(|| Status::invalid_argument("no start"))?;
        let scattering = Arc::clone(&lock(&self.0.scattering));
        let pages = scattering(&start).into_iter();
        lock(&self.0.scatters).push(start);
        let state = (Arc::clone(&self.0), requests, pages, true);
        let pages = futures::stream::unfold(state, |(state, mut requests, mut pages, asked)| async move {
            if !asked {
                requests.message().await.ok().flatten()?;
            }
            state.pages_asked.fetch_add(1, Ordering::SeqCst);
            let page = pages.next()?;
            // A sign of life comes without being asked for.
            let owed = page.as_ref().is_ok_and(|page| page.outcomes.is_empty());
            Some((page, (state, requests, pages, owed)))
        });
        Ok(Response::new(Box::pin(pages)))
    }
}
