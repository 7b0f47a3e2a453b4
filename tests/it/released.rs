//! The schema against the released one: a field is added, never changed, and its number is never used again.
//!
//! `released/latentd.v1.txt` lists every message, field, number and call, so that a review sees what changes.

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// One line for each field and call of `latentd.v1`.
fn listing(set: &FileDescriptorSet) -> Vec<String> {
    let mut lines = Vec::new();
    for file in set.file.iter().filter(|file| file.package() == "latentd.v1") {
        assert_eq!(file.syntax(), "proto3", "{}", file.name());
        assert!(file.enum_type.is_empty(), "closed words are texts, not enums: {}", file.name());
        for message in &file.message_type {
            fields(message.name(), message, &mut lines);
        }
        for service in &file.service {
            for call in &service.method {
                let stream = |yes: bool| if yes { "stream " } else { "" };
                let short = |name: &str| name.trim_start_matches(".latentd.v1.").to_owned();
                lines.push(format!(
                    "rpc {}.{} ({}{}) -> {}{}",
                    service.name(),
                    call.name(),
                    stream(call.client_streaming()),
                    short(call.input_type()),
                    stream(call.server_streaming()),
                    short(call.output_type()),
                ));
            }
        }
    }
    lines
}

fn fields(path: &str, message: &DescriptorProto, lines: &mut Vec<String>) {
    assert!(message.enum_type.is_empty(), "closed words are texts, not enums: {path}");
    for field in &message.field {
        lines.push(format!("{path}.{} = {}: {}", field.name(), field.number(), kind(message, field)));
    }
    for inner in message.nested_type.iter().filter(|inner| !is_map(inner)) {
        fields(&format!("{path}.{}", inner.name()), inner, lines);
    }
}

fn is_map(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let word = match field.r#type() {
        Type::Message => field.type_name().trim_start_matches(".latentd.v1.").to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let entry = message.nested_type.iter().find(|inner| is_map(inner) && word.ends_with(inner.name()));
    if let Some(entry) = entry.filter(|_| field.r#type() == Type::Message) {
        return format!("map<{}, {}>", kind(entry, &entry.field[0]), kind(entry, &entry.field[1]));
    }
    if field.label() == Label::Repeated {
        return format!("repeated {word}");
    }
    if field.proto3_optional() {
        return format!("optional {word}");
    }
    match field.oneof_index {
        Some(at) => format!("{word} of oneof {}", message.oneof_decl[at as usize].name()),
        None => word,
    }
}

#[test]
fn the_schema_is_the_released_one() {
    let set = FileDescriptorSet::decode(latentd::wire::DESCRIPTOR_SET).expect("a descriptor set");
    let now = listing(&set);
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).join("latentd.v1.txt");
    std::fs::write(&beside, now.join("\n") + "\n").expect("the listing is written");
    let released: Vec<&str> = include_str!("released/latentd.v1.txt").lines().collect();
    let has = |lines: &BTreeSet<&str>, line: &str| lines.contains(line);
    let (then, present) =
        (BTreeSet::from_iter(released), BTreeSet::from_iter(now.iter().map(String::as_str)));
    let gone: Vec<_> = then.iter().filter(|line| !has(&present, line)).collect();
    assert!(gone.is_empty(), "changed or removed, which breaks every client: {gone:#?}");
    let new: Vec<_> = present.iter().filter(|line| !has(&then, line)).collect();
    assert!(
        new.is_empty(),
        "added: copy {} to tests/it/released/ with the change: {new:#?}",
        beside.display()
    );
}

#[test]
fn every_message_and_field_of_a_frame_is_listed() {
    let released = include_str!("released/latentd.v1.txt");
    for line in [
        "Frame.seq = 2: uint64",
        "Frame.t_device_ns = 3: optional int64",
        "Output.durable_seq = 12: map<string, uint64>",
        "Up.attach = 1: Attach of oneof message",
        "OpenRequest.static = 20: map<string, Tensor>",
        "rpc Live.Stream (stream Up) -> stream Down",
    ] {
        assert!(released.lines().any(|known| known == line), "{line}");
    }
}
