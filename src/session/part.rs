//! Consecutive bins on their way into an answer.

use bytes::Bytes;

use crate::domain::output::Flags;
use crate::readout::Column;
use crate::wire::v1;

/// A row of bins without a hole, and the unfilled gap directly before it.
#[derive(Debug)]
pub struct Part {
    /// Bins skipped directly before `first_bin`.
    pub skipped_bins: u64,
    /// Its first bin; with no bins, the next to close.
    pub first_bin: u64,
    /// One per bin.
    pub flags: Vec<u32>,
    /// By the plan's outputs; `None` where nobody wants it.
    pub columns: Vec<Option<Column>>,
}

impl Part {
    /// A part that no bin has entered yet.
    pub fn new(skipped_bins: u64, first_bin: u64, columns: Vec<Option<Column>>) -> Self {
        Self { skipped_bins, first_bin, flags: Vec::new(), columns }
    }

    /// Number of bins.
    pub fn n(&self) -> u64 {
        self.flags.len() as u64
    }

    /// Sets a flag on every bin.
    pub fn flag_all(&mut self, flag: Flags) {
        self.flags.iter_mut().for_each(|flags| *flags |= flag.0);
    }

    /// Whether `next` goes on where this one ends.
    pub fn joins(&self, next: &Part) -> bool {
        next.first_bin == self.first_bin + self.n() && (next.skipped_bins == 0 || self.flags.is_empty())
    }

    /// Appends a part that joins.
    pub fn join(&mut self, next: Part) {
        if self.flags.is_empty() {
            let skipped_bins = self.skipped_bins + next.skipped_bins;
            *self = Part { skipped_bins, ..next };
            return;
        }
        self.flags.extend(next.flags);
        for (column, more) in self.columns.iter_mut().zip(next.columns) {
            if let (Some(column), Some(more)) = (column, more) {
                column.bytes.extend(more.bytes);
            }
        }
    }

    /// As the wire's message, without what only the session knows (cause, lag, durable). `wanted` by output number.
    pub fn message(self, wanted: &[bool]) -> v1::Output {
        let n = self.flags.len() as u32;
        let blocks = self
            .columns
            .into_iter()
            .flatten()
            .filter(|column| n > 0 && wanted[column.number as usize])
            .map(|column| {
                let mut shape = Vec::with_capacity(1 + column.dims.len());
                shape.push(n);
                shape.extend_from_slice(&column.dims);
                v1::Block {
                    output: column.number,
                    tensor: Some(v1::Tensor {
                        dtype: column.dtype.word().into(),
                        shape,
                        raw: Bytes::from(column.bytes),
                        values: Vec::new(),
                    }),
                    ..Default::default()
                }
            })
            .collect();
        v1::Output {
            first_bin: self.first_bin,
            n,
            skipped_bins: self.skipped_bins,
            flags: self.flags,
            blocks,
            ..Default::default()
        }
    }
}
