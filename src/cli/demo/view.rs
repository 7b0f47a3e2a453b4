//! What the demo shows of one rig: decoded against true, latents, figures.

use std::collections::VecDeque;

use ndarray::{Array2, Axis};

use super::rig::Rig;
use crate::cli::replay::live::Figures;
use crate::cli::replay::player::Played;
use crate::wire::{tensor, v1};

/// Columns of a sparkline.
const COLUMNS: usize = 64;
/// Columns of a latent's sparkline; two stand in a line.
const LATENT_COLUMNS: usize = 30;
/// Latents that are shown.
const LATENTS: usize = 8;
/// Latents have variance 1; so many standard deviations fill a sparkline.
const LATENT_RANGE: f64 = 2.5;
/// Heights of a sparkline's column.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A rig as it is seen.
#[derive(Debug)]
pub struct View {
    title: String,
    about: String,
    axes: Vec<String>,
    /// What fills a sparkline of each axis: most of the truth's values. Fixed, so that rest looks like rest.
    ranges: Vec<(f64, f64)>,
    /// The truth of each bin, `[bins, axes]`.
    truth: Array2<f64>,
    decoded_name: String,
    /// Numbers of the decoded and the latent output, once the session is open.
    decoded: Option<u32>,
    latent: Option<u32>,
    /// Decoded and true values by axis; one ring each.
    shown: Vec<[Ring; 2]>,
    latents: Vec<Ring>,
    bins_per_column: usize,
    /// Figures so far.
    pub figures: Figures,
}

impl View {
    /// Nothing seen yet. `truth`: of each bin, `[bins, axes]`.
    pub fn new(rig: &Rig, axes: Vec<String>, truth: Array2<f64>) -> Self {
        let per_column = rig.bins_per_column;
        let ring = || Ring::new(COLUMNS, per_column);
        Self {
            title: rig.pipeline.clone(),
            about: rig.about.clone(),
            shown: axes.iter().map(|_| [ring(), ring()]).collect(),
            axes,
            ranges: truth.axis_iter(Axis(1)).map(|values| range(values.iter().copied())).collect(),
            truth,
            decoded_name: rig.pair.output.clone(),
            decoded: None,
            latent: None,
            latents: Vec::new(),
            bins_per_column: per_column,
            figures: Figures::default(),
        }
    }

    /// Takes in what the play tells.
    pub fn take(&mut self, played: &Played<'_>) {
        self.figures.take(played);
        match played {
            Played::Opened { opened, .. } => {
                let number =
                    |is: &dyn Fn(&v1::OutputSpec) -> bool| opened.outputs.iter().find(|spec| is(spec));
                self.decoded = number(&|spec| spec.name == self.decoded_name).map(|spec| spec.number);
                let latent = number(&|spec| spec.role == "latent");
                self.latent = latent.map(|spec| spec.number);
                let wide = latent.and_then(|spec| spec.dims.first()).map_or(0, |&dims| dims as usize);
                let ring = || Ring::new(LATENT_COLUMNS, self.bins_per_column * 2);
                self.latents = (0..wide.min(LATENTS)).map(|_| ring()).collect();
            }
            Played::Answered { output, .. } => self.answered(output),
            Played::Noticed(_) => {}
        }
    }

    fn answered(&mut self, output: &v1::Output) {
        let values = |number: Option<u32>| {
            let block = output.blocks.iter().find(|block| Some(block.output) == number)?;
            tensor::host("block", block.tensor.as_ref()?).ok().map(|tensor| tensor.to_f64())
        };
        let bins = output.n as usize;
        if let Some(decoded) = values(self.decoded).filter(|_| bins > 0) {
            let wide = decoded.len() / bins;
            for (i, row) in decoded.chunks(wide.max(1)).enumerate() {
                let bin = output.first_bin as usize + i;
                for (axis, [is, was]) in self.shown.iter_mut().enumerate() {
                    is.push(row.get(axis).copied().unwrap_or(f64::NAN));
                    was.push(self.truth.get((bin, axis)).copied().unwrap_or(f64::NAN));
                }
            }
        }
        if let Some(latent) = values(self.latent).filter(|_| bins > 0) {
            for row in latent.chunks((latent.len() / bins).max(1)) {
                self.latents.iter_mut().zip(row).for_each(|(ring, &value)| ring.push(value));
            }
        }
    }

