//! Company for what waits, without a timer.

/// Lets everything else that is ready run once, so that what it brings can share a frame, an entry or an
/// fsync with what already waits. No timer: on an idle server it returns at once, and the busier the
/// server, the more is gathered and the less each costs.
pub async fn gather() {
    tokio::task::yield_now().await;
}
