//! The dependencies of the server without its tools.

use std::process::Command;

/// Crates that only the tools need: plots, certificates, progress bars and histograms.
const TOOLS_ONLY: [&str; 3] = ["hdrhistogram", "indicatif", "rcgen"];

/// The crates of the server's dependency tree, by name.
fn dependencies(features: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--package", "mimi-gateway", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn only_the_tools_need_plots_certificates_progress_and_histograms() {
    let (with_tools, without) = (dependencies(&[]), dependencies(&["--no-default-features"]));
    assert!(without.contains(&"mimi-gateway-actors".to_owned()), "{without:?}");
    for name in TOOLS_ONLY.map(str::to_owned) {
        assert!(with_tools.contains(&name), "{name} is gone; take it off the list");
        assert!(!without.contains(&name), "{name} is in the server");
    }
}
