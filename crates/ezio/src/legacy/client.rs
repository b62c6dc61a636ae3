//! A client of the gRPC service, for the helper programs: one call at a time, and it waits.

use super::messages::{
    AddRequest, AddResponse, Detail, Details, Empty, Everything, HashRequest, MESSAGE_LEN_MAX,
    RemoveResponse, Torrent, UpdateRequest, UpdateStatus, VersionResponse,
};
use crate::names;
use anyhow::{Context as _, anyhow, bail};
use http::uri::PathAndQuery;
use prost::Message;
use std::ops::ControlFlow;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// How long a daemon may take to accept, and to answer all but `AddTorrent`.
const TIME_MAX: Duration = Duration::from_secs(10);

/// How often a daemon that does not tell by itself is asked.
const POLL_PERIOD: Duration = Duration::from_secs(1);

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
        let found = names::look_up_pair(addr)
            .with_context(|| format!("`{addr}` is no address such as 127.0.0.1:50051"))?;
        let channel = found.into_iter().find_map(|found| {
            let endpoint = Endpoint::from_shared(format!("http://{found}")).ok()?;
            runtime.block_on(endpoint.connect_timeout(TIME_MAX).connect()).ok()
        });
        let channel = channel
            .ok_or_else(|| anyhow!("nobody answers at {addr}; does the daemon `ezio` run?"))?;
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

    /// Passes on how everything is, once a second, until `each` has enough or the daemon ends. Of the C++
    /// EZIO, which has no such call, the status is asked for again and again.
    ///
    /// # Errors
    /// If the daemon does not answer any more.
    pub fn watch(
        &mut self,
        each: &mut dyn FnMut(Everything) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let codec = ProstCodec::<UpdateRequest, Everything>::default();
        let (grpc, request) = (&mut self.grpc, tonic::Request::new(UpdateRequest::default()));
        let answer = self.runtime.block_on(async {
            grpc.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
            let path = PathAndQuery::from_static("/ezio.Node/Watch");
            let streaming = grpc.server_streaming(request, path, codec);
            let late = |_| tonic::Status::deadline_exceeded("no answer");
            tokio::time::timeout(TIME_MAX, streaming).await.map_err(late)?
        });
        let mut stream = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == tonic::Code::Unimplemented => return self.poll(each),
            Err(status) => bail!("{} says: {}", self.addr, status.message()),
        };
        loop {
            let next = async { tokio::time::timeout(TIME_MAX, stream.message()).await };
            let next = self.runtime.block_on(next);
            let next = next.map_err(|_| anyhow!("{} is silent", self.addr))?;
            match next.map_err(|status| anyhow!("{} says: {}", self.addr, status.message()))? {
                Some(everything) => {
                    if each(everything).is_break() {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            }
        }
    }

    fn poll(&mut self, each: &mut dyn FnMut(Everything) -> ControlFlow<()>) -> anyhow::Result<()> {
        loop {
            let request = UpdateRequest::default();
            let status = self.call("/ezio.EZIO/GetTorrentStatus", request, Some(TIME_MAX))?;
            if each(Everything { status: Some(status), details: None }).is_break() {
                return Ok(());
            }
            std::thread::sleep(POLL_PERIOD);
        }
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
