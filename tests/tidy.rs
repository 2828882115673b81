//! Rules about the sources that Cargo does not check: which modules may import which, what pure modules may not name, how
//! long files and functions are, and that a type's name has one meaning. `docs/architecture.md` states them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file before its tests, at most.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, at most.
const FUNCTION_LINES_MAX: usize = 80;

/// A source file of a package.
struct Source {
    /// Its path below the package's `src`, with `/`.
    name: String,
    /// Its text before its tests, without comments.
    code: String,
    /// Lines before its tests, comments included.
    lines: usize,
}

impl Source {
    /// The module that it is, below the package's root: `group::state`, and empty for the root.
    fn module(&self) -> String {
        let module = self.name.trim_end_matches(".rs").replace('/', "::");
        let module = module.strip_suffix("::mod").unwrap_or(&module);
        if matches!(module, "lib" | "main" | "mod") { String::new() } else { module.to_owned() }
    }

    /// Its folder: the first one below `src`, or none. A file next to a folder of its name belongs to that folder.
    fn folder(&self, sources: &[Self]) -> &str {
        let (first, is_in_folder) = self
            .name
            .split_once('/')
            .map_or_else(|| (self.name.trim_end_matches(".rs"), false), |(folder, _)| (folder, true));
        let has_folder = || sources.iter().any(|other| other.name.starts_with(&format!("{first}/")));
        if is_in_folder || has_folder() { first } else { "" }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The production sources of a package; `skipped` folders are left out.
fn sources(package: &str, skipped: &[&str]) -> Vec<Source> {
    let root = repository().join(package).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
            if path.is_dir() {
                if !skipped.contains(&name.as_str()) && !name.ends_with("tests") {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                sources.push(source(name, &path));
            }
        }
    }
    sources.sort_by(|one, other| one.name.cmp(&other.name));
    sources
}

fn source(name: String, path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).unwrap();
    // Tests in a module of the file are its end; a module of tests in a file of its own is only declared.
    let lines: Vec<&str> = text.lines().collect();
    let is_tests =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{');
    let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
    let production = &lines[..end];
    let code: Vec<&str> =
        production.iter().map(|line| line.split_once("//").map_or(*line, |(code, _)| code)).collect();
    Source { name, lines: production.len(), code: code.join("\n") }
}

/// The paths that `use` declarations and qualified names of a file lead to, from the package's root: `crate::group::X`
/// gives `group::X`.
fn imports(source: &Source) -> BTreeSet<String> {
    let module = source.module();
    let mut found = BTreeSet::new();
    found.extend(used(&source.code).iter().filter_map(|path| resolve(path, &module)));
    for (start, _) in source.code.match_indices("crate::") {
        let path = source.code.get(start..).unwrap();
        let is_part = |character: char| character.is_alphanumeric() || matches!(character, '_' | ':');
        let path = path.get(..path.find(|character| !is_part(character)).unwrap_or(path.len())).unwrap();
        // A use tree continues after this; it was expanded above.
        if !path.ends_with("::") {
            found.extend(resolve(path, &module));
        }
    }
    found
}

/// The paths of all `use` declarations of a file, as they are written.
fn used(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (start, _) in code.match_indices("use ") {
        let before = code.get(..start).unwrap();
        if !before.ends_with(char::is_whitespace) && !before.is_empty() {
            continue;
        }
        let Some((tree, _)) = code.get(start + 4..).unwrap().split_once(';') else { continue };
        paths.extend(expand(&tree.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    paths
}

/// The paths of a use tree: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let (mut paths, mut depth, mut start) = (Vec::new(), 0, 0);
    let mut parts = Vec::new();
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    for part in parts.into_iter().filter(|part| !part.trim().is_empty()) {
        paths.extend(expand(part).into_iter().map(|path| format!("{}{path}", prefix.trim())));
    }
    paths
}

/// A path from the package's root, if it leads into the package.
fn resolve(path: &str, module: &str) -> Option<String> {
    let path = path.split(" as ").next()?.trim();
    let mut base: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut parts = path.split("::").peekable();
    match parts.next()? {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            base.pop();
        }
        _ => return None,
    }
    while parts.next_if_eq(&"super").is_some() {
        base.pop();
    }
    base.extend(parts);
    Some(base.join("::"))
}

/// Which files each file imports, as indices.
fn arrows(sources: &[Source]) -> Vec<BTreeSet<usize>> {
    let modules: BTreeMap<String, usize> =
        sources.iter().enumerate().map(|(index, source)| (source.module(), index)).collect();
    let file_of = |path: &str| {
        let mut path = path;
        loop {
            if let Some(index) = modules.get(path) {
                return Some(*index);
            }
            path = path.rsplit_once("::").map_or("", |(parent, _)| parent);
        }
    };
    let of = |(index, source): (usize, &Source)| {
        imports(source).iter().filter_map(|path| file_of(path)).filter(|to| *to != index).collect()
    };
    sources.iter().enumerate().map(of).collect()
}

/// The files that can be reached from a file.
fn reachable(arrows: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(file) = left.pop() {
        for to in &arrows[file] {
            if seen.insert(*to) {
                left.push(*to);
            }
        }
    }
    seen
}

#[test]
fn no_circle_of_imports_goes_over_more_than_one_folder() {
    for package in ["", "actors", "snapshots"] {
        let sources = sources(package, &[]);
        assert!(sources.len() > 10, "{package}: the sources are not there");
        let arrows = arrows(&sources);
        let reach: Vec<BTreeSet<usize>> = (0..sources.len()).map(|file| reachable(&arrows, file)).collect();
        for (file, source) in sources.iter().enumerate() {
            let circle: Vec<&str> = reach[file]
                .iter()
                .filter(|other| {
                    reach[**other].contains(&file)
                        && sources[**other].folder(&sources) != source.folder(&sources)
                })
                .map(|other| sources[*other].name.as_str())
                .collect();
            assert!(circle.is_empty(), "{package}/src/{} is in a circle with {circle:?}", source.name);
        }
    }
}

/// Checks that no file of these names one of these, in a use tree or elsewhere.
fn check_absent<'a>(sources: impl IntoIterator<Item = &'a Source>, words: &[&str]) {
    let mut count = 0;
    for source in sources {
        count += 1;
        let used = used(&source.code).join(" ");
        for word in words {
            assert!(!source.code.contains(word) && !used.contains(word), "{} names {word}", source.name);
        }
    }
    assert!(count > 0, "no file was looked at for {words:?}");
}

#[test]
fn states_and_mls_know_no_actor_no_disk_and_no_clock() {
    let actors = sources("actors", &[]);
    let is_pure = |source: &&Source| {
        let Source { name, .. } = source;
        name.starts_with("mls/") || name.ends_with("/state.rs") || name.contains("/state/")
    };
    let words = [
        "actix",
        "tokio",
        "std::fs",
        "SystemTime::",
        "Instant::",
        "crate::clock",
        "snapshots::Store",
        "Batch",
    ];
    check_absent(actors.iter().filter(is_pure), &words);
}

#[test]
fn owners_do_not_know_the_registry_or_the_gateway() {
    let actors = sources("actors", &[]);
    let is_owner = |source: &&Source| matches!(source.folder(&actors), "group" | "key_queue" | "peer");
    check_absent(actors.iter().filter(is_owner), &["runtime::", "gateway::", "Registry", "Gateway"]);
}

#[test]
fn the_edge_knows_no_mls_library() {
    let edge = sources("", &["tools"]);
    check_absent(&edge, &["openmls", "tls_codec"]);
}

#[test]
fn the_store_parses_no_mls() {
    check_absent(&sources("snapshots", &[]), &["openmls", "tls_codec", "x509"]);
}

#[test]
fn the_engine_of_the_store_names_no_table() {
    let snapshots = sources("snapshots", &[]);
    let list = snapshots.iter().find(|source| source.name == "tables/table.rs").expect("the list of tables");
    // `GROUPS = 4, "groups", Small;`
    let table = |line: &str| {
        let (constant, rest) = line.trim().split_once(" = ")?;
        let name = rest.split('"').nth(1)?;
        Some([constant.to_owned(), format!("\"{name}\"")])
    };
    let names: Vec<String> = list.code.lines().filter_map(table).flatten().collect();
    assert!(names.len() > 40, "the list of tables is not there: {names:?}");
    let words: Vec<&str> = names.iter().map(String::as_str).chain(["tables::"]).collect();
    let is_engine = |source: &&Source| source.name.starts_with("engine/");
    check_absent(snapshots.iter().filter(is_engine), &words);
    for source in snapshots.iter().filter(is_engine) {
        let tables: Vec<String> =
            imports(source).into_iter().filter(|path| path.starts_with("tables")).collect();
        assert!(tables.is_empty(), "{} imports {tables:?}", source.name);
    }
    check_absent(snapshots.iter().filter(|source| !is_engine(source)), &["fjall"]);
}

#[test]
fn no_file_and_no_function_is_too_long() {
    for package in ["", "actors", "snapshots"] {
        for source in sources(package, &[]) {
            let Source { name, lines, code } = &source;
            assert!(*lines <= FILE_LINES_MAX, "{package}/src/{name} has {lines} lines before its tests");
            for (function, lines) in functions(code) {
                assert!(lines <= FUNCTION_LINES_MAX, "{package}/src/{name}: {function} has {lines} lines");
            }
        }
    }
}

/// The functions of a formatted file, each with its number of lines.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(after) = line.trim_start().split_once("fn ").filter(|(before, _)| {
            before
                .split_whitespace()
                .all(|word| word.starts_with("pub") || matches!(word, "async" | "const" | "in" | "extern"))
        }) else {
            continue;
        };
        let name = after.1.split(['(', '<']).next().unwrap_or_default().to_owned();
        let end = format!("{}}}", " ".repeat(indent));
        let is_end = |line: &&&str| {
            **line == end || line.trim_end().ends_with(';') && line.len() - line.trim_start().len() == indent
        };
        let length = lines[start + 1..].iter().take_while(|line| !is_end(line)).count() + 2;
        functions.push((name, length));
    }
    functions
}

