//! One session of ONNX Runtime with its buffers: batches go through it, one at a time.
//!
//! It talks to the C API, since `ort`'s own `run` allocates names and values anew for each run.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{RunOptions, Session};
use ort::sys::{ONNXTensorElementDataType, OrtApi, OrtValue};
use ort::{AsPointer, ErrorCode};
use parking_lot::Mutex;

use super::library::one_line;
use super::{Batch, EngineError, Instance, InstanceInfo, Interrupt};
use crate::domain::tensor::{Dtype, Tensor};
use crate::error::clip;
use crate::graph::{Dim, TensorInfo};

/// A session and what its runs reuse.
pub(super) struct OrtInstance {
    info: InstanceInfo,
    feeds: Vec<Feed>,
    links: Vec<Link>,
    /// Feeds and fetches as the runtime takes them; null between runs where they are not ours to keep.
    feed_values: Vec<*const OrtValue>,
    fetch_values: Vec<*mut OrtValue>,
    feed_names: Names,
    fetch_names: Names,
    control: Arc<Control>,
    api: &'static OrtApi,
    host: MemoryInfo<'static>,
    session: Session,
    /// The external data that the session was made from: the runtime may read them for as long as it lives.
    _external: Vec<Arc<[u8]>>,
}

// SAFETY: the pointers are this instance's own: values that it made, and names that `Names` owns. The session is used
// by `&mut self` alone.
unsafe impl Send for OrtInstance {}

impl OrtInstance {
    /// An instance of a session whose surface is `info.signature`.
    pub(super) fn new(session: Session, info: InstanceInfo, external: Vec<Arc<[u8]>>) -> ort::Result<Self> {
        let names = |side: &[TensorInfo]| Names::new(side.iter().map(|tensor| tensor.name.as_str()));
        let (inputs, outputs) = (&info.signature.inputs, &info.signature.outputs);
        let mut options = RunOptions::new()?;
        // a failed run comes back as an error, and is told where that is handled
        options.set_log_level(ort::logging::LogLevel::Fatal)?;
        Ok(Self {
            feeds: inputs.iter().map(|_| Feed::default()).collect(),
            links: links(inputs),
            feed_values: vec![ptr::null(); inputs.len()],
            fetch_values: vec![ptr::null_mut(); outputs.len()],
            feed_names: names(inputs)?,
            fetch_names: names(outputs)?,
            control: Arc::new(Control { options, state: Mutex::default() }),
            api: ort::api(),
            host: MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?,
            info,
            session,
            _external: external,
        })
    }

    /// Inputs are as many and as the graph says, and agree with each other.
    fn check(&self, inputs: &[Tensor]) -> Result<(), EngineError> {
        let wanted = &self.info.signature.inputs;
        if inputs.len() != wanted.len() {
            return Err(EngineError::Run(format!(
                "expected {} inputs, found {}",
                wanted.len(),
                inputs.len()
            )));
        }
        wanted.iter().zip(inputs).try_for_each(|(info, tensor)| check(info, tensor))?;
        for Link { axis, same_as } in &self.links {
            let (found, expected) = (inputs[axis.0].shape[axis.1], inputs[same_as.0].shape[same_as.1]);
            if found != expected {
                return Err(EngineError::Run(format!(
                    "input `{}`: expected {} with {} = {expected} as in `{}`, found {:?}",
                    clip(&wanted[axis.0].name),
                    wanted[axis.0],
                    wanted[axis.0].dims[axis.1],
                    clip(&wanted[same_as.0].name),
                    inputs[axis.0].shape,
                )));
            }
        }
        Ok(())
    }

