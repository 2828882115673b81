//! The load test, run as a user runs it: short seeded runs whose figures are checked, and options that are refused.

use std::process::Output;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use serde_json::Value;

use crate::support::{Setup, process::binary};

async fn load_test(arguments: &[&str], token: Option<&str>) -> Output {
    let mut command = binary(&["loadtest"]);
    command.args(arguments).env_remove("MIMI_TOKEN");
    if let Some(token) = token {
        command.env("MIMI_TOKEN", token);
    }
    // A gateway in this process has to go on meanwhile.
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A run that ends well: what it printed, its figures and its page.
async fn figures(arguments: &[&str]) -> (String, Value, String) {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (json, html) = (place("figures.json"), place("page.html"));
    let output = load_test(&[arguments, &["--json", &json, "--html", &html]].concat(), None).await;
    let (told, said) = (text(&output.stdout).to_owned(), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}{said}");
    let figures = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    (told, figures, std::fs::read_to_string(html).unwrap())
}

/// The count of a row of latencies.
fn count(figures: &Value, what: &str) -> u64 {
    let rows = figures["latencies"].as_array().unwrap();
    rows.iter().find(|row| row["what"] == what).map_or(0, |row| row["count"].as_u64().unwrap())
}

#[actix_web::test]
async fn an_open_loop_does_its_mix_and_proves_it() {
    let mix = "commits=4,proposals=2,key-packages=1,welcomes=1,reads=1,joins=1";
    let run = ["--groups", "2", "--members", "6", "--contention", "3", "--rate", "12", "--duration", "3s"];
    let (told, figures, page) = figures(&[&run[..], &["--mix", mix, "--seed", "7"]].concat()).await;

    assert!(told.contains("proven: one winner in each of"), "{told}");
    assert!(told.contains("a gateway in this process, durable writes in"), "{told}");
    assert_eq!(figures["proof"]["violations"], Value::Array(Vec::new()));
    assert_eq!(figures["errors"], serde_json::json!({}), "{told}");
    // Two groups of three committers, a witness, a proposer, and the joiner once it came.
    assert!((10..=12).contains(&figures["proof"]["members"].as_u64().unwrap()), "{told}");
    let accepted = figures["accepted"].as_u64().unwrap();
    assert!(accepted > 0 && accepted.is_multiple_of(3), "each arrival is three commits: {told}");
    assert!(figures["conflict_rate"].as_f64().unwrap() > 0.0, "{told}");
    let answered = accepted + count(&figures, "commit refused, too late");
    let attempts = figures["attempts_mean"].as_f64().unwrap() * accepted as f64;
    assert!(answered > accepted && (attempts - answered as f64).abs() < 1e-6, "{told}");
    assert!(figures["fairness"].as_f64().unwrap() > 0.0, "{told}");
    assert_eq!(count(&figures, "commit accepted"), accepted);
    assert_eq!(count(&figures, "from due to having won, all attempts"), accepted);
    for what in
        ["resolution: from losing to having won", "proposals", "key-packages", "welcomes", "reads", "joins"]
    {
        assert!(count(&figures, what) > 0, "{what}: {told}");
    }
    assert!(page.contains("Latency by percentile") && page.contains("<svg"));
    assert!(!page.contains("http-equiv") && !page.contains("<script") && !page.contains("<link"));
}

#[actix_web::test]
async fn a_schedule_is_its_seed() {
    let run = ["--groups", "1", "--members", "2", "--contention", "1", "--rate", "20", "--duration", "1s"];
    let mut accepted = Vec::new();
    for seed in ["3", "3", "4"] {
        accepted.push(figures(&[&run[..], &["--seed", seed]].concat()).await.1["accepted"].clone());
    }
    assert_eq!(accepted[0], accepted[1]);
    assert_ne!(accepted[0], accepted[2]);
}

#[actix_web::test]
async fn a_closed_loop_does_nothing_that_is_not_in_its_mix() {
    let run = ["--groups", "1", "--members", "3", "--contention", "2", "--closed", "--duration", "300ms"];
    let (told, figures, _) = figures(&[&run[..], &["--mix", "commits=0,reads=1"]].concat()).await;
    assert_eq!(figures["accepted"], 0, "{told}");
    assert!(count(&figures, "reads") > 0, "{told}");
}

#[actix_web::test]
async fn a_closed_loop_counts_who_was_losing_at_its_end() {
    let run = ["--groups", "1", "--members", "9", "--contention", "8", "--witnesses", "0", "--closed"];
    let (told, figures, _) = figures(&[&run[..], &["--duration", "1s"]].concat()).await;
    let given_up = figures["given_up"].as_u64().unwrap();
    assert!((1..=8).contains(&given_up), "{told}");
    assert!(told.contains("given up"), "{told}");
}

#[actix_web::test]
async fn a_closed_loop_loads_a_gateway_that_runs_already() {
    let gateway = Setup::new().start().await;
    let (url, app) = (gateway.base_url(), gateway.app.to_string());
    let run = ["--groups", "1", "--members", "4", "--contention", "2", "--witnesses", "2", "--closed"];
    let arguments = [&["--url", &url, "--app", &app, "--duration", "1s"], &run[..]].concat();
    let output = load_test(&arguments, Some(gateway.writer.reveal())).await;
    let (told, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}{said}");
    assert!(told.starts_with(&format!("Sending load to {url}")), "{told}");
    assert!(told.contains("closed loop") && told.contains("4 live members agree"), "{told}");
    assert!(!told.contains(gateway.writer.reveal()) && !said.contains(gateway.writer.reveal()));

    // With a token that may only read, nothing can be prepared.
    let output = load_test(&arguments, Some(gateway.reader.reveal())).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("not-permitted"), "{}", text(&output.stderr));
    gateway.stop().await;
}

