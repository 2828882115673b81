//! The gateway under attack: the real binary, with two applications and a token of each.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use mimi_gateway::token::Token;
use serde_json::Value;
use tempfile::TempDir;

/// How long an answer may take before a test has failed.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How much larger than usual the attacks are.
pub(crate) fn scale() -> usize {
    std::env::var("MIMI_HOSTILE_SCALE").ok().map_or(1, |scale| scale.parse().expect("a number"))
}

/// One of the applications, with a `read-write` token.
#[derive(Clone, Debug)]
pub(crate) struct Application {
    pub(crate) id: String,
    pub(crate) token: String,
}

/// A gateway that runs. Dropping it kills it.
pub(crate) struct Target {
    process: Child,
    directory: TempDir,
    /// One gateway at a time is attacked on this machine, so that no attack is measured beside another.
    _alone: File,
    pub(crate) address: SocketAddr,
    /// Whose token the attacker has.
    pub(crate) attacked: Application,
    /// Whose token the bystander has.
    pub(crate) other: Application,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem's slug.
    pub(crate) fn slug(&self) -> String {
        let json = self.json();
        json["type"].as_str().expect("a problem document").trim_start_matches("/problems/").to_owned()
    }
}

impl Target {
    /// Starts one with these settings under `[internal]`, and these at the top.
    pub(crate) fn start(internal: &str, top: &str) -> Self {
        let alone = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile.lock")).unwrap();
        alone.lock().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let application = || Application {
            id: uuid::Uuid::new_v4().to_string(),
            token: Token::generate().unwrap().reveal().to_owned(),
        };
        let (attacked, other) = (application(), application());
        let config = directory.path().join("gateway.toml");
        std::fs::write(&config, configuration(directory.path(), internal, top, &[&attacked, &other]))
            .unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_mimi-gateway"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            let rest = line.strip_prefix("listening internal=http://")?;
            Some(rest.split(' ').next().unwrap().parse().unwrap())
        });
        let Some(address) = address else {
            let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            panic!("the gateway does not listen: {log}");
        };
        Self { process, directory, _alone: alone, address, attacked, other }
    }

    /// What the gateway's process takes of the memory now, in MB.
    pub(crate) fn resident_mb(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it has taken, in MB.
    pub(crate) fn peak_mb(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends these bytes on a connection of their own and reads one answer.
    pub(crate) fn send(&self, bytes: &[u8]) -> std::io::Result<Reply> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        // The gateway may refuse a request before it has arrived whole.
        let _ = stream.write_all(bytes);
        read_reply(&mut stream)
    }

    /// Asks with the token of an application.
    pub(crate) fn call(
        &self,
        application: &Application,
        method: &str,
        rest: &str,
        body: Option<&str>,
    ) -> std::io::Result<Reply> {
        self.send(&request(application, method, rest, body))
    }

    /// Asks for a page that needs no token.
    pub(crate) fn get(&self, path: &str) -> std::io::Result<Reply> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n").as_bytes())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A request of an application, as it is written.
pub(crate) fn request(application: &Application, method: &str, rest: &str, body: Option<&str>) -> Vec<u8> {
    let mut request = format!(
        "{method} /apps/{}{rest} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {}\r\n",
        application.id, application.token
    );
    if let Some(body) = body {
        write!(request, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()).unwrap();
    }
    request.push_str("\r\n");
    request.push_str(body.unwrap_or_default());
    request.into_bytes()
}

/// Reads one answer.
pub(crate) fn read_reply(stream: &mut TcpStream) -> std::io::Result<Reply> {
    let closed = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "closed within an answer");
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Ok(Reply { status, head, body: bytes[end + 4..end + 4 + length].to_vec() });
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Err(closed()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn configuration(directory: &Path, internal: &str, top: &str, applications: &[&Application]) -> String {
    let mut config = format!(
        "data_dir = {:?}\n{top}\n[internal]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n{internal}\n",
        directory.join("data")
    );
    for application in applications {
        let hash = Token::new(&application.token).hash();
        write!(
            config,
            "[[applications]]\nid = \"{}\"\npublic = true\ntokens = [{{ sha256 = \"{hash}\", access = \"read-write\" }}]\n",
            application.id
        )
        .unwrap();
    }
    config
}
