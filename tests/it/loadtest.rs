//! The load test, run as a user runs it: short seeded runs whose figures are checked, and options that are refused.

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

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
    // Every latency has a threshold by its name.
    let names =
        ["accepted", "refused", "resolution", "settled", "lag", "proposals", "key_packages", "welcomes"];
    let names = [&names[..], &["reads", "joins"]].concat();
    let thresholds: Vec<_> = names.iter().map(|name| format!("--fail-if={name}_max>9999s")).collect();
    let thresholds: Vec<_> = thresholds.iter().map(String::as_str).collect();
    let (told, figures, page) =
        figures(&[&run[..], &["--mix", mix, "--seed", "7"], &thresholds].concat()).await;

    assert_eq!(told.matches("threshold kept: ").count(), names.len(), "{told}");
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
        (
            &[
                "--url",
                "http://me:s3cret@127.0.0.1:1",
                "--app",
                "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11",
                "--token",
                "t",
            ],
            "--url must hold no password",
        ),
        (&["--fail-if", "accepted_p98>1ms"], "there is no figure `accepted_p98`"),
        (&["--json", "no such directory/a.json"], "there is no directory no such directory"),
        (&["sweep", "--html", "/"], "--html /: is not a file"),
        (&["capacity", "--json", "."], "is a directory"),
        (&["compare", "/dev/null", "no such file"], "/dev/null: is not JSON"),
        (&["compare", "no such file", "/dev/null"], "no such file: cannot be read"),
        (&["--groups", "2", "capacity"], "cannot be used with"),
        (&["--listen", "127.0.0.1:0"], "takes no --listen"),
    ] {
        let output = load_test(arguments, None).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[actix_web::test]
async fn thresholds_decide_the_exit_status() {
    let run = ["--groups", "1", "--members", "2", "--contention", "1", "--closed", "--duration", "500ms"];
    for (thresholds, code, told_part) in [
        (
            &["--fail-if", "accepted<1", "--fail-if", "errors>0"][..],
            0,
            "threshold kept: fails if errors>0; measured 0",
        ),
        (
            &["--fail-if", "accepted<1", "--fail-if", "accepted_p50>1us"],
            4,
            "THRESHOLD BROKEN: fails if accepted_p50>1us; measured",
        ),
        (&["--fail-if", "joins_p99>1h"], 2, ""),
        // What was not measured is not kept either.
        (&["--fail-if", "joins_p99>1s"], 4, "THRESHOLD BROKEN: fails if joins_p99>1s; measured nothing"),
    ] {
        let output = load_test(&[&run[..], thresholds].concat(), None).await;
        let (told, said) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{thresholds:?}: {told}{said}");
        assert!(told.contains(told_part), "{thresholds:?}: {told}");
    }
}

/// Runs a load test in a directory and sends it a signal after this time.
fn interrupted(inside: &std::path::Path, arguments: &[&str], signal: &str, after: Duration) -> Output {
    let mut command = binary(&["loadtest"]);
    command.args(arguments).arg("--data-dir").arg(inside).env_remove("MIMI_TOKEN");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(after);
    let mut kill = Command::new("kill");
    assert!(kill.args([format!("-{signal}"), child.id().to_string()]).status().unwrap().success());
    child.wait_with_output().unwrap()
}

#[test]
fn a_signal_ends_a_run_with_its_figures_and_without_its_directory() {
    for (signal, loop_kind) in
        [("INT", &["--closed"][..]), ("TERM", &["--closed"]), ("INT", &["--rate", "0.01"])]
    {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let json = directory.path().join("figures.json");
        let run = ["--groups", "1", "--members", "3", "--contention", "2", "--duration", "1h", "--json"];
        let arguments = [&run[..], &[json.to_str().unwrap()], loop_kind].concat();
        // With one arrival in a hundred seconds, there is none to prove anything by.
        let code = if loop_kind.len() == 1 { 130 } else { 1 };
        let mut outputs = Vec::new();
        // On a busy machine, it takes longer to make the group and to win once.
        for seconds in [1, 4, 16, 64] {
            let output = interrupted(&inside, &arguments, signal, Duration::from_secs(seconds));
            assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0, "{output:?}");
            let has_figures = text(&output.stdout).contains("INTERRUPTED after");
            let is_expected = has_figures && output.status.code() == Some(code);
            outputs.push(output);
            if is_expected {
                break;
            }
        }
        let output = outputs.last().unwrap();
        let (told, said) = (text(&output.stdout), text(&output.stderr));
        assert!(told.contains("INTERRUPTED after"), "{outputs:?}");
        assert_eq!(output.status.code(), Some(code), "{told}{said}");
        let figures: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert_eq!(figures["is_interrupted"], true);
        assert!(figures["played_s"].as_f64().unwrap() < 600.0, "{told}");
    }
}

