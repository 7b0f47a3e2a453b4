//! The image's steps, walked by `deploy/rehearse.py` with the program under test.

use std::process::Command;

#[test]
fn the_images_steps_make_what_runs_as_its_user_on_a_read_only_tree() {
    let mut python = Command::new("python3");
    python.arg(super::path("deploy/rehearse.py")).arg("--program").arg(env!("CARGO_BIN_EXE_latentd"));
    let done = python.output().expect("python3 runs");
    let said = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() && said.contains("it needs root that may make namespaces") {
        println!("not run: {}", said.trim());
        return;
    }
    let seen = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{seen}{said}");
    assert!(seen.contains("SIGTERM drained it: exit code 0"), "{seen}");
}
