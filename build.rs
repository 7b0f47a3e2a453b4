//! Compiles the protobuf schemas.

fn main() {
    onnx();
}

/// The subset of ONNX that `graph` reads and writes.
fn onnx() {
    println!("cargo::rerun-if-changed=proto/onnx.proto");
    let schema = protox::compile(["proto/onnx.proto"], ["proto"]).expect("proto/onnx.proto is a schema");
    prost_build::Config::new().compile_fds(schema).expect("prost writes onnx.rs");
}
