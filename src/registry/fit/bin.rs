//! One bin of a streamed input: the axis of a window's bins taken out of its tensor, images told from channels.

use super::{Fit, Row};
use crate::graph::{Dim, Side, TensorInfo};
use crate::registry::finding::quoted;
use crate::registry::manifest::{BatchAxis, InputType};
use crate::signal::image::Image;

impl Fit<'_> {
    /// The row of a tensor that the stream fills.
    pub(super) fn streamed_row(&mut self, key: &str, port: usize, declared: Option<BatchAxis>) -> Row {
        // A batch of one stands before the bins of a window, also where their number is left open.
        let dims = &self.version.signature.inputs[port].dims;
        let lone = self.version.manifest.window.is_some() && dims.first() == Some(&Dim::Fixed(1));
        self.row(key, port, Side::Input, declared.or(lone.then_some(BatchAxis::Axis(0))))
    }

    /// Takes the axis of the window's bins out of a row, so that what is left is one bin. Nothing without a window.
    pub(super) fn bins(&mut self, key: &str, port: usize, row: &mut Row) -> Option<Vec<Dim>> {
        let Some(window) = self.version.manifest.window else { return Some(Vec::new()) };
        let (size, info) = (window.size_bins as usize, &self.version.signature.inputs[port]);
        match row.dims.first() {
            Some(Dim::Fixed(length)) if *length != size && row.dims.len() > 1 => {
                let expected = format!("{length}, as {} has ({info})", quoted(&info.name));
                self.wrong("window.size_bins", expected, size.to_string());
            }
            Some(_) if row.dims.len() > 1 => {
                row.dims.remove(0);
                return Some(vec![Dim::Fixed(size)]);
            }
            _ => self.wrong(format!("{key}.tensor"), "[batch, bins, channels] in a window", info.to_string()),
        }
        None
    }

    /// What one channel of `frames` or `address_events` is: the last two axes of a bin; of other types no image.
    /// Errors: a bin that cannot be one, which is told.
    pub(super) fn image(
        &mut self,
        key: &str,
        i: usize,
        info: &TensorInfo,
        shape: &[usize],
    ) -> Result<Option<Image>, ()> {
        let kind = self.version.manifest.inputs[i].kind;
        let (planes, height, width) = match *shape {
            _ if !kind.is_image() => return Ok(None),
            [planes, height, width] => (planes, height, width),
            [height, width] => (1, height, width),
            _ => (0, 0, 0),
        };
        if planes * height * width == 0 {
            let bins = if self.version.manifest.window.is_some() { "bins, " } else { "" };
            let expected = format!("[batch, {bins}channels, height, width] with type = \"{}\"", kind.word());
            self.wrong(format!("{key}.tensor"), expected, info.to_string());
            return Err(());
        }
        if kind == InputType::AddressEvents && planes > 2 {
            let expected = "one channel, or two (darker, brighter), with type = \"address_events\"";
            self.wrong(format!("{key}.tensor"), expected, info.to_string());
            return Err(());
        }
        Ok(Some(Image { height, width }))
    }
}
