//! Checks of a configuration beyond its types: ranges, and conditions between settings.

use std::{collections::BTreeMap, fmt, path::Path};

use actors::{AppId, ClientHandle, identity::x509::MAX_CERTIFICATES};

use super::{
    ApplicationSettings, Config, ConfigError, DataDir, ListenerLimits,
    applications::{Place, lacks_x509, offsets},
    federation,
};
use crate::api::{applications::IdentityProviderType, list};

/// More threads than this are a typing error.
const THREADS_MAX: usize = 1024;
/// The longest time that can be set, in seconds: a hundred years.
const SECONDS_MAX: u64 = 100 * 366 * 24 * 3600;
/// The largest size that can be set, in bytes: what a semaphore can count in KiB.
const BYTES_MAX: usize = 1 << 40;

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    if matches!(&config.data_dir, DataDir::Directory(path) if path == Path::new("")) {
        return Err(refuse("data_dir", "must be the path of a directory, or `:memory:`"));
    }
    if config.log.parse::<tracing_subscriber::filter::Targets>().is_err()
        && tracing_subscriber::EnvFilter::try_new(&config.log).is_err()
    {
        return Err(refuse(
            "log",
            "must be a level (error, warn, info, debug, trace) or a filter as in RUST_LOG",
        ));
    }
    within("actor_threads", config.actor_threads, 1..=THREADS_MAX)?;
    config.internal.listener_limits().check("internal")?;
    config.internal.credentials()?;
    limits(config)?;
    seconds("retention.period_s", config.retention.period_s)?;
    seconds("retention.history_age_s_max", config.retention.history_age_s_max)?;
    seconds("retention.welcome_age_s_max", config.retention.welcome_age_s_max)?;
    seconds("retention.expired_age_s_max", config.retention.expired_age_s_max)?;
    within("retention.history_epochs_max", config.retention.history_epochs_max, 1..=u64::MAX >> 1)?;
    within("durability.cache_bytes", config.durability.cache_bytes, 1 << 20..=1 << 40)?;
    within("durability.queue_length_max", config.durability.queue_length_max, 1..=1 << 20)?;
    seconds("durability.write_timeout_s", config.durability.write_timeout_s)?;
    within("durability.batch_bytes_max", config.durability.batch_bytes_max, 1 << 20..=1 << 30)?;
    within(
        "durability.queue_bytes_max",
        config.durability.queue_bytes_max,
        config.durability.batch_bytes_max..=1 << 40,
    )?;
    seconds("passivation.after_s", config.passivation.after_s)?;
    seconds("passivation.snapshot_period_s", config.passivation.snapshot_period_s)?;
    applications(config)?;
    federation::check(config)
}

impl ListenerLimits {
    /// Checks the limits of the listener that this section is about.
    pub(super) fn check(&self, section: &str) -> Result<(), ConfigError> {
        let member = |name: &str| format!("{section}.{name}");
        within(&member("workers"), self.workers, 1..=THREADS_MAX)?;
        within(&member("connections_max"), self.connections_max, self.workers..=1 << 24)?;
        within(&member("requests_in_flight_max"), self.requests_in_flight_max, 1..=1 << 24)?;
        within(&member("share_percent"), self.share_percent, 1..=100)?;
        within(&member("request_bytes_max"), self.request_bytes_max, 1024..=1 << 30)?;
        within(
            &member("requests_in_flight_bytes_max"),
            self.requests_in_flight_bytes_max,
            self.request_bytes_max..=BYTES_MAX,
        )?;
        within(&member("answers_unread_bytes_max"), self.answers_unread_bytes_max, 64 << 20..=BYTES_MAX)?;
        // The HTTP/1.1 parser itself stops at 128 KiB.
        within(&member("header_bytes_max"), self.header_bytes_max, 4096..=128 << 10)?;
        seconds(&member("keep_alive_s"), self.keep_alive_s)?;
        seconds(&member("request_header_timeout_s"), self.request_header_timeout_s)?;
        seconds(&member("request_body_timeout_s"), self.request_body_timeout_s)?;
        seconds(&member("answer_read_timeout_s"), self.answer_read_timeout_s)?;
        seconds(&member("shutdown_timeout_s"), self.shutdown_timeout_s)
    }
}

