//! Ports of loopback for servers that have to be known by their address before they start and after they
//! have stopped.

use crate::LayoutError;
use afdg_runtime::{Entropy, Net};
use std::net::UdpSocket;

const HOST: &str = "127.0.0.1";
/// Below the ports that the system gives to outgoing connections (from 32768 on): one of those could take
/// a server's port while it is stopped.
const PORTS: std::ops::Range<u64> = 20_000..32_000;
/// Ports that are tried before giving up.
const TRIES_MAX: usize = 200;

/// Keeps other grids of this machine from choosing these ports for as long as it lives, also while nobody
/// listens on them: it holds the UDP ports of the same numbers, which the system frees when a process ends.
#[derive(Debug, Default)]
pub struct PortClaims(Vec<UdpSocket>);

impl PortClaims {
    /// Claims the ports of `addresses`; leaves out those that somebody else has.
    pub fn of<'a>(addresses: impl IntoIterator<Item = &'a String>) -> Self {
        Self(addresses.into_iter().filter_map(|address| UdpSocket::bind(address).ok()).collect())
    }
}

/// So many different addresses on which nobody listens, and that no other grid has chosen.
pub async fn free_addresses(
    count: usize,
    net: &dyn Net,
    entropy: &dyn Entropy,
) -> Result<(Vec<String>, PortClaims), LayoutError> {
    let (mut addresses, mut claims) = (Vec::new(), PortClaims::default());
    for _ in 0..TRIES_MAX {
        if addresses.len() == count {
            return Ok((addresses, claims));
        }
        let port = PORTS.start + entropy.random_u64() % (PORTS.end - PORTS.start);
        let address = format!("{HOST}:{port}");
        // Claimed before it is looked at: what is free then stays free.
        let Ok(claim) = UdpSocket::bind(&address) else { continue };
        if net.bind(&address).await.is_ok() {
            claims.0.push(claim);
            addresses.push(address);
        }
    }
    Err(LayoutError::NoPorts { wanted: count, host: HOST, first: PORTS.start, last: PORTS.end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_runtime::World;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Counts up from a number, so that two grids try the same ports one after the other.
    struct Counting(AtomicU64);

    impl Entropy for Counting {
        fn random_u128(&self) -> u128 {
            self.0.fetch_add(1, Ordering::Relaxed).into()
        }
    }

    #[tokio::test]
    async fn a_port_that_a_grid_has_chosen_is_not_chosen_again_while_it_lives() {
        let net = World::real().net;
        let start = World::real().entropy.random_u64() % (1 << 32);
        let choose = || async { free_addresses(3, &*net, &Counting(start.into())).await.unwrap() };
        // Nobody listens on them.
        let (first, claims) = choose().await;
        let (second, _) = choose().await;
        assert!(first.iter().all(|address| !second.contains(address)), "{first:?}, {second:?}");
        drop(claims);
        let again = PortClaims::of(&first);
        assert_eq!(again.0.len(), first.len());
    }
}
