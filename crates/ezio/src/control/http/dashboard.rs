//! The page for people, what it is fed with, and the orders it gives.

use super::{SLICE_LEN, Server, Shared, answer, json, lock, refuse, spoken, stream, text};
use crate::control::fleet::{self, Image, Surroundings};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, HOST, HeaderMap, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Frame};
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use swarm::tracker::percent_encode;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};

/// How often the fleet is looked at.
const TICK: Duration = Duration::from_secs(1);

/// An order names at most all machines: 1024 numbers of a few digits.
const ORDER_LEN_MAX: usize = 16 << 10;
const ORDER_TIME_MAX: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/", get(front))
        .route("/dashboard.js", get(async || page("text/javascript; charset=utf-8", SCRIPT)))
        .route("/chart.js", get(async || page("text/javascript; charset=utf-8", CHART)))
        .route("/dashboard.css", get(async || page("text/css; charset=utf-8", STYLE)))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .route("/report.html", get(report_html))
        .route("/report.csv", get(report_csv))
        .route("/report.json", get(report_json))
        .route("/api/summary", get(summary))
        .route("/api/images", get(images))
        .route("/api/machines", get(machines))
        .route("/api/actions", post(actions))
        .route("/api/openapi.json", get(async || page("application/json", OPENAPI)))
}

const PAGE: &str = include_str!("../page/index.html");
const SCRIPT: &str = include_str!("../page/dashboard.js");
const CHART: &str = include_str!("../page/chart.js");
const STYLE: &str = include_str!("../page/dashboard.css");
const OPENAPI: &str = include_str!("../page/openapi.json");

/// Looks at the fleet every second until it is dropped.
pub(in crate::control) async fn watch(server: Arc<Server>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let around = server.surroundings();
        let mut fleet = lock(&server.fleet);
        let ended = fleet.tick(Instant::now(), around);
        (server.config.looked)(&fleet.summary().clone(), fleet.turns());
        drop(fleet);
        ended.into_iter().for_each(|ended| (server.config.ended)(ended));
    }
}

impl Server {
    fn surroundings(&self) -> Surroundings {
        let status = (self.config.status)();
        let engine = status["engine"].as_array().map_or(&[][..], Vec::as_slice);
        let torrents = lock(&self.torrents);
        let images = torrents.iter().map(|(name, handed)| {
            let info_hash = super::hex(&handed.info_hash);
            let seen = engine.iter().find(|torrent| torrent["info_hash"] == info_hash.as_str());
            let number = |key: &str| seen.and_then(|t| t[key].as_u64()).unwrap_or(0);
            Image {
                name: name.clone(),
                bytes: number("image_bytes"),
                pieces: number("pieces"),
                sent_bytes: number("sent_bytes"),
                peers: number("peers"),
                info_hash,
            }
        });
        let images = images.collect();
        drop(torrents);
        let tracker = self.context.tracker();
        let hashes: Vec<_> = tracker.scrape(&[]).into_iter().map(|(hash, _)| hash).collect();
        let announcers = hashes.iter().flat_map(|hash| tracker.peers(hash));
        let announcers = announcers
            .filter(|(_, member)| member.peer_id != Some(self.context.peer_id))
            .map(|(addr, _)| addr.ip().to_string())
            .collect();
        Surroundings { images, link_mbit: self.link_mbit, announcers }
    }
}

/// The dashboard for browsers; for others the lines that deploy each torrent.
async fn front(State(server): Shared, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        return page("text/html; charset=utf-8", PAGE);
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("SERVER:6969");
    let mut page = String::from("EZIO serves\n\n");
    for name in lock(&server.torrents).keys() {
        let name = percent_encode(name.as_bytes());
        page += &format!("ezio deploy http://{host}/torrents/{name}.torrent --to DEVICE\n");
    }
    text(page)
}

/// A part of the page. Nothing but what comes from here is run, shown or asked.
fn page(kind: &'static str, content: &'static str) -> Response {
    let mut response = answer(kind, content);
    let headers = response.headers_mut();
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                  img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    let named = [("content-security-policy", policy), ("referrer-policy", "no-referrer")];
    for (name, value) in named {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Server-sent events: `snapshot`, then a `delta` a second.
async fn events(State(server): Shared) -> Response {
    match lock(&server.fleet).view() {
        Some(events) => {
            let events = Events { events, rest: Bytes::new() };
            stream("text/event-stream", Body::new(events))
        }
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many look already"),
    }
}

/// What a viewer gets, as it comes, in slices: see [`super::Slices`].
struct Events {
    events: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.rest.is_empty() {
            let Some(event) = ready!(self.events.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            self.rest = event;
        }
        let len = self.rest.len().min(SLICE_LEN);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }
}

async fn metrics(State(server): Shared) -> Response {
    let metrics = fleet::metrics(&lock(&server.fleet));
    spoken("text/plain; version=0.0.4; charset=utf-8", metrics)
}

async fn summary(State(server): Shared) -> Response {
    json(lock(&server.fleet).summary())
}

async fn images(State(server): Shared) -> Response {
    json(&lock(&server.fleet).images())
}

async fn machines(State(server): Shared) -> Response {
    json(&lock(&server.fleet).machines())
}

async fn report_html(State(server): Shared) -> Response {
    let page = fleet::html(&lock(&server.fleet));
    let mut response = spoken("text/html; charset=utf-8", page);
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");
    response.headers_mut().insert(HeaderName::from_static("content-security-policy"), policy);
    response
}

async fn report_csv(State(server): Shared) -> Response {
    let csv = fleet::csv(&lock(&server.fleet));
    file("text/csv; charset=utf-8", csv, "attachment; filename=\"ezio-report.csv\"")
}

async fn report_json(State(server): Shared) -> Response {
    let fleet = lock(&server.fleet);
    let report = json!({
        "summary": fleet.summary(), "images": fleet.images(), "machines": fleet.machines(),
    });
    drop(fleet);
    file("application/json", report.to_string(), "attachment; filename=\"ezio-report.json\"")
}

fn file(kind: &'static str, content: String, disposition: &'static str) -> Response {
    let mut response = spoken(kind, content);
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    response
}

/// Takes an order to machines; [`super::access`] has looked at who gives it.
async fn actions(State(server): Shared, request: Request) -> Response {
    if request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an order is application/json");
    }
    let body = Limited::new(request.into_body(), ORDER_LEN_MAX);
    let Ok(Ok(body)) = timeout(ORDER_TIME_MAX, body.collect()).await else {
        return refuse(StatusCode::BAD_REQUEST, "the order did not come, or has more than 16 KiB");
    };
    let Ok(order) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return refuse(StatusCode::BAD_REQUEST, "an order is a JSON object");
    };
    match lock(&server.fleet).order(&order) {
        Ok(count) => {
            let (action, limit) = (order["action"].as_str(), order["limit"].as_u64());
            tracing::info!(action, limit, machines = count, "an order was given");
            json(&json!({ "machines": count }))
        }
        Err(why) => refuse(StatusCode::BAD_REQUEST, why),
    }
}
