//! The command line's end.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::pin::pin;

use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::VERSION;
use crate::types::{ErrorBody, ExplainReply, ExplainRequest, FlowLine, PuStatus, Status};

/// The longest answer, and the longest line of a stream, that is read.
const MAX_BODY: usize = 64 << 20;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no agent answers on {}: start `trireme agent`, or name its socket with --socket", .0.display())]
    NoAgent(PathBuf),
    /// The socket belongs to someone else.
    #[error("{} may be used by root and the agent's own user only", .0.display())]
    NotPermitted(PathBuf),
    /// The socket could not be reached for another reason.
    #[error("cannot reach the agent on {}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or the agent does not speak HTTP.
    #[error("the connection to the agent broke")]
    Http(#[from] hyper::Error),
    /// The request could not be built.
    #[error("the request is not valid HTTP")]
    Request(#[from] hyper::http::Error),
    /// The answer could not be read.
    #[error("the agent's answer could not be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not what this version expects.
    #[error("the agent's answer is not understood: are program and agent of the same version?")]
    Format(#[from] serde_json::Error),
    /// The agent refuses the question.
    #[error("{0}")]
    Refused(String),
}

/// Asks the agent behind one socket; every question is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the agent at `path`; nothing is connected yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// What the agent is and does.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// A drop loses the answer.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "status", Bytes::new()).await
    }

    /// The agent's processing units.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// A drop loses the answer.
    pub async fn pus(&self) -> Result<Vec<PuStatus>, ClientError> {
        self.ask(Method::GET, "pus", Bytes::new()).await
    }

    /// Would a connection be allowed, and why?
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// A drop loses the answer.
    pub async fn explain(&self, request: &ExplainRequest) -> Result<ExplainReply, ClientError> {
        self.ask(Method::POST, "explain", serde_json::to_vec(request)?.into()).await
    }

    /// Asks the agent to read its policy again.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the policy's error: the old one stays in force.
    ///
    /// # Cancel safety
    /// The policy may be read again after a drop.
    pub async fn reload(&self) -> Result<(), ClientError> {
        self.ask(Method::POST, "reload", Bytes::new()).await
    }

    /// The newest `limit` flow records, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// A drop loses the answer.
    pub async fn flows(&self, limit: usize) -> Result<Vec<FlowLine>, ClientError> {
        let mut lines = Vec::new();
        self.stream(&format!("flows?limit={limit}"), |line| {
            lines.push(line);
            ControlFlow::Continue(())
        })
        .await?;
        Ok(lines)
    }

    /// Hands the newest `limit` records and then each new one to `each` until it breaks or the agent stops.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// A drop ends the stream.
    pub async fn follow(
        &self,
        limit: usize,
        each: impl FnMut(FlowLine) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.stream(&format!("flows?follow=true&limit={limit}"), each).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        self.exchange(method, path, body, async |response: Response<Incoming>| {
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            Ok(serde_json::from_slice(&body.map_err(ClientError::Body)?.to_bytes())?)
        })
        .await
    }

    async fn stream(
        &self,
        path: &str,
        mut each: impl FnMut(FlowLine) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.exchange(Method::GET, path, Bytes::new(), async |response: Response<Incoming>| {
            let mut body = response.into_body();
            let mut lines = Lines::default();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame?.into_data() else { continue };
                lines.push(&data)?;
                while let Some(line) = lines.next()? {
                    if each(line).is_break() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Sends one request and reads its answer with `read` while driving the connection.
    async fn exchange<T, F>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        read: impl FnOnce(Response<Incoming>) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(format!("/{VERSION}/{path}"))
            .header("host", "agent")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let exchange = pin!(async move {
            let response = sender.send_request(request).await?;
            match response.status() {
                status if status.is_success() => read(response).await,
                StatusCode::FORBIDDEN => Err(ClientError::NotPermitted(self.path.clone())),
                _ => Err(refusal(response).await?),
            }
        });
        match select(exchange, pin!(connection)).await {
            Either::Left((answer, _)) => answer,
            // The agent closed first; what it sent before is still waiting to be read.
            Either::Right((_, exchange)) => exchange.await,
        }
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        let kind = source.kind();
        if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&kind) {
            return ClientError::NoAgent(path);
        }
        if kind == io::ErrorKind::PermissionDenied {
            return ClientError::NotPermitted(path);
        }
        ClientError::Connect { path, source }
    }
}

async fn refusal(response: Response<Incoming>) -> Result<ClientError, ClientError> {
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(ClientError::Body)?;
    let body: ErrorBody = serde_json::from_slice(&body.to_bytes())?;
    Ok(ClientError::Refused(body.error))
}

/// Cuts a byte stream into lines of JSON.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    fn push(&mut self, data: &[u8]) -> Result<(), ClientError> {
        if self.buffer.len().saturating_add(data.len()) > MAX_BODY {
            return Err(ClientError::Body("a line is longer than 64 MiB".into()));
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<FlowLine>, ClientError> {
        let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        Ok(Some(serde_json::from_slice(&line)?))
    }
}
