//! Tests of whole configurations.

mod applications;

use actors::{
    ExpiredMembers, Timestamp,
    settings::{Accepts, Row},
};
use toml::Value;

use super::*;
use crate::api::applications::IdentityProviderType;

fn check(toml: &str, refusal: Option<(&str, &str)>) {
    match (Config::parse(toml), refusal) {
        (Ok(_), None) => {}
        (Err(ConfigError::Malformed { member, reason, .. }), Some((expected, part))) => {
            assert_eq!(member, expected, "{toml}: {reason}");
            assert!(reason.contains(part), "{toml}: {reason}");
        }
        (outcome, _) => panic!("{toml}: {outcome:?}"),
    }
}

const APPLICATION: &str = r#"
    [[applications]]
    id = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11"
"#;

fn application(members: &str) -> String {
    format!("{APPLICATION}{members}")
}

/// An X.509 application with these parameters, and with what follows them.
fn x509_application(flags: &str, parameters: &str, rest: &str) -> String {
    application(&format!(
        "[applications.identity_configuration]\nidentity_provider_type = 2\n{flags}\n\
         [applications.identity_configuration.parameters]\n{parameters}\n{rest}"
    ))
}

const TRUST: &str = "[applications.x509]\ntrust_roots = \"roots.pem\"";

fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}

#[test]
fn an_empty_configuration_is_the_embedded_one() {
    assert_eq!(Config::parse("").unwrap(), Config::embedded());
}

#[test]
fn what_is_printed_is_read_back() {
    let text = application(&format!(
        "public = true\ntokens = [{{ sha256 = \"{}\", access = \"read\" }}]\n[internal]\nlisten = \"[::1]:0\"",
        hash('a')
    ));
    let config = Config::parse(&text).unwrap();
    let printed = config.to_toml().unwrap();
    assert_eq!(Config::parse(&printed).unwrap(), config, "{printed}");
    for member in [
        "request_bytes_max",
        "packet_bytes_max",
        "awake_bytes_max",
        "welcome_age_s_max",
        "snapshot_period_s",
        "mode",
    ] {
        assert!(printed.contains(member), "{member} is not printed");
    }
}

