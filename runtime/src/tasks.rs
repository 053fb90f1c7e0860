//! Background tasks with a stated meaning of their end.

use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the end of a task means for its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEnd {
    /// It has finished its work; nothing follows. A panic is logged.
    Finish,
    /// It may end; but a panic leaves work undone that others wait for, and stops the server.
    PanicStopsServer,
    /// The server can't go on without it: any end before the drain, and a panic, stop the server.
    StopServer,
}

/// The tasks of one server: all are started here, and end together.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    drain: CancellationToken,
    failure: Arc<watch::Sender<Option<String>>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            drain: CancellationToken::new(),
            failure: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Starts `task`. It is dropped at its next await point when the drain begins, unless it watches
    /// [`Tasks::draining`] and ends by itself through [`Tasks::spawn_until_done`].
    pub fn spawn(&self, name: &'static str, on_end: OnEnd, task: impl Future<Output = ()> + Send + 'static) {
        let drain = self.drain.clone();
        self.spawn_until_done(name, on_end, async move {
            tokio::select! {
                () = drain.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Starts `task`, which ends by itself once the drain begins.
    pub fn spawn_until_done(
        &self,
        name: &'static str,
        on_end: OnEnd,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let this = self.clone();
        self.tracker.spawn(async move {
            // A task of its own, so that its panic is seen as an error here.
            let result = tokio::spawn(task).await;
            let failed = match (&result, on_end) {
                (Err(error), _) if error.is_panic() => {
                    tracing::error!(task = name, %error, "a task panicked");
                    on_end != OnEnd::Finish
                }
                (_, OnEnd::StopServer) => !this.drain.is_cancelled(),
                (_, OnEnd::Finish | OnEnd::PanicStopsServer) => false,
            };
            if failed {
                this.fail(format!("the task '{name}' ended"));
            }
        });
    }

    /// Stops the server: something it can't go on without has failed.
    pub fn fail(&self, why: String) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(why);
            first
        });
    }

    /// Whether something the server can't go on without has failed.
    pub fn is_failing(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// Resolves with the reason once the server can't go on.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        loop {
            if let Some(why) = failure.borrow_and_update().clone() {
                return why;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Cancelled when the drain begins.
    pub fn draining(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Ends all tasks; true if they ended within `limit`.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.drain.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}
