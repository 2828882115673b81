//! The operators' console: its files, and the page in a headless browser, driven by `tests/console/check.mjs`.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use mimi_gateway::{
    api::text::GroupIdText,
    config::{TokenAccess, TokenSettings},
    token::Token,
};

use crate::{
    mls_support::{clients, kept_in},
    support::{Reply, Request, Setup, TestGateway},
};

/// A handle that does harm where it is taken for markup.
const HOSTILE: &str = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";

async fn watched() -> TestGateway {
    let mut setup = Setup::new();
    setup.watched_by(&[]);
    setup.start().await
}

/// Opens a page as a browser does.
async fn browse(gateway: &TestGateway, path: &str) -> Reply {
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    gateway.operate(Request::new("GET", path).header("Accept", accept)).await
}

/// The files of the console that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let parts = text
        .split(['"', '\''])
        .filter(|part| [".js", ".css", ".svg"].iter().any(|end| part.ends_with(end)) && !part.contains(' '));
    parts.map(|part| part.replace("./", "/console/")).collect()
}

#[actix_web::test]
async fn the_console_needs_no_token_and_loads_nothing_from_elsewhere() {
    let gateway = watched().await;
    let page = browse(&gateway, "/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert!(page.header("vary").is_some_and(|vary| vary.contains("accept")), "{page:?}");
    let mut found = named(&page.text());
    assert!(found.contains("/console/main.js") && found.contains("/console/style.css"), "{found:?}");
    // The page and what it leads to.
    let (mut texts, mut seen) = (vec![page.text().to_owned()], BTreeSet::new());
    while let Some(path) = found.pop_first() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let file = browse(&gateway, &path).await;
        assert_eq!(file.status, 200, "{path}");
        assert_eq!(file.header("content-security-policy"), Some(policy), "{path}");
        found.extend(named(&file.text()));
        texts.push(file.text().to_owned());
    }
    assert_eq!(seen.len(), 12, "{seen:?}");
    for text in &texts {
        for elsewhere in ["https://", "//cdn", "eval(", "innerHTML", "localStorage.", "document.cookie"] {
            assert!(!text.contains(elsewhere), "{elsewhere} in {text}");
        }
        assert_eq!(
            text.matches("http://").count(),
            text.matches("http://www.w3.org/2000/svg").count(),
            "{text}"
        );
    }
    for path in ["/console/", "/console/nothing.js", "/console/..%2foperator.rs", "/console/index.html"] {
        browse(&gateway, path).await.problem(404, "unknown-route", "");
    }
    // Other programs get the paths of the listener.
    let plain = gateway.operate(Request::new("GET", "/").header("Accept", "*/*")).await;
    assert_eq!(plain.header("content-type"), Some("text/plain; charset=utf-8"));
    gateway.stop().await;
}

#[actix_web::test]
async fn a_file_that_the_browser_has_is_not_sent_again() {
    let gateway = watched().await;
    for path in ["/", "/console/main.js"] {
        let first = browse(&gateway, path).await;
        assert_eq!(first.header("cache-control"), Some("no-cache"), "{path}");
        let tag = first.header("etag").expect(path).to_owned();
        let again = Request::new("GET", path).header("Accept", "text/html").header("If-None-Match", &tag);
        let again = gateway.operate(again).await;
        assert_eq!((again.status, again.header("etag"), again.body.len()), (304, Some(tag.as_str()), 0));
        let changed = Request::new("GET", path).header("Accept", "text/html");
        let changed = gateway.operate(changed.header("If-None-Match", "W/\"0\"")).await;
        assert_eq!((changed.status, changed.text()), (200, first.text()));
    }
    gateway.stop().await;
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The browser, and the folder with what drives it; or why there is none.
fn browser() -> Result<(PathBuf, PathBuf), &'static str> {
    let node = Command::new("node").args(["-p", "process.versions.node.split('.')[0] >= 20"]).output();
    if !node.is_ok_and(|output| output.stdout.starts_with(b"true")) {
        return Err("Node 20 or newer is not installed");
    }
    let driver = repository().join("target/console/node_modules");
    if !driver.join("puppeteer-core").is_dir() {
        return Err("run tests/console/install");
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&paths)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.is_file());
    found.map(|chromium| (chromium, driver)).ok_or("Chromium is not installed")
}

#[actix_web::test]
async fn the_console_works_in_a_browser() {
    let (chromium, driver) = match browser() {
        Ok(found) => found,
        Err(reason) => {
            let notice = format!("SKIPPED: the console in a browser: {reason}\n");
            return std::io::stderr().write_all(notice.as_bytes()).unwrap();
        }
    };
    let directory = tempfile::tempdir().unwrap();
    let (mut setup, token, other) =
        (kept_in(&directory), Token::generate().unwrap(), Token::generate().unwrap());
    setup.watched_by(&[(&token, TokenAccess::Read), (&other, TokenAccess::Read)]);
    let gateway = setup.start().await;
    let [alice, bob, hostile] = clients(&gateway, ["alice", "bob", HOSTILE]).await;
    hostile.assign_to("bob").await.unwrap();
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;
    let mut at_bob = bob.join().await;
    // More than a page of epochs.
    for _ in 0..60 {
        at_alice.update().await;
    }
    at_bob.catch_up().await;

    let mut check = Command::new("node")
        .arg(repository().join("tests/console/check.mjs"))
        .args([&driver, &chromium])
        .arg(format!("http://{}", gateway.operator_address()))
        .env("TOKEN", token.reveal())
        .env("OTHER_TOKEN", gateway.writer.reveal())
        .env("APP", gateway.app.to_string())
        .env("GROUP", GroupIdText(at_alice.id()).to_string())
        .env("HANDLE", HOSTILE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = check.stdout.take().unwrap();
    let (said, mut sayings) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                break;
            }
        }
    });
    // Commits go on while it looks.
    let mut told = Vec::new();
    loop {
        tokio::select! {
            line = sayings.recv() => match line.as_deref() {
                None => break,
                Some("please revoke the token") => {
                    let left = TokenSettings { sha256: other.hash(), access: TokenAccess::Read };
                    setup.config.operator.as_mut().unwrap().tokens = vec![left];
                    gateway.reload(&setup.config).await.unwrap();
                }
                Some(line) => told.push(line.to_owned()),
            },
            () = tokio::time::sleep(Duration::from_millis(250)) => {
                at_alice.update().await;
            }
        }
    }
    let status = check.wait().unwrap();
    assert!(status.success(), "{}", told.join("\n"));
    assert!(told.last().is_some_and(|last| last.starts_with("all of ")), "{}", told.join("\n"));
    gateway.stop().await;
}
