//! What holds for the whole process, settled before anything else.

/// Large pieces go back to the system as soon as they are free (bytes).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: i32 = 1 << 20;

/// Keeps ONNX Runtime's events to itself and memory with the system.
///
/// # Safety
/// No other thread may have begun.
pub unsafe fn settle() {
    // Else ONNX Runtime keeps a device id and a file of events below the home directory, for its maker.
    // SAFETY: nobody reads the environment meanwhile, as the caller promises.
    #[expect(clippy::disallowed_methods, reason = "the runtime takes it from nowhere else")]
    unsafe {
        std::env::set_var("ORT_DISABLE_TELEMETRY", "1")
    };
    // Pieces of a recording are read by one thread and let go by another. Left to itself, glibc learns from the first
    // of them to keep all that are as large, for each thread; a server at full speed grew to 185 MB of free memory.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for setting in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: sets a number of the allocator. A setting that it refuses stays as it was, which does no harm.
        unsafe { libc::mallopt(setting, LARGE_BYTES) };
    }
}
