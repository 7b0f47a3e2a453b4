//! ONNX Runtime as an engine: a version's bytes to an instance on the device that was asked for, with an honest word
//! about where it runs.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use ort::AsPointer;
use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider};
use ort::session::Session;
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder};

use super::library::{self, LibraryError, Opened};
use super::ort_instance::{OrtInstance, words};
use super::{Device, Engine, EngineError, Instance, InstanceInfo, LoadOptions, ModelBytes};
use crate::error::{clip, there_is};
use crate::graph::{self, Graph};

/// ONNX Runtime, opened.
#[derive(Debug)]
pub struct OrtEngine {
    environment: Environment,
    fingerprint: String,
    version: String,
    /// What the library was built with, `CPUExecutionProvider` last.
    providers: Vec<String>,
}

/// What a session is made for.
#[derive(Clone, Copy)]
enum Target {
    Cpu,
    /// The CPU may take what the GPU cannot.
    GpuFirst(u32),
    /// Every node on the GPU, or none.
    GpuOnly(u32),
}

/// A node, and the execution provider that it was given to.
struct Assigned {
    provider: String,
    node: String,
}

impl OrtEngine {
    /// Proves the library at `path`, opens it (once per process), and asks what it is.
    pub fn open(path: &Path) -> Result<Self, LibraryError> {
        let Opened { version, environment, .. } = library::opened(path)?;
        let start = |reason: String| LibraryError::Start { path: path.into(), reason };
        let providers = available_providers().map_err(|error| start(words(&error)))?;
        let build = library::one_line(ort::info());
        let fingerprint =
            format!("onnxruntime {version} ({build}); {}; {}", providers.join(" "), cpu_features().join(" "));
        Ok(Self { environment, fingerprint, version, providers })
    }

    fn session(
        &self,
        model: &ModelBytes,
        options: &LoadOptions,
        external: &BTreeMap<&str, Arc<[u8]>>,
        target: Target,
    ) -> ort::Result<Session> {
        let mut builder = self.builder(options)?;
        if let Target::GpuFirst(number) | Target::GpuOnly(number) = target {
            let cuda =
                ep::CUDA::default().with_device_id(number.try_into().unwrap_or(i32::MAX)).with_tf32(false);
            builder = builder.with_execution_providers([cuda.build().error_on_failure()])?;
        }
        if let Target::GpuOnly(_) = target {
            builder = builder.with_disable_cpu_fallback()?;
        }
        for (location, bytes) in external {
            builder = builder.with_external_initializer_file_in_memory(location, Arc::clone(bytes))?;
        }
        builder.commit_from_memory(&model.onnx)
    }

    fn builder(&self, options: &LoadOptions) -> ort::Result<SessionBuilder> {
        Ok(Session::builder(&self.environment)?
            // `ort` asks for an NPU first, if there is one
            .with_auto_device(AutoDevicePolicy::PreferCPU)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(usize::from(options.intra_threads.max(1)))?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_intra_op_spinning(false)?
            .with_memory_pattern(true)?
            .with_config_entry("session.record_ep_graph_assignment_info", "1")?)
    }

    /// A GPU for the whole graph, or why not.
    fn only_gpu(
        &self,
        number: u32,
        make: &dyn Fn(Target) -> ort::Result<Session>,
    ) -> Result<Session, String> {
        self.has_cuda()?;
        make(Target::GpuOnly(number)).map_err(|error| {
            // the refusal names no node; a session that may fall back tells which ones did
            match make(Target::GpuFirst(number)).and_then(|session| assignment(&session)) {
                Ok(nodes) if nodes.iter().any(|node| !is_gpu(&node.provider)) => {
                    let left = nodes.iter().filter(|node| !is_gpu(&node.provider));
                    let mut names: Vec<String> = left.map(|node| clip(&node.node)).collect();
                    let more = names.len().saturating_sub(8);
                    names.truncate(8);
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    format!("cannot run there: {}{more}", names.join(", "))
                }
                _ => words(&error),
            }
        })
    }

    /// The first GPU if it takes any of the graph, else why not.
    fn first_gpu(&self, make: &dyn Fn(Target) -> ort::Result<Session>) -> Result<Session, String> {
        self.has_cuda()?;
        let session = make(Target::GpuFirst(0)).map_err(|error| words(&error))?;
        let nodes = assignment(&session).map_err(|error| words(&error))?;
        if nodes.iter().any(|node| is_gpu(&node.provider)) {
            Ok(session)
        } else {
            Err("none of its nodes can run there".into())
        }
    }

    fn has_cuda(&self) -> Result<(), String> {
        if self.providers.iter().any(|provider| provider == ep::CUDA::NAME) {
            return Ok(());
        }
        let providers = self.providers.join(", ");
        Err(format!(
            "this ONNX Runtime ({}) is built without CUDA; it has {providers}; wanted the library of onnxruntime-gpu",
            self.version
        ))
    }
}