    /// Makes the feeds view the batch's inputs. A view is kept while the next batch's tensor lies in the same place.
    fn feed(&mut self, inputs: &[Tensor]) -> Result<(), EngineError> {
        for (number, (feed, tensor)) in self.feeds.iter_mut().zip(inputs).enumerate() {
            let value = &mut self.feed_values[number];
            let data = tensor.data.bytes().as_ptr();
            if !value.is_null() && feed.data == data && feed.shape == tensor.shape {
                continue;
            }
            release(self.api, value.cast_mut());
            *value = ptr::null();
            feed.axes.clear();
            feed.axes.extend(tensor.shape.iter().map(|&length| length as i64));
            let mut made = ptr::null_mut();
            // SAFETY: `check` proved the length; the runtime reads inputs and never writes them; the view is used only
            // in runs whose batch has this very tensor in this very place.
            let status = unsafe {
                (self.api.CreateTensorWithDataAsOrtValue)(
                    self.host.ptr(),
                    data.cast_mut().cast(),
                    tensor.data.bytes().len(),
                    feed.axes.as_ptr(),
                    feed.axes.len(),
                    element_type(tensor.dtype),
                    &mut made,
                )
            };
            // SAFETY: a status of the C API, not yet taken.
            unsafe { ort::Error::result_from_status(status) }.map_err(|error| {
                let name = clip(&self.info.signature.inputs[number].name);
                EngineError::Run(format!("input `{name}`: {}", words(&error)))
            })?;
            *value = made;
            feed.data = data;
            feed.shape.clone_from(&tensor.shape);
        }
        Ok(())
    }

    /// Copies the fetched values into `outputs` and gives them back to the runtime.
    fn fetch(&mut self, outputs: &mut Vec<Tensor>) -> Result<(), EngineError> {
        outputs.resize_with(self.fetch_values.len(), || Tensor::zeros(Dtype::F32, &[0]));
        let mut result = Ok(());
        for ((value, info), output) in
            self.fetch_values.iter_mut().zip(&self.info.signature.outputs).zip(outputs)
        {
            if result.is_ok() {
                result = copy_out(self.api, *value, output)
                    .map_err(|found| EngineError::Run(format!("output `{}`: {found}", clip(&info.name))));
            }
            release(self.api, *value);
            *value = ptr::null_mut();
        }
        result
    }

    fn failed(&self, error: &ort::Error, was_fired: bool) -> EngineError {
        if was_fired {
            return EngineError::Interrupted;
        }
        let words = words(error);
        let on_gpu = self.info.device != "cpu";
        let is_lost = matches!(error.code(), ErrorCode::DeviceReset | ErrorCode::EngineError)
            || (on_gpu
                && ["CUDA failure", "CUDA error", "CUDNN failure", "CUBLAS failure"]
                    .iter()
                    .any(|f| words.contains(f)));
        if is_lost { EngineError::Lost(words) } else { EngineError::Run(words) }
    }
}

impl Instance for OrtInstance {
    fn run(&mut self, batch: &mut Batch) -> Result<(), EngineError> {
        self.check(&batch.inputs)?;
        self.feed(&batch.inputs)?;
        self.control.begin();
        // SAFETY: names and values are as many as told; feeds view tensors that `batch` holds until after the run; the
        // fetches are null, so that the runtime makes them; the session is borrowed mutably.
        let status = unsafe {
            (self.api.Run)(
                self.session.ptr().cast_mut(),
                self.control.options.ptr(),
                self.feed_names.pointers.as_ptr(),
                self.feed_values.as_ptr(),
                self.feed_values.len(),
                self.fetch_names.pointers.as_ptr(),
                self.fetch_values.len(),
                self.fetch_values.as_mut_ptr(),
            )
        };
        let was_fired = self.control.end();
        // SAFETY: a status of the C API, not yet taken.
        if let Err(error) = unsafe { ort::Error::result_from_status(status) } {
            for value in &mut self.fetch_values {
                release(self.api, *value);
                *value = ptr::null_mut();
            }
            return Err(self.failed(&error, was_fired));
        }
        self.fetch(&mut batch.outputs)
    }

    fn info(&self) -> &InstanceInfo {
        &self.info
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.control) as Arc<dyn Interrupt>
    }
}

impl Drop for OrtInstance {
    fn drop(&mut self) {
        for value in &self.feed_values {
            release(self.api, value.cast_mut());
        }
    }
}

/// Two axes of one symbol, as (input, axis).
struct Link {
    axis: (usize, usize),
    same_as: (usize, usize),
}

