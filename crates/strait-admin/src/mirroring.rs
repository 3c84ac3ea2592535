//! Event Streams' endpoints for mirroring: which topics are selected, and which are mirrored now.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use crate::access::{Access, Role};

/// The largest body of a request.
const MAX_BODY: usize = 256 << 10;
/// How long a client may take to send it.
const BODY_TIME: Duration = Duration::from_secs(10);
/// The header that names a call; Event Streams' name for it.
const TRANSACTION_ID: &str = "x-global-transaction-id";
/// Longer names of calls are not taken over.
const MAX_TRANSACTION_ID: usize = 128;
const JSON: &str = "application/json";

/// A link of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkName {
    /// The link's name.
    pub name: String,
    /// The source's alias.
    pub source: String,
}

/// Who changes something, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// By which token.
    pub role: Role,
    /// From where.
    pub peer: SocketAddr,
    /// The call's name, as it stands in the answer.
    pub incident: String,
}

/// Why a call is not granted, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What was asked for cannot be.
    Invalid(String),
    /// It cannot be done now.
    Unavailable(String),
}

/// What an endpoint waits for.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, Refusal>> + Send + 'a>>;

/// The mirror behind the endpoints.
pub trait Mirroring: Send + Sync + 'static {
    /// The links of this process, in the order of the file.
    fn links(&self) -> Vec<LinkName>;
    /// The patterns that are selected.
    fn selection<'a>(&'a self, link: &'a str) -> Answer<'a>;
    /// Replaces them all, and returns the new ones once they are stored.
    fn select<'a>(&'a self, link: &'a str, includes: Vec<String>, by: Caller) -> Answer<'a>;
    /// The source's names of the topics that are mirrored now, sorted.
    fn active_topics(&self, link: &str) -> Vec<String>;
}

/// The endpoints of one process.
#[derive(Clone)]
pub(crate) struct Endpoints {
    pub(crate) access: Access,
    pub(crate) mirroring: Arc<dyn Mirroring>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Selection,
    ActiveTopics,
}

/// An answer that is no success.
struct Denied {
    status: StatusCode,
    message: String,
}

fn denied(status: StatusCode, message: impl Into<String>) -> Denied {
    let message = message.into();
    Denied { status, message }
}

/// Answers a call, whoever sent it; without endpoints, that there are none.
pub(crate) async fn answer(
    endpoints: Option<Endpoints>,
    subject: Subject,
    peer: SocketAddr,
    request: Request,
) -> Response {
    let incident = incident(request.headers());
    let answered = match endpoints {
        Some(endpoints) => endpoints.answer(subject, peer, &incident, request).await,
        None => Err(denied(
            StatusCode::NOT_FOUND,
            "mirroring is not enabled here: set admin.token-file in Strait's configuration to have these endpoints",
        )),
    };
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(Denied { status, message }) => {
            let code = status.as_u16();
            (
                status,
                json!({"error_code": code, "message": message, "incident_id": incident}),
            )
        }
    };
    let mut response = Response::new(Body::from(format!("{body}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    if let Ok(incident) = HeaderValue::from_str(&incident) {
        headers.insert(TRANSACTION_ID, incident);
    }
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = match subject {
                Subject::Selection => "GET, POST",
                Subject::ActiveTopics => "GET",
            };
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        _ => {}
    }
    response
}

