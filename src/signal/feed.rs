//! One input: from what came for a bin to the row that the model is given.

use super::chain::Chain;
use super::input::{Fill, InputSpec};
use super::montage::Montage;
use super::open_bins::OpenBin;
use super::step::InputRow;
use crate::domain::output::Flags;
use crate::domain::settings::NanPolicy;
use crate::domain::signal::{SignalSpec, SignalType};

/// An input with its preprocessing and what it fills with.
#[derive(Clone, Debug)]
pub struct Feed {
    /// As the manifest declares it.
    pub spec: InputSpec,
    /// The track that feeds it.
    pub track: usize,
    /// Channels of the signal to channels of the input.
    pub montage: Montage,
    /// Preprocessing.
    pub chain: Chain,
    /// Some value of the last bin was not finite.
    pub nan_before: bool,
    /// Nothing came means that nothing happened.
    events: bool,
    /// Counts of 0, in the signal's channels.
    nothing: Vec<f64>,
    has_absent: bool,
    filling: Filling,
    /// What the values of the bin in hand come from.
    values: Vec<f64>,
    rows: Vec<f64>,
    state: Vec<Value>,
}

/// What came for one channel of one bin; of several channels the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Good,
    NotFinite,
    Masked,
}

/// What values are filled with.
#[derive(Clone, Debug, Default)]
struct Filling {
    /// The last row as the model was given it; empty before the first.
    row: Vec<f32>,
    /// Its mask.
    mask: Vec<bool>,
    /// The last good value of each.
    last: Vec<f32>,
    /// Sum and count of the good values of each.
    sum: Vec<f64>,
    good: Vec<u64>,
}

/// How a whole row is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// The last row; the input's fill where there is none.
    Hold,
    /// 0.
    Zero,
    /// The input's fill, every channel masked.
    Fill,
}

