//! The gateway under attack: the real binary, with two applications and a token of each.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader, Read, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mimi_gateway::{config::DataDir, token::Token};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::Setup;

/// How long an answer may take before a test has failed.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes of a line of the log for one request.
const ACCESS_LINE_MAX: usize = 512;

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
    /// One gateway at a time is attacked on this machine, so that no attack is measured next to another.
    _alone: File,
    pub(crate) address: SocketAddr,
    /// Where it listens for other gateways, if it federates.
    pub(crate) federation: Option<SocketAddr>,
    /// Where it listens for operators, if it does.
    operator: Option<SocketAddr>,
    /// The attacker's application.
    pub(crate) attacked: Application,
    /// The bystander's application.
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
        let application = || Application {
            id: uuid::Uuid::new_v4().to_string(),
            token: Token::generate().unwrap().reveal().to_owned(),
        };
        let (attacked, other) = (application(), application());
        let directory = tempfile::tempdir().unwrap();
        let config = configuration(directory.path(), internal, top, &[&attacked, &other]);
        Self::launch(directory, &config, attacked, other)
    }

    /// Starts one of this setup, whose first application is the attacked one.
    pub(crate) fn of(setup: &Setup) -> Self {
        let application = |id: actors::AppId, token: &Token| Application {
            id: id.to_string(),
            token: token.reveal().to_owned(),
        };
        let directory = tempfile::tempdir().unwrap();
        let config = setup.config.clone().kept_in(DataDir::Directory(directory.path().join("data")));
        let attacked = application(setup.app, &setup.writer);
        let other = application(setup.other_app, &setup.other_writer);
        Self::launch(directory, &config.to_toml().unwrap(), attacked, other)
    }

    fn launch(directory: TempDir, config: &str, attacked: Application, other: Application) -> Self {
        let alone = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile.lock")).unwrap();
        alone.lock().unwrap();
        std::fs::write(directory.path().join("gateway.toml"), config).unwrap();
        let (process, listening) = serve(directory.path());
        Self {
            process,
            directory,
            _alone: alone,
            address: listening.internal,
            federation: listening.federation,
            operator: listening.operator,
            attacked,
            other,
        }
    }

    /// Tells it to stop; how long it took until it had, and its exit code.
    pub(crate) fn terminate(&mut self, patience: Duration) -> (Duration, Option<i32>) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let since = Instant::now();
        while since.elapsed() < patience {
            if let Some(status) = self.process.try_wait().unwrap() {
                return (since.elapsed(), status.code());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it has not stopped after {patience:?}: {}", self.log());
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

    /// Its log with the lines of single requests, once they are written.
    pub(crate) fn whole_log(&self) -> String {
        std::thread::sleep(Duration::from_millis(100));
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Its log without the lines of single requests: the number of these is the caller's, their length is not.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        let is_access = |line: &&str| {
            line.split_once(' ').is_some_and(|(_, rest)| rest.trim_start().starts_with("INFO access: "))
        };
        let (access, others): (Vec<&str>, Vec<&str>) = log.split_inclusive('\n').partition(is_access);
        let long = access.iter().find(|line| line.len() > ACCESS_LINE_MAX);
        assert_eq!(long, None, "a line for a request is longer than {ACCESS_LINE_MAX} bytes");
        others.concat()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        Self::connect_to(self.address)
    }

    /// Connects to the listener for operators.
    pub(crate) fn connect_as_operator(&self) -> TcpStream {
        Self::connect_to(self.operator())
    }

    fn operator(&self) -> SocketAddr {
        self.operator.expect("a gateway with a listener for operators")
    }

    fn connect_to(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends these bytes on a connection of their own and reads one answer.
    pub(crate) fn send(&self, bytes: &[u8]) -> std::io::Result<Reply> {
        Self::send_to(self.address, bytes)
    }

    /// As [`Target::send`], to the listener for operators.
    pub(crate) fn send_as_operator(&self, bytes: &[u8]) -> std::io::Result<Reply> {
        Self::send_to(self.operator(), bytes)
    }

    fn send_to(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Reply> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
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

/// The addresses that a gateway listens at.
struct Listening {
    internal: SocketAddr,
    federation: Option<SocketAddr>,
    operator: Option<SocketAddr>,
}

/// Runs the gateway whose configuration is in a directory, and waits until it listens.
fn serve(directory: &Path) -> (Child, Listening) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_mimi-gateway"))
        .args(["serve", "--config"])
        .arg(directory.join("gateway.toml"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(directory.join("log")).unwrap())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let said = lines.map(Result::unwrap).find(|line| line.starts_with("listening "));
    let Some(said) = said else {
        let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        panic!("the gateway does not listen: {log}");
    };
    let address = |name: &str| {
        let place = said.split(' ').find_map(|part| part.strip_prefix(name))?;
        Some(place.split_once("://").unwrap().1.parse().unwrap())
    };
    let listening = Listening {
        internal: address("internal=").unwrap(),
        federation: address("federation="),
        operator: address("operator="),
    };
    (process, listening)
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A request of an application, as it is written.
pub(crate) fn request(application: &Application, method: &str, rest: &str, body: Option<&str>) -> Vec<u8> {
    let path = format!("/apps/{}{rest}", application.id);
    request_with(&format!("Authorization: Bearer {}\r\n", application.token), method, &path, body)
}

/// A request with this header field, as it is written.
pub(crate) fn request_with(field: &str, method: &str, path: &str, body: Option<&str>) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\n{field}");
    if let Some(body) = body {
        write!(request, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()).unwrap();
    }
    request.push_str("\r\n");
    request.push_str(body.unwrap_or_default());
    request.into_bytes()
}

/// Reads one answer.
pub(crate) fn read_reply(stream: &mut impl Read) -> std::io::Result<Reply> {
    let (head, body) = read_message(stream)?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok(Reply { status, head, body })
}

/// Reads one request or answer: its head, in lower case, and its body.
pub(crate) fn read_message(stream: &mut impl Read) -> std::io::Result<(String, Vec<u8>)> {
    let closed = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "closed within a message");
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Ok((head, bytes[end + 4..end + 4 + length].to_vec()));
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Err(closed()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Does something this many times at once.
pub(crate) fn at_once<T: Send>(count: usize, each: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let each = &each;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..count).map(|number| scope.spawn(move || each(number))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
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
