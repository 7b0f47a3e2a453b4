//! A stage's window: its last bins, laid out where the graph reads them, oldest first.

use crate::batch::Row;
use crate::registry::manifest;

/// Where a stage stands in its window. The bins themselves lie in the inputs of the stage's row, `[size, …]`.
///
/// A window ends with bin `size`, `size + hop`, `size + 2·hop` … of those that came since it was emptied, counted
/// from 1, so that a trial's windows are the ones that its offline cut gives.
#[derive(Clone, Debug)]
pub struct Window {
    size: usize,
    hop: usize,
    /// Bins that the row holds; `size`: it is whole, and the next bin makes it slide.
    held: usize,
    /// Bins still to be passed over, where the hop is longer than the window.
    pause: usize,
    /// The place of the bin at hand in the row; `None`: it is passed over.
    place: Option<usize>,
    was_whole: bool,
}

impl Window {
    /// An empty window.
    pub fn new(of: manifest::Window) -> Self {
        let (size, hop) = (of.size_bins as usize, of.hop_bins as usize);
        Self { size, hop, held: 0, pause: 0, place: None, was_whole: false }
    }

    /// Forgets every bin: what comes next is not joined to what came before.
    pub fn empty(&mut self) {
        (self.held, self.pause, self.place, self.was_whole) = (0, 0, None, false);
    }

    /// Whether no whole window has come since it was emptied.
    pub fn is_warming_up(&self) -> bool {
        !self.was_whole
    }

    /// Bins of a window.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Makes room for a bin in the inputs that slide (`slides`, by port); answers its place along their first axis.
    /// `None`: the bin is passed over.
    pub fn open(&mut self, row: &mut Row, slides: impl Fn(usize) -> bool) -> Option<usize> {
        if self.held == self.size {
            let kept = self.size.saturating_sub(self.hop);
            for (_, tensor) in row.inputs.iter_mut().enumerate().filter(|(port, _)| kept > 0 && slides(*port))
            {
                let bytes = tensor.data.bytes_mut();
                let from = bytes.len() / self.size * self.hop;
                bytes.copy_within(from.., 0);
            }
            self.held = kept;
            self.pause = self.hop.saturating_sub(self.size);
        }
        self.place = (self.pause == 0).then_some(self.held);
        self.pause = self.pause.saturating_sub(1);
        self.place
    }

    /// The place of the bin at hand, until it has entered.
    pub fn place(&self) -> Option<usize> {
        self.place
    }

    /// The bin at hand stands in the row: whether a window ends with it.
    pub fn enter(&mut self) -> bool {
        self.held += usize::from(self.place.take().is_some());
        self.was_whole |= self.held == self.size;
        self.held == self.size
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::tensor::Tensor;

    /// Feeds 1, 2, 3 …; `None` empties. Answers what each window held, by the bin that ended it.
    fn windows(size_bins: u32, hop_bins: u32, bins: &[Option<f32>]) -> Vec<(f32, Vec<f32>)> {
        let mut window = Window::new(manifest::Window { size_bins, hop_bins });
        let size = size_bins as usize;
        let inputs = vec![
            Tensor::zeros(crate::domain::tensor::Dtype::F32, &[size, 1]),
            Tensor::from_f32(&[1], &[7.0]),
        ];
        let mut row = Row::new(inputs, Instant::now());
        let mut ended = Vec::new();
        for bin in bins {
            let Some(bin) = bin else {
                window.empty();
                assert!(window.is_warming_up());
                continue;
            };
            if let Some(place) = window.open(&mut row, |port| port == 0) {
                row.inputs[0].values_mut::<f32>()[place] = *bin;
                if window.enter() {
                    assert!(!window.is_warming_up());
                    ended.push((*bin, row.inputs[0].values::<f32>().to_vec()));
                }
            }
            assert_eq!(row.inputs[1].values::<f32>(), [7.0], "what does not slide stays");
        }
        ended
    }

    #[test]
    fn a_window_ends_with_its_size_and_then_with_every_hop() {
        let bins: Vec<_> = (1..=8).map(|bin| Some(bin as f32)).collect();
        let want = |ends: &[u32], size: u32| -> Vec<(f32, Vec<f32>)> {
            ends.iter().map(|&end| (end as f32, (end - size + 1..=end).map(|x| x as f32).collect())).collect()
        };
        assert_eq!(windows(3, 1, &bins), want(&[3, 4, 5, 6, 7, 8], 3));
        assert_eq!(windows(3, 2, &bins), want(&[3, 5, 7], 3));
        assert_eq!(windows(2, 2, &bins), want(&[2, 4, 6, 8], 2));
        assert_eq!(windows(2, 5, &bins), want(&[2, 7], 2));
        assert_eq!(windows(1, 1, &bins), want(&[1, 2, 3, 4, 5, 6, 7, 8], 1));
    }

    proptest! {
        #[test]
        fn windows_are_the_slices_of_each_stretch_between_two_breaks(
            size in 1u32..7, hop in 1u32..9, bins in prop::collection::vec(prop::option::weighted(0.9, 0.0f32..9.0), 0..80),
        ) {
            let numbered: Vec<Option<f32>> = bins.iter().enumerate().map(|(i, bin)| bin.map(|_| i as f32)).collect();
            let want: Vec<Vec<f32>> = numbered
                .split(Option::is_none)
                .flat_map(|stretch| {
                    let stretch: Vec<f32> = stretch.iter().flatten().copied().collect();
                    stretch.windows(size as usize).step_by(hop as usize).map(<[f32]>::to_vec).collect::<Vec<_>>()
                })
                .collect();
            let got: Vec<Vec<f32>> = windows(size, hop, &numbered).into_iter().map(|(_, held)| held).collect();
            prop_assert_eq!(got, want);
        }
    }
}
