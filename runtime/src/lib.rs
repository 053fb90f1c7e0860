//! What AFDG's servers get from the world, passed in so that a test or a simulator can stand in for it:
//! wall clock ([`Clock`]), randomness ([`Entropy`]), sockets ([`Net`]), disk ([`Disk`]), threads for blocking
//! work ([`Blocking`]); and the life of a server's tasks ([`Tasks`]). Timers are tokio's, which a simulator
//! controls by itself.

mod blocking;
mod clock;
mod disk;
mod entropy;
mod gather;
mod net;
mod order;
pub mod process;
mod sealed;
mod serve;
mod serving;
mod tasks;

pub use blocking::{Blocking, TokioBlocking, blocking};
pub use clock::{Clock, SystemClock};
pub use disk::{AppendFile, Disk, FolderLock, RealDisk};
pub use entropy::{Entropy, SystemEntropy};
pub use gather::gather;
pub use net::{BoxIo, Incoming, Io, Listener, Net, TcpNet, channel_to};
pub use order::in_order;
pub use sealed::{SealError, seal, unseal};
pub use serve::serve;
pub use serving::{LentThread, ServingThreads};
pub use tasks::{OnEnd, Tasks};

use std::sync::Arc;

/// The world of one server. Cheap to clone.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub net: Arc<dyn Net>,
    pub disk: Arc<dyn Disk>,
    pub threads: Arc<dyn Blocking>,
    /// Shared by all servers of the process.
    pub serving: Arc<ServingThreads>,
}

impl World {
    /// The machine's own clock, randomness, sockets, disk and threads.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            net: Arc::new(TcpNet),
            disk: Arc::new(RealDisk),
            threads: Arc::new(TokioBlocking),
            serving: Arc::new(ServingThreads::here()),
        }
    }
}
