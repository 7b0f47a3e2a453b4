//! JSON Schemas of the messages, made from the compiled descriptor and the rules of the JSON mapping, so that a field that
//! is added stands in them by itself. The texts are the comments of the `.proto` files.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value, json};

use super::DESCRIPTOR_SET;

/// The package of the schema, as type names begin.
const PACKAGE: &str = ".latentd.v1.";
/// Numbers of `DescriptorProto`'s and `FileDescriptorProto`'s fields, by which comments are found.
const MESSAGES: i32 = 4;
const FIELDS: i32 = 2;

/// A message's name in the schema.
pub fn name_of<T>() -> &'static str {
    std::any::type_name::<T>().rsplit("::").next().unwrap_or_default()
}

/// Where a message's schema stands in the document.
pub fn reference(message: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{message}") })
}

/// The fields of the choice that a message's field stands in, of which it has one at most; `None`: in none.
pub fn choice(message: &str, field: &str) -> Option<String> {
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).expect("the descriptor set is of this build");
    let messages =
        set.file.iter().filter(|file| file.package() == "latentd.v1").flat_map(|file| &file.message_type);
    let fields = &messages.into_iter().find(|known| known.name() == message)?.field;
    // An optional field stands in a choice of its own, which nobody wrote.
    let choice = |field: &FieldDescriptorProto| field.oneof_index.filter(|_| !field.proto3_optional());
    let of = choice(fields.iter().find(|known| known.name() == field)?)?;
    let beside = fields.iter().filter(|known| choice(known) == Some(of)).map(FieldDescriptorProto::name);
    Some(beside.collect::<Vec<_>>().join(", "))
}

/// The schema of every message by its name. `read`: the messages that are bodies of requests; these, and what they
/// contain, may leave out any field. All others are written whole.
pub fn schemas(read: &BTreeSet<&str>) -> Map<String, Value> {
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).expect("the descriptor set is of this build");
    let files = || set.file.iter().filter(|file| file.package() == "latentd.v1");
    let messages: BTreeMap<&str, &DescriptorProto> =
        files().flat_map(|file| &file.message_type).map(|message| (message.name(), message)).collect();
    let mut partial = BTreeSet::new();
    read.iter().for_each(|name| reach(name, &messages, &mut partial));
    let mut schemas = Map::new();
    for file in files() {
        for (at, message) in file.message_type.iter().enumerate() {
            let path = [MESSAGES, at as i32];
            let schema = match message.name() {
                "Tensor" => tensor(file, message, &path),
                name => object(file, message, &path, partial.contains(name)),
            };
            schemas.insert(message.name().to_owned(), schema);
        }
    }
    schemas
}

/// A message and all that it contains.
fn reach<'a>(name: &str, messages: &BTreeMap<&str, &'a DescriptorProto>, found: &mut BTreeSet<&'a str>) {
    let Some(message) = messages.get(name) else { return };
    if !found.insert(message.name()) {
        return;
    }
    let entries = message.nested_type.iter().flat_map(|entry| &entry.field);
    for field in message.field.iter().chain(entries).filter(|field| field.r#type() == Type::Message) {
        reach(field.type_name().trim_start_matches(PACKAGE), messages, found);
    }
}

fn object(file: &FileDescriptorProto, message: &DescriptorProto, path: &[i32], partial: bool) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (at, field) in message.field.iter().enumerate() {
        let mut schema = of_field(message, field);
        if let Some(text) = comment(file, &[path, &[FIELDS, at as i32]].concat()) {
            // Beside a reference, too: JSON Schema 2020-12 allows it.
            schema["description"] = text.into();
        }
        properties.insert(field.name().to_owned(), schema);
        if !may_be_absent(field) {
            required.push(field.name());
        }
    }
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !partial && !required.is_empty() {
        schema["required"] = required.into();
    }
    if let Some(text) = comment(file, path) {
        schema["description"] = text.into();
    }
    schema
}

