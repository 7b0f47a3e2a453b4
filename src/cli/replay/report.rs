//! What a play collected: outputs bin by bin, flags, lags, notices, faults.

use std::collections::BTreeMap;

use crate::domain::output::Flags;
use crate::error::Fault;
use crate::wire::{tensor, v1};

/// A played recording, as its rig saw it.
#[derive(Clone, Debug)]
pub struct PlayReport {
    /// The session that it was.
    pub session: String,
    /// The run that was recorded, if it was.
    pub run: Option<String>,
    /// What open answered.
    pub opened: v1::OpenReply,
    /// Width of a bin (ns): as told, else by how many were over when; `None` where no bin was answered.
    pub bin_ns: Option<u64>,
    /// Start of bin 0 (device ns).
    pub t0_ns: i64,
    /// What was answered.
    pub answers: Answers,
    /// Lag of each answer that closed bins, in the order of coming.
    pub lags: Vec<AnswerLag>,
    /// Events of the session.
    pub notices: Vec<v1::Notice>,
    /// Faults about single frames that did not end the play.
    pub faults: Vec<v1::Fault>,
    /// Frames sent, each once.
    pub frames: u64,
    /// Frames sent again.
    pub resent: u64,
    /// Times the stream was attached anew.
    pub reattached: u32,
    /// How far the player fell behind real time at worst (s).
    pub behind_s: f64,
    /// How long it took (s).
    pub wall_s: f64,
    /// What close answered.
    pub closed: v1::CloseReply,
}

/// The lag of one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerLag {
    /// The frame's signal.
    pub signal: String,
    /// The frame; `None`: pushed because a signal was missing.
    pub seq: Option<u64>,
    /// Bins that it closed.
    pub bins: u32,
    /// From sending the frame to having the answer (µs).
    pub round_trip_us: Option<f64>,
    /// What the server says of it (µs).
    pub server: v1::Lag,
    /// Device time of the bin's end to output (µs), after a clock exchange.
    pub age_us: Option<f64>,
}

/// All outputs over the bins that were answered, from `first_bin` on without a hole: a skipped bin is NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// The first bin answered.
    pub first_bin: u64,
    /// Flags of each bin; `None`: skipped.
    pub flags: Vec<Option<Flags>>,
    /// Dense outputs by name.
    pub outputs: BTreeMap<String, Series>,
    /// Sparse outputs by name: per bin the active (index, value).
    pub features: BTreeMap<String, Vec<Vec<(u32, f32)>>>,
}

/// One dense output, `[bins, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What open said of it.
    pub spec: v1::OutputSpec,
    /// Values per bin: the product of `spec.dims`.
    pub width: usize,
    /// Row-major, bin by bin; every dtype widened to f64.
    pub values: Vec<f64>,
}

impl Series {
    /// The values of the `i`-th bin from the first; `None` past the end.
    pub fn row(&self, i: usize) -> Option<&[f64]> {
        self.values.get(i * self.width..(i + 1) * self.width)
    }

    /// Label of a value, or its number.
    pub fn label(&self, i: usize) -> String {
        self.spec.labels.get(i).filter(|label| !label.is_empty()).cloned().unwrap_or_else(|| i.to_string())
    }
}

impl Answers {
    /// No answers yet to a session with these outputs.
    pub fn new(specs: &[v1::OutputSpec]) -> Self {
        let mut answers = Answers::default();
        for spec in specs {
            if spec.sparse {
                answers.features.insert(spec.name.clone(), Vec::new());
            } else {
                let width = spec.dims.iter().map(|&axis| axis as usize).product();
                let series = Series { spec: spec.clone(), width, values: Vec::new() };
                answers.outputs.insert(spec.name.clone(), series);
            }
        }
        answers
    }

    /// Bins answered or skipped.
    pub fn bins(&self) -> usize {
        self.flags.len()
    }

    /// Bins answered.
    pub fn answered(&self) -> usize {
        self.flags.iter().flatten().count()
    }

    /// Answered bins that carry any of `flags`.
    pub fn flagged(&self, flags: Flags) -> usize {
        self.flags.iter().flatten().filter(|found| found.0 & flags.0 != 0).count()
    }

    /// Takes an answer in. Bins that are there already (an answer that came twice) are passed over; what lies between the
    /// last bin and this answer is skipped. Errors: a block that its spec does not fit.
    pub fn take(&mut self, output: &v1::Output, specs: &[v1::OutputSpec]) -> Result<(), Fault> {
        if output.n == 0 {
            return Ok(());
        }
        if self.flags.is_empty() {
            self.first_bin = output.first_bin;
        }
        let next = self.first_bin + self.flags.len() as u64;
        let known = next.saturating_sub(output.first_bin).min(u64::from(output.n)) as usize;
        let bins = output.n as usize;
        if known == bins {
            return Ok(());
        }
        if output.flags.len() != bins {
            let expected = format!("one per bin: {bins}");
            return Err(Fault::mismatch("flags", expected, output.flags.len().to_string()));
        }
        self.skip(output.first_bin.saturating_sub(next) as usize);
        for block in &output.blocks {
            let Some(series) = named(specs, block.output, &mut self.outputs) else { continue };
            let name = format!("block {}", block.output);
            let values =
                tensor::host(&name, block.tensor.as_ref().unwrap_or(&v1::Tensor::default()))?.to_f64();
            if values.len() != bins * series.width {
                let expected = format!("{bins} bins of {} values", series.width);
                return Err(Fault::mismatch(name, expected, format!("{} values", values.len())));
            }
            series.values.extend_from_slice(&values[known * series.width..]);
        }
        for rows in &output.features {
            let Some(features) = named(specs, rows.output, &mut self.features) else { continue };
            for bounds in rows.row_offsets.windows(2).skip(known) {
                let within = bounds[0] as usize..bounds[1] as usize;
                let (index, value) = (rows.index.get(within.clone()), rows.value.get(within));
                let pairs = index.unwrap_or_default().iter().zip(value.unwrap_or_default());
                features.push(pairs.map(|(&index, &value)| (index, value)).collect());
            }
        }
        self.flags.extend(output.flags[known..].iter().map(|&flags| Some(Flags(flags))));
        self.level();
        Ok(())
    }

