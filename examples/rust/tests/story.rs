//! The example, run against a gateway in this process: it tells the story in `README.md`, twice, and ends with one clear line
//! when it cannot.

#![expect(clippy::unwrap_used, reason = "a test that meets what it does not expect has failed")]

use std::{
    net::TcpListener,
    process::{Command, Output},
};

use actix_web::rt::{System, task::spawn_blocking};
use actors::AppId;
use mimi_gateway::{
    config::{ApplicationSettings, Config, DataDir, TokenAccess, TokenSettings},
    serve,
    token::Token,
};

const README: &str = include_str!("../../../README.md");
/// How `README.md` starts the example.
const COMMAND: &str = "\ncargo run --release -p application-server ";

/// The variables that the example reads.
#[derive(Clone)]
struct Settings {
    gateway: String,
    app: String,
    token: String,
}

/// A story without the random id in it.
fn without_group(story: &str) -> Vec<String> {
    const CREATED: &str = "alice has created the group ";
    let line = |line: &str| if line.starts_with(CREATED) { CREATED.to_owned() } else { line.to_owned() };
    story.lines().map(line).collect()
}

/// The story in `README.md`.
fn expected_story() -> Vec<String> {
    assert!(README.contains(COMMAND));
    let story = README.split_once(COMMAND).unwrap().1.split_once("```text\n").unwrap().1;
    without_group(story.split_once("```\n").unwrap().0)
}

fn example() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_application-server"));
    command.env_remove("GATEWAY").env_remove("APP").env_remove("TOKEN");
    command
}

fn run(settings: &Settings) -> Output {
    let Settings { gateway, app, token } = settings;
    example().env("GATEWAY", gateway).env("APP", app).env("TOKEN", token).output().unwrap()
}

/// Expects exit status 1 and one line on standard error that contains this.
fn check_failure(output: Output, expected: &str) {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{expected}: {stderr}");
    assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{expected}: {stderr}");
    assert!(output.stdout.is_empty(), "{expected}");
}

fn check_example(settings: &Settings) {
    for round in ["first", "second"] {
        let Output { status, stdout, stderr } = run(settings);
        assert!(status.success(), "the {round} time: {}", String::from_utf8_lossy(&stderr));
        assert_eq!(without_group(&String::from_utf8(stdout).unwrap()), expected_story(), "the {round} time");
    }

    let wrong = Settings { token: "wrong".into(), ..settings.clone() };
    check_failure(run(&wrong), "this gateway does not know the token");
    let foreign = Settings { app: AppId::random().to_string(), ..settings.clone() };
    check_failure(run(&foreign), "the token belongs to another application");
    // Nothing listens on a port that was free a moment ago.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = Settings { gateway: format!("http://{nobody}"), ..settings.clone() };
    check_failure(run(&unreachable), "cannot be reached; is it running?");
    check_failure(example().output().unwrap(), "set GATEWAY, APP and TOKEN");
}

#[test]
fn the_example_tells_the_story_of_the_readme_and_says_what_is_wrong() {
    System::new().block_on(async {
        let (app, token) = (AppId::random(), Token::generate().unwrap());
        let access = TokenSettings { sha256: token.hash(), access: TokenAccess::ReadWrite };
        let config = Config::embedded()
            .kept_in(DataDir::Memory)
            .listening_on(([127, 0, 0, 1], 0).into())
            .with_application(ApplicationSettings::basic(app, vec![access]));
        let running = serve::start(config).await.unwrap();
        let settings =
            Settings { gateway: running.base_url(), app: app.to_string(), token: token.reveal().to_owned() };
        spawn_blocking(move || check_example(&settings)).await.unwrap();
        running.stop().await;
    });
}