/// The axes that must agree. The runtime does not hold inputs to it, and broadcasts one row over a batch in silence.
fn links(inputs: &[TensorInfo]) -> Vec<Link> {
    let mut first: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut links = Vec::new();
    for (input, info) in inputs.iter().enumerate() {
        for (axis, dim) in info.dims.iter().enumerate() {
            let Dim::Symbol(symbol) = dim else { continue };
            let same_as = *first.entry(symbol).or_insert((input, axis));
            if same_as != (input, axis) {
                links.push(Link { axis: (input, axis), same_as });
            }
        }
    }
    links
}

/// What a feed's value views.
struct Feed {
    data: *const u8,
    shape: Vec<usize>,
    axes: Vec<i64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { data: ptr::null(), shape: Vec::new(), axes: Vec::new() }
    }
}

/// Names as the C API takes them.
struct Names {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Names {
    fn new<'a>(names: impl Iterator<Item = &'a str>) -> ort::Result<Self> {
        let owned = names.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { pointers: owned.iter().map(|name| name.as_ptr()).collect(), _owned: owned })
    }
}

/// The run in progress, seen from another thread.
struct Control {
    options: RunOptions,
    state: Mutex<RunState>,
}

#[derive(Default)]
struct RunState {
    is_running: bool,
    was_fired: bool,
}

impl Control {
    fn begin(&self) {
        self.state.lock().is_running = true;
    }

    /// Whether the run was fired at; if so, the next one is not.
    fn end(&self) -> bool {
        let mut state = self.state.lock();
        state.is_running = false;
        let was_fired = std::mem::take(&mut state.was_fired);
        if was_fired && let Err(error) = self.options.unterminate() {
            tracing::error!(error = %error, "a run's end cannot be taken back");
        }
        was_fired
    }
}

impl Interrupt for Control {
    fn fire(&self) {
        let mut state = self.state.lock();
        // under the lock, so that a late shot never meets the next run
        if state.is_running && self.options.terminate().is_ok() {
            state.was_fired = true;
        }
    }
}

/// A tensor is as the graph says and as long as its own shape says.
fn check(info: &TensorInfo, tensor: &Tensor) -> Result<(), EngineError> {
    let fits = |(dim, &length): (&Dim, &usize)| !matches!(dim, Dim::Fixed(fixed) if *fixed != length);
    let elements = tensor.shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
    let len_bytes = elements.and_then(|elements| elements.checked_mul(tensor.dtype.size_bytes()));
    if tensor.dtype == info.dtype
        && tensor.shape.len() == info.dims.len()
        && info.dims.iter().zip(&tensor.shape).all(fits)
        && len_bytes == Some(tensor.data.bytes().len())
    {
        return Ok(());
    }
    let found = format!("{} {:?} in {} bytes", tensor.dtype, tensor.shape, tensor.data.bytes().len());
    Err(EngineError::Run(format!("input `{}`: expected {info}, found {found}", clip(&info.name))))
}

/// Copies a value of the runtime, or says what it is.
fn copy_out(api: &OrtApi, value: *mut OrtValue, output: &mut Tensor) -> Result<(), String> {
    if value.is_null() {
        return Err("the runtime gave none".into());
    }
    // read as a number: a runtime newer than `ort` may know types that its enum does not
    let mut number = 0i32;
    let (mut axes, mut rank) = (ptr::null(), 0usize);
    // SAFETY: the value is alive; the enum is an i32; `axes` points into the value.
    let status = unsafe {
        (api.GetTensorElementTypeAndShapeDataReference)(
            value,
            (&raw mut number).cast::<ONNXTensorElementDataType>(),
            &mut axes,
            &mut rank,
        )
    };
    // SAFETY: a status of the C API, not yet taken.
    unsafe { ort::Error::result_from_status(status) }.map_err(|error| words(&error))?;
    // SAFETY: as many axes as told; null only for rank 0.
    let axes = if rank == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(axes, rank) } };
    output.dtype =
        Dtype::from_onnx(number).ok_or_else(|| format!("the runtime gave element type {number}"))?;
    output.shape.clear();
    let mut len_bytes = output.dtype.size_bytes();
    for &length in axes {
        let length = usize::try_from(length).map_err(|_| format!("the runtime gave the shape {axes:?}"))?;
        len_bytes =
            len_bytes.checked_mul(length).ok_or_else(|| format!("the runtime gave the shape {axes:?}"))?;
        output.shape.push(length);
    }
    output.data.resize(len_bytes);
    if len_bytes == 0 {
        return Ok(());
    }
    let mut data = ptr::null_mut();
    // SAFETY: the value is a tensor on the host, alive until it is released below in `fetch`.
    let status = unsafe { (api.GetTensorMutableData)(value, &mut data) };
    // SAFETY: a status of the C API, not yet taken.
    unsafe { ort::Error::result_from_status(status) }.map_err(|error| words(&error))?;
    if data.is_null() {
        return Err("the runtime gave no data".into());
    }
    // SAFETY: the runtime's tensor is as long as its dtype and shape say.
    output
        .data
        .bytes_mut()
        .copy_from_slice(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len_bytes) });
    Ok(())
}

