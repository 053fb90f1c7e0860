//! What waits goes in one frame: never a timer, never more than a frame may hold.

use afdg_proto::pb::internal::{PeerFrame, PeerMessage};
use afdg_types::limits::FRAME_BYTES_TARGET;
use futures::Stream;
use tokio::sync::mpsc;

/// Messages in one frame at most.
const FRAME_MESSAGES_MAX: usize = 512;

/// Frames of whatever waits in `messages`; ends with it.
pub fn frames(messages: mpsc::Receiver<PeerMessage>) -> impl Stream<Item = PeerFrame> + Send + 'static {
    futures::stream::unfold(messages, |mut messages| async move {
        let first = messages.recv().await?;
        afdg_runtime::gather().await;
        let mut bytes = first.body.len();
        let mut frame = vec![first];
        while bytes < FRAME_BYTES_TARGET && frame.len() < FRAME_MESSAGES_MAX {
            let Ok(message) = messages.try_recv() else { break };
            bytes += message.body.len();
            frame.push(message);
        }
        Some((PeerFrame { messages: frame }, messages))
    })
}
