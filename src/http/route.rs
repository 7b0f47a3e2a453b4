//! A route with what the document says of it, so that neither is there without the other.

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use serde_json::{Value, json};

use super::message::{PROTOBUF, Problem};
use crate::app::App;
use crate::domain::caller::Need;
use crate::error::{Fault, Kind};
use crate::wire::schema;

/// One call.
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, `{name}` for a part that is given.
    pub path: &'static str,
    /// What it does.
    pub says: &'static str,
    /// What it asks of its caller.
    pub need: Need,
    /// What its query may have.
    pub query: &'static [Parameter],
    /// The message that it takes.
    pub takes: Option<&'static str>,
    /// Media types of bytes that it takes instead.
    pub takes_bytes: &'static [&'static str],
    /// What it answers when all is well, by status.
    pub answers: Vec<(u16, Content)>,
    /// What is done.
    pub call: MethodRouter<App>,
}

/// The body of an answer.
pub enum Content {
    /// None.
    Empty,
    /// That message, as JSON or protobuf.
    Message(&'static str),
    /// Bytes of these media types.
    Of(&'static [&'static str]),
}

/// One parameter of a query.
#[derive(Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub says: &'static str,
    /// `string`, `integer`, `number` or `boolean`.
    pub kind: &'static str,
}

/// A query whose parameters are known.
pub trait Parameters {
    /// All there are.
    const ALL: &'static [Parameter];
}

/// A type that a parameter may have.
pub trait Scalar {
    /// JSON Schema's word for it.
    const KIND: &'static str;
}

impl Scalar for String {
    const KIND: &'static str = "string";
}

impl Scalar for u32 {
    const KIND: &'static str = "integer";
}

impl Scalar for u64 {
    const KIND: &'static str = "integer";
}

impl Scalar for i64 {
    const KIND: &'static str = "integer";
}

impl Scalar for f64 {
    const KIND: &'static str = "number";
}

impl Scalar for bool {
    const KIND: &'static str = "boolean";
}

/// Declares the query of a URL: what is read is what the document names.
macro_rules! query {
    (
        #[doc = $about:literal]
        $query:ident { $(#[doc = $says:literal] $field:ident: $kind:ty,)* }
    ) => {
        #[doc = $about]
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $query {
            $(#[doc = $says] $field: Option<$kind>,)*
        }

        impl $crate::http::route::Parameters for $query {
            const ALL: &'static [$crate::http::route::Parameter] = &[$(
                $crate::http::route::Parameter {
                    name: stringify!($field),
                    says: $says,
                    kind: <$kind as $crate::http::route::Scalar>::KIND,
                },
            )*];
        }
    };
}
pub(super) use query;

impl Route {
    /// A route that answers no body yet.
    pub fn new<H, T>(need: Need, method: Method, path: &'static str, says: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a method of HTTP itself");
        Self {
            method,
            path,
            says,
            need,
            query: &[],
            takes: None,
            takes_bytes: &[],
            answers: Vec::new(),
            call: on(filter, handler),
        }
    }

    /// `GET`.
    pub fn get<H: Handler<T, App>, T: 'static>(
        need: Need,
        path: &'static str,
        says: &'static str,
        handler: H,
    ) -> Self {
        Self::new(need, Method::GET, path, says, handler)
    }

    /// `POST`.
    pub fn post<H: Handler<T, App>, T: 'static>(
        need: Need,
        path: &'static str,
        says: &'static str,
        handler: H,
    ) -> Self {
        Self::new(need, Method::POST, path, says, handler)
    }

    /// A call that the contract names and this version does not serve.
    pub fn later(need: Need, method: Method, path: &'static str, says: &'static str) -> Self {
        let refuse = move || async move {
            Problem(Fault::new(Kind::Unsupported, format!("{says}: not served by this version")))
        };
        Self::new(need, method, path, says, refuse)
    }

    /// It reads this query.
    pub fn reads<Q: Parameters>(self) -> Self {
        Self { query: Q::ALL, ..self }
    }

    /// It takes this message.
    pub fn takes<T>(self) -> Self {
        Self { takes: Some(schema::name_of::<T>()), ..self }
    }

    /// It takes bytes of these media types, too.
    pub fn takes_also(self, takes_bytes: &'static [&'static str]) -> Self {
        Self { takes_bytes, ..self }
    }

    /// It answers this message with this status.
    pub fn answers<T>(self, status: u16) -> Self {
        self.content(status, Content::Message(schema::name_of::<T>()))
    }

    /// It answers this with this status.
    pub fn content(mut self, status: u16, content: Content) -> Self {
        self.answers.push((status, content));
        self
    }

    /// Names of the given parts of its path.
    pub fn parts(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}

impl Content {
    /// By media type, the schema of the body.
    pub fn schemas(&self) -> Vec<(&'static str, Value)> {
        match self {
            Content::Empty => Vec::new(),
            Content::Message(name) => message(name),
            Content::Of(types) => types.iter().map(|media| (*media, json!({}))).collect(),
        }
    }
}

/// A message as a body: by media type, its schema.
pub fn message(name: &str) -> Vec<(&'static str, Value)> {
    let bytes = json!({ "description": format!("latentd.v1.{name}"), "contentMediaType": PROTOBUF });
    vec![("application/json", schema::reference(name)), (PROTOBUF, bytes)]
}
