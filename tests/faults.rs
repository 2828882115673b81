//! Faults of the disk under the binary: what callers see, what is there afterwards, and how to go on. `docs/faults.md` is made from it, by
//! `tests/faults/run`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

#[path = "support/process.rs"]
mod process;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use actors::{AppId, ClientHandle};
use mimi_gateway::{
    api::{
        clients::{NewClientBody, TagQuery},
        text::HandleText,
    },
    client::{GatewayClient, RequestError, plain_http},
    token::Token,
};
use snapshots::{Location, Store, StoreOptions};

use self::process::{Process, binary};

const TABLE: &str = "docs/faults.md";
const PATIENCE: Duration = Duration::from_secs(60);
const ACKNOWLEDGED: usize = 10;
const RESTART: &str = "remove the cause, and start it again";
const RESTORE: &str = "put back the file or a whole copy, or [restore a backup](operating.md#restore)";

/// A row of the table.
struct Row {
    fault: &'static str,
    seen: String,
    ending: String,
    after: String,
    remedy: &'static str,
}

/// A configuration and a data directory, and the file that tells the disk how to fail.
struct Place {
    directory: tempfile::TempDir,
    app: AppId,
    token: Token,
    shim: PathBuf,
}

/// The registered clients, by the answers to their registration.
#[derive(Default)]
struct Clients {
    acknowledged: BTreeSet<String>,
    /// Answered with an error, or not at all: they may be there or not.
    unknown: BTreeSet<String>,
}

struct Gateway {
    process: Process,
    api: GatewayClient,
}

impl Place {
    fn new(shim: &Path) -> Self {
        let (directory, token) = (tempfile::tempdir().unwrap(), Token::generate().unwrap());
        let app = AppId::new(uuid::Uuid::new_v4());
        let config = format!(
            "data_dir = {:?}\nlog = \"info\"\n[internal]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n\
             shutdown_timeout_s = 2\n[durability]\nwrite_timeout_s = 2\n\
             [operator]\nlisten = \"127.0.0.1:0\"\n[[applications]]\nid = \"{app}\"\n\
             tokens = [{{ sha256 = \"{}\", access = \"read-write\" }}]\n",
            directory.path().join("data"),
            token.hash()
        );
        std::fs::write(directory.path().join("gateway.toml"), config).unwrap();
        Self { directory, app, token, shim: shim.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let config = self.path("gateway.toml");
        let mut command = binary(&["--config", config.to_str().unwrap()]);
        command.args(arguments);
        self.prepared(command)
    }

    /// The shim is preloaded, and the log goes to a file.
    fn prepared(&self, mut command: Command) -> Command {
        let log = std::fs::File::create(self.path("log")).unwrap();
        let place = self.directory.path();
        command.env("LD_PRELOAD", &self.shim).env("FAULT", place.join("fault"));
        command.env("FAULT_UNDER", place.join("data")).stderr(log);
        command
    }

    fn start(&self) -> Gateway {
        self.start_as(self.command(&[]))
    }

    fn start_as(&self, mut command: Command) -> Gateway {
        let process = Process::start(&mut command);
        let api = GatewayClient::new(process.internal(), self.app, self.token.clone()).unwrap();
        Gateway { process, api }
    }

    /// A start that is refused: the reason, for people.
    fn refusal(&self) -> String {
        let mut command = self.command(&[]);
        let status = command.status().unwrap();
        assert_ne!(status.code(), Some(0), "it was not refused");
        self.last_words(status.code())
    }

    /// The exit code, and the message on standard error, without the place of this test.
    fn last_words(&self, code: Option<i32>) -> String {
        let log = std::fs::read_to_string(self.path("log")).unwrap();
        let said = log.lines().rev().find_map(|line| line.strip_prefix("mimi-gateway: "));
        let code = code.map_or_else(|| "killed".to_owned(), |code| format!("exit code {code}"));
        let Some(said) = said else { return code };
        // Without what differs from run to run.
        let said = said.replace(&self.directory.path().display().to_string(), "…");
        let mut said = said;
        for (from, to) in [(": it has those until", ". Its journal"), ("the sequence number", ", which")] {
            if let (Some(start), Some(end)) = (said.find(from), said.find(to)) {
                said.replace_range(start + from.len()..end, " …");
            }
        }
        format!("{code}: “{}”", said.trim_end_matches(':'))
    }

    fn fail(&self, how: &str) {
        std::fs::write(self.path("fault"), how).unwrap();
    }

    fn mend(&self) {
        let _ = std::fs::remove_file(self.path("fault"));
    }

    /// The journal of the store that is stopped or killed.
    fn journal(&self) -> PathBuf {
        let files = std::fs::read_dir(self.path("data/store")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|end| end == "jnl")).max().unwrap()
    }

