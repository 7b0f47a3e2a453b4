//! Tensors between the wire and the host, and their JSON, which alone differs from proto3's mapping: `values` reads
//! numbers, `null`, `"NaN"` and the infinities, and writes `null` for whatever is not finite.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::v1;
use crate::domain::tensor::{Dtype, Tensor};
use crate::error::Fault;
use crate::phrase::serde::Takes;

/// A tensor of the wire as one on the host. `name` stands in the fault.
/// Errors: `invalid` (dtype, shape, length; an element of `values` that the dtype cannot hold, by its place).
pub fn host(name: &str, wire: &v1::Tensor) -> Result<Tensor, Fault> {
    let tensor = samples(name, wire)?;
    let held = match tensor.dtype {
        Dtype::F32 => |value: f64| (value as f32).is_finite(),
        Dtype::F16 => |value: f64| half::f16::from_f64(value).is_finite(),
        Dtype::Bf16 => |value: f64| half::bf16::from_f64(value).is_finite(),
        _ => return Ok(tensor),
    };
    match wire.values.iter().position(|&value| value.is_finite() && !held(value)) {
        Some(at) => Err(not_held(name, wire, tensor.dtype, at)),
        None => Ok(tensor),
    }
}

/// Element `at` of `values` is no value of the dtype.
fn not_held(name: &str, wire: &v1::Tensor, dtype: Dtype, at: usize) -> Fault {
    let expected = format!("a number that {dtype} can hold");
    Fault::mismatch(format!("{name}.values[{at}]"), expected, format!("{:?}", wire.values[at]))
}

/// A frame's rows as a tensor on the host, as `host`, but that a number beyond a float's range is infinite: the session's
/// `nan` says what becomes of it, since sending it again cures nothing.
pub fn samples(name: &str, wire: &v1::Tensor) -> Result<Tensor, Fault> {
    let dtype = Dtype::parse(&wire.dtype).ok_or_else(|| {
        let words = Dtype::ALL.map(Dtype::word).join(" ");
        Fault::unknown_word(&format!("{name}.dtype"), &wire.dtype, &words)
    })?;
    let shape: Vec<usize> = wire.shape.iter().map(|&axis| axis as usize).collect();
    let elements = shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
    let size = elements.and_then(|elements| elements.checked_mul(dtype.size_bytes()));
    let (Some(elements), Some(size)) = (elements, size) else {
        return Err(Fault::mismatch(name, "a shape that fits in memory", format!("{:?}", wire.shape)));
    };
    if !wire.raw.is_empty() && !wire.values.is_empty() {
        return Err(Fault::mismatch(name, "one of raw and values", "both"));
    }
    if dtype == Dtype::Bool
        && let Some(byte) = wire.raw.iter().find(|byte| **byte > 1)
    {
        return Err(Fault::mismatch(format!("{name}.raw"), "bytes 0 and 1 for bool", byte.to_string()));
    }
    if wire.values.is_empty() {
        return Tensor::from_bytes(dtype, &shape, &wire.raw).ok_or_else(|| {
            let expected = format!("{size} bytes for {dtype} {:?}", wire.shape);
            Fault::mismatch(name, expected, format!("{} bytes of raw", wire.raw.len()))
        });
    }
    if wire.values.len() != elements {
        let expected = format!("{elements} values for shape {:?}", wire.shape);
        return Err(Fault::mismatch(name, expected, format!("{} values", wire.values.len())));
    }
    let mut tensor = Tensor::zeros(dtype, &shape);
    fill(&mut tensor, &wire.values).map_err(|at| not_held(name, wire, dtype, at))?;
    Ok(tensor)
}

