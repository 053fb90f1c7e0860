//! Order among futures that one task polls.

use std::future::Future;

/// A future whose first steps are taken in the order in which it was added to a set of futures
/// (`FuturesUnordered`, `FuturesOrdered`), as long as nothing it asks for has run out.
///
/// Without this they are not: tokio lets a task take a number of steps at a time (its cooperative budget).
/// Futures that are polled past that number wait for the task's next turn, and tokio wakes those that wait
/// for it last in, first out (`tokio/src/runtime/scheduler/defer.rs`). What each hands to a queue would
/// stand there in reverse.
///
/// The budget still counts for the rest of the task, so its loop has to take other steps between these.
pub fn in_order<F: Future>(future: F) -> impl Future<Output = F::Output> {
    tokio::task::unconstrained(future)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, stream::FuturesUnordered};
    use tokio::sync::mpsc;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn more_futures_than_a_task_has_steps_keep_their_order() {
        const FUTURES: usize = 1_000;
        let (sender, mut sent) = mpsc::channel(FUTURES);
        let polled = tokio::spawn(async move {
            let mut futures = FuturesUnordered::new();
            for number in 0..FUTURES {
                let sender = sender.clone();
                futures.push(in_order(async move { sender.send(number).await }));
            }
            while let Some(result) = futures.next().await {
                result.unwrap();
            }
        });
        polled.await.unwrap();
        let mut order = Vec::new();
        sent.recv_many(&mut order, FUTURES).await;
        let first_wrong = order.windows(2).find(|pair| pair[1] != pair[0] + 1);
        assert_eq!((order.len(), first_wrong), (FUTURES, None));
    }
}