#[test]
fn a_signal_before_the_load_ends_a_run_without_figures() {
    let directory = tempfile::tempdir().unwrap();
    // So many groups are not made in this time.
    let run = ["--groups", "100000", "--members", "100"];
    let output = interrupted(directory.path(), &run, "INT", Duration::from_secs(3));
    let (told, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(130), "{told}{said}");
    assert!(said.contains("interrupted before there were figures"), "{said}");
    assert!(!told.contains("accepted commits"), "{told}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[actix_web::test]
async fn reports_say_where_they_come_from_and_can_be_compared() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("a.json");
    let run = ["--groups", "1", "--members", "2", "--contention", "1", "--closed", "--duration", "500ms"];
    let output = load_test(&[&run[..], &["--json", json.to_str().unwrap()]].concat(), None).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let figures: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let origin = &figures["origin"];
    assert_eq!(origin["version"], env!("CARGO_PKG_VERSION"));
    assert!(origin["command"].as_str().unwrap().starts_with("mimi-gateway loadtest --groups 1"), "{origin}");
    assert!(origin["started"].as_str().unwrap().ends_with('Z'), "{origin}");
    let path = json.to_str().unwrap();
    let output = load_test(&["compare", path, path], None).await;
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(told.contains("accepted_per_s") && told.contains("1.000"), "{told}");
    assert!(told.contains("the noise is unknown") && !told.contains("not the same"), "{told}");
    std::fs::write(&json, "{}").unwrap();
    let output = load_test(&["compare", path, path], None).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("has no figures of a load test"), "{}", text(&output.stderr));
}

#[actix_web::test]
async fn a_gateway_that_runs_already_keeps_no_clients_of_a_run() {
    let (told, said, code) = twisted(|request, _, status, body| {
        // A deletion is answered as it was meant.
        assert!(request.method() != "DELETE" || status == StatusCode::NO_CONTENT, "{status}");
        (status, body)
    })
    .await;
    assert_eq!(code, Some(0), "{told}{said}");
    // Two committers and a witness.
    assert!(told.contains("cleaned up: 3 clients deleted, with key queues"), "{told}");
    assert!(told.contains("left behind: 1 group, because the API cannot delete groups"), "{told}");
    assert!(!told.contains("left behind: 3 clients") && !told.contains("perhaps"), "{told}");
}