    /// Starts it once more: what was acknowledged is there, and it takes new clients.
    async fn check_after(&self, clients: &mut Clients) -> String {
        let mut gateway = self.start();
        let found = gateway.names().await;
        let lost: Vec<_> = clients.acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let known: BTreeSet<_> = clients.acknowledged.union(&clients.unknown).cloned().collect();
        assert!(found.is_subset(&known), "nobody registered these: {found:?}");
        // What was not acknowledged can be sent again.
        for name in std::mem::take(&mut clients.unknown) {
            if !found.contains(&name) {
                assert_eq!(gateway.register(clients, &name).await, "201");
            }
        }
        assert_eq!(gateway.register(clients, "afterwards").await, "201");
        gateway.process.signal("TERM");
        assert_eq!(gateway.process.ended(), Some(0));
        "all that was acknowledged; what was not may be sent again".to_owned()
    }
}

impl Gateway {
    /// Registers a client, and says what the caller saw.
    async fn register(&self, clients: &mut Clients, name: &str) -> String {
        let handle = HandleText(ClientHandle::new(name).unwrap());
        let new = NewClientBody { client_handle: handle, tags: vec![], domain: None };
        match self.api.register_client(&new).await {
            Ok(_) => {
                clients.acknowledged.insert(name.to_owned());
                "201".to_owned()
            }
            Err(error) => {
                clients.unknown.insert(name.to_owned());
                match error {
                    RequestError::Problem(problem) => {
                        let kind = problem.r#type.rsplit('/').next().unwrap_or_default().to_owned();
                        format!("{} `{kind}`", problem.status)
                    }
                    RequestError::Transport(_) => "no answer".to_owned(),
                    RequestError::Unexpected { .. } => panic!("{error}"),
                }
            }
        }
    }

    async fn fill(&self, clients: &mut Clients) {
        for number in 0..ACKNOWLEDGED {
            assert_eq!(self.register(clients, &format!("client {number}")).await, "201");
        }
    }

    async fn names(&self) -> BTreeSet<String> {
        let query = TagQuery::default();
        let found = self.api.find_clients(&query).await.unwrap().identities;
        found.into_iter().map(|client| client.client_handle.to_string()).collect()
    }

    async fn readiness(&self) -> u16 {
        let client = plain_http().timeout(Duration::from_secs(5)).build().unwrap();
        assert_eq!(self.process.federation(), None);
        let url = format!("{}/readyz", self.process.operator().unwrap());
        client.get(url).send().await.map_or(0, |answer| answer.status().as_u16())
    }

