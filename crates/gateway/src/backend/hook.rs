//! Asking a backend over HTTP: one POST for each CALL, retried within the CALL's deadline, behind a circuit breaker.
//!
//! Owns the requests, the limits of `[hooks]`, and what each response means; not what becomes of it. Nothing here outlives the
//! deadline of the CALL. Why the limits are not tower's: ADR 0018.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use uuid::Uuid;

use super::breaker::Breaker;
use ocpp_station::Response;
use ocpp_station::delegated_calls::FallbackReason;

use super::message::parse_response;
use super::metrics::BackendMetrics;
use super::options::{ActionOptions, AnswersOptions, HookOptions, hook_target};
use crate::https::{self, ClientOptions, HttpsClient};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a hook cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The token cannot be read, or is not valid in a header.
    #[error("answers.{action}.bearer_token_file {file}: {reason}", file = file.display())]
    Token {
        /// The action.
        action: String,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system's certificates cannot be read.
    #[error("the system's root certificates, needed for {url}")]
    Roots {
        /// The first https URL.
        url: String,
        /// What is wrong.
        source: std::io::Error,
    },
}

/// Asks the hooks of all actions.
#[derive(Debug)]
pub(super) struct Hooks {
    client: HttpsClient<Full<Bytes>>,
    limits: HookOptions,
}

/// The URL that answers one action.
#[derive(Debug)]
pub(super) struct Hook {
    action: &'static str,
    uri: Uri,
    authorization: Option<HeaderValue>,
    guard: Arc<Guard>,
}

/// Keeps a slow or dead URL from costing anything but its own answers. Shared by the actions that ask there.
#[derive(Debug)]
struct Guard {
    breaker: Breaker,
    /// Permits for the requests in flight.
    in_flight: Semaphore,
    /// Permits for the CALLs whose request is in flight or waits to be.
    calls: Arc<Semaphore>,
    actions: Vec<&'static str>,
}

/// What a hook answered in the end.
#[derive(Debug)]
pub(super) enum Heard {
    /// An answer.
    Replied(Response),
    /// The backend will answer by the admin API or Kafka.
    Deferred,
    /// The fallback applies.
    Failed(FallbackReason),
}

/// What one request came to.
enum Attempt {
    Replied(Response),
    Deferred,
    /// Asking again would not help.
    Refused,
    /// Asking again may help.
    Failed,
}

impl Hook {
    /// A permit to ask about one more CALL; none if too many wait already.
    pub(super) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.guard.calls).try_acquire_owned().ok()
    }
}

