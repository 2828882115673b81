//! The application servers in TypeScript and Python in `examples/`, run by the commands of `README.md` against a gateway in its
//! own process. The one in Rust is a package with a test of its own.

use std::{
    io::Write as _,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::{
    readme::{README, blocks, exported},
    support::process::{Process, binary},
};

/// How the story of the example in Python ends, because its MLS library cannot make the commit that removes a member.
const BOB_WAITS: &str =
    "bob has proposed to leave; 1 proposal waits for a member whose MLS library can commit to it";

/// The story in README.
fn story() -> Vec<String> {
    let [story] = blocks(README, "An application server", "text")[..] else { panic!("one story") };
    told(story.as_bytes())
}

/// An example, as README starts it, without the part that installs what it needs.
struct Example {
    command: String,
}

impl Example {
    /// The command of README that names this folder. `installing` is its part that needs a registry.
    fn of_readme(name: &str, installing: &str) -> Self {
        let commands = blocks(README, "An application server", "sh").concat();
        let command = commands.lines().find(|line| line.contains(name)).expect(name);
        assert!(command.contains(installing), "{command}");
        Self { command: command.replace(installing, "") }
    }

    fn run(&self, settings: &[(String, String)]) -> Output {
        Command::new("bash")
            .args(["-euc", &self.command])
            .current_dir(repository())
            .env_remove("GATEWAY")
            .env_remove("APP")
            .env_remove("TOKEN")
            .envs(settings.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Plays the story twice with one gateway, and then lets it fail in the ways in which a newcomer fails.
    fn check(&self, story: &[String]) {
        let gateway = Process::start(&mut binary(&["--data-dir", ":memory:", "--listen", "127.0.0.1:0"]));
        let settings = exported(&gateway.printed);
        for round in ["first", "second"] {
            let Output { status, stdout, stderr } = self.run(&settings);
            let stderr = String::from_utf8_lossy(&stderr);
            assert!(status.success(), "the {round} time: {stderr}");
            assert_eq!(told(&stdout), story, "the {round} time: {stderr}");
        }

        let with = |name: &str, value: &str| -> Vec<(String, String)> {
            let value_of =
                |(key, old): &(String, String)| if key == name { value.into() } else { old.clone() };
            settings.iter().map(|setting| (setting.0.clone(), value_of(setting))).collect()
        };
        self.check_failure(&with("TOKEN", "wrong"), "this gateway does not know the token");
        // Nothing listens on a port that was free a moment ago.
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = format!("http://{nobody}");
        let unreachable = format!("the gateway at {nobody} cannot be reached; is it running?");
        self.check_failure(&with("GATEWAY", &nobody), &unreachable);
        self.check_failure(&settings[..2], "set GATEWAY, APP and TOKEN");
    }

    /// Expects exit status 1 and one line on standard error that contains this.
    fn check_failure(&self, settings: &[(String, String)], expected: &str) {
        let Output { status, stdout, stderr } = self.run(settings);
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{expected}: {stderr}");
        assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{expected}: {stderr}");
        assert_eq!(told(&stdout), Vec::<String>::new(), "{expected}");
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of the story, without the group's id, and without those in which npm names a script.
fn told(stdout: &[u8]) -> Vec<String> {
    const CREATED: &str = "alice has created the group ";
    let story = std::str::from_utf8(stdout).unwrap().lines();
    story
        .filter(|line| !line.is_empty() && !line.starts_with("> "))
        .map(|line| if line.starts_with(CREATED) { format!("{CREATED}GROUP") } else { line.to_owned() })
        .collect()
}

/// Says, past the capture of tests, that an example is not run.
fn skip(language: &str, reason: &str) {
    let notice = format!("SKIPPED: the example in {language}: {reason}\n");
    std::io::stderr().write_all(notice.as_bytes()).unwrap();
}

/// The first number in what a program prints with `--version`, if it can be run.
fn major_version(program: &str) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let digits = text.trim_start_matches(|character: char| !character.is_ascii_digit());
    digits.split('.').next()?.parse().ok()
}

#[test]
fn the_example_in_typescript_tells_its_story() {
    if major_version("node").is_none_or(|version| version < 20) {
        return skip("TypeScript", "Node 20 or newer is not installed");
    }
    if !repository().join("examples/typescript/node_modules/.bin/tsc").is_file() {
        return skip("TypeScript", "run `npm ci` in examples/typescript");
    }
    Example::of_readme("examples/typescript", "npm ci && ").check(&story());
}

#[test]
fn the_example_in_python_tells_its_story() {
    if !repository().join("examples/python/.venv/bin/rfc9420-interop").is_file() {
        return skip("Python", "make examples/python/.venv by the command in README.md");
    }
    let installing =
        "python3 -m venv .venv && .venv/bin/pip install --quiet --requirement requirements.txt && ";
    let mut story = story();
    *story.last_mut().unwrap() = BOB_WAITS.into();
    Example::of_readme("examples/python", installing).check(&story);
}