    async fn until_ready(&self) {
        let since = Instant::now();
        while self.readiness().await != 200 {
            assert!(since.elapsed() < PATIENCE, "it is not ready again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn kill(mut self) {
        self.process.signal("KILL");
        assert_eq!(self.process.ended(), None);
    }
}

/// A place whose gateway has acknowledged some clients.
async fn filled(shim: &Path) -> (Place, Gateway, Clients) {
    let (place, mut clients) = (Place::new(shim), Clients::default());
    // The first start makes the store.
    let mut first = place.start();
    first.process.signal("TERM");
    assert_eq!(first.process.ended(), Some(0));
    let gateway = place.start();
    gateway.fill(&mut clients).await;
    (place, gateway, clients)
}

/// A disk that fails for good: the gateway refuses the write, and ends.
async fn failing_disk(shim: &Path, fault: &'static str, how: &str) -> Row {
    let (place, mut gateway, mut clients) = filled(shim).await;
    place.fail(how);
    let seen = gateway.register(&mut clients, "meanwhile").await;
    assert_ne!(seen, "201", "{fault}");
    let code = gateway.process.ended();
    let ending = place.last_words(code);
    assert_eq!(code, Some(1), "{fault}: {ending}");
    place.mend();
    let after = place.check_after(&mut clients).await;
    Row { fault, seen, ending, after, remedy: RESTART }
}

/// A sync that fails, and a loss of power after the next start: what the failed sync should have written is not on the disk, unless the
/// next process wrote it again.
async fn failed_sync_and_loss_of_power(shim: &Path) -> Row {
    let (place, mut gateway, mut clients) = filled(shim).await;
    let journal = place.journal();
    // Held open, so that no other file gets its number.
    let failed = std::fs::File::open(&journal).unwrap();
    let synced = end_of(&std::fs::read(&journal).unwrap());
    place.fail("sync");
    let seen = gateway.register(&mut clients, "meanwhile").await;
    assert_ne!(seen, "201");
    assert_eq!(gateway.process.ended(), Some(1));
    place.mend();
    let written = end_of(&std::fs::read(&journal).unwrap());
    assert!(written > synced, "nothing was written");
    let gateway = place.start();
    assert_eq!(gateway.register(&mut clients, "then").await, "201");
    gateway.kill();
    if std::fs::metadata(&journal).unwrap().ino() == failed.metadata().unwrap().ino() {
        let mut bytes = std::fs::read(&journal).unwrap();
        bytes[synced..written].fill(0);
        std::fs::write(&journal, bytes).unwrap();
    }
    let after = place.check_after(&mut clients).await;
    Row {
        fault: "failed sync, and a loss of power some time after the next start",
        seen,
        ending: "exit code 1; the next start writes the end of the journal anew".to_owned(),
        after,
        remedy: RESTART,
    }
}

/// A start that has to write the journal anew, since a sync failed before, and cannot: the journal stays, and nothing is left beside it.
async fn failing_start(shim: &Path, fault: &'static str, how: &str) -> Row {
    let (place, mut gateway, mut clients) = filled(shim).await;
    place.fail("sync");
    assert_ne!(gateway.register(&mut clients, "meanwhile").await, "201");
    assert_eq!(gateway.process.ended(), Some(1));
    place.fail(how);
    let before = std::fs::read(place.journal()).unwrap();
    let ending = place.refusal();
    assert_eq!(place.refusal(), ending, "{fault}");
    assert!(std::fs::read(place.journal()).unwrap() == before, "{fault}: the journal was changed");
    let files = std::fs::read_dir(place.path("data")).unwrap();
    let files: BTreeSet<_> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(files.iter().eq(["lock", "store", "witness"]), "{fault}: {files:?}");
    place.mend();
    let after = place.check_after(&mut clients).await;
    Row { fault, seen: "no gateway".to_owned(), ending, after, remedy: RESTART }
}

/// A write that was not acknowledged, of which a loss of power left the beginning and the end.
async fn write_in_part(shim: &Path) -> Row {
    let (place, gateway, mut clients) = filled(shim).await;
    let witness = place.path("data/witness");
    let before = std::fs::read(&witness).unwrap();
    assert_eq!(gateway.register(&mut clients, "meanwhile").await, "201");
    gateway.kill();
    // As if the power had failed before its answer.
    std::fs::write(&witness, before).unwrap();
    clients.acknowledged.remove("meanwhile");
    clients.unknown.insert("meanwhile".to_owned());
    let mut bytes = std::fs::read(place.journal()).unwrap();
    let (start, end) = (*batches(&bytes).last().unwrap(), end_of(&bytes));
    let middle = start + (end - start) / 2;
    bytes[middle..middle + 16].fill(0);
    std::fs::write(place.journal(), bytes).unwrap();
    let after = place.check_after(&mut clients).await;
    Row {
        fault: "loss of power during a write, which is on the disk in part",
        seen: "no answer".to_owned(),
        ending: "the next start cuts it off".to_owned(),
        after,
        remedy: "nothing",
    }
}

/// A disk that does not answer for a time.
async fn hanging_disk(shim: &Path) -> Row {
    let (place, gateway, mut clients) = filled(shim).await;
    place.fail("hang");
    let seen = gateway.register(&mut clients, "meanwhile").await;
    let readiness = gateway.readiness().await;
    place.mend();
    gateway.until_ready().await;
    assert_eq!(gateway.register(&mut clients, "then").await, "201");
    gateway.kill();
    let after = place.check_after(&mut clients).await;
    Row {
        fault: "disk that does not answer, and comes back",
        seen: format!("{seen}; readiness {readiness}, and 200 when it is back"),
        ending: "goes on by itself".to_owned(),
        after,
        remedy: "nothing",
    }
}

async fn slow_disk(shim: &Path) -> Row {
    let (place, gateway, mut clients) = filled(shim).await;
    place.fail("slow");
    let seen = gateway.register(&mut clients, "meanwhile").await;
    let readiness = gateway.readiness().await;
    place.mend();
    gateway.kill();
    let after = place.check_after(&mut clients).await;
    Row {
        fault: "slow disk",
        seen: format!("{seen}, later; readiness {readiness}"),
        ending: "goes on".to_owned(),
        after,
        remedy: "see to the disk: [MimiGatewayDiskSlow](operating.md#mimigatewaydiskslow)",
    }
}

/// A process that is stopped and continued.
async fn stopped_process(shim: &Path) -> Row {
    let (place, gateway, mut clients) = filled(shim).await;
    gateway.process.signal("STOP");
    let register = gateway.register(&mut clients, "meanwhile");
    let (seen, ()) = tokio::join!(register, async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        gateway.process.signal("CONT");
    });
    gateway.kill();
    let after = place.check_after(&mut clients).await;
    Row {
        fault: "process stopped (SIGSTOP) and continued",
        seen: format!("{seen}, later"),
        ending: "goes on".to_owned(),
        after,
        remedy: "nothing",
    }
}

/// A limit on the size of files (`ulimit -f`), which the journal reaches.
async fn small_files(shim: &Path) -> Row {
    let (place, gateway, mut clients) = filled(shim).await;
    gateway.kill();
    let kib = std::fs::metadata(place.journal()).unwrap().len() / 1024 + 24;
    let mut command = Command::new("bash");
    let config = place.path("gateway.toml");
    let script = format!("ulimit -f {kib}; exec \"$0\" --config \"$1\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_mimi-gateway")]).arg(config).env("NO_COLOR", "1");
    // No log goes to a file then.
    let mut gateway = place.start_as(place.prepared(command));
    let mut seen = String::new();
    for number in 0..10_000 {
        seen = gateway.register(&mut clients, &format!("more {number}")).await;
        if seen != "201" {
            break;
        }
    }
    assert_ne!(seen, "201", "the limit is never reached");
    let code = gateway.process.ended();
    let ending = place.last_words(code);
    let after = place.check_after(&mut clients).await;
    Row { fault: "limit on the size of a file (`ulimit -f`)", seen, ending, after, remedy: RESTART }
}

