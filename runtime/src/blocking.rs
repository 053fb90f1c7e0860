//! Work that blocks, away from the threads that serve.

use async_trait::async_trait;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

/// Runs work that reads or writes files, or computes for long, while tasks go on.
#[async_trait]
pub trait Blocking: Send + Sync + 'static {
    /// Returns once the work is done; an error says that it may not have been.
    async fn run(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

/// tokio's threads for blocking work.
#[derive(Debug)]
pub struct TokioBlocking;

#[async_trait]
impl Blocking for TokioBlocking {
    async fn run(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
    }
}

/// Runs `work` on `threads` and returns what it returned. The error says that it panicked or was lost.
pub async fn blocking<T: Send + 'static>(
    threads: &Arc<dyn Blocking>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let result = Arc::new(Mutex::new(None));
    let place = Arc::clone(&result);
    let work = move || {
        let done = work();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    };
    threads.run(Box::new(work)).await?;
    let done = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    done.ok_or_else(|| io::Error::other("blocking work was lost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_work_returns_comes_back_and_a_panic_is_an_error() {
        let threads: Arc<dyn Blocking> = Arc::new(TokioBlocking);
        assert_eq!(blocking(&threads, || 7).await.unwrap(), 7);
        let panicked = blocking(&threads, || -> u8 { panic!("as the test wants") }).await;
        assert!(panicked.unwrap_err().to_string().contains("panic"));
    }
}
