//! `/metrics`: what is counted, what is documented, and what is never shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    process::{Command, Stdio},
};

use mimi_gateway::{api::text::GroupIdText, config::TokenAccess, token::Token};
use serde_json::json;

use crate::{
    mls_support::clients,
    support::{
        Request, Setup,
        metrics::{Metrics, Sample},
    },
};

pub(crate) const OPERATING: &str = include_str!("../../../docs/operating.md");

/// The metrics in the table of docs/operating.md: type and labels by name.
pub(crate) type Documented = BTreeMap<String, (String, BTreeSet<String>)>;

/// Reads the table.
pub(crate) fn documented() -> Documented {
    let (_, section) = OPERATING.split_once("\n## Metrics\n").expect("a section about metrics");
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, _] = cells[..] else { panic!("four cells: {line}") };
        (name.trim_matches('`').to_owned(), (kind.to_owned(), quoted(labels)))
    };
    rows.map(row).collect()
}

/// The family of a sample: histograms have samples of three names.
fn family<'a>(metrics: &Metrics, sample: &'a str) -> &'a str {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.strip_suffix(end));
    of_histogram
        .filter(|name| metrics.types.get(*name).is_some_and(|kind| kind == "histogram"))
        .unwrap_or(sample)
}

#[actix_web::test]
async fn what_callers_do_is_counted() {
    let mut setup = Setup::new();
    setup.watched_by(&[]);
    setup.config.passivation.snapshot_period_s = 1;
    let gateway = setup.start().await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;
    let mut at_bob = bob.join().await;
    let stale = at_bob.make_update();
    at_alice.update().await;
    at_bob.upload(&stale).await.unwrap_err();
    at_bob.clear_pending();
    at_bob.catch_up().await;
    let proposal = at_bob.make_update_proposal();
    at_bob.propose(&proposal).await.unwrap();
    let stranger = uuid::Uuid::new_v4();
    let nobody = format!("/clients/{stranger}/keyPackage?protocolVersion=1&cipherSuite=1&receiverClientId=r");
    gateway.get(&nobody).await.problem(404, "unknown-client", "");
    gateway.send(Request::new("HEAD", "/healthz")).await;
    gateway.send(Request::new("GET", "/nothing")).await.problem(404, "unknown-route", "");

    let metrics = Metrics::of(gateway.operator_address()).await;
    let internal = ("listener", "internal");
    let outcome = |name: &str, outcome: &str, reason: &str| {
        metrics.find(name, &[internal, ("outcome", outcome), ("reason", reason)])
    };
    assert_eq!(outcome("mimi_gateway_commits_total", "accepted", ""), Some(2.0));
    assert_eq!(outcome("mimi_gateway_commits_total", "refused", "stale-epoch"), Some(1.0));
    assert_eq!(outcome("mimi_gateway_proposals_total", "accepted", ""), Some(1.0));
    assert_eq!(outcome("mimi_gateway_key_package_claims_total", "accepted", ""), Some(1.0));
    assert_eq!(outcome("mimi_gateway_key_package_claims_total", "refused", "unknown-client"), Some(1.0));

    let requests = |method: &str, route: &str, status: &str| {
        let labels = [internal, ("method", method), ("route", route), ("status", status)];
        let of =
            |part: &str| metrics.find(&format!("mimi_gateway_http_request_duration_seconds_{part}"), &labels);
        let count = of("count")?;
        let buckets: Vec<f64> = metrics
            .samples
            .iter()
            .filter(|sample| sample.name == "mimi_gateway_http_request_duration_seconds_bucket")
            .filter(|sample| {
                labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
            })
            .map(|sample| sample.value)
            .collect();
        assert!(buckets.is_sorted() && buckets.last() == Some(&count), "{buckets:?}");
        assert!(of("sum").is_some_and(|sum| sum >= 0.0));
        Some(count)
    };
    assert_eq!(requests("PUT", "/apps/{appId}/groups/{groupId}/epochs", "2xx"), Some(2.0));
    assert_eq!(requests("PUT", "/apps/{appId}/groups/{groupId}/epochs", "4xx"), Some(1.0));
    assert_eq!(requests("HEAD", "/healthz", "2xx"), Some(1.0));
    assert_eq!(requests("GET", "/healthz", "2xx"), None);
    assert_eq!(requests("-", "-", "4xx"), Some(1.0));
    let problems = [internal, ("route", "-"), ("problem", "unknown-route")];
    assert_eq!(metrics.value("mimi_gateway_http_problems_total", &problems), 1.0);

    assert_eq!(metrics.value("mimi_gateway_ready", &[]), 1.0);
    assert_eq!(metrics.value("mimi_gateway_http_requests_in_flight", &[("listener", "operator")]), 1.0);
    assert!(metrics.value("mimi_gateway_store_appends_total", &[("outcome", "stored")]) >= 8.0);
    let writes = metrics.value("mimi_gateway_store_write_duration_seconds_count", &[]);
    assert!(writes >= 1.0 && metrics.value("mimi_gateway_store_written_bytes_total", &[]) > 1000.0);
    assert_eq!(metrics.value("mimi_gateway_actors_awake", &[("kind", "group")]), 1.0);
    assert!(metrics.value("mimi_gateway_actors_awake_bytes", &[("kind", "group")]) > 0.0);
    if cfg!(target_os = "linux") {
        for name in [
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            assert!(metrics.value(name, &[]) > 0.0, "{name}");
        }
    }

    let is_written =
        |metrics: &Metrics| metrics.value("mimi_gateway_snapshots_total", &[("outcome", "written")]) > 0.0;
    let metrics = Metrics::until(gateway.operator_address(), is_written).await;
    let written_s = metrics.value("mimi_gateway_snapshot_last_timestamp_seconds", &[]);
    let now_s = setup.clock().now().0 as f64 / 1000.0;
    assert!((now_s - 60.0..=now_s).contains(&written_s), "{written_s} at {now_s}");
    assert!(metrics.value("mimi_gateway_snapshot_last_duration_seconds", &[]) >= 0.0);
    gateway.stop().await;
}

