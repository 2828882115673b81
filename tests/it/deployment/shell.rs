//! Completions and manual pages, as the binary prints them.

use std::process::Command;

use super::skipped;
use crate::support::process::binary;

/// What a command prints; it succeeds.
fn printed(arguments: &[&str]) -> String {
    let output = binary(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let (_, list) = help.split_once("\nCommands:\n").expect("a list of commands");
    let (list, _) = list.split_once("\n\n").expect("an end of the list");
    let names: Vec<String> = list
        .lines()
        .filter_map(|line| Some(line.strip_prefix("  ")?.split(' ').next()?.to_owned()))
        .collect();
    let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert!(names.iter().any(|name| name == "serve") && names.len() > 5, "{help}");
    names
}

#[test]
fn completions_name_every_command() {
    let commands = commands();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for command in commands.iter().map(String::as_str).chain(["data-dir"]) {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    let refused = binary(&["completions", "cmd"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn bash_completes_commands_and_options() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("completions");
    std::fs::write(&file, printed(&["completions", "bash"])).unwrap();
    // The function that the script registers, called as the shell calls it.
    let script = r#"
        source "$1"; shift
        function=$(complete -p mimi-gateway | sed 's/.* -F \([^ ]*\) .*/\1/')
        COMP_WORDS=(mimi-gateway "$@"); COMP_CWORD=$#
        "$function" mimi-gateway "${COMP_WORDS[$#]}" "${COMP_WORDS[$# - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let complete = |words: &[&str]| {
        let output =
            Command::new("bash").args(["-c", script, "bash"]).arg(&file).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["ser"]), ["serve"]);
    assert_eq!(complete(&["config", "ch"]), ["check"]);
    assert_eq!(complete(&["config", "check", "--pr"]), ["--print"]);
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    assert_eq!(printed(&["man", "--directory", pages.to_str().unwrap()]), "");
    let page = printed(&["man"]);
    assert_eq!(std::fs::read_to_string(pages.join("mimi-gateway.1")).unwrap(), page);
    for command in commands().iter().filter(|command| *command != "help") {
        let name = format!("mimi-gateway-{command}.1");
        assert!(
            page.replace("\\-", "-").contains(&format!("mimi-gateway-{command}(1)")),
            "{command}: {page}"
        );
        assert!(pages.join(&name).is_file(), "{name}");
    }
    let mut files: Vec<_> = std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        // groff warns of what it does not understand.
        let output = Command::new("groff").args(["-man", "-ww", "-z"]).arg(&file).output();
        let Ok(output) = output else {
            return skipped("the check of the manual by groff: it is not installed");
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", file.display());
    }
}
