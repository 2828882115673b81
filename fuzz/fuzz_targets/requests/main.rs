//! Requests of an application's server to a whole gateway, over a socket: each answer is a success or a problem document, and never a
//! failure of the gateway.
//!
//! An input is a list of parts, each with its kind in one byte and its length in two. A part is a request: its kind is the method, its
//! bytes are the path behind that of the application, up to the end of the line, and the body. In the path, `$c` and `$q` stand for the last
//! `clientId` and `keyQueueId` in an answer.

#![no_main]

#[path = "../parts.rs"]
mod parts;

use std::{
    cell::RefCell,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{LazyLock, mpsc},
    time::Duration,
};

use actors::{AppId, Clock, Timestamp};
use libfuzzer_sys::fuzz_target;
use mimi_gateway::{
    api::problem::ProblemDocument,
    config::{ApplicationSettings, Config, DataDir, TokenAccess, TokenSettings},
    serve,
    token::Token,
};
use serde_json::Value;

/// A moment at which the seeds are valid.
const NOW: Timestamp = Timestamp(1_795_792_400_000);
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
/// Longer answers and waits are given up.
const PATIENCE: Duration = Duration::from_secs(2);

struct Served {
    address: SocketAddr,
    app: AppId,
    token: Token,
}

/// The gateway, which keeps nothing on disk.
static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let (app, token) = (AppId::random(), Token::generate().expect("a token"));
    let settings = TokenSettings { sha256: token.hash(), access: TokenAccess::ReadWrite };
    let mut config = Config::embedded()
        .listening_on(SocketAddr::from(([127, 0, 0, 1], 0)))
        .kept_in(DataDir::Memory)
        .with_application(ApplicationSettings::basic(app, vec![settings]));
    config.operator = None;
    config.internal.listener.workers = 1;
    config.actor_threads = 1;
    let (listens, address) = mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async {
            let running =
                serve::start_with_clock(config, Clock::new(|| NOW)).await.expect("a gateway that starts");
            listens.send(running.address()).expect("a process that waits for it");
            std::future::pending::<()>().await;
        });
    });
    Served { address: address.recv().expect("a gateway that starts"), app, token }
});

/// An answer; the body of an event stream is left out.
struct Answer {
    status: u16,
    media_type: String,
    body: Vec<u8>,
    closes: bool,
}

thread_local! {
    static CONNECTION: RefCell<Option<BufReader<TcpStream>>> = const { RefCell::new(None) };
}

/// Sends a request; `None` if the connection ends or the answer takes long.
fn send(request: &[u8], is_head: bool) -> Option<Answer> {
    CONNECTION.with_borrow_mut(|connection| {
        let mut reader = match connection.take() {
            Some(reader) => reader,
            None => {
                let stream = TcpStream::connect(SERVED.address).expect("a gateway that runs");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                stream.set_nodelay(true).expect("a socket");
                BufReader::new(stream)
            }
        };
        reader.get_mut().write_all(request).ok()?;
        let answer = read(&mut reader, is_head)?;
        if !answer.closes {
            *connection = Some(reader);
        }
        Some(answer)
    })
}

fn read(reader: &mut BufReader<TcpStream>, is_head: bool) -> Option<Answer> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let mut answer = Answer { status, media_type: String::new(), body: Vec::new(), closes: false };
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-type" => answer.media_type = value.trim().to_owned(),
            "content-length" => length = Some(value.trim().parse::<usize>().expect("a length")),
            "connection" => answer.closes |= value.trim().eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let has_body = !is_head && ![204, 304].contains(&status);
    match length {
        Some(length) if has_body => {
            answer.body = vec![0; length];
            reader.read_exact(&mut answer.body).ok()?;
        }
        // An event stream.
        None if has_body => answer.closes = true,
        Some(_) | None => {}
    }
    Some(answer)
}

/// The texts that stand for ids in paths.
#[derive(Default)]
struct Ids {
    client: String,
    queue: String,
}

impl Ids {
    fn learn(&mut self, answer: &[u8]) {
        let Ok(Value::Object(members)) = serde_json::from_slice(answer) else { return };
        for (name, id) in [("clientId", &mut self.client), ("keyQueueId", &mut self.queue)] {
            if let Some(Value::String(found)) = members.get(name) {
                found.clone_into(id);
            }
        }
    }
}

fn request(ids: &mut Ids, kind: u8, part: &[u8]) {
    let method = METHODS[usize::from(kind) % METHODS.len()];
    let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
    let (path, body) = part.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    // What the parser of HTTP refuses is tested elsewhere.
    let Some(path) =
        std::str::from_utf8(path).ok().filter(|path| path.bytes().all(|byte| byte.is_ascii_graphic()))
    else {
        return;
    };
    let path = path.replace("$c", &ids.client).replace("$q", &ids.queue);
    let Served { app, token, .. } = &*SERVED;
    let head = format!(
        "{method} /apps/{app}{path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        token.reveal(),
        body.len()
    );
    let Some(answer) = send(&[head.as_bytes(), body].concat(), method == "HEAD") else { return };
    let Answer { status, media_type, body, .. } = &answer;
    match status {
        200..=399 => {
            if media_type == "application/json" && !body.is_empty() {
                serde_json::from_slice::<Value>(body).expect("an answer in JSON");
            }
            ids.learn(body);
        }
        400..=499 if method == "HEAD" => {}
        400..=499 => {
            let problem: ProblemDocument = serde_json::from_slice(body).expect("a problem document");
            assert_eq!(problem.status, *status, "{method} {path}");
            assert_eq!(media_type, "application/problem+json", "{method} {path}");
        }
        _ => panic!("{status} to {method} {path}: {}", String::from_utf8_lossy(body)),
    }
}

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let mut ids = Ids::default();
    while let Some((kind, part)) = parts::next_part(&mut rest) {
        request(&mut ids, kind, &part);
    }
});