/// Writes `values` into the tensor's dtype; the place of the first that an integer or bool cannot hold is the error.
fn fill(tensor: &mut Tensor, values: &[f64]) -> Result<(), usize> {
    macro_rules! whole {
        ($type:ty) => {{
            for (at, (slot, &value)) in tensor.values_mut::<$type>().iter_mut().zip(values).enumerate() {
                // Why: up to 2^53 every integer is exact in f64; beyond, only `raw` is.
                let fits = value.fract() == 0.0
                    && value.abs() <= 9_007_199_254_740_992.0
                    && value >= <$type>::MIN as f64
                    && value <= <$type>::MAX as f64;
                if !fits {
                    return Err(at);
                }
                *slot = value as $type;
            }
        }};
    }
    match tensor.dtype {
        Dtype::F64 => tensor.values_mut::<f64>().copy_from_slice(values),
        Dtype::F32 => tensor.values_mut::<f32>().iter_mut().zip(values).for_each(|(x, &v)| *x = v as f32),
        Dtype::F16 => tensor
            .values_mut::<u16>()
            .iter_mut()
            .zip(values)
            .for_each(|(x, &v)| *x = half::f16::from_f64(v).to_bits()),
        Dtype::Bf16 => tensor
            .values_mut::<u16>()
            .iter_mut()
            .zip(values)
            .for_each(|(x, &v)| *x = half::bf16::from_f64(v).to_bits()),
        Dtype::I8 => whole!(i8),
        Dtype::I16 => whole!(i16),
        Dtype::I32 => whole!(i32),
        Dtype::I64 => whole!(i64),
        Dtype::U8 => whole!(u8),
        Dtype::U16 => whole!(u16),
        Dtype::U32 => whole!(u32),
        Dtype::U64 => whole!(u64),
        Dtype::Bool => {
            for (at, (slot, &value)) in tensor.values_mut::<u8>().iter_mut().zip(values).enumerate() {
                if value != 0.0 && value != 1.0 {
                    return Err(at);
                }
                *slot = value as u8;
            }
        }
    }
    Ok(())
}

/// A tensor of the host for the wire, as `raw`.
pub fn message(tensor: &Tensor) -> v1::Tensor {
    v1::Tensor {
        dtype: tensor.dtype.word().into(),
        shape: tensor.shape.iter().map(|&axis| axis as u32).collect(),
        raw: Bytes::copy_from_slice(tensor.data.bytes()),
        values: Vec::new(),
    }
}

/// Elements of one dtype as JSON numbers; `null` for what is not finite.
struct Values<'a>(&'a v1::Tensor);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = self.0;
        if !wire.values.is_empty() || wire.raw.is_empty() {
            let mut list = serializer.serialize_seq(Some(wire.values.len()))?;
            for &value in &wire.values {
                list.serialize_element(&value.is_finite().then_some(value))?;
            }
            return list.end();
        }
        let raw = &wire.raw[..];
        let dtype = Dtype::parse(&wire.dtype).ok_or_else(|| serde::ser::Error::custom("unknown dtype"))?;
        let mut list = serializer.serialize_seq(Some(raw.len() / dtype.size_bytes()))?;
        macro_rules! each {
            ($type:ty, $convert:expr) => {
                for bytes in raw.chunks_exact(size_of::<$type>()) {
                    let value = <$type>::from_le_bytes(bytes.try_into().expect("an exact chunk"));
                    list.serialize_element(&$convert(value))?;
                }
            };
        }
        let finite = |value: f64| value.is_finite().then_some(value);
        match dtype {
            Dtype::F32 => each!(f32, |value| finite(f64::from(value))),
            Dtype::F64 => each!(f64, finite),
            Dtype::F16 => each!(u16, |bits| finite(half::f16::from_bits(bits).to_f64())),
            Dtype::Bf16 => each!(u16, |bits| finite(half::bf16::from_bits(bits).to_f64())),
            Dtype::I8 => each!(i8, |value| value),
            Dtype::I16 => each!(i16, |value| value),
            Dtype::I32 => each!(i32, |value| value),
            Dtype::I64 => each!(i64, |value| value),
            Dtype::U8 | Dtype::Bool => each!(u8, |value| value),
            Dtype::U16 => each!(u16, |value| value),
            Dtype::U32 => each!(u32, |value| value),
            Dtype::U64 => each!(u64, |value| value),
        }
        list.end()
    }
}

impl Serialize for v1::Tensor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("latentd.v1.Tensor", 4)?;
        object.serialize_field("dtype", &self.dtype)?;
        object.serialize_field("shape", &self.shape)?;
        object.serialize_field("raw", "")?;
        object.serialize_field("values", &Values(self))?;
        object.end()
    }
}