/// A file system that becomes read-only before a start.
async fn read_only(shim: &Path) -> Option<Row> {
    let (place, gateway, mut clients) = filled(shim).await;
    gateway.kill();
    // A mount of its own; only where this test may make one.
    let config = place.path("gateway.toml");
    let script =
        "mount --bind \"$2\" \"$2\" && mount -o remount,bind,ro \"$2\" && exec \"$0\" --config \"$1\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c", script, env!("CARGO_BIN_EXE_mimi-gateway")]);
    command.arg(config).arg(place.path("data")).env("NO_COLOR", "1");
    let status = place.prepared(command).status().ok()?;
    let ending = place.last_words(status.code());
    if !ending.contains('“') {
        return None;
    }
    let after = place.check_after(&mut clients).await;
    Some(Row {
        fault: "read-only file system, at a start",
        seen: "no gateway".to_owned(),
        ending,
        after,
        remedy: RESTART,
    })
}

async fn second_process(shim: &Path) -> Row {
    let (place, gateway, mut clients) = filled(shim).await;
    let log = std::fs::read(place.path("log")).unwrap();
    let ending = place.refusal();
    std::fs::write(place.path("log"), log).unwrap();
    let seen = gateway.register(&mut clients, "meanwhile").await;
    assert_eq!(seen, "201");
    gateway.kill();
    let after = place.check_after(&mut clients).await;
    Row {
        fault: "second process on the same directory",
        seen: format!("{seen} from the first"),
        ending: format!("the second: {ending}"),
        after,
        remedy: "nothing",
    }
}

/// Damage of a file while no gateway runs: it is refused as long as the damage is there, and nothing is changed.
async fn damaged_file(
    shim: &Path,
    fault: &'static str,
    file: impl Fn(&Place) -> PathBuf,
    damage: impl Fn(&mut Vec<u8>),
    remedy: &'static str,
) -> Row {
    let (place, gateway, mut clients) = filled(shim).await;
    gateway.kill();
    let file = file(&place);
    let whole = std::fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    damage(&mut bytes);
    assert!(bytes != whole, "{fault}");
    std::fs::write(&file, &bytes).unwrap();
    let ending = place.refusal();
    assert_eq!(place.refusal(), ending, "{fault}");
    assert!(std::fs::read(&file).unwrap() == bytes, "{fault}: the file was changed");
    std::fs::write(&file, &whole).unwrap();
    let after = place.check_after(&mut clients).await;
    Row { fault, seen: "no gateway".to_owned(), ending, after, remedy }
}

