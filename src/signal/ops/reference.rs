//! Channels against what they have in common, or against each other, sample by sample. A missing value (NaN) is in no
//! reference and has none.

use super::Columns;
use crate::error::{clip, there_is};
use crate::signal::op::ReferenceKind;
use crate::signal::refusal::OpError;

/// A reference; it has no memory.
#[derive(Clone, Debug)]
pub struct Reference {
    shape: Shape,
    /// Good values of one set, used again.
    good: Vec<f64>,
}

#[derive(Clone, Debug)]
enum Shape {
    /// Less the average or the median of the good channels of each set.
    Common { median: bool, sets: Vec<Vec<usize>> },
    /// First less second of each pair; a row becomes as wide as there are pairs.
    Bipolar { pairs: Vec<(usize, usize)>, channels: usize, out: Vec<f64> },
}

impl Reference {
    /// A reference over `columns`, which become the pairs where it is bipolar.
    /// Errors: a channel without a group (`by = "group"`), a pair of unknown channels.
    pub fn new(
        kind: ReferenceKind,
        by_group: bool,
        pairs: &[(String, String)],
        columns: &mut Columns,
    ) -> Result<Self, OpError> {
        let channels = columns.count();
        let shape = match kind {
            ReferenceKind::Bipolar => {
                let pairs = pairs
                    .iter()
                    .map(|(first, second)| Ok((columns.find(first)?, columns.find(second)?)))
                    .collect::<Result<Vec<_>, OpError>>()?;
                columns.pair(&pairs);
                Shape::Bipolar { pairs, channels, out: Vec::new() }
            }
            ReferenceKind::CommonAverage | ReferenceKind::CommonMedian => {
                let sets = if by_group { columns.groups()? } else { vec![(0..channels).collect()] };
                Shape::Common { median: kind == ReferenceKind::CommonMedian, sets }
            }
        };
        Ok(Self { shape, good: Vec::new() })
    }

    /// Rows in place, `[n, channels]`; `[n, pairs]` afterwards where it is bipolar.
    pub fn run(&mut self, rows: &mut Vec<f64>) {
        match &mut self.shape {
            Shape::Common { median, sets } => {
                let channels: usize = sets.iter().map(Vec::len).sum();
                for row in rows.chunks_exact_mut(channels) {
                    for set in sets.iter() {
                        self.good.clear();
                        self.good.extend(set.iter().map(|&c| row[c]).filter(|x| !x.is_nan()));
                        if !self.good.is_empty() {
                            let level = if *median { middle(&mut self.good) } else { mean(&self.good) };
                            set.iter().for_each(|&c| row[c] -= level);
                        }
                    }
                }
            }
            Shape::Bipolar { pairs, channels, out } => {
                out.clear();
                for row in rows.chunks_exact(*channels) {
                    out.extend(pairs.iter().map(|&(first, second)| row[first] - row[second]));
                }
                std::mem::swap(rows, out);
            }
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The median; the mean of the two middle ones where their number is even. Reorders.
pub(super) fn middle(values: &mut [f64]) -> f64 {
    let half = values.len() / 2;
    let is_even = values.len().is_multiple_of(2);
    let (below, &mut upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    if !is_even {
        return upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(upper);
    (lower + upper) / 2.0
}

impl Columns {
    fn find(&self, name: &str) -> Result<usize, OpError> {
        self.names.iter().position(|known| known == name).ok_or_else(|| {
            let there = there_is(name, self.names.iter().map(String::as_str));
            OpError::new("pairs", format!("names of channels ({there})"), format!("`{}`", clip(name)))
        })
    }

    /// The columns of each group, in the order of their first channels.
    fn groups(&self) -> Result<Vec<Vec<usize>>, OpError> {
        let mut sets: Vec<(&str, Vec<usize>)> = Vec::new();
        for (c, group) in self.groups.iter().enumerate() {
            if group.is_empty() {
                let found = format!("none for `{}`", clip(&self.names[c]));
                return Err(OpError::new("by", "a group for every channel", found));
            }
            match sets.iter_mut().find(|(known, _)| known == group) {
                Some((_, set)) => set.push(c),
                None => sets.push((group, vec![c])),
            }
        }
        Ok(sets.into_iter().map(|(_, set)| set).collect())
    }

    fn pair(&mut self, pairs: &[(usize, usize)]) {
        let one = |(first, second): &(usize, usize)| {
            let origins = [&self.origins[*first][..], &self.origins[*second]].concat();
            (format!("{}-{}", self.names[*first], self.names[*second]), String::new(), origins)
        };
        *self = pairs.iter().map(one).collect();
    }
}
