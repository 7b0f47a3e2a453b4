//! Tensors of any dtype as one aligned run of bytes, row-major, little-endian.

use std::fmt;

use bytemuck::Pod;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum Dtype {
    F32,
    F64,
    F16,
    Bf16,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
}

impl Dtype {
    /// Every dtype, in the order of the wire's list.
    pub const ALL: [Dtype; 13] = [
        Dtype::F32,
        Dtype::F64,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::U8,
        Dtype::U16,
        Dtype::U32,
        Dtype::U64,
        Dtype::Bool,
    ];

    /// The word for it on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::I8 => "i8",
            Dtype::I16 => "i16",
            Dtype::I32 => "i32",
            Dtype::I64 => "i64",
            Dtype::U8 => "u8",
            Dtype::U16 => "u16",
            Dtype::U32 => "u32",
            Dtype::U64 => "u64",
            Dtype::Bool => "bool",
        }
    }

    /// The dtype that the wire's word means.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.word() == word)
    }

    /// Whether an element can say that it is no number.
    pub const fn has_nan(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::Bf16)
    }

    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Bytes aligned for any dtype. Grows; keeps its capacity, so that a reused buffer does not allocate.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Buffer {
    words: Vec<u64>,
    len_bytes: usize,
}

impl Buffer {
    /// A buffer of `len_bytes` zeros.
    pub fn zeros(len_bytes: usize) -> Self {
        Self { words: vec![0; len_bytes.div_ceil(8)], len_bytes }
    }

    /// A copy of `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeros(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// Makes it `len_bytes` long; what is new is zero, what stays is kept.
    pub fn resize(&mut self, len_bytes: usize) {
        self.words.resize(len_bytes.div_ceil(8), 0);
        self.len_bytes = len_bytes;
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len_bytes]
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len_bytes]
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len_bytes)
    }
}

/// A tensor on the host: dtype, shape (outermost axis first) and its elements, row-major, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Element type.
    pub dtype: Dtype,
    /// Lengths of the axes; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its elements; as long as shape and dtype say.
    pub data: Buffer,
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(dtype: Dtype, shape: &[usize]) -> Self {
        let elements: usize = shape.iter().product();
        Self { dtype, shape: shape.to_vec(), data: Buffer::zeros(elements * dtype.size_bytes()) }
    }

    /// A tensor of f32 values; `values.len()` must be the product of `shape`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values do not fill {shape:?}");
        Self {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            data: Buffer::from_bytes(bytemuck::cast_slice(values)),
        }
    }

    /// `None` if `bytes` is not as long as dtype and shape say.
    pub fn from_bytes(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Option<Self> {
        let elements = shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis))?;
        (elements.checked_mul(dtype.size_bytes())? == bytes.len()).then(|| Self {
            dtype,
            shape: shape.to_vec(),
            data: Buffer::from_bytes(bytes),
        })
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements as `T`, which must be as wide as the dtype (caller's promise, checked by length only).
    pub fn values<T: Pod>(&self) -> &[T] {
        debug_assert_eq!(size_of::<T>(), self.dtype.size_bytes());
        bytemuck::cast_slice(self.data.bytes())
    }

    /// As `values`, to be written.
    pub fn values_mut<T: Pod>(&mut self) -> &mut [T] {
        debug_assert_eq!(size_of::<T>(), self.dtype.size_bytes());
        bytemuck::cast_slice_mut(self.data.bytes_mut())
    }

    /// Every element as f64, whatever the dtype (64-bit integers beyond 2⁵³ are rounded).
    pub fn to_f64(&self) -> Vec<f64> {
        let mut all = Vec::with_capacity(self.elements());
        self.each_f64(|x| all.push(x));
        all
    }

    /// Whether every element is finite. Integers and booleans are.
    pub fn is_finite(&self) -> bool {
        match self.dtype {
            Dtype::F32 => self.values::<f32>().iter().all(|x| x.is_finite()),
            Dtype::F64 => self.values::<f64>().iter().all(|x| x.is_finite()),
            Dtype::F16 => self.values::<u16>().iter().all(|&x| half::f16::from_bits(x).is_finite()),
            Dtype::Bf16 => self.values::<u16>().iter().all(|&x| half::bf16::from_bits(x).is_finite()),
            _ => true,
        }
    }

    /// Calls `f` with every element as f64, in order.
    pub fn each_f64(&self, f: impl FnMut(f64)) {
        self.range_f64(0..self.elements(), f);
    }

    /// Calls `f` with the elements of `range` as f64, in order.
    pub fn range_f64(&self, range: std::ops::Range<usize>, mut f: impl FnMut(f64)) {
        match self.dtype {
            Dtype::F32 => self.values::<f32>()[range].iter().for_each(|&x| f(f64::from(x))),
            Dtype::F64 => self.values::<f64>()[range].iter().for_each(|&x| f(x)),
            Dtype::F16 => {
                self.values::<u16>()[range].iter().for_each(|&x| f(half::f16::from_bits(x).to_f64()))
            }
            Dtype::Bf16 => {
                self.values::<u16>()[range].iter().for_each(|&x| f(half::bf16::from_bits(x).to_f64()))
            }
            Dtype::I8 => self.values::<i8>()[range].iter().for_each(|&x| f(f64::from(x))),
            Dtype::I16 => self.values::<i16>()[range].iter().for_each(|&x| f(f64::from(x))),
            Dtype::I32 => self.values::<i32>()[range].iter().for_each(|&x| f(f64::from(x))),
            Dtype::I64 => self.values::<i64>()[range].iter().for_each(|&x| f(x as f64)),
            Dtype::U8 | Dtype::Bool => self.values::<u8>()[range].iter().for_each(|&x| f(f64::from(x))),
            Dtype::U16 => self.values::<u16>()[range].iter().for_each(|&x| f(f64::from(x))),
            Dtype::U32 => self.values::<u32>()[range].iter().for_each(|&x| f(f64::from(x))),
            Dtype::U64 => self.values::<u64>()[range].iter().for_each(|&x| f(x as f64)),
        }
    }
}