    /// The rig as lines for a terminal; always as many.
    pub fn lines(&self) -> Vec<String> {
        let mut lines =
            vec![format!("{} · {}", self.title, self.about), format!("  {}", self.figures.line())];
        for ((axis, [decoded, truth]), &range) in self.axes.iter().zip(&self.shown).zip(&self.ranges) {
            lines.push(format!("  {axis:>9} true    {}", truth.line(range)));
            lines.push(format!("  {:>9} decoded {}", "", decoded.line(range)));
        }
        let fixed = (-LATENT_RANGE, LATENT_RANGE);
        for (i, pair) in self.latents.chunks(2).enumerate() {
            let mut line = format!("  latent {:>2} {}", 2 * i, pair[0].line(fixed));
            if let Some(second) = pair.get(1) {
                line += &format!("  {:>2} {}", 2 * i + 1, second.line(fixed));
            }
            lines.push(line);
        }
        lines.push(String::new());
        lines
    }

    /// The rig in one plain line.
    pub fn plain(&self) -> String {
        format!("{}: {}", self.title, self.figures.line())
    }
}

/// The newest columns of a sparkline, each the mean of some bins.
#[derive(Debug)]
struct Ring {
    columns: VecDeque<f64>,
    limit: usize,
    per_column: usize,
    sum: f64,
    n: usize,
}

impl Ring {
    fn new(limit: usize, per_column: usize) -> Self {
        Self { columns: VecDeque::new(), limit, per_column: per_column.max(1), sum: 0.0, n: 0 }
    }

    fn push(&mut self, value: f64) {
        self.sum += value;
        self.n += 1;
        if self.n == self.per_column {
            self.columns.push_back(self.sum / self.n as f64);
            (self.sum, self.n) = (0.0, 0);
        }
        while self.columns.len() > self.limit {
            self.columns.pop_front();
        }
    }

    fn line(&self, range: (f64, f64)) -> String {
        sparkline(self.columns.iter().copied(), range)
    }
}

/// From the 1st to the 99th percentile of the finite values; equal ones are moved apart.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut finite: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    let at = |share: usize| finite.get(finite.len().saturating_sub(1) * share / 100).copied().unwrap_or(0.0);
    let (low, high) = (at(1), at(99));
    if low < high { (low, high) } else { (low - 1.0, low + 1.0) }
}

/// Values as blocks; what is outside of the range fills or empties its column, what is not finite is blank.
fn sparkline(values: impl Iterator<Item = f64>, (low, high): (f64, f64)) -> String {
    let top = BLOCKS.len() - 1;
    let block = |value: f64| {
        if !value.is_finite() {
            return ' ';
        }
        let height = ((value - low) / (high - low)).clamp(0.0, 1.0) * top as f64;
        BLOCKS[(height.round() as usize).min(top)]
    };
    values.map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_fills_its_range_and_leaves_gaps_blank() {
        let values = [0.0, 0.5, 1.0, f64::NAN, 9.0, -9.0];
        assert_eq!(sparkline(values.into_iter(), (0.0, 1.0)), "▁▅█ █▁");
        assert_eq!(range([2.0, f64::NAN, 2.0].into_iter()), (1.0, 3.0));
        assert_eq!(range((0..=200).map(f64::from)), (2.0, 198.0));
    }

    #[test]
    fn a_column_is_the_mean_of_its_bins_and_old_columns_leave() {
        let mut ring = Ring::new(2, 2);
        for value in [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0] {
            ring.push(value);
        }
        assert_eq!(ring.columns, [6.0, 10.0]);
    }
}
