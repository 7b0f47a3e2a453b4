//! Who may make which call: the routes' needs, and the key that a request shows.

use std::collections::HashMap;

use axum::extract::{MatchedPath, Request};
use http::{Method, header};

use super::route::Route;
use crate::app::App;
use crate::domain::caller::{Caller, Need};
use crate::error::Fault;

/// What is asked of callers, by configuration.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Keys are asked for at this door.
    pub keys: bool,
    /// But not by `/metrics`.
    pub open_metrics: bool,
}

/// What each route needs, by its path.
pub struct Needs(HashMap<&'static str, Vec<(Method, Need)>>);

impl Needs {
    /// As the table of routes says.
    pub fn of(routes: &[Route]) -> Self {
        let mut needs: HashMap<_, Vec<_>> = HashMap::new();
        for route in routes {
            needs.entry(route.path).or_default().push((route.method.clone(), route.need));
        }
        Self(needs)
    }

    /// What a request needs. What is no call needs a key, too, so that nobody else learns which there are.
    fn by(&self, method: &Method, path: Option<&str>) -> Need {
        // A route that answers GET answers HEAD.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let of_path = path.and_then(|path| self.0.get(path)).into_iter().flatten();
        of_path.filter(|(known, _)| known == method).map(|(_, need)| *need).next().unwrap_or(Need::Key)
    }
}

/// What stands before the routes.
pub struct Gate {
    /// Knows the keys.
    pub app: App,
    /// Whether keys are asked for.
    pub asks_for_keys: bool,
    /// What each route needs.
    pub needs: Needs,
}

impl Gate {
    /// Who makes this request. Errors: `unauthenticated`, `forbidden`.
    pub fn admit(&self, request: &Request, request_id: &str) -> Result<Caller, Fault> {
        if !self.asks_for_keys {
            return Ok(Caller::local(request_id));
        }
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let shown = request.headers().get_all(header::AUTHORIZATION).iter().map(|value| value.as_bytes());
        self.app.admit(shown, self.needs.by(request.method(), path), request_id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes;
    use super::*;
    use crate::domain::caller::Scope;

    #[test]
    fn only_liveness_readiness_and_by_configuration_metrics_are_open() {
        let read = Need::Scope(Scope::Read);
        for metrics in [read, Need::Nothing] {
            let routes = routes(metrics);
            let open = routes.iter().filter(|route| route.need == Need::Nothing).map(|route| route.path);
            let open: Vec<_> = open.filter(|path| *path != "/metrics").collect();
            assert_eq!(open, ["/livez", "/readyz"]);
            assert_eq!(Needs::of(&routes).by(&Method::GET, Some("/metrics")), metrics);
        }
    }

    #[test]
    fn head_needs_what_get_needs_and_what_is_no_call_needs_a_key() {
        let needs = Needs::of(&routes(Need::Nothing));
        let by = |method, path| needs.by(&method, Some(path));
        assert_eq!(by(Method::HEAD, "/v1/runs"), Need::Scope(Scope::Read));
        assert_eq!(by(Method::HEAD, "/livez"), Need::Nothing);
        assert_eq!(by(Method::POST, "/v1/sessions"), Need::Scope(Scope::Stream));
        assert_eq!(by(Method::POST, "/v1/models/{model}/unload"), Need::Scope(Scope::Admin));
        for (method, path) in [(Method::POST, "/livez"), (Method::PUT, "/v1/runs"), (Method::GET, "/nowhere")]
        {
            assert_eq!(by(method, path), Need::Key);
        }
        assert_eq!(needs.by(&Method::GET, None), Need::Key);
    }
}
