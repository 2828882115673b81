//! The baseline of a machine: signature verifications, and answers with a constant body.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::{
    super::{DuringLibrary as _, ToolError, machine::cpu_time},
    report::Speed,
};

/// Longest body of the constant server, in bytes.
const CONSTANT_BYTES_MAX: usize = 8 << 20;

/// Ed25519 signatures over messages as long as those of a commit, verified by the library with which the gateway verifies.
#[derive(Debug)]
pub(super) struct Signatures {
    signed: Vec<(Vec<u8>, Vec<u8>)>,
    public: Vec<u8>,
}

impl Signatures {
    /// One signature for each length, in bytes.
    pub(super) fn new(lengths: &[usize]) -> Result<Self, ToolError> {
        let keys = Ed25519KeyPair::generate().during_library("making a signature key")?;
        let signed = lengths.iter().map(|length| {
            let message = vec![7; *length];
            let signature = keys.sign(&message).as_ref().to_vec();
            (message, signature)
        });
        Ok(Self { signed: signed.collect(), public: keys.public_key().as_ref().to_vec() })
    }

    /// The number of commits per second that all cores can verify when they do nothing else for this time, and the processor
    /// time of one in microseconds.
    pub(super) fn commits_per_s(self: &Arc<Self>, duration: Duration) -> Result<Speed, ToolError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (is_over, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (started, cpu) = (Instant::now(), cpu_time());
        let threads: Vec<_> = (0..cores)
            .map(|_| {
                let (own, is_over, commits) = (Arc::clone(self), Arc::clone(&is_over), Arc::clone(&commits));
                std::thread::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        own.verify()?;
                        commits.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<_, ToolError>(())
                })
            })
            .collect();
        std::thread::sleep(duration);
        is_over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| ToolError::Broken("verifying signatures panicked".into()))??;
        }
        let commits = f64::from(u32::try_from(commits.load(Ordering::Relaxed)).unwrap_or(u32::MAX));
        let cpu_us = cpu_time().saturating_sub(cpu).as_secs_f64() * 1e6 / commits.max(1.0);
        Ok(Speed { per_s: commits / started.elapsed().as_secs_f64(), cpu_us })
    }

    fn verify(&self) -> Result<(), ToolError> {
        let key = UnparsedPublicKey::new(&ED25519, &self.public);
        for (message, signature) in &self.signed {
            key.verify(message, signature).during_library("verifying a signature")?;
        }
        Ok(())
    }
}

/// The same HTTP server with the same threads, but without a gateway: it answers with a body of the requested length.
pub(super) struct ConstantServer {
    pub(super) address: String,
    handle: ServerHandle,
}

impl ConstantServer {
    /// Starts it inside a running actix system.
    pub(super) fn start(workers: usize) -> Result<Self, ToolError> {
        let failed = |source| ToolError::system("a second listener")(source);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?.to_string();
        let blank = web::Bytes::from(vec![b' '; CONSTANT_BYTES_MAX]);
        let server = HttpServer::new(move || {
            let blank = blank.clone();
            App::new().default_service(web::to(move |request: actix_web::HttpRequest| {
                // The path is the requested length.
                let length = request.path().trim_start_matches('/').parse().unwrap_or(0);
                let body = blank.slice(..blank.len().min(length));
                async move { HttpResponse::Ok().insert_header(("Content-Type", "application/json")).body(body) }
            }))
        });
        let server = server
            .disable_signals()
            .workers(workers)
            .tcp_nodelay(true)
            .shutdown_timeout(1)
            .listen(listener)
            .map_err(failed)?
            .run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Ok(Self { address, handle })
    }

    pub(super) async fn stop(self) {
        self.handle.stop(true).await;
    }
}
