#![allow(dead_code, unused, clippy::all)]
pub use ::afdg_replication::{Machine, Observer, Position};
use afdg_runtime::*;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
    path::PathBuf,
};
use tokio::sync::watch;
#[derive(Clone, Debug)]
pub struct HostConfig {
    pub folder: PathBuf,
    pub server_id: u64,
    pub peer_token: afdg_proto::peer_auth::PeerToken,
    pub timing: Timing,
    pub checkpoints: CheckpointPolicy,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CheckpointPolicy;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct StartError;
#[derive(Clone)]
pub struct ReplicaHost;
impl ReplicaHost {
    pub async fn open(w: &World, t: &Tasks, c: HostConfig) -> Result<Self, StartError> {
        unimplemented!()
    }
    pub fn peer_endpoint(
        &self,
    ) -> tonic::service::interceptor::InterceptedService<
        afdg_proto::pb::internal::peer_server::PeerServer<P>,
        afdg_proto::peer_auth::DemandToken,
    > {
        unimplemented!()
    }
}
pub struct P;
#[tonic::async_trait]
impl afdg_proto::pb::internal::peer_server::Peer for P {
    type ExchangeStream = std::pin::Pin<
        Box<dyn futures::Stream<Item = Result<afdg_proto::pb::internal::PeerFrame, tonic::Status>> + Send>,
    >;
    async fn exchange(
        &self,
        r: tonic::Request<tonic::Streaming<afdg_proto::pb::internal::PeerFrame>>,
    ) -> Result<tonic::Response<Self::ExchangeStream>, tonic::Status> {
        unimplemented!()
    }
    async fn install_snapshot(
        &self,
        r: tonic::Request<tonic::Streaming<afdg_proto::pb::internal::SnapshotChunk>>,
    ) -> Result<tonic::Response<afdg_proto::pb::internal::SnapshotInstalled>, tonic::Status> {
        unimplemented!()
    }
}
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    pub term: u64,
    pub leader: Option<u64>,
    pub is_mine: bool,
}
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("a")]
    NotLeader { hint: Option<(u64, String)> },
    #[error("b")]
    Unknown,
    #[error("c {0}")]
    Stopped(String),
}
pub struct Replica<M>(PhantomData<fn() -> M>);
impl<M> Clone for Replica<M> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}
impl<M: Machine> Replica<M> {
    pub async fn start(
        host: &ReplicaHost,
        group: u64,
        machine: M,
        observer: Box<dyn Observer<M::Outcome>>,
    ) -> Result<Self, StartError> {
        unimplemented!()
    }
    pub async fn is_initialized(&self) -> bool {
        false
    }
    pub async fn initialize(&self, m: BTreeMap<u64, String>) -> Result<(), WriteError> {
        Ok(())
    }
    pub async fn write(&self, c: Bytes) -> Result<M::Outcome, WriteError> {
        unimplemented!()
    }
    pub async fn linearize(&self) -> Result<(), WriteError> {
        unimplemented!()
    }
    pub fn lead(&self) -> watch::Receiver<Lead> {
        unimplemented!()
    }
    pub fn applied(&self) -> Position {
        unimplemented!()
    }
    pub fn followers_in_step(&self) -> BTreeSet<u64> {
        unimplemented!()
    }
    pub async fn transfer_leader(&self, to: u64) -> Result<(), WriteError> {
        unimplemented!()
    }
    pub async fn shutdown(&self) {}
}