/// What becomes of an answer on its way: changed from the request, its body, and the answer's status and body.
type Twist = fn(&HttpRequest, &[u8], StatusCode, Vec<u8>) -> (StatusCode, Vec<u8>);

/// Stands before a gateway and passes everything on, but twists the answers.
fn liar(gateway: String, twist: Twist) -> (String, actix_web::dev::ServerHandle) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let http = mimi_gateway::client::plain_http().build().unwrap();
    let server = HttpServer::new(move || {
        let (gateway, http) = (gateway.clone(), http.clone());
        App::new().default_service(web::to(move |request: HttpRequest, body: web::Bytes| {
            let (gateway, http) = (gateway.clone(), http.clone());
            async move {
                let method = request.method().as_str().parse::<reqwest::Method>().unwrap();
                let mut asked =
                    http.request(method, format!("{gateway}{}", request.uri())).body(body.to_vec());
                for name in ["authorization", "content-type"] {
                    if let Some(value) = request.headers().get(name) {
                        asked = asked.header(name, value.as_bytes());
                    }
                }
                let answer = asked.send().await.unwrap();
                let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
                let media_type = answer.headers().get("content-type").map(|value| value.as_bytes().to_vec());
                let told = answer.bytes().await.unwrap().to_vec();
                let (status, body) = twist(&request, &body, status, told);
                let media_type = media_type.unwrap_or_default();
                HttpResponse::build(status).insert_header(("content-type", media_type)).body(body)
            }
        }))
    });
    let server = server.workers(1).disable_signals().shutdown_timeout(1).listen(listener).unwrap().run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (format!("http://{address}"), handle)
}

/// What a run against a twisted gateway told and said, and how it exited.
async fn twisted(twist: Twist) -> (String, String, Option<i32>) {
    let gateway = Setup::new().start().await;
    let (url, liar) = liar(gateway.base_url(), twist);
    let app = gateway.app.to_string();
    let run = ["--groups", "1", "--members", "3", "--contention", "2", "--rate", "10", "--duration", "2s"];
    let arguments = [&["--url", &url, "--app", &app], &run[..]].concat();
    let output = load_test(&arguments, Some(gateway.writer.reveal())).await;
    liar.stop(true).await;
    gateway.stop().await;
    (text(&output.stdout).to_owned(), text(&output.stderr).to_owned(), output.status.code())
}

/// Whether the whole history of a group is asked for, as it is only at the end.
fn asks_for_all(request: &HttpRequest) -> bool {
    request.query_string() == "startEpochId=1"
}

#[actix_web::test]
async fn a_gateway_that_lies_is_found_out() {
    let (told, said, code) = twisted(|request, _, status, body| {
        if !asks_for_all(request) {
            return (status, body);
        }
        let mut told: Value = serde_json::from_slice(&body).unwrap();
        let epochs = told["epochs"].as_array_mut().unwrap();
        let first = epochs[0]["commit"].clone();
        epochs.last_mut().unwrap()["commit"] = first;
        (status, serde_json::to_vec(&told).unwrap())
    })
    .await;
    assert_eq!(code, Some(1), "{told}{said}");
    assert!(told.contains("BROKEN: group") && told.contains("have another commit for epoch"), "{told}");
    assert!(!told.contains("proven:"), "{told}");
    assert!(said.contains("the gateway broke a promise"), "{said}");
}

