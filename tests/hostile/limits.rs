//! Limits of the operating system.

use std::process::Command;

#[test]
fn a_gateway_that_may_open_too_few_files_does_not_say_that_it_listens() {
    let data = tempfile::tempdir().unwrap();
    for files in [24, 32, 40, 64] {
        let script = format!("ulimit -n {files} && exec \"$0\" --listen 127.0.0.1:0 --data-dir \"$1\"");
        let gateway = env!("CARGO_BIN_EXE_mimi-gateway");
        let output = Command::new("sh").args(["-c", &script, gateway]).arg(data.path()).output().unwrap();
        let (said, complained) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "{files}: {said}");
        assert!(!said.contains("listening"), "{files}: {said}");
        assert!(complained.contains("ulimit -n"), "{files}: {complained}");
    }
}