/// The place after the last byte that is not zero.
fn end_of(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// The beginnings of the batches in a journal: each follows the end of another.
fn batches(bytes: &[u8]) -> Vec<usize> {
    let ends =
        bytes.windows(5).enumerate().filter(|(_, window)| window[..4] == *b"FJL\x03" && window[4] == 1);
    ends.map(|(at, _)| at + 4).collect()
}

async fn newer_format(shim: &Path) -> Row {
    let (place, mut gateway, mut clients) = filled(shim).await;
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended(), Some(0));
    let backup = place.path("backup");
    let location = Location::Directory(place.path("data"));
    let store = Store::open(&StoreOptions { location, ..StoreOptions::default() }).unwrap();
    snapshots::write_backup(&store.view(), snapshots::Timestamp(0), &backup).unwrap();
    store.close();
    drop(store);
    // The format of the store is in the header: an array, a text of 19 bytes, the version, the format.
    let mut bytes = std::fs::read(&backup).unwrap();
    let format = 1 + 1 + 19 + 1;
    assert_eq!(u64::from(bytes[format]), Store::FORMAT);
    bytes[format] += 1;
    std::fs::write(&backup, bytes).unwrap();
    let elsewhere = place.path("elsewhere");
    let mut command = binary(&["--data-dir", elsewhere.to_str().unwrap(), "snapshot", "import"]);
    let status = place
        .prepared({
            command.arg(&backup);
            command
        })
        .status()
        .unwrap();
    let ending = place.last_words(status.code());
    assert_eq!(status.code(), Some(1), "{ending}");
    assert!(!elsewhere.exists());
    let after = place.check_after(&mut clients).await;
    Row {
        fault: "backup of a newer format",
        seen: "no gateway".to_owned(),
        ending,
        after,
        remedy: "use the newer version: [upgrade](operating.md#upgrade)",
    }
}

async fn vanished_directory(shim: &Path) -> Row {
    let (place, mut gateway, mut clients) = filled(shim).await;
    std::fs::rename(place.path("data"), place.path("moved")).unwrap();
    let seen = gateway.register(&mut clients, "meanwhile").await;
    assert_ne!(seen, "201");
    let code = gateway.process.ended();
    let ending = place.last_words(code);
    std::fs::rename(place.path("moved"), place.path("data")).unwrap();
    let after = place.check_after(&mut clients).await;
    Row {
        fault: "data directory moved away",
        seen,
        ending,
        after,
        remedy: "move it back, and start it again",
    }
}

