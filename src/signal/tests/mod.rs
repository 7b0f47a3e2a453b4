//! The promises of this room, one by one, through its door.

mod chains; // sampled signals through their ops
mod clocks; // time: t0, other clocks, epochs, stamps
mod drift; // two clocks that drift, for minutes
mod gaps; // what was lost, is late, came again, stalls
mod images; // images and event cameras
mod late; // which closed bins data came for
mod streams; // properties over many streams
mod values; // what is in a row: dtypes, masks, NaN, preprocessing
