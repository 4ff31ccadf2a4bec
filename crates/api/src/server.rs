//! The agent's end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::socket::OwnListener;
use crate::types::{ErrorBody, ExplainReply, ExplainRequest, FlowLine, PuStatus, Status};
use crate::{BindError, VERSION};

/// Flow lines as they happen.
pub type FlowStream = Pin<Box<dyn Stream<Item = FlowLine> + Send>>;

/// What the server asks the agent.
pub trait Agent: Send + Sync + 'static {
    /// Answers `GET /v1/status`; `GET /v1/pus` is its list of units.
    fn status(&self) -> impl Future<Output = Result<Status, ErrorBody>> + Send;

    /// Answers `GET /v1/flows`: the newest `limit` records, oldest first.
    fn flows(&self, limit: usize) -> Vec<FlowLine>;

    /// Answers `GET /v1/flows?follow=true`: the newest `limit` records, then each new one.
    fn follow(&self, limit: usize) -> FlowStream;

    /// Answers `POST /v1/explain`.
    fn explain(
        &self,
        request: ExplainRequest,
    ) -> impl Future<Output = Result<ExplainReply, ErrorBody>> + Send;

    /// Answers `POST /v1/reload`: reads the policy again.
    fn reload(&self) -> impl Future<Output = Result<(), ErrorBody>> + Send;
}

/// Serving ended early.
#[derive(Debug, thiserror::Error)]
#[error("the api server stopped")]
pub struct ServeError(#[source] io::Error);

/// A bound socket, not yet served.
#[derive(Debug)]
pub struct Server {
    listener: OwnListener,
}

impl Server {
    /// Takes the socket at `path` (mode 0600, missing folders are created, a dead agent's socket is replaced).
    ///
    /// # Errors
    /// [`BindError::AlreadyServed`] if another agent answers there, or what the kernel refused.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Ok(Self { listener: OwnListener::bind(path)? })
    }

    /// Answers until `stop` is cancelled; the socket file goes with the server.
    ///
    /// # Errors
    /// [`ServeError`] if the listener breaks.
    ///
    /// # Cancel safety
    /// A drop closes every connection and removes the socket.
    pub async fn serve<A: Agent>(self, agent: Arc<A>, stop: CancellationToken) -> Result<(), ServeError> {
        let app = router(Shared { agent, stop: stop.clone() });
        axum::serve(self.listener, app)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
            .map_err(ServeError)
    }
}

struct Shared<A> {
    agent: Arc<A>,
    stop: CancellationToken,
}

impl<A> Clone for Shared<A> {
    fn clone(&self) -> Self {
        Self { agent: Arc::clone(&self.agent), stop: self.stop.clone() }
    }
}

fn router<A: Agent>(shared: Shared<A>) -> Router {
    let v1 = Router::new()
        .route("/status", get(status::<A>))
        .route("/pus", get(pus::<A>))
        .route("/flows", get(flows::<A>))
        .route("/explain", post(explain::<A>))
        .route("/reload", post(reload::<A>))
        .with_state(shared);
    Router::new().nest(&format!("/{VERSION}"), v1).fallback(async || {
        let error = format!("no such path: this agent answers below /{VERSION}/");
        (StatusCode::NOT_FOUND, Json(ErrorBody { error }))
    })
}

async fn status<A: Agent>(State(shared): State<Shared<A>>) -> Response {
    answer(shared.agent.status().await)
}

async fn pus<A: Agent>(State(shared): State<Shared<A>>) -> Response {
    answer::<Vec<PuStatus>>(shared.agent.status().await.map(|status| status.pus))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowsQuery {
    #[serde(default)]
    follow: bool,
    #[serde(default = "default_limit")]
    limit: usize,
}

const fn default_limit() -> usize {
    100
}

async fn flows<A: Agent>(State(shared): State<Shared<A>>, Query(query): Query<FlowsQuery>) -> Response {
    let lines = if query.follow {
        shared.agent.follow(query.limit)
    } else {
        futures_util::stream::iter(shared.agent.flows(query.limit)).boxed()
    };
    let body = lines.take_until(shared.stop.cancelled_owned()).map(|line| Ok::<_, Infallible>(encode(&line)));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

fn encode(line: &FlowLine) -> Bytes {
    match serde_json::to_vec(line) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            bytes.into()
        }
        // A record is plain data; if one cannot be written the reader must know that it is missing.
        Err(_) => Bytes::from_static(b"{\"missed\":1}\n"),
    }
}

async fn explain<A: Agent>(
    State(shared): State<Shared<A>>,
    request: Result<Json<ExplainRequest>, JsonRejection>,
) -> Response {
    match request {
        Ok(Json(request)) => answer(shared.agent.explain(request).await),
        Err(rejection) => {
            (rejection.status(), Json(ErrorBody { error: rejection.body_text() })).into_response()
        }
    }
}

async fn reload<A: Agent>(State(shared): State<Shared<A>>) -> Response {
    answer(shared.agent.reload().await)
}

fn answer<T: Serialize>(result: Result<T, ErrorBody>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(body) => (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response(),
    }
}