#[actix_web::test]
async fn clients_that_stay_at_a_gateway_are_told() {
    let (told, said, code) = twisted(|request, _, status, body| match request.method().as_str() {
        "DELETE" => (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
        // The client exists, and its maker does not know it.
        "POST" if request.path().ends_with("/clients") => (StatusCode::BAD_GATEWAY, Vec::new()),
        _ => (status, body),
    })
    .await;
    assert_eq!(code, Some(1), "{told}{said}");
    assert!(said.contains("registering a client"), "{said}");
    assert!(told.contains("perhaps left behind: clients or groups of 1 request without an answer"), "{told}");
    let (told, said, code) = twisted(|request, _, status, body| match request.method().as_str() {
        "DELETE" if !request.path().contains("/welcome-msgs/") => {
            (StatusCode::SERVICE_UNAVAILABLE, Vec::new())
        }
        _ => (status, body),
    })
    .await;
    assert_eq!(code, Some(0), "{told}{said}");
    assert!(
        told.contains("cleaned up: 0 clients deleted") && told.contains("left behind: 3 clients: "),
        "{told}"
    );
}

#[actix_web::test]
async fn a_player_that_fails_leaves_the_figures_of_the_others() {
    let gateway = Setup::new().start().await;
    let (url, liar) = liar(gateway.base_url(), |request, _, status, body| {
        match request.method() == "GET" && request.path().ends_with("/group-info") {
            true => (StatusCode::OK, br#"{"groupInfos":[]}"#.to_vec()),
            false => (status, body),
        }
    });
    let app = gateway.app.to_string();
    let run = ["--groups", "1", "--members", "3", "--contention", "2", "--closed", "--duration", "1s"];
    let mix = ["--url", &url, "--app", &app, "--mix", "commits=1,joins=1"];
    let output = load_test(&[&run[..], &mix].concat(), Some(gateway.writer.reveal())).await;
    liar.stop(true).await;
    gateway.stop().await;
    let (told, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(5), "{told}{said}");
    assert!(told.contains("PLAYER FAILED: a group whose committers give group infos has none"), "{told}");
    assert!(told.contains("proven: one winner in each of"), "{told}");
}

#[actix_web::test]
async fn a_gateway_that_cannot_be_used_is_named() {
    let gateway = Setup::new().start().await;
    let (url, app) = (gateway.base_url(), gateway.app.to_string());
    let output = load_test(&["--url", &url, "--app", &app], Some("not-a-token-of-this-gateway")).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("refuses the token for application"), "{}", text(&output.stderr));
    gateway.stop().await;
    let output = load_test(&["--url", &url, "--app", &app], Some("any-token")).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("no gateway answers at {url}: is it running")), "{said}");
}

/// The width of a page in Chromium's window of this width; `None` where there is no Chromium.
fn width_in_chromium(page: &str, window: u32) -> Option<u32> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("page.html");
    let measuring = "<script>document.title = 'width ' + Math.max(document.documentElement.scrollWidth, \
                     ...[...document.querySelectorAll('body *')].filter(e => !e.closest('pre, svg, details'))\
                     .map(e => Math.ceil(e.getBoundingClientRect().right)))</script>";
    // A headless window is not narrower than 500 pixels, so the page is in a frame.
    std::fs::write(
        directory.path().join("inner.html"),
        page.replace("</body>", &format!("{measuring}</body>")),
    )
    .unwrap();
    let frame = format!(
        "<title>waiting</title><iframe src=\"inner.html\" width=\"{window}\" height=\"800\" style=\"border:0\" \
         onload=\"document.title = this.contentDocument.title\"></iframe>"
    );
    std::fs::write(&file, frame).unwrap();
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        ])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
            "--allow-file-access-from-files",
        ])
        .arg(format!("--user-data-dir={}", directory.path().join("profile").display()))
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("file://{}", file.display()))
        .output()
        .ok()?;
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let title = dom
        .split("<title>width ")
        .nth(1)
        .unwrap_or_else(|| panic!("{dom}{}", String::from_utf8_lossy(&output.stderr)));
    Some(title.split('<').next().unwrap().parse().unwrap())
}

#[actix_web::test]
async fn a_page_fits_a_phone() {
    let run = ["--groups", "1", "--members", "3", "--contention", "2", "--closed", "--duration", "1s"];
    let (_, _, page) = figures(&run).await;
    let measured = tokio::task::spawn_blocking(move || width_in_chromium(&page, 390)).await.unwrap();
    match measured {
        Some(width) => assert!((300..=390).contains(&width), "{width}"),
        None => eprintln!("SKIPPED: there is no chromium, so the layout on a phone was not checked"),
    }
}