/// Gives a value back; null is none.
fn release(api: &OrtApi, value: *mut OrtValue) {
    if !value.is_null() {
        // SAFETY: a value that the runtime made and nobody else has.
        unsafe { (api.ReleaseValue)(value) };
    }
}

/// A runtime's error as part of a sentence.
pub(super) fn words(error: &ort::Error) -> String {
    cleaned(error.message())
}

/// On one line, without places in the runtime's own source and its codes, and short enough.
fn cleaned(message: &str) -> String {
    const LIMIT_CHARS: usize = 600;
    let line = one_line(message);
    let reason = without_place(&line);
    // "Non-zero status code returned while running Gemm node. Name:'gemm_0' Status Message: ..."
    let node = (reason.strip_prefix("Non-zero status code returned while running "))
        .and_then(|rest| rest.split_once(" node. Name:'"))
        .and_then(|(op, rest)| Some((op, rest.split_once("' Status Message: ")?)));
    let words = match node {
        Some((op, (name, reason))) => format!("{op} node `{name}`: {}", without_place(reason)),
        None => reason.to_owned(),
    };
    if words.chars().count() <= LIMIT_CHARS {
        return words;
    }
    words.chars().take(LIMIT_CHARS).chain(" ...".chars()).collect()
}

/// Without what may stand before a reason: "/a/b.cc:12 void onnxruntime::F(int) [ONNXRuntimeError] : 1 : FAIL : reason".
fn without_place(reason: &str) -> &str {
    let reason = match reason.split_once(".cc:").or_else(|| reason.split_once(".h:")) {
        Some((path, rest)) if !path.contains(' ') => rest.split_once(") ").map_or(reason, |(_, words)| words),
        _ => reason,
    };
    match reason.strip_prefix("[ONNXRuntimeError] : ").map(|rest| rest.splitn(3, " : ").last()) {
        Some(Some(words)) => words,
        _ => reason,
    }
}

const fn element_type(dtype: Dtype) -> ONNXTensorElementDataType {
    use ONNXTensorElementDataType as T;
    match dtype {
        Dtype::F32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Dtype::F64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Dtype::F16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Dtype::Bf16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        Dtype::I8 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Dtype::I16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        Dtype::I32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Dtype::I64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        Dtype::U8 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Dtype::U16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        Dtype::U32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        Dtype::U64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        Dtype::Bool => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_message_becomes_part_of_a_sentence() {
        for (message, words) in [
            ("as it\n is", "as it is"),
            (
                "Non-zero status code returned while running Gather node. Name:'g' Status Message: idx=9 must be \
                 within [-2,1]",
                "Gather node `g`: idx=9 must be within [-2,1]",
            ),
            (
                "/src/core/bridge.cc:2043 onnxruntime::Provider& onnxruntime::Library::Get() [ONNXRuntimeError] : 1 : \
                 FAIL : Failed to load library /x/libcuda.so with error: libcublasLt.so.13: cannot open",
                "Failed to load library /x/libcuda.so with error: libcublasLt.so.13: cannot open",
            ),
            (
                "Non-zero status code returned while running Loop node. Name:'l' Status Message: /src/a.h:7 bool \
                 F(int, bool) x was false",
                "Loop node `l`: x was false",
            ),
        ] {
            assert_eq!(cleaned(message), words);
        }
        assert_eq!(cleaned(&"µ".repeat(1000)).chars().count(), 604);
    }
}
