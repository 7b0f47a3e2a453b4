//! `latentd`: arguments to one command.

use std::process::ExitCode;

use clap::Parser as _;
use latentd::cli::Cli;

fn main() -> ExitCode {
    // SAFETY: no other thread has begun.
    unsafe { settle_process() };
    Cli::parse().run()
}

/// What holds for the whole process.
///
/// # Safety
/// No other thread may have begun.
unsafe fn settle_process() {
    // Else ONNX Runtime keeps a device id and a file of events below the home directory, for its maker.
    // SAFETY: nobody reads the environment meanwhile, as the caller promises.
    #[expect(clippy::disallowed_methods, reason = "the runtime takes it from nowhere else")]
    unsafe {
        std::env::set_var("ORT_DISABLE_TELEMETRY", "1")
    };
    // Pieces of a recording are read by one thread and let go by another. Left to itself the allocator keeps each
    // thread's share of them for good; so it gives back what is large at once, and keeps few shares.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (setting, value) in [
        (libc::M_MMAP_THRESHOLD, LARGE_BYTES),
        (libc::M_TRIM_THRESHOLD, LARGE_BYTES),
        (libc::M_ARENA_MAX, ARENAS),
    ] {
        // SAFETY: sets a number of the allocator. A setting that it refuses stays as it was, which does no harm.
        unsafe { libc::mallopt(setting, value) };
    }
}

/// What the allocator gives back to the system as soon as it is free.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: i32 = 128 << 10;
/// Heaps that threads share.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: i32 = 4;