#[test]
fn the_members_of_the_contract_are_read() {
    check(r#"data_dir = ":memory:""#, None);
    check(r#"domains = ["a.example"]"#, None);
    check("[internal]\nlisten = \"127.0.0.1:0\"", None);
    check(&application(""), None);
    check(
        &application(
            "[applications.identity_configuration]\nidentity_provider_type = 1\nsupports_accounts = false\n\
             supports_domains = false\n[applications.identity_configuration.parameters]",
        ),
        None,
    );
}

#[test]
fn a_wrong_member_is_named_with_what_it_may_be() {
    check("listen = 1", Some(("listen", "not a setting of this table, which has `data_dir`, `domains`")));
    check("data_dir = 1", Some(("data_dir", "`:memory:`, not 1")));
    check("data_dir = \"\"", Some(("data_dir", "`:memory:`, not \"\"")));
    check("domains = [\"-\"]", Some(("domains[0]", "must be a DNS name")));
    check("domains = \"a.example\"", Some(("domains", "must be a list, each member a DNS name")));
    check("log = \"mimi=loud\"", Some(("log", "MODULE=LEVEL separated by commas, not \"mimi=loud\"")));
    check("log = \"debgu\"", Some(("log", "off, error, warn, info, debug, trace")));
    check("actor_threads = 0", Some(("actor_threads", "must be a whole number from 1 to 1024, not 0")));
    check("internal = 1", Some(("internal", "must be a table with `listen`, `certificate`")));
    check("[internal]\nlisten = \"localhost\"", Some(("internal.listen", "127.0.0.1:8080")));
    check("[internal]\nworkers = \"4\"", Some(("internal.workers", "from 1 to 1024, not \"4\"")));
    check(
        "[internal]\nrequest_bytes_max = -1",
        Some(("internal.request_bytes_max", "a whole number of bytes from 1024 to 1073741824, not -1")),
    );
    check("[internal]\nrequest_bytes_max = 1.5e6", Some(("internal.request_bytes_max", "not 1500000.0")));
    check(
        "[internal]\nworkers = 8\nconnections_max = 7",
        Some(("internal.connections_max", "from 8 (`workers`) to 16777216, not 7")),
    );
    check(
        "[internal]\nshare_percent = 300",
        Some(("internal.share_percent", "of percent from 1 to 100, not 300")),
    );
    check("[internal]\nkeep_alive_s = 0", Some(("internal.keep_alive_s", "of seconds from 1 to 3162240000")));
    check("[internal]\nkeepalive_s = 9", Some(("internal.keepalive_s", "`keep_alive_s`")));
    check(
        "[limits]\nclient_handle_bytes_max = 2000",
        Some(("limits.client_handle_bytes_max", "from 1 to 1024, not 2000")),
    );
    check("[limits]\nawake_bytes_max = 1000", Some(("limits.awake_bytes_max", "from 1048576 to")));
    check("[limits]\npackets = 1", Some(("limits.packets", "`packet_bytes_max`")));
    check(
        "[limits]\nproposal_bytes_per_epoch_max = 0",
        Some(("limits.proposal_bytes_per_epoch_max", "from 1024")),
    );
    check(
        "[limits]\nanswer_bytes_max = 0",
        Some(("limits.answer_bytes_max", "from 1024 to 1073741824, not 0")),
    );
    check(
        "[limits]\nkey_package_lifetime_s_max = 3162240001",
        Some(("limits.key_package_lifetime_s_max", "from 0 to 3162240000")),
    );
    check("[retention]\nperiod_s = 0", Some(("retention.period_s", "from 1 to")));
    check("[limits]\nwelcomes_per_client_max = 0", Some(("limits.welcomes_per_client_max", "from 1 to")));
    check(
        "[limits]\nwelcomes_per_client_max = 50\nwelcomes_reserved_max = 1",
        Some(("limits.welcomes_per_inviter_max", "from 1 to 50 (`welcomes_per_client_max`), not 100")),
    );
    check("[limits]\nwelcomes_reserved_max = 101", Some(("limits.welcomes_reserved_max", "from 0 to 100")));
    check(
        "[durability]\nqueue_bytes_max = 1048576",
        Some(("durability.queue_bytes_max", "from 67108864 (`batch_bytes_max`)")),
    );
    check(
        "[durability]\nmode = \"none\"",
        Some(("durability.mode", "must be \"sync\" or \"buffer\", not \"none\"")),
    );
    check("[passivation]\nafter_s = 0", Some(("passivation.after_s", "from 1 to")));
}

#[test]
fn a_token_of_an_operator_is_nobody_elses() {
    let token = |digit| format!("tokens = [{{ sha256 = \"{}\", access = \"read\" }}]", hash(digit));
    let config = |operator| application(&format!("{}\n[operator]\n{}", token('a'), token(operator)));
    check(&config('b'), None);
    check(
        &config('a'),
        Some(("operator.tokens[0].sha256", "applications[0].tokens[0].sha256 is this token already")),
    );
    let twice = format!(
        "[operator]\ntokens = [{0}, {0}]",
        format_args!("{{ sha256 = \"{}\", access = \"read\" }}", hash('c'))
    );
    check(&twice, Some(("operator.tokens[1].sha256", "operator.tokens[0].sha256 is this token already")));
    check(
        "[operator]\nshutdown_delay_s = 3601",
        Some(("operator.shutdown_delay_s", "of seconds from 0 to 3600")),
    );
}

#[test]
fn a_message_names_the_line() {
    let message = |text: &str| Config::parse(text).unwrap_err().to_string();
    let not_toml = message("domains = []\na = = 1");
    assert!(not_toml.starts_with("it is not TOML (line 2): "), "{not_toml}");
    let wrong = message("[limits]\n\ntag_bytes_max = 0");
    assert!(wrong.starts_with("limits.tag_bytes_max (line 3): must be "), "{wrong}");
    let token = message(&application("tokens = [\n{ sha256 = 1, access = \"read\" },\n]"));
    assert!(token.starts_with("applications[0].tokens[0].sha256 (line 5): "), "{token}");
    // The table of a setting that is not there.
    let missing = message("\n[federation]\nlisten = \"127.0.0.1:0\"");
    assert!(missing.starts_with("federation.certificate (line 2): must be the path"), "{missing}");
    // What is wrong between settings.
    let repeated = message(&application(APPLICATION));
    assert!(repeated.starts_with("applications[1].id (line 6): "), "{repeated}");
}

#[test]
fn no_setting_takes_a_date_and_each_says_what_it_takes() {
    fn wrong(rows: &'static [Row], at: &str, base: &str) -> usize {
        let wrong_in = |row: &'static Row| {
            let path = rows::member(at, row.name);
            // Without these `[federation]` is refused for the first that is missing.
            let required = ["certificate", "private_key", "ca"];
            let others = required.iter().filter(|name| at == "federation" && **name != row.name);
            let others: String = others.map(|name| format!("{name} = \"x.pem\"\n")).collect();
            let before = if at.is_empty() { String::new() } else { format!("{base}\n{others}") };
            let text = format!("{before}{} = 1979-05-27", row.name);
            let Err(ConfigError::Malformed { member, reason, .. }) = Config::parse(&text) else {
                panic!("{text} is accepted")
            };
            assert_eq!(member, path, "{text}: {reason}");
            assert!(reason.starts_with("must be "), "{path}: {reason}");
            for rust in ["usize", "u8", "u32", "u64", "struct", "expected", "invalid type", "field"] {
                assert!(!reason.contains(rust), "{path}: {reason}");
            }
            if let (Accepts::Table(inner), true) = (row.accepts, at.is_empty()) {
                return 1 + wrong(inner, &path, &format!("[{path}]"));
            }
            1
        };
        rows::flat(rows).map(wrong_in).sum()
    }
    assert!(wrong(Config::ROWS, "", "") > 90);
}

#[test]
fn the_words_of_a_setting_are_the_values_of_its_type() {
    fn check<T: Serialize>(rows: &'static [Row], name: &str, values: &[T]) {
        let accepts = rows::flat(rows).find(|row| row.name == name).unwrap().accepts;
        let Accepts::OneOf(words) = accepts else { panic!("{name}") };
        let words: Vec<&str> = words.iter().map(|word| word.split(' ').next().unwrap()).collect();
        let values: Vec<String> =
            values.iter().map(|value| Value::try_from(value).unwrap().to_string()).collect();
        assert_eq!(words, values, "{name}");
    }
    check(DurabilitySettings::ROWS, "mode", DurabilityMode::ALL);
    check(TokenSettings::ROWS, "access", TokenAccess::ALL);
    check(X509Settings::ROWS, "expired_members", ExpiredMembers::ALL);
    let mut application = rows::flat(ApplicationSettings::ROWS);
    let identity = application.find(|row| row.name == "identity_configuration").unwrap();
    let Accepts::Table(identity) = identity.accepts else { panic!("{identity:?}") };
    check(identity, "identity_provider_type", IdentityProviderType::ALL);
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let secret = "MC4CAQAwBQYDK2VwBCIEIC";
    let pem = format!("\"\"\"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n\"\"\"");
    let trust = |rest: &str| x509_application("", "device_handle_range = { start = 0, end = 0 }", rest);
    for text in [
        application(&format!("tokens = [{{ sha256 = \"{secret}\", access = \"read\" }}]")),
        application(&format!("tokens = [\"{secret}\"]")),
        application(&format!("tokens = \"{secret}\"")),
        format!("[internal]\nprivate_key = {pem}"),
        format!("[federation]\nprivate_key = {pem}"),
        format!("[[federation.peers]]\ndomain = \"b.example\"\nurl = \"https://me:{secret}@b.example\""),
        trust(&format!("[applications.x509]\ntrust_roots = {pem}")),
        trust(&format!("{TRUST}\nexternal_senders = [{{ private_key = {pem} }}]")),
        trust(&format!("{TRUST}\ncrls = [{pem}]")),
    ] {
        let message = Config::parse(&text).unwrap_err().to_string();
        assert!(message.contains("must be") && !message.contains(secret), "{message}");
    }
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let warnings = |text: &str| {
        let config = Config::parse(text).unwrap();
        config.warnings(&config.build_applications().unwrap(), Timestamp(0)).unwrap()
    };
    let token = format!("tokens = [{{ sha256 = \"{}\", access = \"read\" }}]", hash('a'));
    assert_eq!(warnings(&application(&token)), Vec::<String>::new());
    let tokenless = warnings(&application(""));
    assert_eq!(tokenless.len(), 1);
    assert!(tokenless[0].starts_with("applications[0].tokens: application 7c0c7b44"), "{tokenless:?}");
    let open = warnings("[internal]\nlisten = \"0.0.0.0:8080\"");
    assert_eq!(open.len(), 1);
    assert!(open[0].starts_with("internal.listen: tokens cross the network in the clear"), "{open:?}");
    // A gateway that makes its own application makes a token for operators too.
    assert_eq!(warnings("[operator]"), Vec::<String>::new());
    let of_operators = warnings(&application(&format!("{token}\n[operator]\nlisten = \"[::]:8081\"")));
    let [open, tokenless] = &of_operators[..] else { panic!("{of_operators:?}") };
    assert!(
        open.starts_with("operator.listen: tokens cross the network in the clear on [::]:8081"),
        "{open}"
    );
    assert!(tokenless.starts_with("operator.tokens: the operators' API cannot be used"), "{tokenless}");
}

#[test]
fn limits_of_groups_that_cannot_be_taken_over_are_warned_of() {
    let warning = |federation: Option<FederationSettings>, text: &str| {
        Config { federation, ..Config::parse(text).unwrap() }.transfer_warning()
    };
    let federated = |text| warning(Some(FederationSettings::default()), text);
    assert_eq!(federated(""), None);
    for text in [
        "[durability]\nbatch_bytes_max = 33554432",
        "[limits]\nratchet_tree_bytes_max = 16777216",
        "[limits]\nproposal_bytes_per_epoch_max = 8388608",
    ] {
        let warning = federated(text).unwrap();
        assert!(warning.starts_with("durability.batch_bytes_max: with these limits"), "{warning}");
    }
    let room = "[limits]\nratchet_tree_bytes_max = 16777216\n[durability]\nbatch_bytes_max = 134217728\n\
                queue_bytes_max = 134217728";
    assert_eq!(federated(room), None);
    assert_eq!(warning(None, "[limits]\nratchet_tree_bytes_max = 16777216"), None);
}

#[test]
#[cfg(unix)]
fn a_path_that_is_not_utf_8_is_served_and_not_printed() {
    use std::os::unix::ffi::OsStrExt as _;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(b"data-\xff"));
    let config = Config::embedded().kept_in(DataDir::from(path));
    config.check().unwrap();
    config.to_toml().unwrap_err();
}
