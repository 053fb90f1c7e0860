//! A scatter's part in one region, as its leader's node runs it.
//!
//! Pages are asked for one at a time, and read as soon as they come. HTTP/2's flow control would not do: a page
//! that is left unread takes room in the connection's window, which all messages to that node share.

use crate::{
    ForwardError,
    answer::{Answer, result_of},
    link::NodeClient,
};
use afdg_proto::{
    pb::internal::{ScatterRequest, ScatterResponse, ScatterStart},
    status::to_call_error,
};
use afdg_types::{CallError, GridError, Reason};
use futures::channel::mpsc;
use std::time::Duration;
use tonic::{Status, Streaming, codegen::Bytes};

/// A node that is silent for this long while a page is waited for is given up: it gives a sign of life far
/// more often.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The pages of outcomes of one region. Dropping it ends the work.
pub struct ScatterPages {
    asking: mpsc::Sender<ScatterRequest>,
    responses: Streaming<ScatterResponse>,
    /// A page is asked for that has not come.
    asked: bool,
}

/// What became of some agents.
#[derive(Debug, Default)]
pub struct ScatterPage {
    pub outcomes: Vec<(String, Result<Bytes, CallError>)>,
    /// Key of the agent up to which all are done; empty if that is none yet.
    pub after: String,
}

impl ScatterPages {
    pub(crate) async fn open(mut node: NodeClient, start: ScatterStart) -> Result<Self, Status> {
        // There is never more than one that is asked for.
        let (mut asking, requests) = mpsc::channel(1);
        let first = ScatterRequest { start: Some(start) };
        let _ = asking.try_send(first);
        let responses = node.scatter(requests).await?.into_inner();
        Ok(Self { asking, responses, asked: true })
    }

    /// The next page, which has outcomes; none once all agents are done. Asking again after this was dropped
    /// goes on with the same page.
    pub async fn next(&mut self) -> Result<Option<ScatterPage>, CallError> {
        loop {
            if !self.asked {
                // If it can't be sent the stream has ended, which shows below.
                let _ = self.asking.try_send(ScatterRequest::default());
                self.asked = true;
            }
            let silent = |_| {
                let text = format!("the node is silent for {} ms", SILENCE_MAX.as_millis());
                CallError::Grid(GridError::new(Reason::OutcomeUnknown, text))
            };
            let response = tokio::time::timeout(SILENCE_MAX, self.responses.message()).await;
            let Some(response) = response.map_err(silent)?.map_err(|status| to_call_error(&status))? else {
                return Ok(None);
            };
            if !response.outcomes.is_empty() {
                self.asked = false;
                return Ok(Some(page_of(response)));
            }
        }
    }
}

fn page_of(response: ScatterResponse) -> ScatterPage {
    let outcomes = response.outcomes.into_iter().map(|outcome| {
        let result = match outcome.outcome.map(result_of) {
            Some(Ok(Answer::Response(response))) => Ok(response),
            Some(Ok(Answer::AgentError(error))) => Err(error.into()),
            Some(Ok(Answer::GridError { error, .. })) => Err(error.into()),
            // Of a newer server: what it did is not known here.
            Some(Err(ForwardError::Refused(error))) => Err(error.into()),
            Some(Err(error)) => Err(GridError::new(Reason::OutcomeUnknown, error.to_string()).into()),
            None => Err(GridError::new(Reason::OutcomeUnknown, "the outcome is empty").into()),
        };
        (outcome.key, result)
    });
    ScatterPage { outcomes: outcomes.collect(), after: response.after }
}
