//! Which web pages may use the API from a browser (CORS), by configuration.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::request::REQUEST_ID;
use crate::error::{Fault, Kind, clip};
use crate::trace::TRACEPARENT;

/// How long a browser may keep what a preflight said.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Origins of pages that may use the API, beside those that it serves itself.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// `*`: whoever asks.
    any: bool,
    these: Vec<HeaderValue>,
}

impl Origins {
    /// From the configuration's words, which are origins or `*`.
    pub fn new(words: &[String]) -> Self {
        let these = words.iter().filter_map(|word| HeaderValue::from_str(word).ok());
        Self { any: words.iter().any(|word| word == "*"), these: these.collect() }
    }

    /// What answers browsers that ask whether they may, and lets them read answers; without an origin, nothing does.
    pub fn layer(&self) -> Option<CorsLayer> {
        if !self.any && self.these.is_empty() {
            return None;
        }
        let origins =
            if self.any { AllowOrigin::any() } else { AllowOrigin::list(self.these.iter().cloned()) };
        let request_id = HeaderName::from_static(REQUEST_ID);
        let cors = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
            .allow_headers([
                header::ACCEPT,
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                request_id.clone(),
                HeaderName::from_static(TRACEPARENT),
            ])
            .expose_headers([header::RETRY_AFTER, request_id])
            .max_age(MAX_AGE);
        Some(cors)
    }

    /// Whether the page that a request comes from may use the API. A browser asks first only where a page wants more
    /// than a form could send, and never for a WebSocket; so it is judged here, whatever was asked.
    /// Errors: `forbidden`.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        if self.any || self.these.contains(origin) {
            return Ok(());
        }
        let text = origin.to_str().unwrap_or_default();
        let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let of_page = text.split_once("://").map(|(_, host)| host);
        if own.is_some() && own == of_page {
            return Ok(());
        }
        let detail = format!("pages of the origin `{}` are not allowed here (cors_origins)", clip(text));
        Err(Fault::new(Kind::Forbidden, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(words: &[&str], origin: Option<&str>) -> bool {
        let origins = Origins::new(&words.iter().map(|word| (*word).into()).collect::<Vec<_>>());
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        origins.check(&headers).is_ok()
    }

    #[test]
    fn a_page_is_heard_only_if_it_is_ours_or_named() {
        assert!(may(&[], None), "a rig is no page");
        assert!(may(&[], Some("http://127.0.0.1:8080")));
        assert!(!may(&[], Some("https://lab.example")));
        assert!(!may(&[], Some("null")));
        assert!(may(&["https://lab.example"], Some("https://lab.example")));
        assert!(!may(&["https://lab.example"], Some("https://lab.example.org")));
        assert!(may(&["*"], Some("null")));
    }
}