    /// Adds bins that were skipped.
    fn skip(&mut self, bins: usize) {
        self.flags.extend(std::iter::repeat_n(None, bins));
        self.level();
    }

    /// Makes every output as long as the flags: what an answer left out is NaN.
    fn level(&mut self) {
        let bins = self.flags.len();
        self.outputs.values_mut().for_each(|series| series.values.resize(bins * series.width, f64::NAN));
        self.features.values_mut().for_each(|rows| rows.resize(bins, Vec::new()));
    }
}

/// The collection that a block's number names.
fn named<'a, T>(
    specs: &[v1::OutputSpec],
    number: u32,
    all: &'a mut BTreeMap<String, T>,
) -> Option<&'a mut T> {
    let spec = specs.iter().find(|spec| spec.number == number)?;
    all.get_mut(&spec.name)
}

/// Percentiles of a series of lags.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Percentiles {
    /// Half of all are at or below.
    pub p50: f64,
    /// 99 of 100 are at or below.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// How many there were.
    pub n: usize,
}

impl Percentiles {
    /// Percentiles by nearest rank; all 0 of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let rank = |share: f64| values.get(((share * n as f64).ceil() as usize).saturating_sub(1));
        let at = |share| rank(share).copied().unwrap_or_default();
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0), n }
    }
}

impl PlayReport {
    /// Round trips of the answers that closed bins, as the client measured them (µs).
    pub fn round_trip_us(&self) -> Percentiles {
        Percentiles::of(self.lags.iter().filter_map(|lag| lag.round_trip_us))
    }

    /// The server's own lag of the same answers (µs).
    pub fn server_lag_us(&self) -> Percentiles {
        Percentiles::of(self.lags.iter().map(|lag| lag.server.total))
    }

    /// Stretches of skipped bins: (first, length).
    pub fn skipped(&self) -> Vec<(u64, u64)> {
        let mut stretches: Vec<(u64, u64)> = Vec::new();
        for (bin, flags) in (self.answers.first_bin..).zip(&self.answers.flags) {
            match stretches.last_mut() {
                _ if flags.is_some() => {}
                Some((first, bins)) if *first + *bins == bin => *bins += 1,
                _ => stretches.push((bin, 1)),
            }
        }
        stretches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tensor::Tensor;

    fn specs() -> Vec<v1::OutputSpec> {
        let dense = v1::OutputSpec { name: "latent".into(), dims: vec![2], ..Default::default() };
        let sparse =
            v1::OutputSpec { number: 1, name: "features".into(), sparse: true, ..Default::default() };
        vec![dense, sparse]
    }

    fn output(first_bin: u64, n: u32) -> v1::Output {
        let values: Vec<f32> = (0..2 * n).map(|i| (first_bin * 2) as f32 + i as f32).collect();
        let block = tensor::message(&Tensor::from_f32(&[n as usize, 2], &values));
        v1::Output {
            first_bin,
            n,
            flags: (0..n).map(|i| first_bin as u32 + i).collect(),
            blocks: vec![v1::Block { output: 0, tensor: Some(block), ..Default::default() }],
            features: vec![v1::Features {
                output: 1,
                row_offsets: (0..=n).collect(),
                index: (0..n).map(|i| 100 + first_bin as u32 + i).collect(),
                value: vec![1.0; n as usize],
            }],
            ..Default::default()
        }
    }

    #[test]
    fn an_answer_that_came_twice_counts_once_and_what_was_skipped_is_nan() {
        let specs = specs();
        let mut answers = Answers::new(&specs);
        for (first_bin, n) in [(3, 2), (3, 2), (4, 2), (8, 1)] {
            answers.take(&output(first_bin, n), &specs).unwrap();
        }
        answers.take(&v1::Output { first_bin: 9, n: 0, ..Default::default() }, &specs).unwrap();
        assert_eq!((answers.first_bin, answers.bins(), answers.answered()), (3, 6, 4));
        let latent = &answers.outputs["latent"];
        assert_eq!(latent.row(0), Some([6.0, 7.0].as_slice()));
        assert_eq!(latent.row(2), Some([10.0, 11.0].as_slice()));
        assert!(latent.row(3).unwrap().iter().all(|value| value.is_nan()));
        assert_eq!(latent.row(5), Some([16.0, 17.0].as_slice()));
        assert_eq!(answers.features["features"][5], [(108, 1.0)]);
        assert!(answers.features["features"][4].is_empty());
    }

    #[test]
    fn a_block_that_does_not_fit_its_spec_is_refused() {
        let specs = specs();
        let mut wrong = output(0, 2);
        wrong.blocks[0].tensor = Some(tensor::message(&Tensor::from_f32(&[2], &[1.0, 2.0])));
        let fault = Answers::new(&specs).take(&wrong, &specs).unwrap_err();
        assert_eq!(fault.detail, "block 0: expected 2 bins of 2 values, found 2 values");
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let got = Percentiles::of((1..=200).map(f64::from));
        assert_eq!(got, Percentiles { p50: 100.0, p99: 198.0, max: 200.0, n: 200 });
        assert_eq!(Percentiles::of([]), Percentiles::default());
    }
}