impl Endpoints {
    async fn answer(
        &self,
        subject: Subject,
        peer: SocketAddr,
        incident: &str,
        request: Request,
    ) -> Result<Value, Denied> {
        let Some(role) = self.access.role(request.headers()) else {
            return Err(denied(
                StatusCode::UNAUTHORIZED,
                "no token that is known here: send Authorization: Bearer and one of the two in admin.token-file",
            ));
        };
        let changes = match (subject, request.method()) {
            (_, &Method::GET) => false,
            (Subject::Selection, &Method::POST) => true,
            _ => {
                let why = "this method is not known here";
                return Err(denied(StatusCode::METHOD_NOT_ALLOWED, why));
            }
        };
        if changes && role != Role::Manager {
            return Err(denied(
                StatusCode::FORBIDDEN,
                "the viewer's token may look and not change: send the manager's",
            ));
        }
        let link = the_link(&self.mirroring.links(), request.uri().query())?;
        if subject == Subject::ActiveTopics {
            return Ok(json!({"active_topics": self.mirroring.active_topics(&link)}));
        }
        let answered = if changes {
            let includes = read_includes(request).await?;
            let incident = incident.to_owned();
            let by = Caller {
                role,
                peer,
                incident,
            };
            self.mirroring.select(&link, includes, by).await
        } else {
            self.mirroring.selection(&link).await
        };
        match answered {
            Ok(includes) => Ok(json!({"includes": includes})),
            Err(Refusal::Invalid(why)) => Err(denied(StatusCode::BAD_REQUEST, why)),
            Err(Refusal::Unavailable(why)) => Err(denied(StatusCode::SERVICE_UNAVAILABLE, why)),
        }
    }
}

/// The link that is meant by `?source=ALIAS` or `?link=NAME`; neither is needed where there is only one.
fn the_link(links: &[LinkName], query: Option<&str>) -> Result<String, Denied> {
    let (mut source, mut name) = (None, None);
    for part in query.unwrap_or_default().split('&') {
        match part.split_once('=') {
            Some(("source", value)) => source = Some(decoded(value)),
            Some(("link", value)) => name = Some(decoded(value)),
            _ => {}
        }
    }
    let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w == is);
    let meant: Vec<&LinkName> = links
        .iter()
        .filter(|l| fits(&source, &l.source) && fits(&name, &l.name))
        .collect();
    let list = |links: &mut dyn Iterator<Item = &str>| {
        let mut names: Vec<&str> = links.collect();
        names.dedup();
        names.join(", ")
    };
    match meant.as_slice() {
        [only] => Ok(only.name.clone()),
        [] => Err(denied(
            StatusCode::NOT_FOUND,
            format!(
                "no such link runs here; source and link of those that do: {}",
                list(&mut links.iter().flat_map(|l| [l.source.as_str(), &l.name]))
            ),
        )),
        several => {
            let sources = list(&mut several.iter().map(|l| l.source.as_str()));
            let why = if source.is_none() && sources.contains(", ") {
                format!("several links run here: say which one with ?source=: {sources}")
            } else {
                let names = list(&mut several.iter().map(|l| l.name.as_str()));
                format!("several links have this source: say which one with ?link=: {names}")
            };
            Err(denied(StatusCode::BAD_REQUEST, why))
        }
    }
}

