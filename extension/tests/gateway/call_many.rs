//! `CallMany`: how many of its calls are in flight, and when their time is over.

use super::{call, code_and_reason, deposit, echo, grid};
use afdg_proto::{
    pb::v1::{CallManyRequest, CallResult, call_result, grid_client::GridClient},
    status::to_call_error,
};
use afdg_types::{CallError, Reason};
use std::time::Duration;
use tonic::{Code, Status};

fn outcome(result: CallResult) -> Result<(), Reason> {
    match result.result.unwrap() {
        call_result::Result::Response(_) => Ok(()),
        call_result::Result::Error(error) => {
            let details = prost::Message::encode_to_vec(&error);
            let status = Status::with_details(Code::from_i32(error.code), error.message, details.into());
            match to_call_error(&status) {
                CallError::Grid(error) => Err(error.reason),
                CallError::Agent(error) => panic!("{error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn no_more_calls_are_in_flight_than_asked_for() {
    const PARALLEL: u32 = 3;
    let grid = grid().await;
    // Nobody is answered until the test does so: what has come is what is in flight.
    grid.node.answer(|_| None);
    let calls = (0..10).map(|n| call(&n.to_string(), &deposit(""))).collect();
    let request = CallManyRequest { calls, parallel_max: PARALLEL, timeout_ms: 700 };
    let mut client = GridClient::new(grid.channel.clone());
    let results = client.call_many(request).await.unwrap().into_inner().results;
    let keys: std::collections::BTreeSet<_> =
        grid.node.received().into_iter().map(|message| message.key).collect();
    assert_eq!(keys, ["0", "1", "2"].map(str::to_owned).into());
    // Those that left may have had an effect, the others have had none.
    let results: Vec<_> = results.into_iter().map(outcome).collect();
    assert_eq!(results[..3], [Err(Reason::DeadlineOutcomeUnknown); 3]);
    assert_eq!(results[3..], [Err(Reason::DeadlineExceeded); 7]);
}

#[tokio::test]
async fn what_is_there_at_the_deadline_is_returned() {
    let grid = grid().await;
    grid.node.answer(|message| if message.key == "silent" { None } else { echo(message) });
    let calls = ["a", "silent", "b"].map(|key| call(key, &deposit(""))).into();
    let request = CallManyRequest { calls, timeout_ms: 300, ..CallManyRequest::default() };
    let mut client = GridClient::new(grid.channel.clone());
    let answer = tokio::time::timeout(Duration::from_secs(10), client.call_many(request)).await.unwrap();
    let results: Vec<_> = answer.unwrap().into_inner().results.into_iter().map(outcome).collect();
    assert_eq!(results, [Ok(()), Err(Reason::DeadlineOutcomeUnknown), Ok(())]);
}

#[tokio::test]
async fn more_calls_side_by_side_than_may_be_are_refused() {
    let grid = grid().await;
    let mut client = GridClient::new(grid.channel.clone());
    let calls = vec![call("a", &deposit(""))];
    let request = CallManyRequest { calls, parallel_max: 1_001, ..CallManyRequest::default() };
    let refused = code_and_reason(client.call_many(request).await.unwrap_err());
    assert_eq!(refused, (Code::InvalidArgument, Reason::InvalidRequest));
    assert!(grid.node.received().is_empty());
}
