//! Company for what waits, without waiting for it.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

/// How often [`wake_kept`] looks. A task is kept twice that at most.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Who gathers at the moment, in the order in which they began.
static GATHERING: Mutex<Gathering> = Mutex::new(Gathering { begun: 0, wakers: BTreeMap::new() });

struct Gathering {
    begun: u64,
    wakers: BTreeMap<u64, Waker>,
}

fn gathering() -> MutexGuard<'static, Gathering> {
    GATHERING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets everything else that is ready run once, so that what it brings can share a frame, an entry or an
/// fsync with what already waits. No timer: on an idle server it returns at once, and the busier the
/// server, the more is gathered and the less each costs.
///
/// tokio has a task that yields go on on the thread on which it yielded and on no other. A handler without an await
/// point may keep that one: so [`crate::ServingThreads`] sees to it that [`wake_kept`] runs.
pub async fn gather() {
    let mut place = None;
    let mut yields = std::pin::pin!(tokio::task::yield_now());
    std::future::poll_fn(|context| match &place {
        // Woken, by whichever of the two.
        Some(_) => Poll::Ready(()),
        None => {
            let yielded = yields.as_mut().poll(context);
            if yielded.is_pending() {
                place = Some(Place::take(context.waker().clone()));
            }
            yielded
        }
    })
    .await
}

/// Given back when dropped.
struct Place(u64);

impl Place {
    fn take(waker: Waker) -> Self {
        let mut gathering = gathering();
        gathering.begun += 1;
        let number = gathering.begun;
        gathering.wakers.insert(number, waker);
        Self(number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let waker = gathering().wakers.remove(&self.0);
        // Not under the lock: it may be the last to hold something that gathers too.
        drop(waker);
    }
}

/// Has those go on elsewhere who gather on a thread that something else keeps. Never ends.
pub(crate) async fn wake_kept() {
    let mut seen = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (kept, begun) = {
            let gathering = gathering();
            let kept: Vec<Waker> = gathering.wakers.range(..=seen).map(|(_, waker)| waker.clone()).collect();
            (kept, gathering.begun)
        };
        seen = begun;
        kept.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    };

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_gathers_goes_on_though_what_runs_next_keeps_the_thread() {
        let serving = crate::ServingThreads::here();
        let stop = Arc::<AtomicBool>::default();
        let stops = Arc::clone(&stop);
        let gathers = tokio::spawn(async move {
            // The next on this thread, and no other thread takes it.
            let _keeps = tokio::spawn(async move {
                while !stops.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            gather().await;
        });
        let gathered = tokio::time::timeout(PATIENCE, gathers).await;
        stop.store(true, SeqCst);
        gathered.expect("it goes on").unwrap();
        drop(serving);
    }
}