#[actix_web::test]
async fn the_table_of_metrics_is_what_is_shown() {
    let mut setup = Setup::new();
    setup.watched_by(&[]);
    let gateway = setup.start().await;
    gateway.post("/clients", json!({ "clientHandle": "carol", "tags": ["the-tag"] })).await.success(201);
    gateway.send(Request::new("GET", "/nothing")).await.problem(404, "unknown-route", "");
    let metrics = Metrics::of(gateway.operator_address()).await;

    let documented = documented();
    let shown: BTreeMap<&str, &str> =
        metrics.types.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    let written: BTreeMap<&str, &str> =
        documented.iter().map(|(name, (kind, _))| (name.as_str(), kind.as_str())).collect();
    assert_eq!(written, shown, "docs/operating.md, and what is shown");
    for sample in &metrics.samples {
        let (_, labels) = &documented[family(&metrics, &sample.name)];
        let shown: BTreeSet<String> = sample.labels.keys().filter(|label| *label != "le").cloned().collect();
        assert_eq!(&shown, labels, "{sample:?}");
    }
    // What one application or client is called is nobody's label.
    for hidden in ["carol", "the-tag", gateway.writer.reveal()] {
        assert!(!metrics.text.contains(hidden), "{hidden} is in {}", metrics.text);
    }
    let names = metrics.samples.iter().flat_map(|sample| sample.labels.keys());
    assert!(names.into_iter().all(|name| !name.contains("group") && !name.contains("client")));
    check_by_promtool(&metrics.text);
    gateway.stop().await;
}

/// Labels are for what there are few of, and `/metrics` needs no token.
#[actix_web::test]
async fn no_token_and_no_id_is_shown() {
    let operator = Token::generate().unwrap();
    let mut setup = Setup::new();
    setup.watched_by(&[(&operator, TokenAccess::ReadWrite)]);
    let gateway = setup.start().await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;
    let group = at_alice.id();
    let text = GroupIdText(group.clone()).to_string();
    let tokens = format!("/operator/v1/applications/{}/tokens", gateway.app);
    let make = Request::new("POST", &tokens).token(&operator).json(r#"{"access":"read"}"#);
    let made = Token::new(gateway.operate(make).await.success(201)["token"].as_str().unwrap());
    let at_group = format!("/groups/{text}");
    gateway.send(Request::new("GET", &gateway.path(&at_group)).token(&made)).await.success(200);
    let inspect = format!("/operator/v1/applications/{}{at_group}", gateway.app);
    gateway.operate(Request::new("GET", &inspect).token(&operator)).await.success(200);
    // Refusals, and requests that put ids and tokens where they do not belong.
    gateway.send(Request::new("GET", &gateway.path(&at_group)).token(&operator)).await.problem(
        401,
        "not-authenticated",
        "",
    );
    let misplaced = format!("/{}/{text}?access_token={}", made.reveal(), made.reveal());
    for path in [&misplaced, &gateway.path(&misplaced)] {
        gateway.send(Request::new("GET", path).token(&made)).await.problem(404, "unknown-route", "");
        gateway.operate(Request::new("GET", path).token(&operator)).await.problem(404, "unknown-route", "");
    }
    let revoke = format!("{tokens}/{}", made.hash().id());
    gateway.operate(Request::new("DELETE", &revoke).token(&operator)).await.success(204);

    let metrics = Metrics::of(gateway.operator_address()).await;
    for counted in ["/apps/{appId}/groups/{groupId}", "/operator/v1/applications/{appId}/tokens/{tokenId}"] {
        let is_counted = |sample: &Sample| sample.labels.get("route").is_some_and(|route| route == counted);
        assert!(metrics.samples.iter().any(is_counted), "{counted} is not counted");
    }
    let known = [&operator, &made, &gateway.writer, &gateway.reader, &gateway.other_writer];
    let of_tokens = known.iter().flat_map(|token| [token.reveal().to_owned(), token.hash().id()]);
    let hex: String = group.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let others = [text, hex, gateway.app.to_string(), alice.id.to_string(), "alice".to_owned()];
    for hidden in of_tokens.chain(others) {
        assert!(!metrics.text.contains(&hidden), "{hidden} is in {}", metrics.text);
    }
    gateway.stop().await;
}

/// Lets Prometheus's own tool check the text, where it is installed.
fn check_by_promtool(text: &str) {
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = tool else {
        // Written past the test's capture, so that it is seen.
        let notice = "SKIPPED: the check of /metrics by Prometheus's tool: promtool is not installed\n";
        return std::io::stderr().write_all(notice.as_bytes()).unwrap();
    };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
