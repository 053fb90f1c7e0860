//! The threads that serve, and how many of them may be lent to code that can keep them.

use crate::gather::wake_kept;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// Counts the threads of one process's runtime that are lent: all but one may be.
#[derive(Debug)]
pub struct ServingThreads {
    lent_max: usize,
    lent: AtomicUsize,
    /// Those who wait for one.
    waiting: AtomicUsize,
    given_back: Notify,
    /// Sees to those who gather on a thread that whoever it is lent to keeps.
    _wakes_kept: Option<AbortOnDropHandle<()>>,
}

/// A thread that somebody has, until this is dropped.
#[derive(Debug)]
pub struct LentThread<'a>(&'a ServingThreads);

impl Drop for LentThread<'_> {
    fn drop(&mut self) {
        self.0.lent.fetch_sub(1, SeqCst);
        if self.0.waiting.load(SeqCst) > 0 {
            self.0.given_back.notify_waiters();
        }
    }
}

impl ServingThreads {
    /// Of the runtime that the caller runs on. Where that has one thread only there is none to keep back.
    pub fn here() -> Self {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if runtime.metrics().num_workers() > 1 => Self {
                _wakes_kept: Some(AbortOnDropHandle::new(runtime.spawn(wake_kept()))),
                ..Self::with_lent_max(runtime.metrics().num_workers() - 1)
            },
            _ => Self::with_lent_max(usize::MAX),
        }
    }

    pub fn with_lent_max(lent_max: usize) -> Self {
        Self {
            lent_max,
            lent: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            given_back: Notify::new(),
            _wakes_kept: None,
        }
    }

    /// The thread that the caller runs on, if one more may be lent.
    pub fn lend(&self) -> Option<LentThread<'_>> {
        if self.lent.fetch_add(1, SeqCst) < self.lent_max {
            return Some(LentThread(self));
        }
        self.lent.fetch_sub(1, SeqCst);
        None
    }

    pub fn all_are_lent(&self) -> bool {
        self.lent.load(SeqCst) >= self.lent_max
    }

    /// Ends once one may be there.
    pub async fn given_back(&self) {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        self.waiting.fetch_add(1, SeqCst);
        let _waiting = Waiting(&self.waiting);
        let given_back = self.given_back.notified();
        // What came back before this would not be told.
        if self.all_are_lent() {
            given_back.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Duration};

    #[tokio::test]
    async fn no_more_are_lent_than_may_and_who_waits_hears_of_one_that_comes_back() {
        let threads = Arc::new(ServingThreads::with_lent_max(1));
        let lent = threads.lend().unwrap();
        assert!(threads.lend().is_none() && threads.all_are_lent());
        let waiting = Arc::clone(&threads);
        let waiting = tokio::spawn(async move { waiting.given_back().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(lent);
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
        assert!(threads.lend().is_some());
    }
}