impl Hooks {
    /// Opens the client and the hook of every action that has a URL.
    pub(super) fn open(
        answers: &AnswersOptions,
        limits: &HookOptions,
    ) -> Result<(Self, BTreeMap<&'static str, Hook>), HookError> {
        let named: Vec<(&'static str, &ActionOptions, Uri)> = answers
            .actions
            .iter()
            .filter_map(|(name, answer)| {
                let action = ocpp_protocol::Action::find(name)?;
                Some((action.name, answer, hook_target(&answer.url).ok()?))
            })
            .collect();
        let over_tls = named.iter().find(|(_, _, uri)| uri.scheme_str() == Some("https"));
        let over_tls = over_tls.map(|(_, answer, _)| answer.url.as_str());
        let mut guards: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
        for (action, answer, _) in &named {
            guards.entry(&answer.url).or_default().push(action);
        }
        let guards: BTreeMap<&str, Arc<Guard>> = guards
            .into_iter()
            .map(|(url, actions)| {
                let guard = Guard {
                    breaker: Breaker::new(limits.breaker_failures, limits.breaker_pause),
                    in_flight: Semaphore::new(limits.max_in_flight),
                    calls: Arc::new(Semaphore::new(limits.max_in_flight.saturating_add(limits.max_waiting))),
                    actions,
                };
                (url, Arc::new(guard))
            })
            .collect();
        let mut hooks = BTreeMap::new();
        for (action, answer, uri) in &named {
            let Some(guard) = guards.get(answer.url.as_str()) else { continue };
            let authorization = token(action, answer)?;
            let hook = Hook { action, uri: uri.clone(), authorization, guard: Arc::clone(guard) };
            hooks.insert(*action, hook);
        }
        let client = https::client(ClientOptions {
            connect_timeout: limits.connect_timeout,
            max_idle: limits.max_in_flight,
            http2: false,
            tls: over_tls.is_some(),
        })
        .map_err(|source| HookError::Roots { url: over_tls.unwrap_or_default().to_owned(), source })?;
        let this = Self { client, limits: limits.clone() };
        Ok((this, hooks))
    }

    /// Everything that keeps the hooks from being opened.
    pub(super) fn problems(answers: &AnswersOptions, limits: &HookOptions) -> Vec<HookError> {
        let hooks = answers.actions.iter().filter(|(_, answer)| !answer.url.is_empty());
        let tokens: Vec<_> = hooks.filter_map(|(action, answer)| token(action, answer).err()).collect();
        if tokens.is_empty() { Self::open(answers, limits).err().into_iter().collect() } else { tokens }
    }

    /// Asks until the hook answers, asking again would not help, or the CALL's deadline `until` has passed.
    pub(super) async fn ask(
        &self,
        hook: &Hook,
        body: Bytes,
        until: Instant,
        metrics: &BackendMetrics,
    ) -> Heard {
        let mut pause = self.limits.retry_pause;
        loop {
            // Before waiting for a permit as well: nobody should wait for a dead URL.
            if hook.guard.breaker.is_open(Instant::now()) {
                return Heard::Failed(FallbackReason::BreakerOpen);
            }
            let waiting = Counted::on(&metrics.hooks_waiting);
            let Ok(Ok(_permit)) = timeout_at(until.into(), hook.guard.in_flight.acquire()).await else {
                return Heard::Failed(FallbackReason::Overloaded);
            };
            drop(waiting);
            if !hook.guard.breaker.admits(Instant::now()) {
                return Heard::Failed(FallbackReason::BreakerOpen);
            }
            let in_flight = Counted::on(&metrics.hooks_in_flight);
            let attempt = self.attempt(hook, body.clone(), until, metrics).await;
            drop(in_flight);
            match attempt {
                Attempt::Replied(reply) => return Heard::Replied(reply),
                Attempt::Deferred => return Heard::Deferred,
                Attempt::Refused => return Heard::Failed(FallbackReason::HookFailed),
                Attempt::Failed => {}
            }
            let now = Instant::now();
            let next = now + jittered(pause);
            if next >= until {
                return Heard::Failed(if now >= until {
                    FallbackReason::Deadline
                } else {
                    FallbackReason::HookFailed
                });
            }
            tokio::time::sleep_until(next.into()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, hook: &Hook, body: Bytes, until: Instant, metrics: &BackendMetrics) -> Attempt {
        let began = Instant::now();
        let end = until.min(began + self.limits.request_timeout);
        let (attempt, result) = match timeout_at(end.into(), self.exchange(hook, body)).await {
            Ok(outcome) => outcome,
            Err(_) => (Attempt::Failed, "timeout"),
        };
        metrics.hook_asked(hook.action, result, began.elapsed());
        let Guard { breaker, actions, .. } = &*hook.guard;
        let (host, port) = (hook.uri.host().unwrap_or_default(), hook.uri.port_u16());
        let show = |is_open| actions.iter().for_each(|action| metrics.breaker(action, is_open));
        match attempt {
            Attempt::Failed => breaker.failed(Instant::now(), || {
                show(true);
                tracing::warn!(
                    host,
                    port,
                    ?actions,
                    result,
                    "a hook keeps failing; it is left alone for a while"
                );
            }),
            // A URL that refuses is alive.
            Attempt::Replied(_) | Attempt::Deferred | Attempt::Refused => breaker.succeeded(|| {
                show(false);
                tracing::info!(host, port, ?actions, "a hook answers again");
            }),
        }
        attempt
    }

    /// Sends one request. Returns what it came to, and the metric's word for it.
    async fn exchange(&self, hook: &Hook, body: Bytes) -> (Attempt, &'static str) {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = hook.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("ocpp-gateway"));
        if let Some(authorization) = &hook.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(action = hook.action, %error, "a hook could not be asked");
                return (Attempt::Failed, "unreachable");
            }
        };
        let status = response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => return (Attempt::Deferred, "deferred"),
            StatusCode::TOO_MANY_REQUESTS => return (Attempt::Failed, "tooManyRequests"),
            other if other.is_server_error() => return (Attempt::Failed, "serverError"),
            other => {
                tracing::debug!(action = hook.action, status = other.as_u16(), "a hook refused to answer");
                return (Attempt::Refused, "refused");
            }
        }
        let max_size = usize::try_from(self.limits.max_response_size.as_u64()).unwrap_or(usize::MAX);
        let body = match Limited::new(response.into_body(), max_size).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return (Attempt::Refused, "invalid");
            }
            Err(error) => {
                tracing::debug!(action = hook.action, error, "a hook's response broke off");
                return (Attempt::Failed, "unreachable");
            }
        };
        match parse_response(&body) {
            Ok(reply) => (Attempt::Replied(reply), "answered"),
            Err(error) => {
                tracing::debug!(action = hook.action, %error, "a hook's response is no answer");
                (Attempt::Refused, "invalid")
            }
        }
    }
}

fn token(action: &str, answer: &ActionOptions) -> Result<Option<HeaderValue>, HookError> {
    let file = &answer.bearer_token_file;
    if file.as_os_str().is_empty() {
        return Ok(None);
    }
    let wrong = |reason: String| HookError::Token { action: action.to_owned(), file: file.clone(), reason };
    let token = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(wrong("is empty".to_owned()));
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| wrong("holds something that cannot be in a header".to_owned()))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// Between half of the pause and all of it, so that CALLs which failed together are not retried together.
fn jittered(pause: Duration) -> Duration {
    let random = u32::from(Uuid::new_v4().as_bytes()[0]);
    pause / 2 + pause / 2 * random / 255
}

/// Adds one to a gauge until it is dropped, so that a cancelled task is not counted for ever.
struct Counted<'a>(&'a prometheus::IntGauge);

impl<'a> Counted<'a> {
    fn on(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
