//! The binary in a process of its own, killed and started again on one directory.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use actors::AppId;
use mimi_gateway::{client::GatewayClient, token::Token};
use tempfile::TempDir;

/// A configuration and a data directory, removed with it.
pub(crate) struct Installation {
    directory: TempDir,
    app: AppId,
    token: Token,
}

/// A gateway that runs.
pub(crate) struct Process {
    child: Child,
    base_url: String,
}

impl Installation {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token = Token::generate().unwrap();
        let app = AppId::random();
        let data_dir = directory.path().join("data");
        // Snapshots as often as may be, so that some are being written when the gateway is killed.
        let config = format!(
            "data_dir = {data_dir:?}\nlog = \"warn\"\n\n[internal]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n\n\
             [passivation]\nafter_s = 1\nsnapshot_period_s = 1\n\n[retention]\nhistory_epochs_max = 10000000\n\n\
             [[applications]]\nid = \"{app}\"\ntokens = [{{ sha256 = \"{}\", access = \"read-write\" }}]\n",
            token.hash()
        );
        std::fs::write(directory.path().join("gateway.toml"), config).unwrap();
        Self { directory, app, token }
    }

    /// What `snapshot verify` prints for the data directory, which no process uses.
    pub(crate) fn verify(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mimi-gateway"));
        command.arg("--config").arg(self.directory.path().join("gateway.toml")).args(["snapshot", "verify"]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    pub(crate) fn client(&self, process: &Process) -> GatewayClient {
        GatewayClient::new(process.base_url.as_str(), self.app, self.token.clone()).unwrap()
    }
}

impl Process {
    pub(crate) fn start(installation: &Installation) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mimi-gateway"))
            .arg("--config")
            .arg(installation.directory.path().join("gateway.toml"))
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, base_url: String::new() };
        let mut line = String::new();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it ended before it listened");
        process.base_url = line.strip_prefix("listening internal=").expect(&line).trim_end().to_owned();
        process
    }

    /// Kills it with SIGKILL: it cannot finish anything.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), None, "it ended before it was killed: {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has been killed already unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