/// One entry of `values`.
struct Value(f64);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl Visitor<'_> for ValueVisitor {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", Takes("a number, null, \"NaN\", \"Infinity\" or \"-Infinity\""))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value(value as f64))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value(value as f64))
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value(f64::NAN))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                match text {
                    "NaN" => Ok(Value(f64::NAN)),
                    "Infinity" => Ok(Value(f64::INFINITY)),
                    "-Infinity" => Ok(Value(f64::NEG_INFINITY)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// A field of a tensor. An unknown one fails as a key, so that it is part of the path that is named.
#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Dtype,
    Shape,
    Raw,
    Values,
}

/// `values` as a flat list.
struct ValueList(Vec<f64>);

impl<'de> Deserialize<'de> for ValueList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = ValueList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", Takes("a flat list of numbers, row-major"))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ValueList, A::Error> {
                let mut values = Vec::with_capacity(list.size_hint().unwrap_or(0));
                while let Some(Value(value)) = list.next_element()? {
                    values.push(value);
                }
                Ok(ValueList(values))
            }
        }
        deserializer.deserialize_seq(ListVisitor)
    }
}

impl<'de> Deserialize<'de> for v1::Tensor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const FIELDS: &[&str] = &["dtype", "shape", "raw", "values"];
        struct TensorVisitor;
        impl<'de> Visitor<'de> for TensorVisitor {
            type Value = v1::Tensor;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", Takes("a tensor: {dtype, shape, raw or values}"))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<v1::Tensor, A::Error> {
                let mut tensor = v1::Tensor::default();
                while let Some(key) = map.next_key::<Field>()? {
                    match key {
                        Field::Dtype => tensor.dtype = map.next_value()?,
                        Field::Shape => {
                            tensor.shape = map
                                .next_value::<Vec<pbjson::private::NumberDeserialize<u32>>>()?
                                .into_iter()
                                .map(|axis| axis.0)
                                .collect();
                        }
                        Field::Raw => {
                            tensor.raw = map.next_value::<pbjson::private::BytesDeserialize<Bytes>>()?.0;
                        }
                        Field::Values => tensor.values = map.next_value::<ValueList>()?.0,
                    }
                }
                Ok(tensor)
            }
        }
        deserializer.deserialize_struct("latentd.v1.Tensor", FIELDS, TensorVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(dtype: Dtype, values: &[f64]) -> v1::Tensor {
        let shape = vec![values.len() as u32];
        v1::Tensor { dtype: dtype.word().into(), shape, values: values.to_vec(), ..Default::default() }
    }

    #[test]
    fn a_number_beyond_its_dtype_is_named_by_its_place_and_is_infinite_in_rows_alone() {
        use Dtype::{Bf16, Bool, F16, F32, I8, U64};
        for (dtype, beyond) in [
            (F32, 1e39),
            (F32, -3.5e38),
            (F16, 65520.0),
            (Bf16, 3.4e38),
            (I8, 128.0),
            (U64, -1.0),
            (Bool, 2.0),
        ] {
            let fault = host("u", &sent(dtype, &[1.0, beyond])).unwrap_err();
            assert_eq!(
                (fault.tensor.as_str(), fault.found),
                ("u.values[1]", format!("{beyond:?}")),
                "{dtype}"
            );
            assert_eq!(fault.expected, format!("a number that {dtype} can hold"));
            let rows = samples("u", &sent(dtype, &[1.0, beyond]));
            match rows {
                Ok(rows) => assert!(rows.to_f64()[1].is_infinite(), "{dtype}"),
                Err(_) => assert!(!dtype.has_nan(), "{dtype}"),
            }
        }
        for dtype in [F32, F16, Bf16, Dtype::F64] {
            let said = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 65504.0, 0.0];
            assert!(host("u", &sent(dtype, &said)).is_ok(), "{dtype}: what is said to be no number is taken");
        }
        let most = [f64::from(f32::MAX), f64::from(f32::MIN)];
        assert_eq!(host("u", &sent(F32, &most)).unwrap().to_f64(), most);
    }
}
