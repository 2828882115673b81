//! Warnings about key queues.

use std::time::Duration;

use mimi_gateway::{
    api::events::{EventData, KeyPackagesChangeText, KeyPackagesEvent},
    client::EventReader,
};

use super::{after, application_stream, assert_silent, next};
use crate::{
    mls_support::{MlsClient, kept_in},
    support::Setup,
};

async fn warning(reader: &mut EventReader, of: &MlsClient) -> (KeyPackagesChangeText, u64) {
    let event = next(reader).await;
    let EventData::KeyPackages(KeyPackagesEvent {
        client_id,
        client_handle,
        key_queue_id,
        key_packages_available,
        change,
    }) = event
    else {
        panic!("{event:?}")
    };
    assert_eq!((client_id, &client_handle.0, key_queue_id), (of.id, &of.handle, of.queue));
    (change, key_packages_available)
}

#[actix_web::test]
async fn a_queue_that_runs_out_warns_once_at_each_step() {
    let directory = tempfile::tempdir().unwrap();
    let mut setup = kept_in(&directory);
    setup.config.limits.key_packages_low = 2;
    let mut gateway = setup.start().await;
    let mut bob = MlsClient::register(&gateway, "bob").await;
    let mut reader = application_stream(&bob.api).await;
    bob.upload_key_packages(4).await;
    bob.upload_final_key().await;
    for receiver in ["a", "b", "b", "c"] {
        bob.assign_to(receiver).await.unwrap();
    }
    assert_eq!(warning(&mut reader, &bob).await, (KeyPackagesChangeText::Low, 2));
    // The second receiver asked twice, so one is left.
    bob.assign_to("d").await.unwrap();
    assert_eq!(warning(&mut reader, &bob).await, (KeyPackagesChangeText::Low, 0));
    for receiver in ["e", "f"] {
        assert!(bob.assign_to(receiver).await.unwrap().is_final_key);
    }
    assert_eq!(warning(&mut reader, &bob).await, (KeyPackagesChangeText::FinalKeyUsed, 0));
    let id = reader.last_event_id();
    assert_silent(reader).await;
    // It is not warned of again after a restart, but after the next upload.
    gateway.stop().await;
    gateway = setup.start().await;
    bob.reconnect(&gateway);
    let mut reader = bob.api.application_events(&after(id)).await.unwrap();
    assert!(bob.assign_to("g").await.unwrap().is_final_key);
    bob.upload_key_packages(1).await;
    bob.assign_to("h").await.unwrap();
    assert_eq!(warning(&mut reader, &bob).await, (KeyPackagesChangeText::Low, 0));
    assert!(bob.assign_to("i").await.unwrap().is_final_key);
    assert_eq!(warning(&mut reader, &bob).await, (KeyPackagesChangeText::FinalKeyUsed, 0));
    gateway.stop().await;
}

#[actix_web::test]
async fn packages_that_expire_are_told_of_once() {
    let mut setup = Setup::new();
    setup.config.retention.period_s = 1;
    setup.config.retention.expired_age_s_max = 1;
    let gateway = setup.start().await;
    let api = setup.client(gateway.base_url());
    let bob = MlsClient::register_over(api, "bob", Duration::from_secs(3600)).await;
    let mut reader = application_stream(&bob.api).await;
    bob.upload_key_packages(3).await;
    setup.pass(Duration::from_secs(2 * 3600));
    assert_eq!(warning(&mut reader, &bob).await, (KeyPackagesChangeText::Expired, 0));
    assert_silent(reader).await;
    gateway.stop().await;
}