/// Whether an answer may lack it: optional fields, messages and those of a oneof are written when they are set.
fn may_be_absent(field: &FieldDescriptorProto) -> bool {
    let is_message = field.r#type() == Type::Message && field.label() != Label::Repeated;
    is_message || field.oneof_index.is_some()
}

fn of_field(message: &DescriptorProto, field: &FieldDescriptorProto) -> Value {
    let of = field.type_name();
    let entry = message.nested_type.iter().find(|entry| {
        field.r#type() == Type::Message && of == format!("{PACKAGE}{}.{}", message.name(), entry.name())
    });
    if let Some(entry) = entry {
        return json!({ "type": "object", "additionalProperties": one(&entry.field[1]) });
    }
    let one = one(field);
    if field.label() == Label::Repeated {
        return json!({ "type": "array", "items": one });
    }
    if may_be_absent(field) {
        return json!({ "anyOf": [one, { "type": "null" }] });
    }
    one
}

/// One value of a field's type.
fn one(field: &FieldDescriptorProto) -> Value {
    match field.r#type() {
        Type::Message | Type::Group => reference(field.type_name().trim_start_matches(PACKAGE)),
        Type::String | Type::Enum => json!({ "type": "string" }),
        Type::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Type::Bool => json!({ "type": "boolean" }),
        Type::Double | Type::Float => json!({ "type": "number" }),
        Type::Uint32 | Type::Fixed32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Type::Int32 | Type::Sint32 | Type::Sfixed32 => {
            json!({ "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX })
        }
        // Written as text, read as either.
        Type::Uint64 | Type::Fixed64 => {
            json!({ "type": ["string", "integer"], "format": "uint64", "pattern": "^[0-9]+$", "minimum": 0 })
        }
        Type::Int64 | Type::Sint64 | Type::Sfixed64 => {
            json!({ "type": ["string", "integer"], "format": "int64", "pattern": "^-?[0-9]+$" })
        }
    }
}

/// `Tensor` alone differs from the mapping: what is not finite is `null` in `values`, and read as a word, too.
fn tensor(file: &FileDescriptorProto, message: &DescriptorProto, path: &[i32]) -> Value {
    let mut schema = object(file, message, path, true);
    schema["properties"]["values"]["items"] = json!({
        "anyOf": [{ "type": ["number", "null"] }, { "enum": ["NaN", "Infinity", "-Infinity"] }]
    });
    schema["properties"]["values"]["description"] = "Row-major; null is what is not finite.".into();
    schema
}

/// The comment before an element of a `.proto` file, as one line.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> Option<String> {
    let places = &file.source_code_info.as_ref()?.location;
    let place = places.iter().find(|place| place.path == path)?;
    let words: Vec<&str> = place.leading_comments().split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_written_names_what_is_always_there_and_one_that_is_read_nothing() {
        let schemas = schemas(&BTreeSet::from(["OpenRequest"]));
        let info = &schemas["RunInfo"];
        let required: Vec<&str> =
            info["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(required.contains(&"bins") && required.contains(&"segments"), "{required:?}");
        assert!(!required.contains(&"ended_ns") && !required.contains(&"resolved"), "{required:?}");
        for read in ["OpenRequest", "SignalSpec", "Rate", "Tensor"] {
            assert!(schemas[read].get("required").is_none(), "{read}");
        }
        assert_eq!(info["properties"]["bins"]["pattern"], "^[0-9]+$");
        assert_eq!(
            schemas["OpenRequest"]["properties"]["static"]["additionalProperties"],
            reference("Tensor")
        );
    }

    #[test]
    fn comments_of_the_proto_files_are_the_texts() {
        let schemas = schemas(&BTreeSet::new());
        assert_eq!(schemas["Frame"]["description"], "One message of a rig.");
        let seq = &schemas["Frame"]["properties"]["seq"];
        assert_eq!(seq["description"], "Counts this signal's frames in this session, from 0.");
    }
}
