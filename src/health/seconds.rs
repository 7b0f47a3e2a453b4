//! Sums over seconds, and over tens of seconds: what the two windows are made of.
//!
//! Why blocks and not bins: neighbouring bins of neural data are alike, so that the error of their mean is not that of
//! so many independent values. Means over seconds, held against how such means scattered in training, need no such claim.

/// Seconds of the short window, and of one block of the long one.
pub const SECONDS: usize = 10;
/// Blocks of the long window.
pub const TENS: usize = 30;
/// Seconds that the short window must have of a channel.
pub const LEAST_SECONDS: u32 = 8;
/// Blocks that the long window must have of a channel: before, it would know no more than the short one.
pub const LEAST_TENS: u32 = 6;
/// No second.
const NEVER: u64 = u64::MAX;

/// Blocks of columns, each in the place that its number gives it.
#[derive(Debug)]
pub struct Ring {
    columns: usize,
    /// The number of the block in each place.
    number: Vec<u64>,
    /// Of each place, milliseconds in which many channels fired at once.
    cofiring: Vec<u32>,
    /// `[places, columns]`: bins, their mean and variance, whether any value differed from the one before.
    n: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
    moved: Vec<bool>,
}

/// One column over the blocks of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    /// Blocks that have enough of it.
    pub blocks: u32,
    /// Bins in them.
    pub n: f64,
    total: f64,
    square: f64,
    /// Whether any value differed from the one before.
    pub moved: bool,
}

impl Sum {
    /// Their mean.
    pub fn mean(&self) -> f64 {
        if self.n > 0.0 { self.total / self.n } else { 0.0 }
    }

    /// Their variance about it.
    pub fn variance(&self) -> f64 {
        if self.n > 0.0 { (self.square / self.n - self.mean() * self.mean()).max(0.0) } else { 0.0 }
    }
}

impl Ring {
    /// Room for so many blocks.
    pub fn new(places: usize, columns: usize) -> Self {
        Self {
            columns,
            number: vec![NEVER; places],
            cofiring: vec![0; places],
            n: vec![0.0; places * columns],
            mean: vec![0.0; places * columns],
            variance: vec![0.0; places * columns],
            moved: vec![false; places * columns],
        }
    }

    /// Writes block `number`, column by column: bins, mean, variance, whether it moved.
    pub fn put(&mut self, number: u64, cofiring: u32, column: impl Fn(usize) -> (f64, f64, f64, bool)) {
        let place = (number % self.number.len() as u64) as usize;
        self.number[place] = number;
        self.cofiring[place] = cofiring;
        let at = place * self.columns;
        for c in 0..self.columns {
            let (n, mean, variance, moved) = column(c);
            self.n[at + c] = n as f32;
            self.mean[at + c] = mean as f32;
            self.variance[at + c] = variance as f32;
            self.moved[at + c] = moved;
        }
    }

    /// Sums every column over the blocks that lie at most as many as there are places before `last`, itself included.
    pub fn sum(&self, last: u64, sums: &mut [Sum]) {
        sums.fill(Sum::default());
        for (place, number) in self.number.iter().enumerate() {
            if !self.lies_in(*number, last) {
                continue;
            }
            let block = place * self.columns..(place + 1) * self.columns;
            let columns = self.n[block.clone()].iter().zip(&self.mean[block.clone()]);
            let columns = columns.zip(&self.variance[block.clone()]).zip(&self.moved[block]);
            for (sum, (((&n, &mean), &variance), &moved)) in sums.iter_mut().zip(columns) {
                let (n, mean) = (f64::from(n), f64::from(mean));
                sum.blocks += u32::from(n > 0.0);
                sum.n += n;
                sum.total += n * mean;
                sum.square += n * (f64::from(variance) + mean * mean);
                sum.moved |= moved;
            }
        }
    }

    /// Blocks that lie in the window that ends with `last`, and their cofiring.
    pub fn blocks(&self, last: u64) -> (u32, u32) {
        let blocks =
            self.number.iter().zip(&self.cofiring).filter(|(number, _)| self.lies_in(**number, last));
        blocks.fold((0, 0), |(n, all), (_, cofiring)| (n + 1, all + cofiring))
    }

    fn lies_in(&self, number: u64, last: u64) -> bool {
        number != NEVER && number <= last && last - number < self.number.len() as u64
    }
}

/// The second in hand, column by column.
#[derive(Debug)]
pub struct Second {
    /// Milliseconds in which many channels fired at once.
    pub cofiring: u32,
    /// Bins in which every column was good, and further ones of each.
    whole: u32,
    n: Vec<u32>,
    total: Vec<f64>,
    square: Vec<f64>,
    /// The largest difference from the value before.
    step: Vec<f32>,
    /// The last value of each; NaN before the first.
    last: Vec<f32>,
}

impl Second {
    /// Nothing came yet.
    pub fn new(columns: usize) -> Self {
        Self {
            cofiring: 0,
            whole: 0,
            n: vec![0; columns],
            total: vec![0.0; columns],
            square: vec![0.0; columns],
            step: vec![0.0; columns],
            last: vec![f32::NAN; columns],
        }
    }

    /// One bin: values, what is subtracted from each, and whether each is good.
    pub fn take(&mut self, values: &[f32], mask: &[bool], origin: &[f32]) {
        let sums = self.total.iter_mut().zip(&mut self.square).zip(self.step.iter_mut().zip(&mut self.last));
        let add = |(&x, &origin): (&f32, &f32), ((total, square), (step, last)): Sums<'_>| {
            let d = f64::from(x - origin);
            *total += d;
            *square += d * d;
            let by = (x - *last).abs();
            // Not `max`: nothing is known of the first value's step, which is NaN.
            *step = if by > *step { by } else { *step };
            *last = x;
        };
        let columns = values.iter().zip(origin).zip(sums);
        // Why apart: most bins have no masked channel, and a loop without branches runs several columns at once.
        if mask.iter().all(|good| *good) {
            self.whole += 1;
            columns.for_each(|(x, sums)| add(x, sums));
        } else {
            for (((x, sums), n), _) in columns.zip(&mut self.n).zip(mask).filter(|(_, good)| **good) {
                *n += 1;
                add(x, sums);
            }
        }
    }

    /// Bins, mean, variance, and whether any value differed from the one before by more than `still`. A column with less
    /// than `least` bins has none.
    pub fn column(&self, c: usize, least: u64, still: f32) -> (f64, f64, f64, bool) {
        let n = self.whole + self.n[c];
        if u64::from(n) < least {
            return (0.0, 0.0, 0.0, false);
        }
        let n = f64::from(n);
        let mean = self.total[c] / n;
        (n, mean, (self.square[c] / n - mean * mean).max(0.0), self.step[c] > still)
    }

    /// The next second begins.
    pub fn clear(&mut self) {
        (self.cofiring, self.whole) = (0, 0);
        self.n.fill(0);
        self.total.fill(0.0);
        self.square.fill(0.0);
        self.step.fill(0.0);
    }
}

/// Sum, sum of squares, largest step and last value of one column.
type Sums<'a> = ((&'a mut f64, &'a mut f64), (&'a mut f32, &'a mut f32));
