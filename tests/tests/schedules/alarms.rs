//! Alarms on a grid, as clients see them.

use afdg_dev_grid::DevGrid;
use afdg_tests::{
    PATIENCE,
    alarm::v1::{ReadRequest, Rings, Rung, SetRequest, SetResponse, UnsetRequest, UnsetResponse},
    client::Client,
    grid,
};
use anyhow::{Result, ensure};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::{
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Instant,
};
use tonic::Status;

const PAUSE: Duration = Duration::from_millis(20);

/// Tests that measure how late something is run alone among those of this file.
static MACHINE: RwLock<()> = RwLock::const_new(());

pub struct Alarms {
    pub grid: DevGrid,
    pub client: Client,
    _folder: TempDir,
    _machine: Machine,
}

enum Machine {
    Shared { _lock: RwLockReadGuard<'static, ()> },
    Alone { _lock: RwLockWriteGuard<'static, ()> },
}

pub fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis() as u64)
}

/// One that rings its own alarm in every period.
pub fn every(period_ms: u64) -> SetRequest {
    SetRequest { name: "n".to_owned(), period_ms, ..SetRequest::default() }
}

impl Alarms {
    pub async fn open(regions: u16) -> Result<Self> {
        Self::open_on(Machine::Shared { _lock: MACHINE.read().await }, regions).await
    }

    /// One beside which no other test of this file runs.
    pub async fn open_alone(regions: u16) -> Result<Self> {
        Self::open_on(Machine::Alone { _lock: MACHINE.write().await }, regions).await
    }

    async fn open_on(machine: Machine, regions: u16) -> Result<Self> {
        let (grid, folder) = grid(|options| options.size.regions = Some(regions)).await?;
        let client = Client::connect(&grid.endpoint()).await?;
        Ok(Self { grid, client, _folder: folder, _machine: machine })
    }

    pub async fn set(&self, alarm: &str, request: SetRequest) -> Result<(), Status> {
        let request = SetRequest { alarm: alarm.to_owned(), ..request };
        self.client.call::<_, SetResponse>("/alarm.v1.Alarm/Set", request).await.map(drop)
    }

    pub async fn unset(&self, alarm: &str, name: &str) -> Result<(), Status> {
        let request = UnsetRequest { alarm: alarm.to_owned(), name: name.to_owned() };
        self.client.call::<_, UnsetResponse>("/alarm.v1.Alarm/Unset", request).await.map(drop)
    }

    /// All rings of an alarm; no two of one due time.
    pub async fn rings(&self, alarm: &str) -> Result<Vec<Rung>> {
        let request = ReadRequest { alarm: alarm.to_owned() };
        let rings = self.client.call::<_, Rings>("/alarm.v1.Alarm/Read", request).await?.rings;
        let ids: BTreeSet<_> = rings.iter().map(|ring| &ring.message_id).collect();
        ensure!(ids.len() == rings.len(), "{alarm} rang twice for one due time: {rings:?}");
        Ok(rings)
    }

    /// The rings of an alarm, once there are so many.
    pub async fn rung(&self, alarm: &str, count: usize) -> Result<Vec<Rung>> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let rings = self.rings(alarm).await?;
            if rings.len() >= count {
                return Ok(rings);
            }
            ensure!(Instant::now() < give_up, "{alarm} rang {} of {count} times", rings.len());
            tokio::time::sleep(PAUSE).await;
        }
    }
}
