//! Where a call stands in a trace, as W3C Trace Context has it.

use uuid::Uuid;

/// A span's place: its trace, and its own id. Neither is all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace's id.
    pub trace: [u8; 16],
    /// The span's id.
    pub span: [u8; 8],
}

impl SpanContext {
    /// The first span of a new trace.
    pub fn root() -> Self {
        Self { trace: Uuid::new_v4().into_bytes(), span: span_id() }
    }

    /// A span of the same trace.
    pub fn child(self) -> Self {
        Self { span: span_id(), ..self }
    }
}

/// A random id; not all zeros, since the bits by which a UUID tells its variant are in it.
fn span_id() -> [u8; 8] {
    let [.., a, b, c, d, e, f, g, h] = Uuid::new_v4().into_bytes();
    [a, b, c, d, e, f, g, h]
}

/// What a caller says of its own trace: the header `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The caller's span.
    pub context: SpanContext,
    /// Whether the caller keeps its trace.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads `version-trace-span-flags` in lower-case hex; what a later version appends is passed over. `None` for what
    /// is none, which is treated as if it had not been sent.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let [version] = bytes::<1>(parts.next()?)?;
        let context = SpanContext { trace: bytes(parts.next()?)?, span: bytes(parts.next()?)? };
        let [flags] = bytes::<1>(parts.next()?)?;
        let is_whole = version != 0xff && (version != 0 || parts.next().is_none());
        let is_named = context.trace != [0; 16] && context.span != [0; 8];
        (is_whole && is_named).then_some(Self { context, sampled: flags & 1 == 1 })
    }
}

/// `N` bytes from exactly `2 N` lower-case hex digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (mut read, digits) = ([0; N], text.as_bytes());
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in read.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(read)
}

/// A request's span, for what is traced under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSpan {
    /// Its place.
    pub context: SpanContext,
    /// The caller's span, if it named one.
    pub parent: Option<SpanContext>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_as_w3c_writes_it() {
        let parent = TraceParent::parse(W3C).unwrap();
        assert_eq!(parent.context.trace[..2], [0x0a, 0xf7]);
        assert_eq!(parent.context.span[6..], [0x33, 0x31]);
        assert!(parent.sampled);
        assert!(!TraceParent::parse(&W3C.replace("-01", "-00")).unwrap().sampled);
        let later = W3C.replacen("00", "cc", 1) + "-what-comes-later";
        assert_eq!(TraceParent::parse(&later), Some(parent));
    }

    #[test]
    fn what_is_no_traceparent_is_as_good_as_none() {
        let zeros = |digits: &str| W3C.replace(digits, &"0".repeat(digits.len()));
        for wrong in [
            "",
            "00",
            &W3C[..W3C.len() - 3],
            &W3C.to_uppercase(),
            &W3C.replacen("00", "ff", 1),
            &format!("{W3C}-more"),
            &W3C.replace("b7ad", "b7ag"),
            &W3C.replace("b7ad", "b7"),
            &zeros("0af7651916cd43dd8448eb211c80319c"),
            &zeros("b7ad6b7169203331"),
        ] {
            assert_eq!(TraceParent::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_child_is_another_span_of_the_same_trace() {
        let root = SpanContext::root();
        let child = root.child();
        assert_eq!(child.trace, root.trace);
        assert_ne!(child.span, root.span);
        assert_ne!(SpanContext::root().trace, root.trace);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = TraceParent::parse(&text);
        }
    }
}
