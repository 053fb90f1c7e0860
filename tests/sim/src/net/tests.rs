//! The simulated network by itself.

use super::*;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

const MS: u64 = 1_000_000;

/// Two hosts on one runtime, with time that passes as the test says.
struct Pair {
    network: Network,
    origin: Instant,
    now_ns: u64,
}

impl Pair {
    fn new() -> Self {
        let network = Network::new(7);
        network.add_host();
        network.add_host();
        Self { network, origin: Instant::now(), now_ns: 0 }
    }

    fn net(&self, host: HostId) -> Arc<dyn Net> {
        self.network.on(host, HostClock::new(self.origin))
    }

    async fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ns += MS;
            tokio::time::sleep_until(self.origin + Duration::from_nanos(self.now_ns)).await;
            self.network.deliver(self.now_ns);
        }
    }

    async fn connect(&mut self) -> (BoxIo, BoxIo) {
        let mut listener = self.net(1).bind("10.0.0.2:7000").await.unwrap();
        let connecting = tokio::spawn({
            let net = self.net(0);
            async move { net.connect("10.0.0.2:7000").await }
        });
        let accepting = tokio::spawn(async move { listener.accept().await });
        self.pass(10).await;
        (connecting.await.unwrap().unwrap(), accepting.await.unwrap().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_in_order_through_cuts_loss_and_delay() {
    let mut pair = Pair::new();
    let (mut one, mut other) = pair.connect().await;
    let weather = Weather { jitter_ns: 90 * MS, loss_per_mille: 200 };
    pair.network.with_links(0, |links| links.set_weather(weather));
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        other.read_to_end(&mut read).await.unwrap();
        read
    });
    let mut sent = Vec::new();
    for number in 0..200_u32 {
        one.write_all(&number.to_le_bytes()).await.unwrap();
        sent.extend(number.to_le_bytes());
        if number % 20 == 10 {
            pair.network.with_links(pair.now_ns, |links| links.cut(0, 1));
        }
        if number % 20 == 15 {
            // What is on its way now comes after what the cut has held back.
            pair.network.with_links(pair.now_ns, Links::heal_all);
        }
        pair.pass(3).await;
    }
    drop(one);
    pair.pass(5_000).await;
    assert_eq!(reading.await.unwrap(), sent);
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_resets_its_streams_and_a_dead_machine_says_nothing() {
    for silently in [false, true] {
        let mut pair = Pair::new();
        let (mut one, other) = pair.connect().await;
        pair.network.host_died(1, pair.now_ns, silently);
        drop(other);
        let reading = tokio::spawn(async move {
            let mut byte = [0];
            one.read(&mut byte).await.map(|read| read == 0)
        });
        pair.pass(50).await;
        assert_eq!(reading.is_finished(), !silently);
        reading.abort();
    }
}