impl Engine for OrtEngine {
    fn load(&self, model: &ModelBytes, options: &LoadOptions) -> Result<Box<dyn Instance>, EngineError> {
        let refused = |reason: String| EngineError::Load { model: model.name.clone(), reason };
        let graph = graph::read(&model.onnx).map_err(|error| refused(error.to_string()))?;
        let external = external_of(model, &graph).map_err(refused)?;
        let make = |target| self.session(model, options, &external, target);

        let (session, device) = match options.device {
            Device::Cpu => (make(Target::Cpu), Device::Cpu),
            Device::Cuda(number) => {
                let session = self.only_gpu(number, &make).map_err(|reason| EngineError::Device {
                    model: model.name.clone(),
                    device: options.device.to_string(),
                    reason,
                })?;
                (Ok(session), options.device)
            }
            Device::Auto => match self.first_gpu(&make) {
                Ok(session) => (Ok(session), Device::Cuda(0)),
                Err(reason) => {
                    tracing::info!(model.name = model.name, reason, "auto runs on the cpu");
                    (make(Target::Cpu), Device::Cpu)
                }
            },
        };
        let session = session.map_err(|error| refused(words(&error)))?;

        let mut providers = BTreeMap::new();
        for node in assignment(&session).map_err(|error| refused(words(&error)))? {
            *providers.entry(node.provider).or_insert(0) += 1;
        }
        let info =
            InstanceInfo { signature: graph.signature().clone(), device: device.to_string(), providers };
        let instance = OrtInstance::new(session, info, external.into_values().collect());
        Ok(Box::new(instance.map_err(|error| refused(words(&error)))?))
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The external files that the graph names, each long enough for what is in it.
///
/// The runtime looks for a file that it is not given in the working directory; so none may be missing.
fn external_of<'a>(model: &ModelBytes, graph: &'a Graph) -> Result<BTreeMap<&'a str, Arc<[u8]>>, String> {
    let mut files = BTreeMap::new();
    for tensor in graph.external_tensors() {
        let Some(bytes) = model.external.get(&tensor.location) else {
            return Err(format!(
                "tensor `{}`: expected its external data `{}` among the version's files; {}",
                clip(&tensor.tensor),
                clip(&tensor.location),
                there_is(&tensor.location, model.external.keys().map(String::as_str)),
            ));
        };
        if tensor.end_bytes() > bytes.len() as u64 {
            return Err(format!(
                "tensor `{}`: expected its external data at bytes {} to {} of `{}`, found {} bytes in all",
                clip(&tensor.tensor),
                tensor.offset_bytes,
                tensor.end_bytes(),
                clip(&tensor.location),
                bytes.len(),
            ));
        }
        files.insert(tensor.location.as_str(), Arc::clone(bytes));
    }
    Ok(files)
}

fn is_gpu(provider: &str) -> bool {
    provider == ep::CUDA::NAME
}

/// Which node went to which provider, as the session recorded it before it fused nodes.
fn assignment(session: &Session) -> ort::Result<Vec<Assigned>> {
    let api = ort::api();
    let mut nodes = Vec::new();
    let (mut groups, mut count) = (ptr::null(), 0usize);
    // SAFETY (all of this function): the session is alive, and what is asked for lives as long as it does; each list
    // is as long as told, and null only if it is empty.
    unsafe {
        ort::Error::result_from_status((api.Session_GetEpGraphAssignmentInfo)(
            session.ptr(),
            &mut groups,
            &mut count,
        ))?;
        for &group in list(groups, count) {
            let mut provider = ptr::null();
            ort::Error::result_from_status((api.EpAssignedSubgraph_GetEpName)(group, &mut provider))?;
            let (mut members, mut count) = (ptr::null(), 0usize);
            ort::Error::result_from_status((api.EpAssignedSubgraph_GetNodes)(
                group,
                &mut members,
                &mut count,
            ))?;
            for &member in list(members, count) {
                let (mut name, mut operator) = (ptr::null(), ptr::null());
                ort::Error::result_from_status((api.EpAssignedNode_GetName)(member, &mut name))?;
                ort::Error::result_from_status((api.EpAssignedNode_GetOperatorType)(member, &mut operator))?;
                let node = format!("{} ({})", text(name), text(operator));
                nodes.push(Assigned { provider: text(provider), node });
            }
        }
    }
    Ok(nodes)
}

/// Execution providers that the library was built with.
fn available_providers() -> ort::Result<Vec<String>> {
    let api = ort::api();
    let (mut names, mut count) = (ptr::null_mut::<*mut c_char>(), 0);
    // SAFETY: the list is as long as told, and is given back once, after it was copied.
    unsafe {
        ort::Error::result_from_status((api.GetAvailableProviders)(&mut names, &mut count))?;
        let copied = list(names.cast_const(), usize::try_from(count).unwrap_or(0))
            .iter()
            .map(|&name| text(name))
            .collect();
        ort::Error::result_from_status((api.ReleaseAvailableProviders)(names, count))?;
        Ok(copied)
    }
}

/// SAFETY: `first` is null or points to `count` elements that outlive `'a`.
unsafe fn list<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(first, count) } }
}

/// SAFETY: `text` is null or ends with a NUL.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        String::new()
    } else {
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// What of this CPU decides which kernels run.
fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! found {
            ($($name:tt),*) => {
                [$(($name, std::arch::is_x86_feature_detected!($name))),*]
            };
        }
        let features = found!(
            "sse4.1",
            "avx",
            "avx2",
            "fma",
            "f16c",
            "avx512f",
            "avx512bw",
            "avx512vl",
            "avx512vnni",
            "avx512bf16"
        );
        std::iter::once("x86-64")
            .chain(features.into_iter().filter(|found| found.1).map(|found| found.0))
            .collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        vec![std::env::consts::ARCH]
    }
}

#[cfg(test)]
#[path = "ort_tests.rs"]
mod tests;