/// The names of the types and traits that a formatted file declares, private ones included; associated types are not.
fn declared_types(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let declaration = line.trim_start();
        let is_indented = declaration.len() < line.len();
        let declaration = match declaration.strip_prefix("pub(") {
            Some(visibility) => visibility.split_once(") ")?.1,
            None => declaration.strip_prefix("pub ").unwrap_or(declaration),
        };
        let (kind, rest) = declaration.split_once(' ')?;
        let is_type = matches!(kind, "struct" | "enum" | "union" | "trait") || kind == "type" && !is_indented;
        let name = rest.split(|character: char| !character.is_alphanumeric()).next()?;
        (is_type && !name.is_empty()).then_some(name)
    })
}

#[test]
fn a_type_name_is_declared_once_in_a_package() {
    for package in ["", "actors", "snapshots"] {
        let sources = sources(package, &[]);
        let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for source in &sources {
            for name in declared_types(&source.code) {
                files.entry(name).or_default().push(&source.name);
            }
        }
        assert!(files.len() > 50, "{package}: {} types were found", files.len());
        files.retain(|_, files| files.len() > 1);
        assert!(
            files.is_empty(),
            "{package}: a name has one meaning, but these are declared twice: {files:?}"
        );
    }
}

#[test]
fn declared_types_are_found() {
    let code = "pub(crate) struct A<'a> {\n    type Inner = u8;\n}\nenum B {\n\npub type C = u8;\npub fn d() {\nuse e;\n\
        pub(in crate::f) trait G: H {\n    pub struct I(u8);\n        pub struct $name {\n";
    assert_eq!(declared_types(code).collect::<Vec<_>>(), ["A", "B", "C", "G", "I"]);
}

