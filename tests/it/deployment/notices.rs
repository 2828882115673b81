//! The notices of `sd_notify(3)`, with a test in the place of the service manager.

use std::{
    fs::File,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::Duration,
};

use mimi_gateway::client::plain_http;
use tempfile::TempDir;

use crate::support::process::{Process, binary};

/// How long a notice may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service manager's socket, and the log of the service.
struct Manager {
    directory: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { directory, socket }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the gateway; it is told of this socket, if of any.
    fn start(&self, socket: Option<&Path>) -> Process {
        let mut command = binary(&["--listen", "127.0.0.1:0", "--data-dir", ":memory:"]);
        command.env_remove("NOTIFY_SOCKET").envs(socket.map(|path| ("NOTIFY_SOCKET", path)));
        Process::start(command.stderr(File::create(self.path("log")).unwrap()))
    }

    /// The next notice, as its lines.
    fn notice(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a notice");
        std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned).collect()
    }

    /// Checks that no notice has come.
    fn got_nothing(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let error = self.socket.recv(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }

    /// The warnings in the log.
    fn warnings(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path("log")).unwrap();
        assert!(log.contains("stopped"), "{log}");
        let is_warning = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        // The operators' address may be taken on the machine of the test.
        log.lines()
            .filter(is_warning)
            .filter(|line| !line.contains("operators' address"))
            .map(str::to_owned)
            .collect()
    }
}

#[actix_web::test]
async fn the_manager_is_told_of_start_reload_and_stop() {
    let manager = Manager::new();
    let mut process = manager.start(Some(&manager.path("notify")));
    let ready = manager.notice();
    let listening = process.printed.lines().last().unwrap();
    assert_eq!(ready, ["READY=1".to_owned(), format!("STATUS={listening}")]);
    // It is ready: the address in the status answers.
    let status = ready[1].split_once("internal=").unwrap().1;
    let url = format!("{}/readyz", status.split(' ').next().unwrap());
    assert_eq!(plain_http().build().unwrap().get(url).send().await.unwrap().status(), 200);

    process.signal("HUP");
    let reloading = manager.notice();
    assert_eq!((reloading[0].as_str(), reloading.len()), ("RELOADING=1", 3));
    assert!(reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
    assert_eq!(manager.notice(), ready);

    process.signal("TERM");
    let stopping = manager.notice();
    // Twice the 15 s for requests, 5 s of grace, and 5 s until the manager may kill it.
    assert_eq!(stopping, ["STOPPING=1", "EXTEND_TIMEOUT_USEC=40000000", "STATUS=stopping, within 35 s"]);
    assert_eq!(process.ended(), Some(0));
    manager.got_nothing();
    assert_eq!(manager.warnings(), [""; 0]);
}

#[actix_web::test]
async fn without_a_manager_nothing_is_sent() {
    let manager = Manager::new();
    for socket in [None, Some(Path::new(""))] {
        let mut process = manager.start(socket);
        process.signal("TERM");
        assert_eq!(process.ended(), Some(0));
        manager.got_nothing();
        assert_eq!(manager.warnings(), [""; 0]);
    }
}

#[actix_web::test]
async fn a_socket_that_is_missing_is_one_warning() {
    let manager = Manager::new();
    let mut process = manager.start(Some(&manager.path("nothing")));
    let url = format!("{}/readyz", process.internal());
    assert_eq!(plain_http().build().unwrap().get(url).send().await.unwrap().status(), 200);
    process.signal("TERM");
    assert_eq!(process.ended(), Some(0));
    let warnings = manager.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("NOTIFY_SOCKET cannot be used"), "{warnings:?}");
}
