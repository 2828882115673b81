//! Manual pages and shell completions, made from the definition of the command line.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{Cli, fail, print};

/// A section of the manual: its heading, and its terms with their explanations.
type ManualSection = (&'static str, &'static [(&'static str, &'static str)]);

/// The sections that a command line cannot express.
const SECTIONS: [ManualSection; 2] = [
    (
        "Environment",
        &[
            (
                "MIMI_GATEWAY__<SETTING>",
                "a setting; it overrides the file: MIMI_GATEWAY__INTERNAL__LISTEN is `listen` of `[internal]`",
            ),
            ("RUST_LOG", "the log filter, instead of the setting `log`"),
            ("MIMI_OPERATOR_TOKEN", "the token with which `operator` makes its requests"),
            ("NO_COLOR", "if set, no colours in the log; otherwise they are used on a terminal"),
            (
                "NOTIFY_SOCKET",
                "set by a service manager that wants to know when the gateway is ready, reloads or stops",
            ),
        ],
    ),
    (
        "Exit status",
        &[
            ("0", "done; of `serve`: stopped by SIGTERM or SIGINT"),
            ("1", "could not start, or failed while running; of `operator`: no answer, or a refusal"),
            ("2", "the configuration or the command line is wrong"),
            ("3", "did not stop in time"),
        ],
    ),
];

/// The end of `--help`.
pub(super) fn after_help() -> String {
    let mut text = String::new();
    for (heading, terms) in SECTIONS {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(heading);
        text.push_str(":\n");
        for (term, explanation) in terms {
            text.push_str(&format!("  {term:<23}  {explanation}\n"));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Prints the script that completes the command line in a shell.
pub(super) fn complete(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mimi-gateway", &mut script);
    // For bash, clap_complete 4.6 spells a hyphen of the program's name in two ways, and then completes no command's options.
    print(&String::from_utf8_lossy(&script).replace("mimi__subcmd__gateway", "mimi__gateway"));
    ExitCode::SUCCESS
}

/// Prints the manual page of the program, or writes it and those of all commands to a directory.
pub(super) fn manual(directory: Option<&Path>) -> ExitCode {
    let pages = match pages() {
        Ok(pages) => pages,
        Err(error) => return fail(&format!("the manual cannot be made: {error}")),
    };
    let Some(directory) = directory else {
        if let Some(page) = pages.first() {
            print(&String::from_utf8_lossy(&page.roff));
        }
        return ExitCode::SUCCESS;
    };
    let written = fs::create_dir_all(directory)
        .and_then(|()| pages.iter().try_for_each(|page| fs::write(directory.join(&page.name), &page.roff)));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("the manual cannot be written to {}: {error}", directory.display())),
    }
}

/// A manual page.
struct ManualPage {
    /// Its file name, such as `mimi-gateway-serve.1`.
    name: String,
    roff: Vec<u8>,
}

/// All manual pages, that of the program first.
fn pages() -> io::Result<Vec<ManualPage>> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let (mut pages, mut left) = (Vec::new(), vec![program]);
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|one| !one.is_hide_set()).cloned());
        pages.push(page(command, pages.is_empty())?);
    }
    Ok(pages)
}

fn page(command: Command, is_program: bool) -> io::Result<ManualPage> {
    let has_commands = command.has_subcommands();
    // The program's own end of the help is written as sections below.
    let after = if is_program { None } else { command.get_after_long_help().or(command.get_after_help()) };
    let has_after = after.is_some();
    let page =
        Man::new(command).manual("MIMI Gateway").source(concat!("mimi-gateway ", env!("CARGO_PKG_VERSION")));
    let mut roff = Vec::new();
    page.render_title(&mut roff)?;
    page.render_name_section(&mut roff)?;
    page.render_synopsis_section(&mut roff)?;
    page.render_description_section(&mut roff)?;
    page.render_options_section(&mut roff)?;
    if has_commands {
        page.render_subcommands_section(&mut roff)?;
    }
    if has_after {
        page.render_extra_section(&mut roff)?;
    }
    if is_program {
        write_sections(&mut roff)?;
    }
    Ok(ManualPage { name: page.get_filename(), roff })
}

fn write_sections(into: &mut dyn Write) -> io::Result<()> {
    let mut roff = Roff::new();
    for (heading, terms) in SECTIONS {
        roff.control("SH", [heading.to_uppercase().as_str()]);
        for (term, explanation) in terms {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*explanation)]);
        }
    }
    roff.to_writer(into)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All commands below this one, as `config check`.
    fn names(command: &Command, above: &str, found: &mut Vec<String>) {
        for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
            let name = format!("{above}{}", one.get_name());
            names(one, &format!("{name} "), found);
            found.push(name);
        }
    }

    fn commands() -> Vec<String> {
        let mut found = Vec::new();
        names(&Cli::command(), "", &mut found);
        for name in ["serve", "config check", "completions", "man"] {
            assert!(found.iter().any(|one| one == name), "{name} is not in {found:?}");
        }
        found
    }

    #[test]
    fn every_command_has_a_page_and_is_listed_above_it() {
        let pages = pages().unwrap();
        assert_eq!(pages[0].name, "mimi-gateway.1");
        let commands = commands();
        assert_eq!(pages.len(), commands.len() + 1);
        let text = |name: &str| {
            let page = pages.iter().find(|page| page.name == format!("{name}.1"));
            // roff writes a hyphen as `\-`.
            String::from_utf8(page.expect(name).roff.clone()).unwrap().replace("\\-", "-")
        };
        for command in commands {
            let name = format!("mimi-gateway-{}", command.replace(' ', "-"));
            assert!(text(&name).contains(&format!("mimi-gateway {command}")), "{name}");
            let above = command.rsplit_once(' ').map_or_else(String::new, |(above, _)| format!(" {above}"));
            let above = format!("mimi-gateway{above}").replace(' ', "-");
            assert!(text(&above).contains(&format!("{name}(1)")), "{above} does not list {name}");
        }
    }

    #[test]
    fn help_and_manual_name_variables_and_exit_statuses() {
        let help = Cli::command().render_long_help().to_string();
        let page = String::from_utf8(pages().unwrap().remove(0).roff).unwrap();
        for heading in ["ENVIRONMENT", "EXIT STATUS"] {
            assert!(page.lines().any(|line| line.trim_matches('"').ends_with(heading)), "{heading}: {page}");
        }
        for (heading, terms) in SECTIONS {
            assert!(help.contains(&format!("{heading}:")), "{help}");
            for (term, explanation) in terms {
                assert!(
                    help.lines()
                        .any(|line| line.trim_start().starts_with(term) && line.ends_with(explanation)),
                    "{help}"
                );
                assert!(
                    page.lines().any(|line| line.trim_start_matches("\\fB").starts_with(term)),
                    "{term}: {page}"
                );
            }
        }
    }
}
