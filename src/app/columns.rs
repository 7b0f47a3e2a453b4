//! Frames whose rows came as columns: which column is which channel.

use std::collections::{HashMap, HashSet};

use super::live::Live;
use super::way_in::named;
use crate::domain::caller::Caller;
use crate::domain::signal::SignalSpec;
use crate::error::Fault;
use crate::wire::columns::Columns;
use crate::wire::v1;

impl Live {
    /// The frame with rows that came as columns. A column belongs to the signal's channel of its name; by its place only
    /// where the session takes channels so. Errors: `not_found` (session, signal), `invalid` (other columns).
    pub fn with_columns(
        &self,
        _: &Caller,
        session: &str,
        frame: v1::Frame,
        columns: &Columns,
    ) -> Result<v1::Frame, Fault> {
        let session = self.table.get(session)?;
        let about = |fault: Fault| fault.about(&frame.signal, frame.seq);
        let signal = session.signal(&frame.signal).map_err(about)?;
        let refused = |fault| about(fault).expecting(session.next_seq(signal));
        let by_place = session.opened.resolved.as_ref().is_some_and(|open| open.channels_by == "order");
        let order = order(&session.signals[signal], columns, by_place).map_err(refused)?;
        let count = columns.rows as u32;
        if frame.count != 0 && frame.count != count {
            let expected = format!("{count}, the rows of the batch, or nothing");
            return Err(refused(Fault::mismatch("count", expected, frame.count.to_string())));
        }
        Ok(v1::Frame { count, tensor: Some(columns.tensor(&order)), ..frame })
    }
}

/// For each channel of the signal the number of its column.
fn order(spec: &SignalSpec, columns: &Columns, by_place: bool) -> Result<Vec<usize>, Fault> {
    let names = || columns.names.iter().map(String::as_str);
    let places: HashMap<&str, usize> = names().zip(0..).collect();
    let channels = || spec.channels.iter().map(|channel| channel.name.as_str());
    let found = channels().map(|name| places.get(name).copied()).collect::<Option<Vec<_>>>();
    match found {
        Some(order) if order.len() == columns.names.len() && places.len() == order.len() => Ok(order),
        _ if by_place => Ok((0..columns.names.len()).collect()),
        _ => {
            let told = channels().collect::<HashSet<_>>();
            let missing = channels().filter(|name| !places.contains_key(name)).take(5);
            let other = names().filter(|name| !told.contains(name)).take(5);
            let detail = format!(
                "{} columns; without one: {}; of no channel: {}",
                columns.names.len(),
                named(missing),
                named(other)
            );
            let expected =
                format!("a column for each of the {} channels of {}", spec.channels.len(), spec.name);
            Err(Fault::mismatch("columns", expected, detail))
        }
    }
}
