//! Images and event cameras: each channel of a bin is an image, its pixels row by row.
//!
//! An image's channels are planes (colours, or darker and brighter), matched by name as any others. A signal that names
//! none, or only the camera as a whole, has those of the model.

use std::borrow::Cow;

use super::op::{Numbers, Op};
use super::refusal::Refusal;
use super::track::Track;
use crate::domain::frame::{Frame, FrameBody, Spikes};

/// The image that one channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Rows of pixels.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
}

impl Image {
    /// Values of one channel.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// A chain whose numbers are one per channel, as one per pixel.
    pub fn by_pixel(self, chain: &[Op], planes: usize) -> Vec<Op> {
        let spread = |numbers: &mut Option<Numbers>| {
            if let Some(Numbers::Here(all)) = numbers
                && all.len() == planes
            {
                *all = all.iter().flat_map(|x| std::iter::repeat_n(*x, self.pixels())).collect();
            }
        };
        let mut chain = chain.to_vec();
        for op in &mut chain {
            if let Op::Zscore { mean, std, .. } = op {
                spread(mean);
                spread(std);
            }
        }
        chain
    }
}

impl Track {
    /// The frame as the track counts it: images as they are, if they have its shape; events of a camera as spikes of
    /// numbered pixels, if they lie on it. Other signals' frames are not looked at.
    pub fn pixels_of<'f>(&self, frame: &'f Frame) -> Result<Cow<'f, Frame>, Refusal> {
        let Some(image) = self.image else { return Ok(Cow::Borrowed(frame)) };
        let refuse = |tensor: &'static str, expected: String, found: String| {
            Err(Refusal::Shape { signal: self.name.clone(), tensor, expected, found })
        };
        let (planes, Image { height, width }) = (self.names.len(), image);
        match &frame.body {
            FrameBody::Samples(samples) => {
                let long = |shape: &[usize]| -> Vec<usize> {
                    shape.iter().copied().filter(|length| *length != 1).collect()
                };
                let shape = &samples.tensor.shape;
                if long(shape.get(1..).unwrap_or_default()) == long(&[planes, height, width]) {
                    return Ok(Cow::Borrowed(frame));
                }
                let expected = format!("[{}, {planes}, {height}, {width}]", samples.count);
                refuse("tensor", expected, format!("{shape:?}"))
            }
            FrameBody::Addresses(events) => {
                for (field, at, length) in [("x", &events.x, width), ("y", &events.y, height)] {
                    if let Some(off) = at.iter().find(|at| **at as usize >= length) {
                        return refuse(field, format!("numbers below {length}, from 0"), off.to_string());
                    }
                }
                let places = events.x.iter().zip(&events.y).zip(&events.polarity);
                let unit = places.map(|((x, y), brighter)| {
                    let plane = usize::from(*brighter && planes > 1);
                    ((plane * height + *y as usize) * width + *x as usize) as u32
                });
                let body = FrameBody::Spikes(Spikes {
                    t_start_ns: events.t_start_ns,
                    span_ns: events.span_ns,
                    unit: unit.collect(),
                    t_ns: events.t_ns.clone(),
                });
                // Each by itself: a clone of the frame would copy its events twice.
                Ok(Cow::Owned(Frame {
                    signal: frame.signal.clone(),
                    seq: frame.seq,
                    t_device_ns: frame.t_device_ns,
                    body,
                    mask: frame.mask.clone(),
                    acked_seq: frame.acked_seq,
                    epoch: frame.epoch,
                    lost: frame.lost,
                    reply: frame.reply,
                    echo: frame.echo.clone(),
                    last_of_trial: frame.last_of_trial,
                }))
            }
            FrameBody::Spikes(_) | FrameBody::Markers(_) => Ok(Cow::Borrowed(frame)),
        }
    }
}
