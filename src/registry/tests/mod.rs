//! The registry on real directories, with real graphs on ONNX Runtime.

mod keeping; // scans, states, what changes under a running registry
mod refusals; // every refusal and its sentence
mod reference; // what the training data were like
mod repository; // a repository in a folder of its own
mod serving; // what a ready version is
mod windows; // models that take several bins, and images