/// Percent-encoding undone.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = hex.and_then(|two| u8::from_str_radix(two, 16).ok());
        let (one, behind) = match (first, byte) {
            (b'%', Some(byte)) => (byte, after.get(2..).unwrap_or_default()),
            _ => (first, after),
        };
        bytes.push(one);
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The patterns in a request's body.
async fn read_includes(request: Request) -> Result<Vec<String>, Denied> {
    let headers = request.headers();
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let kind = kind.and_then(|v| v.split(';').next()).unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case(JSON) {
        return Err(denied(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body has to be JSON: send Content-Type: application/json",
        ));
    }
    let too_large = || {
        let why = format!("the body has more than {MAX_BODY} bytes");
        denied(StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    if length.is_some_and(|l| l.parse().is_ok_and(|l: usize| l > MAX_BODY)) {
        return Err(too_large());
    }
    let read = to_bytes(request.into_body(), MAX_BODY);
    let body = match tokio::time::timeout(BODY_TIME, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => {
            let why = "the body did not arrive in time";
            return Err(denied(StatusCode::REQUEST_TIMEOUT, why));
        }
    };
    parse_includes(&body).map_err(|why| denied(StatusCode::BAD_REQUEST, why))
}

fn parse_includes(body: &[u8]) -> Result<Vec<String>, String> {
    let wanted = "send {\"includes\": [\"^a.*\", \"^b.*\"]}";
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| format!("the body is not JSON: {error}; {wanted}"))?;
    let Some(fields) = value.as_object() else {
        return Err(format!("the body is no JSON object; {wanted}"));
    };
    if let Some(other) = fields.keys().find(|key| *key != "includes") {
        return Err(format!("the body has a field {other:?}; {wanted}"));
    }
    let list = fields.get("includes").and_then(Value::as_array);
    let texts = list.and_then(|list| {
        let texts = list.iter().map(|v| v.as_str().map(str::to_owned));
        texts.collect::<Option<Vec<String>>>()
    });
    texts.ok_or_else(|| format!("\"includes\" is no list of strings; {wanted}"))
}

/// The call's name: the client's own, or a random one.
fn incident(headers: &HeaderMap) -> String {
    let given = headers.get(TRANSACTION_ID).and_then(|v| v.to_str().ok());
    let fits = |id: &&str| {
        (1..=MAX_TRANSACTION_ID).contains(&id.len()) && id.chars().all(|c| c.is_ascii_graphic())
    };
    match given.filter(fits) {
        Some(id) => id.to_owned(),
        None => {
            let random = || RandomState::new().build_hasher().finish();
            format!("{:016x}{:016x}", random(), random())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(pairs: &[(&str, &str)]) -> Vec<LinkName> {
        let link = |&(name, source): &(&str, &str)| LinkName {
            name: name.to_owned(),
            source: source.to_owned(),
        };
        pairs.iter().map(link).collect()
    }

    #[test]
    fn a_link_is_found_by_its_source_or_its_name() {
        let one = links(&[("a->c", "a")]);
        assert_eq!(the_link(&one, None).ok().as_deref(), Some("a->c"));
        let three = links(&[("a->c", "a"), ("b->c", "b"), ("more", "b")]);
        let found =
            |query| the_link(&three, Some(query)).map_err(|d| (d.status.as_u16(), d.message));
        assert_eq!(found("source=a"), Ok("a->c".to_owned()));
        assert_eq!(found("x=1&link=b-%3Ec"), Ok("b->c".to_owned()));
        assert_eq!(found("source=b&link=more"), Ok("more".to_owned()));
        let (status, why) = found("").unwrap_err();
        assert_eq!(status, 400);
        assert!(why.ends_with("?source=: a, b"), "{why}");
        let (status, why) = found("source=b").unwrap_err();
        assert_eq!(status, 400);
        assert!(why.ends_with("?link=: b->c, more"), "{why}");
        let (status, why) = found("source=d").unwrap_err();
        assert_eq!(status, 404);
        assert!(why.contains("a, a->c, b, b->c"), "{why}");
        assert_eq!(found("source=%").unwrap_err().0, 404);
    }

    #[test]
    fn a_body_is_an_object_with_a_list_of_strings() {
        let read = |text: &str| parse_includes(text.as_bytes());
        assert_eq!(
            read("{\"includes\":[\"^a.*\",\"\"]}"),
            Ok(vec!["^a.*".to_owned(), String::new()])
        );
        assert_eq!(read("{\"includes\":[]}"), Ok(Vec::new()));
        for wrong in [
            "",
            "{",
            "[]",
            "{}",
            "{\"includes\":\"a\"}",
            "{\"includes\":[1]}",
            "{\"includes\":null}",
            "{\"includes\":[],\"excludes\":[]}",
            &"[".repeat(10_000),
        ] {
            let said = read(wrong).unwrap_err();
            assert!(said.contains("send {\"includes\""), "{said}");
        }
    }

    #[test]
    fn a_call_keeps_the_name_it_was_given() {
        let named = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TRANSACTION_ID, HeaderValue::from_str(id).unwrap());
            incident(&headers)
        };
        assert_eq!(named("abc-1"), "abc-1");
        assert_eq!(named(&"x".repeat(129)).len(), 32);
        assert_eq!(named("a b").len(), 32);
        assert_ne!(incident(&HeaderMap::new()), incident(&HeaderMap::new()));
    }
}
