//! A client of the gRPC service, for the helper programs: one call at a time, and it waits.

use super::messages::{
    AddRequest, AddResponse, Detail, Details, Empty, HashRequest, MESSAGE_LEN_MAX, RemoveResponse,
    Torrent, UpdateRequest, UpdateStatus, VersionResponse,
};
use anyhow::{Context as _, anyhow};
use http::uri::PathAndQuery;
use prost::Message;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// How long a daemon may take to accept, and to answer all but `AddTorrent`.
const TIME_MAX: Duration = Duration::from_secs(10);

/// A connection to a daemon.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    grpc: tonic::client::Grpc<Channel>,
    addr: String,
}

impl Client {
    /// Connects to the daemon at `addr`, `127.0.0.1:50051`.
    ///
    /// # Errors
    /// If nobody answers there.
    pub fn connect(addr: &str) -> anyhow::Result<Client> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the asynchronous runtime")?;
        let endpoint = Endpoint::from_shared(format!("http://{addr}"))
            .with_context(|| format!("`{addr}` is no address such as 127.0.0.1:50051"))?;
        let channel = runtime
            .block_on(endpoint.connect_timeout(TIME_MAX).connect())
            .map_err(|_| anyhow!("nobody answers at {addr}; does the daemon `ezio` run?"))?;
        let grpc = tonic::client::Grpc::new(channel)
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX);
        Ok(Client { runtime, grpc, addr: addr.to_owned() })
    }

    /// Has the daemon carry a torrent; waits until its device is looked at.
    ///
    /// # Errors
    /// What the daemon has against it.
    pub fn add(&mut self, request: AddRequest) -> anyhow::Result<AddResponse> {
        self.call("/ezio.EZIO/AddTorrent", request, None)
    }

    /// How far the torrents are, in the order in which they were added.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn status(&mut self, hashes: &[String]) -> anyhow::Result<Vec<Torrent>> {
        let request = UpdateRequest { hashes: hashes.to_vec() };
        let mut status: UpdateStatus =
            self.call("/ezio.EZIO/GetTorrentStatus", request, Some(TIME_MAX))?;
        Ok(status.hashes.iter().filter_map(|hash| status.torrents.remove(hash)).collect())
    }

    /// Pauses a torrent; one that is not known is ignored.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn pause(&mut self, hash: &str) -> anyhow::Result<()> {
        let request = HashRequest { hash: hash.to_owned() };
        self.call("/ezio.EZIO/PauseTorrent", request, Some(TIME_MAX)).map(|Empty {}| ())
    }

    /// Resumes a torrent; one that is not known is ignored.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn resume(&mut self, hash: &str) -> anyhow::Result<()> {
        let request = HashRequest { hash: hash.to_owned() };
        self.call("/ezio.EZIO/ResumeTorrent", request, Some(TIME_MAX)).map(|Empty {}| ())
    }

    /// Why torrents failed, and more that only our own daemon tells.
    ///
    /// # Errors
    /// If the daemon does not answer, or is the C++ EZIO.
    pub fn details(&mut self) -> anyhow::Result<Vec<Detail>> {
        let request = UpdateRequest::default();
        let details: Details = self.call("/ezio.Node/GetDetails", request, Some(TIME_MAX))?;
        Ok(details.torrents)
    }

    /// Has our own daemon forget a torrent. Returns whether it was carried.
    ///
    /// # Errors
    /// As [`Client::details`].
    pub fn remove(&mut self, hash: &str) -> anyhow::Result<bool> {
        let request = HashRequest { hash: hash.to_owned() };
        let answer: RemoveResponse = self.call("/ezio.Node/Remove", request, Some(TIME_MAX))?;
        Ok(answer.removed)
    }

    /// Ends the daemon.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn shutdown(&mut self) -> anyhow::Result<()> {
        self.call("/ezio.EZIO/Shutdown", Empty {}, Some(TIME_MAX)).map(|Empty {}| ())
    }

    /// The daemon's version.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn version(&mut self) -> anyhow::Result<String> {
        let version: VersionResponse =
            self.call("/ezio.EZIO/GetVersion", Empty {}, Some(TIME_MAX))?;
        Ok(version.version)
    }

    fn call<M1, M2>(
        &mut self,
        path: &'static str,
        message: M1,
        time: Option<Duration>,
    ) -> anyhow::Result<M2>
    where
        M1: Message + Default + 'static,
        M2: Message + Default + 'static,
    {
        let mut request = tonic::Request::new(message);
        if let Some(time) = time {
            request.set_timeout(time);
        }
        let grpc = &mut self.grpc;
        let answer = self.runtime.block_on(async {
            grpc.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
            let path = PathAndQuery::from_static(path);
            grpc.unary(request, path, ProstCodec::<M1, M2>::default()).await
        });
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| anyhow!("{} says: {}", self.addr, status.message()))
    }
}