/// The shim, or `None` without a C compiler.
fn build_shim(directory: &Path) -> Option<PathBuf> {
    let library = directory.join("shim.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/shim.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .args([source, "-ldl"])
        .status();
    built.is_ok_and(|status| status.success()).then_some(library)
}

const HEADER: &str = "\
# Faults of the disk

What callers of the gateway see when its disk fails, what is there afterwards, and how to go on. `tests/faults/run` injects each fault under
the binary and writes this table; the test suite does the same and compares. In each case ten clients were registered before the fault and all
of them were there after it.

| fault | what callers see | what the gateway does | what is there afterwards | how to go on |
|---|---|---|---|---|
";

const FOOTER: &str = "
A failed write or sync is final for the process: the operating system may have dropped what it could not write, so only a new process, which
reads it again, knows what is there. Readiness fails at once, and no write is acknowledged from then on. After a failed sync, the
operating system may also show what never reached the disk. So the next start writes each journal anew whose last write is not known to be
synced, before anything else is written behind it.

**A loss of power takes no acknowledged write**, in the mode `sync` and on a disk that keeps what it has synced. The journal is synced before
each answer, and before the next write, so what may be on the disk in part is the last write alone, which was not acknowledged. The file
`witness` is written after each answer and synced at each start and stop only, so a loss of power may bring back an older one. It is needed
against damage: it shows that a last write was acknowledged that is cut off or has a wrong checksum. The other writes do not need it, because
each is followed by another one that shows that it was on the disk; a journal in which anything but the last write is damaged is refused,
whatever `witness` says. So is an older journal that is damaged anywhere: it was synced when the next one was begun. One case remains: a loss
of power that takes the newest state of `witness`, and damage to the very last acknowledged write, both before the next start. Such a write
looks like one that the loss of power cut short, and is cut off.

Every flip of one bit in the journal, in a list of tables and in the table of contents of a file is refused or harmless:
`snapshots/tests/store/flips.rs` flips them. A flip in the rest of a table or a blob on disk is
found by a checksum when it is read: at the start, by the request that reads it, or by `snapshot verify`; it is never read as something else.
";

fn table(rows: &[Row]) -> String {
    let mut text = HEADER.to_owned();
    for Row { fault, seen, ending, after, remedy } in rows {
        writeln!(text, "| {fault} | {seen} | {ending} | {after} | {remedy} |").unwrap();
    }
    text.push_str(FOOTER);
    text
}

#[actix_web::test]
async fn every_fault_of_the_disk_ends_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    let Some(shim) = build_shim(directory.path()) else {
        std::io::stderr().write_all(b"SKIPPED: faults of the disk: there is no C compiler\n").unwrap();
        return;
    };
    let shim = shim.as_path();
    let journal = Place::journal;
    let list = |place: &Place| place.path("data/store/keyspaces/1/v0");
    let current = |place: &Place| place.path("data/store/keyspaces/1/current");
    let mut rows = vec![
        failing_disk(shim, "failed write (EIO)", "eio").await,
        failing_disk(shim, "failed sync (EIO)", "sync").await,
        failed_sync_and_loss_of_power(shim).await,
        write_in_part(shim).await,
        failing_disk(shim, "short write, then a full disk", "short").await,
        failing_disk(shim, "full disk (ENOSPC)", "full").await,
        failing_start(shim, "full disk, at a start that writes the end of the journal anew", "full").await,
        failing_start(shim, "rename that fails (EXDEV), at such a start", "rename").await,
        small_files(shim).await,
        hanging_disk(shim).await,
        slow_disk(shim).await,
        stopped_process(shim).await,
        second_process(shim).await,
        vanished_directory(shim).await,
        damaged_file(shim, "journal cut off", journal, |bytes| bytes.truncate(end_of(bytes) - 700), RESTORE)
            .await,
        damaged_file(
            shim,
            "bit flipped in the framing of the journal",
            journal,
            |bytes| {
                let at = batches(bytes);
                bytes[at[at.len() - 3]] ^= 4;
            },
            RESTORE,
        )
        .await,
        damaged_file(
            shim,
            "bit flipped in a sequence number of the journal",
            journal,
            |bytes| {
                let at = batches(bytes);
                bytes[at[at.len() - 3] + 5] ^= 16;
            },
            RESTORE,
        )
        .await,
        damaged_file(
            shim,
            "bit flipped in a row of the journal",
            journal,
            |bytes| {
                let at = batches(bytes);
                bytes[at[at.len() - 2] - 40] ^= 1;
            },
            RESTORE,
        )
        .await,
        damaged_file(
            shim,
            "bit flipped in a row of the newest write",
            journal,
            |bytes| {
                let at = end_of(bytes) - 40;
                bytes[at] ^= 1;
            },
            RESTORE,
        )
        .await,
        damaged_file(shim, "list of tables cut off", list, |bytes| bytes.truncate(100), RESTORE).await,
        // The high byte of the number of blob files: the engine would reserve memory for them.
        damaged_file(
            shim,
            "bit flipped in a length of a list of tables",
            list,
            |bytes| bytes[21] ^= 0x40,
            RESTORE,
        )
        .await,
        damaged_file(shim, "file `current` of a table emptied", current, Vec::clear, RESTORE).await,
        newer_format(shim).await,
    ];
    let read_only = read_only(shim).await;
    let is_complete = read_only.is_some();
    rows.extend(read_only);
    let found = table(&rows);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TABLE);
    if std::env::var_os("MIMI_RECORD").is_some() {
        assert!(is_complete, "the row of a read-only file system needs the right to mount");
        std::fs::write(&path, &found).unwrap();
    }
    let documented = std::fs::read_to_string(&path).unwrap();
    let lines: BTreeSet<&str> = documented.lines().collect();
    for line in found.lines() {
        assert!(lines.contains(line), "{TABLE} lacks this line; tests/faults/run writes it anew: {line}");
    }
}
