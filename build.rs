//! Compiles the schemas: the live API with its JSON mapping, and the subset of ONNX.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    onnx()?;
    live()
}

/// `latentd.v1`: prost types, tonic services, JSON by proto3's mapping under the proto's own field names.
#[allow(clippy::disallowed_methods, reason = "cargo speaks to a build script by its environment")]
fn live() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let files = ["live", "library"].map(|name| format!("proto/latentd/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=proto/latentd");
    let set = protox::compile(files, ["proto"])?;
    let bytes = set.encode_to_vec();
    std::fs::write(out.join("latentd.v1.bin"), &bytes)?;
    tonic_prost_build::configure()
        .bytes(".latentd.v1")
        .codec_path("crate::wire::codec::Codec")
        .compile_fds(set)?;
    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .preserve_proto_field_names()
        .emit_fields()
        // `Tensor` alone differs from the standard mapping; its JSON stands in `wire::tensor`.
        .exclude([".latentd.v1.Tensor"])
        .build(&[".latentd.v1"])?;
    Ok(())
}

/// The subset of ONNX that `graph` reads and writes.
fn onnx() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/onnx.proto");
    let set = protox::compile(["proto/onnx.proto"], ["proto"])?;
    prost_build::Config::new().compile_fds(set)?;
    Ok(())
}
