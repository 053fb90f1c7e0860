//! The threads on which handlers run.
//!
//! A handler is polled where the server's own tasks run, since most are done within microseconds. One that
//! computes without ever waiting keeps its thread for as long as it likes, and can't be stopped. So one of the
//! serving threads is never lent to handlers: it goes on with regions, connections and timers. While all others
//! are lent, handlers are polled on threads of a pool beside them, of which each agent type gets a few: who loops
//! for ever loses its place to others of its own type only.

use afdg_runtime::ServingThreads;
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Threads beside those that serve on which the handlers of one agent type may be polled at once.
const POOL_THREADS_OF_TYPE_MAX: usize = 4;

/// Of one node. Cheap to clone.
#[derive(Clone)]
pub struct HandlerThreads {
    serving: Arc<ServingThreads>,
    pools: Arc<BTreeMap<String, Arc<Semaphore>>>,
    /// For types that are not known.
    other: Arc<Semaphore>,
}

/// A handler's run that can be polled on any thread.
pub type Handler<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl HandlerThreads {
    /// For the types that the node hosts.
    pub fn new<'a>(serving: Arc<ServingThreads>, types: impl Iterator<Item = &'a str>) -> Self {
        let pool = || Arc::new(Semaphore::new(POOL_THREADS_OF_TYPE_MAX));
        let pools = types.map(|name| (name.to_owned(), pool())).collect();
        Self { serving, pools: Arc::new(pools), other: pool() }
    }

    /// Runs a handler of the type to its end. Dropped meanwhile, a poll that is under way in the pool goes on
    /// there, and what it leads to is dropped with it.
    pub async fn run<T: Send + 'static>(&self, agent_type: &str, mut handler: Handler<T>) -> T {
        loop {
            match (Here { serving: &self.serving, handler: &mut handler }).await {
                Polled::Ended(output) => return output,
                Polled::NoThread => {}
            }
            let pool = self.pools.get(agent_type).unwrap_or(&self.other);
            let permit = tokio::select! {
                permit = Arc::clone(pool).acquire_owned() => permit,
                () = self.serving.given_back() => continue,
            };
            // The semaphore is never closed.
            let Ok(permit) = permit else { continue };
            match poll_in_pool(handler, permit).await {
                Ok((_, Some(output))) => return output,
                // It may have been woken meanwhile: it is polled again at once.
                Ok((again, None)) => handler = again,
                // The runtime is shutting down.
                Err(()) => return std::future::pending().await,
            }
        }
    }
}

enum Polled<T> {
    Ended(T),
    NoThread,
}

/// Polls a handler on this thread, as long as one may be lent.
struct Here<'a, T> {
    serving: &'a ServingThreads,
    handler: &'a mut Handler<T>,
}

impl<T> Future for Here<'_, T> {
    type Output = Polled<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Polled<T>> {
        let Some(_lent) = self.serving.lend() else { return Poll::Ready(Polled::NoThread) };
        self.handler.as_mut().poll(context).map(Polled::Ended)
    }
}

/// Polls the handler once on a thread of the pool.
async fn poll_in_pool<T: Send + 'static>(
    mut handler: Handler<T>,
    permit: OwnedSemaphorePermit,
) -> Result<(Handler<T>, Option<T>), ()> {
    let waker = std::future::poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    let polled = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let output = match handler.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        };
        (handler, output)
    });
    polled.await.map_err(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    /// Loops without waiting until it is told to stop.
    fn looping(stop: &Arc<AtomicBool>) -> Handler<u32> {
        let stop = Arc::clone(stop);
        Box::pin(async move {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            1
        })
    }

    fn quick() -> Handler<u32> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            2
        })
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn handlers_that_loop_leave_the_server_and_other_types_served() {
        let serving = Arc::new(ServingThreads::here());
        let threads = HandlerThreads::new(Arc::clone(&serving), ["t.Bad", "t.Good"].into_iter());
        let stop = Arc::<AtomicBool>::default();
        let bad: Vec<_> = (0..20)
            .map(|_| {
                let (threads, handler) = (threads.clone(), looping(&stop));
                tokio::spawn(async move { threads.run("t.Bad", handler).await })
            })
            .collect();
        let all_lent = async {
            while !serving.all_are_lent() || threads.pools["t.Bad"].available_permits() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, all_lent).await.unwrap();
        for _ in 0..20 {
            let threads = threads.clone();
            let good = tokio::spawn(async move { threads.run("t.Good", quick()).await });
            assert_eq!(tokio::time::timeout(PATIENCE, good).await.unwrap().unwrap(), 2);
        }
        stop.store(true, Ordering::Relaxed);
        for bad in bad {
            assert_eq!(tokio::time::timeout(PATIENCE, bad).await.unwrap().unwrap(), 1);
        }
        assert!(!serving.all_are_lent());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_between_threads() {
        let threads = HandlerThreads::new(Arc::new(ServingThreads::with_lent_max(0)), ["t.T"].into_iter());
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u32>(1);
        let handler: Handler<u32> = Box::pin(async move {
            let mut sum = 0;
            while let Some(number) = receiver.recv().await {
                sum += number;
            }
            sum
        });
        let run = tokio::spawn(async move { threads.run("t.T", handler).await });
        for number in 0..500 {
            sender.send(number).await.unwrap();
        }
        drop(sender);
        assert_eq!(tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap(), 499 * 500 / 2);
    }

    #[tokio::test]
    async fn where_there_is_one_thread_it_is_lent() {
        let threads = HandlerThreads::new(Arc::new(ServingThreads::here()), std::iter::empty());
        assert_eq!(threads.run("t.T", quick()).await, 2);
    }
}