#[test]
fn the_map_names_every_module() {
    let map = fs::read_to_string(repository().join("docs/architecture.md")).unwrap();
    for package in ["", "actors", "snapshots"] {
        let sources = sources(package, &[]);
        for source in &sources {
            let file = source.name.rsplit('/').next().unwrap();
            let is_root = matches!(source.name.as_str(), "lib.rs" | "main.rs");
            let named = if file == "mod.rs" { source.folder(&sources) } else { file };
            assert!(
                is_root || map.contains(named),
                "docs/architecture.md does not name {package}/src/{}",
                source.name
            );
        }
    }
}

/// The documents that name files and settings.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/operating.md",
    "docs/federation.md",
    "docs/performance.md",
];

#[test]
fn documents_name_files_that_exist() {
    let mut count = 0;
    for document in DOCUMENTS {
        let text = fs::read_to_string(repository().join(document)).unwrap();
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_path = quoted.ends_with(".rs") && !quoted.contains(' ');
            if is_path
                && ["src/", "actors/", "snapshots/", "tests/", "benches/"]
                    .iter()
                    .any(|top| quoted.starts_with(top))
            {
                count += 1;
                assert!(
                    repository().join(quoted).is_file(),
                    "{document} names {quoted}, which does not exist"
                );
            }
        }
    }
    assert!(count > 20, "only {count} files are named");
}

/// The settings in `gateway.example.toml`, as `table.name`.
fn settings() -> BTreeSet<String> {
    let example = fs::read_to_string(repository().join("gateway.example.toml")).unwrap();
    let (mut table, mut settings) = (String::new(), BTreeSet::new());
    for line in example.lines().map(|line| line.strip_prefix('#').unwrap_or(line)) {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_matches(['[', ']']).to_owned();
        } else if let Some((name, _)) = line.split_once(" = ")
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            settings.insert(format!("{table}.{name}"));
        }
    }
    settings
}

#[test]
fn documents_name_settings_that_exist() {
    let settings = settings();
    let tables: BTreeSet<&str> =
        settings.iter().filter_map(|setting| Some(setting.rsplit_once('.')?.0)).collect();
    let mut count = 0;
    for document in DOCUMENTS {
        let text = fs::read_to_string(repository().join(document)).unwrap();
        for quoted in text.split('`').skip(1).step_by(2) {
            let Some((table, name)) = quoted.rsplit_once('.') else { continue };
            let is_name = name != "rs" && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if is_name && tables.contains(table) {
                count += 1;
                assert!(
                    settings.contains(quoted),
                    "{document} names the setting {quoted}, which does not exist"
                );
            }
        }
    }
    assert!(count > 10, "only {count} settings are named");
}

#[test]
fn use_trees_are_expanded_and_resolved() {
    let expanded = expand("crate::{a::{B, c::D}, e}");
    assert_eq!(expanded, ["crate::a::B", "crate::a::c::D", "crate::e"]);
    let check = |path: &str, module: &str, expected: Option<&str>| {
        assert_eq!(resolve(path, module).as_deref(), expected, "{path} in {module}");
    };
    check("crate::a::B", "x::y", Some("a::B"));
    check("super::B", "x::y", Some("x::B"));
    check("super::super::B", "x::y", Some("B"));
    check("self::z::B", "x", Some("x::z::B"));
    check("std::fs", "x", None);
}