#[actix_web::test]
async fn a_history_that_cannot_be_read_leaves_the_figures() {
    let (told, said, code) = twisted(|request, _, status, body| match asks_for_all(request) {
        true => (StatusCode::NOT_FOUND, b"nothing".to_vec()),
        false => (status, body),
    })
    .await;
    assert_eq!(code, Some(1), "{told}{said}");
    assert!(told.contains("accepted commits") && told.contains("not proven: group"), "{told}");
    assert!(!told.contains("\nproven:") && !told.contains("BROKEN"), "{told}");
    assert!(said.contains("not everything could be proven"), "{said}");
}

#[actix_web::test]
async fn a_commit_whose_answer_was_lost_breaks_nothing() {
    let (told, said, code) = twisted(|request, sent, status, body| {
        // About every third, but not those of the preparation.
        let is_upload = request.method() == "PUT" && request.path().ends_with("/epochs");
        let packet: usize = sent.iter().map(|byte| usize::from(*byte)).sum();
        match is_upload && status == StatusCode::CREATED && body_epoch(&body) > 1 && packet.is_multiple_of(3)
        {
            true => (StatusCode::BAD_GATEWAY, b"no answer of a gateway".to_vec()),
            false => (status, body),
        }
    })
    .await;
    assert_eq!(code, Some(0), "{told}{said}");
    assert!(told.contains("502 not an answer of a gateway"), "{told}");
    assert!(told.contains("proven: one winner in each of"), "{told}");
}

/// The epoch that an answer to a commit names.
fn body_epoch(body: &[u8]) -> u64 {
    let told: Value = serde_json::from_slice(body).unwrap();
    told["epochId"].as_u64().unwrap()
}

#[actix_web::test]
async fn a_sweep_is_one_page() {
    let sweep = ["sweep", "--duration", "300ms", "--contention-max", "2", "--members-max", "10"];
    let (told, figures, page) = figures(&[&sweep[..], &["--connections-max", "4"]].concat()).await;
    assert!(told.contains("proven: every run"), "{told}");
    for (part, runs) in [("contention", 2), ("members", 2), ("connections", 2)] {
        assert_eq!(figures[part].as_array().unwrap().len(), runs, "{told}");
    }
    assert!(page.contains("Conflict rate against contention"));
    assert_eq!(page.matches("<details>").count(), 6);
}

#[actix_web::test]
async fn a_capacity_run_ends_with_its_targets() {
    let run = ["capacity", "--groups", "2", "--members", "2", "--commits", "3", "--rounds", "1"];
    // A token is for another gateway; this one has its own.
    let output = load_test(&run, Some("of another gateway")).await;
    let (told, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}{said}");
    assert_eq!(told.matches("goal at").count(), 5, "{told}");
    assert!(told.contains("proven: every acknowledged commit kept"), "{told}");
}

#[actix_web::test]
async fn options_that_cannot_be_meant_are_refused() {
    for (arguments, part) in [
        (&["--mix", "commits"][..], "`commits` is not like `commits=3`"),
        (&["--mix", "merges=1"], "there is no `merges`; there are commits, proposals,"),
        (&["--mix", "reads=0"], "at least one weight must be more than 0"),
        (&["--duration", "10"], "must end with its unit: ms, s, m or h"),
        (&["--rate", "0"], "must be from 0.01 to 1000000"),
        (&["--closed", "--rate", "5"], "cannot be used with"),
        (&["--members", "3", "--contention", "4"], "too few for 5 live ones"),
        (&["--members", "3", "--mix", "commits=1,welcomes=1"], "none is left for welcomes=1"),
        (&["--members", "0"], "0 is not in 1..=20000"),
        (&["--url", "http://127.0.0.1:1"], "--app"),
        (
            &["--url", "ftp://x", "--app", "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11", "--token", "t"],
            "must begin with http://",
        ),
        (
            &["--url", "http://127.0.0.1:1", "--app", "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11"],
            "needs a read-write token of the application: in MIMI_TOKEN",
        ),
        (&["--groups", "2", "capacity"], "cannot be used with"),
        (&["--listen", "127.0.0.1:0"], "takes no --listen"),
    ] {
        let output = load_test(arguments, None).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}