impl Feed {
    /// A feed at its beginning.
    pub fn new(spec: InputSpec, track: usize, from: &SignalSpec, montage: Montage, chain: Chain) -> Self {
        let has_absent = (0..montage.channels()).any(|c| montage.is_absent(c));
        let filling = Filling::new(chain.width());
        let raw_width = montage.raw_width();
        let (values, rows, state) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            spec,
            track,
            montage,
            chain,
            nan_before: false,
            events: matches!(from.kind, SignalType::SpikeEvents | SignalType::AddressEvents),
            nothing: vec![0.0; raw_width],
            has_absent,
            filling,
            values,
            rows,
            state,
        }
    }

    /// The row of a bin that came whole. `bin`: `None` where no event came.
    pub fn row(&mut self, bin: Option<&OpenBin>, nan: NanPolicy, flags: &mut Flags) -> InputRow {
        self.lay_out(bin);
        self.chain.sample(&mut self.rows, bin.map_or(&[], |bin| &bin.index));
        let mut values = std::mem::take(&mut self.values);
        self.chain.bin(&self.rows, &mut values);
        let row = self.finish(&values, nan, flags);
        self.values = values;
        row
    }

    /// Raw samples to rows of the input; what is masked, or not finite as f32, is NaN there and noted.
    fn lay_out(&mut self, bin: Option<&OpenBin>) {
        self.rows.clear();
        self.state.clear();
        self.state.resize(self.montage.width(), Value::Good);
        let mut masked: &[bool] = &[];
        if let Some(bin) = bin {
            bin.rows.chunks_exact(self.nothing.len()).for_each(|raw| self.montage.apply(raw, &mut self.rows));
            masked = &bin.masked;
        }
        if self.rows.is_empty() && self.events {
            self.montage.apply(&self.nothing, &mut self.rows);
        }
        if self.has_absent || !masked.is_empty() {
            // A camera's one mask is that of all its planes.
            let is_masked = |channel: usize| masked.get(channel).or(masked.last()) == Some(&true);
            for (c, states) in self.state.chunks_exact_mut(self.montage.pixels()).enumerate() {
                let terms = self.montage.terms(c);
                if terms.is_empty() || terms.iter().any(|term| is_masked(term.channel)) {
                    states.fill(Value::Masked);
                }
            }
        }
        // Most bins are whole: a look at all values at once is cheaper than at each.
        let is_far = |x: &f64| x.is_nan() || x.abs() >= f64::from(f32::MAX);
        let lacks = |values: &[f64]| values.iter().fold(false, |lacks, x| lacks | is_far(x));
        if self.state.iter().all(|state| *state == Value::Good) && !self.rows.chunks(256).any(lacks) {
            return;
        }
        for row in self.rows.chunks_exact_mut(self.state.len()) {
            for (x, state) in row.iter_mut().zip(&mut self.state) {
                match state {
                    Value::Masked => *x = f64::NAN,
                    _ if (*x as f32).is_finite() => {}
                    _ => (*x, *state) = (f64::NAN, Value::NotFinite),
                }
            }
        }
    }

    fn finish(&mut self, values: &[f64], nan: NanPolicy, flags: &mut Flags) -> InputRow {
        for (j, value) in values.iter().enumerate() {
            // NaN: the chain gives no value. Beyond f32: it gives one that the model cannot be given.
            if !value.is_nan() && !(*value as f32).is_finite() {
                for c in self.chain.origins(j) {
                    self.state[*c] = self.state[*c].max(Value::NotFinite);
                }
            }
        }
        let all_good = self.state.iter().all(|state| *state == Value::Good);
        let warming_up = self.chain.warming_up();
        let mut masked = false;
        let mut row = InputRow {
            values: Vec::with_capacity(values.len()),
            mask: Vec::with_capacity(values.len()),
            present: true,
            cofiring: None,
        };
        for (j, &value) in values.iter().enumerate() {
            let narrow = value as f32;
            let of_channels = || self.chain.origins(j).iter().map(|c| self.state[*c]).max();
            let state = if all_good { Value::Good } else { of_channels().unwrap_or(Value::Good) };
            let (filled, good) = match state {
                Value::Good if narrow.is_finite() => {
                    self.filling.saw(j, narrow);
                    (narrow, true)
                }
                Value::NotFinite if nan == NanPolicy::Hold => (self.filling.last(j, self.spec.fill), true),
                Value::NotFinite if nan == NanPolicy::Zero => (0.0, true),
                _ => (self.filling.fill(j, self.spec.fill), false),
            };
            row.values.push(filled);
            row.mask.push(good);
            // What a window that is not full does not give yet is not masked.
            masked |= !good && (state != Value::Good || !warming_up);
        }
        let not_finite = self.state.contains(&Value::NotFinite);
        if not_finite {
            *flags |= Flags::NAN_REPLACED;
        }
        // A masked channel of which no value is made is masked all the same.
        if masked || self.state.contains(&Value::Masked) {
            *flags |= Flags::MASKED;
        }
        if warming_up {
            *flags |= Flags::WARMING_UP;
        }
        self.filling.row.clone_from(&row.values);
        self.filling.mask.clone_from(&row.mask);
        row
    }

    /// The row of a bin that did not come, or not whole. Samples that came are seen by ops before `bin`, and by no other.
    pub fn filled(&mut self, bin: Option<&OpenBin>, how: Whole, flags: &mut Flags) -> InputRow {
        self.pass(bin, 1);
        if self.chain.warming_up() {
            *flags |= Flags::WARMING_UP;
        }
        if self.has_absent {
            *flags |= Flags::MASKED;
        }
        let width = self.chain.width();
        let (values, mask) = match how {
            Whole::Hold if !self.filling.row.is_empty() => {
                (self.filling.row.clone(), self.filling.mask.clone())
            }
            Whole::Zero => (vec![0.0; width], vec![true; width]),
            Whole::Hold | Whole::Fill => {
                let fill = self.spec.fill;
                ((0..width).map(|j| self.filling.fill(j, fill)).collect(), vec![false; width])
            }
        };
        InputRow { values, mask, present: true, cofiring: None }
    }

    /// The row of an input that is not required and has nothing.
    pub fn absent(&mut self, bin: Option<&OpenBin>) -> InputRow {
        self.pass(bin, 1);
        InputRow { values: Vec::new(), mask: Vec::new(), present: false, cofiring: None }
    }

    /// `bins` bins are over without a row of their own.
    pub fn pass(&mut self, bin: Option<&OpenBin>, bins: u64) {
        let came = bin.map_or(0, |bin| bin.index.len());
        self.state.clear();
        self.state.resize(self.montage.width(), Value::Good);
        if came > 0 {
            self.lay_out(bin);
            self.chain.sample(&mut self.rows, bin.map_or(&[], |bin| &bin.index));
        }
        let samples = self.chain.samples_per_bin().saturating_mul(bins).saturating_sub(came as u64);
        self.chain.pass(bins, samples);
    }

    /// Channels of the last row that were not finite.
    pub fn not_finite(&self) -> usize {
        self.state.iter().filter(|state| **state == Value::NotFinite).count()
    }

    /// Filters, statistics and what is filled with: back to the beginning.
    pub fn reset(&mut self) {
        self.chain.reset();
        self.filling = Filling::new(self.chain.width());
    }
}

impl Filling {
    fn new(width: usize) -> Self {
        Self { last: vec![0.0; width], sum: vec![0.0; width], good: vec![0; width], ..Self::default() }
    }

    fn saw(&mut self, j: usize, value: f32) {
        self.last[j] = value;
        self.sum[j] += f64::from(value);
        self.good[j] += 1;
    }

    fn last(&self, j: usize, fill: Fill) -> f32 {
        if self.good[j] > 0 { self.last[j] } else { self.fill(j, fill) }
    }

    fn fill(&self, j: usize, fill: Fill) -> f32 {
        match fill {
            Fill::Zero => 0.0,
            Fill::Mean => (self.sum[j] / self.good[j].max(1) as f64) as f32,
            Fill::Hold => self.last[j],
        }
    }
}