fn limits(config: &Config) -> Result<(), ConfigError> {
    let limits = &config.limits;
    within("limits.packet_bytes_max", limits.packet_bytes_max, 1024..=1 << 30)?;
    within("limits.ratchet_tree_bytes_max", limits.ratchet_tree_bytes_max, 1024..=1 << 30)?;
    within("limits.key_queue_bytes_max", limits.key_queue_bytes_max, 1024..=1 << 30)?;
    within("limits.client_handle_bytes_max", limits.client_handle_bytes_max, 1..=ClientHandle::BYTES_MAX)?;
    within("limits.recent_bytes_per_group_max", limits.recent_bytes_per_group_max, 0..=1 << 24)?;
    within("limits.awake_bytes_max", limits.awake_bytes_max, 1 << 20..=BYTES_MAX)?;
    seconds("limits.clock_skew_s_max", limits.clock_skew_s_max)?;
    seconds("limits.clock_jump_s_max", limits.clock_jump_s_max)?;
    within("limits.clock_settle_s", limits.clock_settle_s, 0..=SECONDS_MAX)?;
    within("limits.welcomes_per_client_max", limits.welcomes_per_client_max, 1..=1 << 24)?;
    within(
        "limits.welcomes_per_inviter_max",
        limits.welcomes_per_inviter_max,
        1..=limits.welcomes_per_client_max,
    )?;
    within(
        "limits.welcomes_reserved_max",
        limits.welcomes_reserved_max,
        0..=limits.welcomes_per_inviter_max,
    )?;
    seconds("limits.welcomes_elsewhere_window_s", limits.welcomes_elsewhere_window_s)?;
    within("limits.certificates_per_chain_max", limits.certificates_per_chain_max, 1..=MAX_CERTIFICATES)?;
    within("limits.proposals_per_epoch_max", limits.proposals_per_epoch_max, 1..=list::PROPOSALS_MAX)?;
    within(
        "limits.key_packages_per_request_max",
        limits.key_packages_per_request_max,
        1..=list::KEY_PACKAGES_MAX,
    )?;
    within("limits.tags_per_client_max", limits.tags_per_client_max, 1..=list::TAGS_MAX)?;
    let counts = [
        ("limits.group_members_max", limits.group_members_max),
        ("limits.proposals_per_commit_max", limits.proposals_per_commit_max),
        ("limits.waiting_requests_per_actor_max", limits.waiting_requests_per_actor_max),
        ("limits.judgements_per_application_max", limits.judgements_per_application_max),
        ("limits.key_queues_per_client_max", limits.key_queues_per_client_max),
        ("limits.key_packages_per_queue_max", limits.key_packages_per_queue_max),
        ("limits.key_packages_per_peer_max", limits.key_packages_per_peer_max),
        ("limits.groups_per_peer_max", limits.groups_per_peer_max),
        ("limits.assigned_key_packages_per_client_max", limits.assigned_key_packages_per_client_max),
        ("limits.certificate_chain_bytes_max", limits.certificate_chain_bytes_max),
        ("limits.tag_bytes_max", limits.tag_bytes_max),
        ("limits.label_bytes_max", limits.label_bytes_max),
        ("limits.awake_actors_max", limits.awake_actors_max),
    ];
    counts.into_iter().try_for_each(|(member, count)| within(member, count, 1..=1 << 24))
}

fn applications(config: &Config) -> Result<(), ConfigError> {
    let mut ids: BTreeMap<AppId, usize> = BTreeMap::new();
    let mut hashes: BTreeMap<String, String> = BTreeMap::new();
    for (place, application) in config.applications.iter().enumerate() {
        let at = Place(place);
        let member = |name: &str| at.member(name);
        if let Some(first) = ids.insert(application.id, place) {
            return Err(refuse(member("id"), format!("applications[{first}] has this id already")));
        }
        identity(config, application, &at)?;
        for (index, token) in application.tokens.iter().enumerate() {
            let at = member(&format!("tokens[{index}].sha256"));
            if let Some(first) = hashes.insert(token.sha256.to_string(), at.clone()) {
                return Err(refuse(
                    at,
                    format!("{first} is this token already; a token belongs to one application"),
                ));
            }
        }
    }
    Ok(())
}

fn identity(config: &Config, application: &ApplicationSettings, place: &Place) -> Result<(), ConfigError> {
    let identity = &application.identity_configuration;
    match identity.identity_provider_type {
        IdentityProviderType::Basic => basic(application, place),
        IdentityProviderType::X509 => {
            let offsets = offsets(identity, place)?;
            let Some(x509) = &application.x509 else { return Err(lacks_x509(place)) };
            let highest = usize::from(offsets.highest());
            let certificates = config.limits.certificates_per_chain_max;
            if highest >= certificates {
                return Err(refuse(
                    place.of_identity("parameters"),
                    format!(
                        "the highest offset is {highest}, and limits.certificates_per_chain_max allows {certificates} \
                         certificates, which have the offsets 0 to {}",
                        certificates.saturating_sub(1)
                    ),
                ));
            }
            if let Some(max) = x509.certificates_above_names_max {
                within(&place.member("x509.certificates_above_names_max"), max, 0..=MAX_CERTIFICATES)?;
            }
            if identity.supports_domains && config.domains.is_empty() {
                return Err(refuse(
                    "domains",
                    format!(
                        "must name a domain of this gateway, because applications[{}] uses domains",
                        place.0
                    ),
                ));
            }
            Ok(())
        }
    }
}

/// *Basic Identity Provider*: it supports neither accounts nor domains.
fn basic(application: &ApplicationSettings, place: &Place) -> Result<(), ConfigError> {
    let identity = &application.identity_configuration;
    for (name, is_set) in
        [("supports_accounts", identity.supports_accounts), ("supports_domains", identity.supports_domains)]
    {
        if is_set {
            return Err(refuse(
                place.of_identity(name),
                "must be false: the Basic identity provider supports neither accounts nor domains",
            ));
        }
    }
    if !identity.parameters.is_empty() {
        return Err(refuse(
            place.of_identity("parameters"),
            "must be empty: the Basic identity provider takes none",
        ));
    }
    if application.x509.is_some() {
        return Err(refuse(
            place.member("x509"),
            "must be left out: identity_provider_type is 1 (Basic), and only 2 (X.509) trusts certificates",
        ));
    }
    Ok(())
}

pub(super) fn seconds(member: &str, value: u64) -> Result<(), ConfigError> {
    within(member, value, 1..=SECONDS_MAX)
}

pub(super) fn within<T: PartialOrd + fmt::Display + Copy>(
    member: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(refuse(member, format!("must be from {} to {}, not {value}", range.start(), range.end())))
}

pub(super) fn refuse(member: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Malformed { member: member.into(), reason: reason.into() }
}
