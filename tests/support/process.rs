//! The binary in a process of its own.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

/// How long it may take to end before a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary with these arguments and nothing of the environment's logging.
pub(crate) fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mimi-gateway"));
    command.args(arguments).env_remove("RUST_LOG").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// A gateway that has said that it listens. Dropping it kills it with SIGKILL.
pub(crate) struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Its standard output, up to the line that says that it listens.
    pub(crate) printed: String,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, stdout, printed: String::new() };
        while process.listening().is_none() {
            let bytes = process.stdout.read_line(&mut process.printed).unwrap();
            assert_ne!(bytes, 0, "it ended before it listened: {}", process.printed);
        }
        process
    }

    /// The base URL of its internal listener.
    pub(crate) fn internal(&self) -> &str {
        self.listener("internal=").expect(&self.printed)
    }

    /// The base URL of its listener for other gateways.
    pub(crate) fn federation(&self) -> Option<&str> {
        self.listener("federation=")
    }

    /// The base URL of its listener for operators.
    pub(crate) fn operator(&self) -> Option<&str> {
        self.listener("operator=")
    }

    fn listener(&self, name: &str) -> Option<&str> {
        self.listening()?.split(' ').find_map(|part| part.strip_prefix(name))
    }

    fn listening(&self) -> Option<&str> {
        self.printed.lines().find_map(|line| line.strip_prefix("listening "))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until it has ended, and returns its exit code; `None` when a signal ended it.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                let mut rest = String::new();
                self.stdout.read_to_string(&mut rest).unwrap();
                assert_eq!(rest, "", "nothing follows on standard output");
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already unless a test kills it, or has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
