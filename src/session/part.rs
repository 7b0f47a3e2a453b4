//! Consecutive bins on their way into an answer: open while they are stepped, then shared by all who are told of them.

use bytes::{Bytes, BytesMut};

use crate::domain::output::Flags;
use crate::domain::tensor::Dtype;
use crate::readout::Column;
use crate::wire::v1;

/// Bins that are being stepped, without a hole, and the unfilled gap directly before them.
#[derive(Debug)]
pub struct OpenPart {
    /// Bins skipped directly before `first_bin`.
    pub skipped_bins: u64,
    /// Its first bin.
    pub first_bin: u64,
    /// One per bin.
    pub flags: Vec<u32>,
    /// By the plan's outputs; `None` where nobody wants it.
    pub columns: Vec<Option<Column>>,
}

impl OpenPart {
    /// A part that no bin has entered yet.
    pub fn new(skipped_bins: u64, first_bin: u64, columns: Vec<Option<Column>>) -> Self {
        Self { skipped_bins, first_bin, flags: Vec::new(), columns }
    }

    /// Whether bin `k` follows on its last.
    pub fn goes_on_with(&self, k: u64) -> bool {
        !self.flags.is_empty() && self.first_bin + self.flags.len() as u64 == k
    }

    /// No bin enters any more.
    pub fn seal(self) -> Part {
        let values = self.columns.into_iter().flatten().map(|column| Values {
            number: column.number,
            dtype: column.dtype,
            dims: column.dims,
            raw: Bytes::from(column.bytes),
        });
        let values = values.collect();
        Part { skipped_bins: self.skipped_bins, first_bin: self.first_bin, flags: self.flags, values }
    }
}

/// A row of bins without a hole, and the unfilled gap directly before it. A clone shares the values.
#[derive(Clone, Debug)]
pub struct Part {
    /// Bins skipped directly before `first_bin`.
    pub skipped_bins: u64,
    /// Its first bin; with no bins, the next to close.
    pub first_bin: u64,
    /// One per bin.
    pub flags: Vec<u32>,
    /// Of the outputs that somebody wanted, by number.
    pub values: Vec<Values>,
}

/// The values of one output over a part's bins.
#[derive(Clone, Debug)]
pub struct Values {
    /// The output's number in its pipeline.
    pub number: u32,
    /// Element type.
    pub dtype: Dtype,
    /// Shape of one bin.
    pub dims: Vec<u32>,
    /// `[bins, dims…]`, row-major, little-endian.
    pub raw: Bytes,
}

impl Part {
    /// A part without bins: `next_bin` is the next to close.
    pub fn empty(skipped_bins: u64, next_bin: u64) -> Self {
        Self { skipped_bins, first_bin: next_bin, flags: Vec::new(), values: Vec::new() }
    }

    /// Number of bins.
    pub fn n(&self) -> u64 {
        self.flags.len() as u64
    }

    /// Sets a flag on every bin.
    pub fn flag_all(&mut self, flag: Flags) {
        self.flags.iter_mut().for_each(|flags| *flags |= flag.0);
    }

    /// Joins parts that go on from one another.
    pub fn join(parts: impl IntoIterator<Item = Part>) -> Vec<Part> {
        let mut rows: Vec<Vec<Part>> = Vec::new();
        for part in parts {
            match rows.last_mut() {
                Some(row) if goes_on(row, &part) => row.push(part),
                _ => rows.push(vec![part]),
            }
        }
        rows.into_iter().map(Part::of_row).collect()
    }

    /// Parts that go on from one another as one. At least one.
    fn of_row(mut row: Vec<Part>) -> Part {
        let skipped_bins = row.iter().map(|part| part.skipped_bins).sum();
        // Those without bins say nothing but what was skipped.
        if row.iter().any(|part| part.n() > 0) {
            row.retain(|part| part.n() > 0);
        }
        if row.len() == 1 || row.iter().all(|part| part.n() == 0) {
            let last = row.pop().expect("a row has a part");
            return Part { skipped_bins, ..last };
        }
        let (first, rest) = (&row[0], &row[1..]);
        let values = first.values.iter().filter_map(|values| {
            let others = rest.iter().map(|part| part.values_of(values.number));
            let others: Vec<&Values> = others.collect::<Option<_>>()?;
            let mut raw = BytesMut::with_capacity(
                values.raw.len() + others.iter().map(|other| other.raw.len()).sum::<usize>(),
            );
            raw.extend_from_slice(&values.raw);
            others.iter().for_each(|other| raw.extend_from_slice(&other.raw));
            Some(Values { raw: raw.freeze(), ..values.clone() })
        });
        Part {
            skipped_bins,
            first_bin: first.first_bin,
            flags: row.iter().flat_map(|part| part.flags.iter().copied()).collect(),
            values: values.collect(),
        }
    }

    /// The values of an output, if somebody wanted it when the part was opened.
    pub fn values_of(&self, number: u32) -> Option<&Values> {
        self.values.iter().find(|values| values.number == number)
    }

    /// As the wire's message, without what only the session knows (cause, lag, durable). `wanted` by output number.
    pub fn message(self, wanted: &[bool]) -> v1::Output {
        let n = self.flags.len() as u32;
        let blocks = self.values.into_iter().filter(|values| n > 0 && wanted[values.number as usize]);
        v1::Output {
            first_bin: self.first_bin,
            n,
            skipped_bins: self.skipped_bins,
            flags: self.flags,
            blocks: blocks.map(|values| values.block(n)).collect(),
            ..Default::default()
        }
    }
}

/// Whether `next` goes on where the parts of `row` end.
fn goes_on(row: &[Part], next: &Part) -> bool {
    row.last().is_some_and(|last| next.first_bin == last.first_bin + last.n())
        && (next.skipped_bins == 0 || row.iter().all(|part| part.n() == 0))
}

impl Values {
    /// As a block of `n` bins.
    fn block(self, n: u32) -> v1::Block {
        let mut shape = Vec::with_capacity(1 + self.dims.len());
        shape.push(n);
        shape.extend_from_slice(&self.dims);
        let tensor = v1::Tensor { dtype: self.dtype.word().into(), shape, raw: self.raw, values: Vec::new() };
        v1::Block { output: self.number, tensor: Some(tensor), ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(skipped_bins: u64, first_bin: u64, flags: &[u32]) -> Part {
        let raw = flags.iter().map(|flags| *flags as u8).collect::<Vec<u8>>().into();
        let values = vec![Values { number: 0, dtype: Dtype::U8, dims: Vec::new(), raw }];
        Part { skipped_bins, first_bin, flags: flags.to_vec(), values }
    }

    #[test]
    fn parts_that_go_on_from_one_another_are_joined_and_a_gap_divides_them() {
        let parts = [
            Part::empty(3, 7),
            part(2, 7, &[1]),
            part(0, 8, &[2, 3]),
            part(4, 14, &[4]),
            Part::empty(0, 15),
            part(0, 15, &[5]),
            Part::empty(6, 22),
        ];
        let joined = Part::join(parts);
        let told: Vec<_> =
            joined.iter().map(|part| (part.skipped_bins, part.first_bin, part.flags.clone())).collect();
        assert_eq!(
            told,
            [(5, 7, vec![1, 2, 3]), (4, 14, vec![4, 5]), (6, 22, vec![])],
            "skipped, first bin, flags"
        );
        assert_eq!(joined[0].values[0].raw[..], [1, 2, 3]);
        assert_eq!(joined[1].values[0].raw[..], [4, 5]);
    }
}
