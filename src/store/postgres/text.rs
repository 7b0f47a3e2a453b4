//! Text with a NUL in it, which PostgreSQL cannot hold and a rig may send.
//! NUL is written as `MARK` and `0`, `MARK` itself twice; all other text stands as it is.

use std::borrow::Cow;

use crate::domain::ids::SignalName;
use crate::store::event::EventEntry;
use crate::store::record::Annotation;
use crate::store::run::RunRecord;

/// A code point that stands for no character and never will.
const MARK: char = '\u{FFFE}';

/// As it is written into the database.
pub(super) fn stored(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', MARK]) {
        return text.into();
    }
    let mut stored = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\0' => stored.extend([MARK, '0']),
            MARK => stored.extend([MARK, MARK]),
            c => stored.push(c),
        }
    }
    stored.into()
}

/// As it was given. What `stored` did not write stands as it is.
fn restore(text: &mut String) {
    if !text.contains(MARK) {
        return;
    }
    let mut given = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            (MARK, Some('0')) => {
                chars.next();
                given.push('\0');
            }
            (MARK, Some(&MARK)) => {
                chars.next();
                given.push(MARK);
            }
            _ => given.push(c),
        }
    }
    *text = given;
}

/// A run's text as it was given.
pub(super) fn run(mut record: RunRecord) -> RunRecord {
    let head = &mut record.head;
    [&mut head.rig, &mut head.engine, &mut head.notes, &mut head.resolved].into_iter().for_each(restore);
    record.summary.iter_mut().for_each(restore);
    record
}

/// An event's text as it was given.
pub(super) fn event(mut entry: EventEntry) -> EventEntry {
    restore(&mut entry.detail);
    entry.signal = entry.signal.map(|name| {
        let mut name = name.as_str().to_owned();
        restore(&mut name);
        SignalName::new(name)
    });
    entry
}

/// An annotation's text as it was given.
pub(super) fn annotation(mut annotation: Annotation) -> Annotation {
    restore(&mut annotation.label);
    restore(&mut annotation.body);
    annotation
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_comes_back_and_is_stored_without_nul(text in "[a0\\x00\u{FFFE}]{0,12}") {
            let mut there = stored(&text).into_owned();
            prop_assert!(!there.contains('\0'));
            restore(&mut there);
            prop_assert_eq!(there, text);
        }
    }

    #[test]
    fn plain_text_stands_as_it_is() {
        assert!(matches!(stored("rig-1 µV"), Cow::Borrowed("rig-1 µV")));
        let mut foreign = format!("a{MARK}b{MARK}");
        restore(&mut foreign);
        assert_eq!(foreign, format!("a{MARK}b{MARK}"));
    }
}
