//! Notices to the service manager, by the protocol of `sd_notify(3)`.
//!
//! A manager such as systemd listens on a datagram socket and names it in the variable `NOTIFY_SOCKET`. Each notice is one
//! datagram of `NAME=VALUE` lines. Without the variable nothing is sent; a notice that cannot be sent is a warning in the log.

use std::{env, ffi::OsStr, io, os::unix::net::UnixDatagram, time::Duration};

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::{
    linux::net::SocketAddrExt as _,
    unix::{ffi::OsStrExt as _, net::SocketAddr},
};

/// The variable with the address of the manager's socket.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// The time limit of one notice, for a manager that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that the manager waits beyond a stop's time limit, so that the gateway itself reports what held it up.
const STOP_SLACK: Duration = Duration::from_secs(5);

/// The service manager of this process, if it wants notices.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
}

impl ServiceManager {
    /// The manager that `NOTIFY_SOCKET` names. One that cannot be reached is a warning in the log, and gets no notices.
    pub fn from_environment() -> Self {
        let Some(address) = env::var_os(VARIABLE).filter(|address| !address.is_empty()) else {
            return Self::default();
        };
        match connect(&address) {
            Ok(socket) => Self { socket: Some(socket) },
            Err(error) => {
                tracing::warn!(address = %address.display(), %error, "the service manager gets no notices: {VARIABLE} cannot be used");
                Self::default()
            }
        }
    }

    /// The gateway has started, or has read its settings again. The manager shows the status to people; it is one line.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// The gateway reads its settings again; [`ServiceManager::ready`] follows.
    pub fn reloading(&self) {
        // The manager compares this time with that of its own request.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_us = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reloading"));
    }

    /// The gateway stops, and ends within this time. The manager kills it only after that, whatever its own time limit is.
    pub fn stopping(&self, at_most: Duration) {
        self.send(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS=stopping, within {} s",
            at_most.saturating_add(STOP_SLACK).as_micros(),
            at_most.as_secs()
        ));
    }

    fn send(&self, notice: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(notice.as_bytes()) {
            tracing::warn!(%error, "the service manager did not get a notice");
        }
    }
}

/// A socket that sends to this address: an absolute path or, after `@`, a name in Linux's abstract namespace.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = address.as_bytes().strip_prefix(b"@") {
        socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        return Ok(socket);
    }
    if !std::path::Path::new(address).is_absolute() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither an absolute path nor an abstract name",
        ));
    }
    socket.connect(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(socket: UnixDatagram) -> ServiceManager {
        ServiceManager { socket: Some(socket) }
    }

    /// The next datagram, as its lines.
    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn notices_are_lines_of_names_and_values() {
        let (sent, socket) = UnixDatagram::pair().unwrap();
        let manager = manager(sent);
        manager.ready("listening internal=http://127.0.0.1:8080");
        assert_eq!(received(&socket), ["READY=1", "STATUS=listening internal=http://127.0.0.1:8080"]);
        manager.stopping(Duration::from_millis(35_500));
        let expected = ["STOPPING=1", "EXTEND_TIMEOUT_USEC=40500000", "STATUS=stopping, within 35 s"];
        assert_eq!(received(&socket), expected);
    }

    #[test]
    fn a_reload_has_the_time_of_the_monotonic_clock_in_microseconds() {
        let (sent, socket) = UnixDatagram::pair().unwrap();
        let manager = manager(sent);
        let time_us = || {
            manager.reloading();
            let lines = received(&socket);
            assert_eq!((lines[0].as_str(), lines[2].as_str()), ("RELOADING=1", "STATUS=reloading"));
            lines[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u128>().unwrap()
        };
        let (since, first_us) = (std::time::Instant::now(), time_us());
        std::thread::sleep(Duration::from_millis(20));
        let (second_us, at_most) = (time_us(), since.elapsed());
        let apart_us = second_us - first_us;
        assert!((20_000..=at_most.as_micros()).contains(&apart_us), "{apart_us} µs, at most {at_most:?}");
    }

    #[test]
    fn a_manager_that_is_gone_does_no_harm() {
        let (sent, socket) = UnixDatagram::pair().unwrap();
        drop(socket);
        manager(sent).ready("listening");
        ServiceManager::default().ready("listening");
    }

    #[test]
    fn an_address_is_an_absolute_path_or_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        manager(connect(path.as_os_str()).unwrap()).ready("by path");
        assert_eq!(received(&socket)[1], "STATUS=by path");
        for (address, kind) in [
            (directory.path().join("nothing").into_os_string(), io::ErrorKind::NotFound),
            ("notify".into(), io::ErrorKind::InvalidInput),
            ("vsock:2:1234".into(), io::ErrorKind::InvalidInput),
        ] {
            assert_eq!(connect(&address).unwrap_err().kind(), kind, "{}", address.display());
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn a_leading_at_sign_names_an_abstract_socket() {
        let name = format!("mimi-gateway-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        manager(connect(OsStr::new(&format!("@{name}"))).unwrap()).ready("by name");
        assert_eq!(received(&socket)[1], "STATUS=by name");
    }
}
