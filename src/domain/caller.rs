//! Who asks. Every use case takes the caller, so that keys and scopes have their place.

/// The one on whose behalf a call is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the key, or `local` where no key is needed.
    pub name: String,
    /// Id of the request, for logs and faults.
    pub request_id: String,
}

impl Caller {
    /// A caller on the loopback address, who needs no key.
    pub fn local(request_id: impl Into<String>) -> Self {
        Self { name: "local".into(), request_id: request_id.into() }
    }
}
