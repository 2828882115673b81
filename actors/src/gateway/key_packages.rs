//! Operations on key packages (*Managing Key Packages*): they find the queue, make the checks that need no owner, and ask the
//! queue's actor.

use std::{collections::HashSet, sync::Arc};

use snapshots::{
    AppId, AppendError, Batch, ClientId, ClientRow, DomainName, KeyPackageRef, KeyQueueId, QueueRow, Unmet,
    View,
};

use super::Gateway;
use crate::{
    application::{Application, DomainError},
    error::StorageError,
    group::signer,
    key_queue::{
        AddKeyPackages, Assign, AssignedKeyPackage, Attempt, Count, InvalidKeyPackage, KeyPackageRequest,
        KeyPackageUpload, KeyQueueError, KeyQueueStatus, LookFor, NewKeyQueue, NewPackage, PoolCounts,
    },
    mls::{
        CipherSuite, KeyPackageChecks, KeyPackageValidator, LeafChecks, PROTOCOL_VERSION,
        supported_cipher_suites,
    },
};

/// The number of tries of a queue's deletion while the queue is being relabelled.
const DELETE_ATTEMPTS: usize = 16;

impl Gateway {
    /// Creates a key queue (*Key Queue Creation*).
    ///
    /// # Errors
    /// [`KeyQueueError::UnknownClient`], [`KeyQueueError::QueueExists`], [`KeyQueueError::Unusable`],
    /// [`KeyQueueError::TooManyQueues`], or that the gateway cannot write.
    pub async fn create_key_queue(
        &self,
        app: AppId,
        client: ClientId,
        new: NewKeyQueue,
    ) -> Result<KeyQueueId, KeyQueueError> {
        self.queue_application(app)?;
        self.queue_client(app, client)?;
        if new.protocol_version != PROTOCOL_VERSION {
            return Err(KeyQueueError::Unusable(format!(
                "protocolVersion must be {PROTOCOL_VERSION} (MLS 1.0)"
            )));
        }
        let suites = supported_cipher_suites();
        if !suites.contains(&new.cipher_suite) {
            return Err(KeyQueueError::Unusable(format!("cipherSuite must be one of {suites:?}")));
        }
        self.check_label("appLabel", &new.app_label)?;
        let row = QueueRow {
            queue_id: KeyQueueId::random(),
            client_id: client,
            protocol_version: new.protocol_version,
            cipher_suite: new.cipher_suite,
            app_label: new.app_label,
        };
        let mut batch = Batch::new();
        // The queue's existence first, so that a retry at the limit is answered with the existing queue.
        let max = self.services.limits.key_queues_per_client_max;
        batch.create_queue(app, &row);
        batch.require_queues_below(app, client, max.saturating_add(1));
        if let Err(error) = self.services.store.append(batch).await {
            let error = refused(&error);
            // The store counted the new queue as well.
            let is_limit = matches!(error, KeyQueueError::TooManyQueues { .. });
            return Err(if is_limit { KeyQueueError::TooManyQueues { max } } else { error });
        }
        Ok(row.queue_id)
    }

    /// A client's queues, each with the number of its packages.
    ///
    /// # Errors
    /// [`KeyQueueError::UnknownClient`], or that the store cannot be read.
    pub async fn key_queues(
        &self,
        app: AppId,
        client: ClientId,
    ) -> Result<Vec<KeyQueueStatus>, KeyQueueError> {
        self.queue_application(app)?;
        self.queue_client(app, client)?;
        let rows = self.services.store.view().queues(app, client).map_err(StorageError::from)?;
        let mut queues = Vec::with_capacity(rows.len());
        for row in rows {
            let counts = match self.registry.ask_key_queue(app, &row, |permit| Count { permit }).await {
                Ok(counts) => counts,
                // Deleted since the list was read.
                Err(KeyQueueError::UnknownKeyQueue) => continue,
                Err(error) => return Err(error),
            };
            queues.push(KeyQueueStatus {
                id: row.queue_id,
                protocol_version: row.protocol_version,
                cipher_suite: row.cipher_suite,
                app_label: row.app_label,
                in_pool: counts.in_pool,
                available: counts.available,
                has_final_key: counts.has_final_key,
            });
        }
        Ok(queues)
    }

    /// Adds key packages to a queue, all or none (*Key Queue Update*, *Key Package Validation*).
    ///
    /// # Errors
    /// [`KeyQueueError::InvalidKeyPackages`] with every package that is not acceptable, an unknown client or queue, a
    /// limit, or that the gateway cannot write.
    pub async fn upload_key_packages(
        &self,
        app: AppId,
        client: ClientId,
        queue: KeyQueueId,
        upload: KeyPackageUpload,
    ) -> Result<PoolCounts, KeyQueueError> {
        let application = self.queue_application(app)?;
        let limits = &self.services.limits;
        let max = limits.key_packages_per_request_max;
        if upload.key_packages.len() > max {
            return Err(KeyQueueError::TooManyInRequest { max });
        }
        if let Some(label) = &upload.app_label {
            self.check_label("appLabel", label)?;
        }
        let upload = Arc::new(upload);
        for _ in 0..ATTEMPTS {
            let row = self.queue_row(app, client, queue)?;
            let client = self.queue_client(app, client)?;
            let generation = client.handle_generation;
            let (gateway, checked, checked_row) = (self.clone(), application.clone(), row.clone());
            let to_check = Arc::clone(&upload);
            let place = self.services.validation.place(app).ok_or(KeyQueueError::Busy)?;
            let checked =
                place.run(move || gateway.check_packages(&checked, &checked_row, &client, &to_check));
            let (packages, final_key) = checked.await.ok_or(StorageError::Unreadable)??;
            let ask = |permit| AddKeyPackages {
                row: row.clone(),
                is_reset: upload.is_reset,
                packages: packages.clone(),
                final_key: final_key.clone(),
                app_label: upload.app_label.clone(),
                generation,
                permit,
            };
            match self.registry.ask_key_queue(app, &row, ask).await? {
                Attempt::Done(counts) => return Ok(counts),
                // A package was used or stored meanwhile, or the queue was changed, so the checks are repeated.
                Attempt::Overtaken => {}
            }
        }
        Err(KeyQueueError::Busy)
    }

    /// Deletes a queue with its packages and assignments (*Key Pool Deletion*).
    ///
    /// # Errors
    /// [`KeyQueueError::UnknownClient`], [`KeyQueueError::UnknownKeyQueue`], or that the gateway cannot write.
    pub async fn delete_key_queue(
        &self,
        app: AppId,
        client: ClientId,
        queue: KeyQueueId,
    ) -> Result<(), KeyQueueError> {
        self.queue_application(app)?;
        // A queue that is relabelled meanwhile is deleted under its new label.
        let mut tries = 1..=DELETE_ATTEMPTS;
        loop {
            let row = self.queue_row(app, client, queue)?;
            let mut batch = Batch::new();
            batch.require_queue(app, &row).remember_final_keys(app, &row, self.services.assigned_limits());
            batch.delete_queue(app, &row);
            let outcome = self.services.store.append(batch).await.map_err(|error| refused(&error));
            match outcome {
                Err(KeyQueueError::Busy) if tries.next().is_some() => {}
                outcome => break outcome.map(drop)?,
            }
        }
        self.registry.close_key_queue(app, queue);
        Ok(())
    }

    /// Assigns a key package to a receiver, or returns the one assigned before (*Key Package Retrieval*).
    ///
    /// # Errors
    /// [`KeyQueueError::NoKeyPackage`], an unknown client or queue, [`KeyQueueError::Domain`], or that the gateway
    /// cannot write.
    pub async fn assign_key_package(
        &self,
        app: AppId,
        client: ClientId,
        request: KeyPackageRequest,
    ) -> Result<AssignedKeyPackage, KeyQueueError> {
        let row = self.requested_queue(app, client, &request)?;
        for _ in 0..ATTEMPTS {
            let ask = |permit| Assign { receiver: request.receiver.clone(), permit };
            match self.registry.ask_key_queue(app, &row, ask).await {
                Ok(Attempt::Done(assigned)) => return Ok(assigned),
                // The chosen package was used meanwhile.
                Ok(Attempt::Overtaken) => {}
                Err(error) => return Err(unless_deleted(error)),
            }
        }
        Err(KeyQueueError::Busy)
    }

    /// Looks whether there is a key package for a receiver, and assigns nothing.
    ///
    /// # Errors
    /// As [`Gateway::assign_key_package`].
    pub async fn look_for_key_package(
        &self,
        app: AppId,
        client: ClientId,
        request: KeyPackageRequest,
    ) -> Result<(), KeyQueueError> {
        let row = self.requested_queue(app, client, &request)?;
        let ask = |permit| LookFor { receiver: request.receiver.clone(), permit };
        self.registry.ask_key_queue(app, &row, ask).await.map_err(unless_deleted)
    }

    /// The queue of a request for a key package.
    fn requested_queue(
        &self,
        app: AppId,
        client: ClientId,
        request: &KeyPackageRequest,
    ) -> Result<QueueRow, KeyQueueError> {
        let application = self.queue_application(app)?;
        let domain = match &request.domain {
            None if application.supports_domains => {
                return Err(DomainError::Required.into());
            }
            given => application.client_domain(given.clone())?,
        };
        if request.receiver.id.is_empty() {
            return Err(KeyQueueError::Unusable("receiverClientId is empty".into()));
        }
        self.check_label("receiverClientId", &request.receiver.id)?;
        if self.queue_client(app, client)?.domain != domain {
            return Err(KeyQueueError::UnknownClient);
        }
        let KeyPackageRequest { protocol_version, cipher_suite, app_label, .. } = request;
        let view = self.services.store.view();
        view.queue_matching(app, client, *protocol_version, *cipher_suite, app_label)
            .map_err(StorageError::from)?
            .ok_or(KeyQueueError::NoKeyPackage)
    }

    /// Checks a key package that the gateway of a domain gave for a client of that domain (*Key Package Validation*). The inner
    /// error is the fault of the package.
    ///
    /// # Errors
    /// [`KeyQueueError::Busy`] when too many validations of the application wait already.
    pub async fn check_retrieved_key_package(
        &self,
        app: AppId,
        domain: &DomainName,
        cipher_suite: u16,
        key_package: &[u8],
    ) -> Result<Result<(), String>, KeyQueueError> {
        let application = self.application(app).ok_or(KeyQueueError::UnknownClient)?;
        if key_package.len() > self.services.limits.packet_bytes_max {
            return Ok(Err(format!("it has more than {} bytes", self.services.limits.packet_bytes_max)));
        }
        let Some(cipher_suite) = CipherSuite::from_number(cipher_suite) else {
            return Ok(Err(format!("this gateway does not know the cipher suite {cipher_suite}")));
        };
        let place = self.services.validation.place(app).ok_or(KeyQueueError::Busy)?;
        let (services, provider) = (Arc::clone(&self.services), Arc::clone(&application.identity));
        let (domain, key_package) = (domain.clone(), key_package.to_vec());
        let checked = place.run(move || {
            let checks = KeyPackageChecks {
                leaf: LeafChecks { cipher_suite, lifetime_s_max: services.limits.lifetime_s_max() },
                handle: None,
                domain: Some(&domain),
                now: services.clock.now(),
                // The peer hands out packages that are valid by its clock, which may be ahead.
                clock_skew_s_max: services.limits.clock_skew_s_max,
            };
            KeyPackageValidator::new(checks, &*provider).check(&key_package).map(drop)
        });
        Ok(checked.await.unwrap_or_else(|| Err("it cannot be validated".into())))
    }

    /// Checks every package of an upload; the error lists every package that is not acceptable, with the reason.
    fn check_packages(
        &self,
        application: &Application,
        row: &QueueRow,
        client: &ClientRow,
        upload: &KeyPackageUpload,
    ) -> Result<(Vec<NewPackage>, Option<NewPackage>), KeyQueueError> {
        if let Some(domain) = client.domain.clone()
            && !application.hosts(Some(&domain))
        {
            return Err(DomainError::NotAssigned { domain }.into());
        }
        let view = self.services.store.view();
        let checks = KeyPackageChecks {
            leaf: LeafChecks {
                cipher_suite: CipherSuite::from_number(row.cipher_suite).ok_or(StorageError::Unreadable)?,
                lifetime_s_max: self.services.limits.lifetime_s_max(),
            },
            handle: Some(&client.handle),
            domain: client.domain.as_ref(),
            now: self.services.clock.now(),
            clock_skew_s_max: self.services.limits.clock_skew_s_max,
        };
        let mut validator = KeyPackageValidator::new(checks, &*application.identity);
        let mut check = |message, is_final| -> Result<NewPackage, String> {
            let message: &Vec<u8> = message;
            if message.len() > self.services.limits.packet_bytes_max {
                return Err(format!("it has more than {} bytes", self.services.limits.packet_bytes_max));
            }
            let checked = validator.check(message)?;
            check_not_taken(&view, application.id, row.queue_id, &checked.reference, is_final)?;
            Ok(NewPackage {
                reference: checked.reference,
                not_before: checked.not_before,
                not_after: checked.not_after,
                message: message.clone(),
                signer: Some(signer(&checked.signature_key)),
                receiver: None,
            })
        };
        let KeyPackageUpload { key_packages: messages, final_key, .. } = upload;
        let mut invalid = Vec::new();
        let mut packages = Vec::with_capacity(messages.len());
        let mut seen = HashSet::new();
        for (index, message) in messages.iter().enumerate() {
            match check(message, false) {
                Ok(package) => {
                    if seen.insert(package.reference.clone()) {
                        packages.push(package);
                    }
                }
                Err(detail) => invalid.push(InvalidKeyPackage { index, detail }),
            }
        }
        let mut check_final = |message| {
            let package = check(message, true)?;
            if seen.contains(&package.reference) {
                return Err("it is among keyPackages as well".to_owned());
            }
            Ok(package)
        };
        let final_key = final_key.as_ref().map(&mut check_final).transpose().unwrap_or_else(|detail| {
            let detail = format!("finalKey: {detail}");
            invalid.push(InvalidKeyPackage { index: messages.len(), detail });
            None
        });
        if invalid.is_empty() {
            Ok((packages, final_key))
        } else {
            Err(KeyQueueError::InvalidKeyPackages(invalid))
        }
    }

    fn queue_application(&self, app: AppId) -> Result<&Application, KeyQueueError> {
        if self.services.is_stopping() {
            return Err(KeyQueueError::Stopping);
        }
        self.application(app).ok_or(KeyQueueError::UnknownClient)
    }

    fn queue_client(&self, app: AppId, client: ClientId) -> Result<ClientRow, KeyQueueError> {
        let row = self.services.store.view().client(app, client).map_err(StorageError::from)?;
        row.ok_or(KeyQueueError::UnknownClient)
    }

    fn queue_row(&self, app: AppId, client: ClientId, queue: KeyQueueId) -> Result<QueueRow, KeyQueueError> {
        let view = self.services.store.view();
        if view.client(app, client).map_err(StorageError::from)?.is_none() {
            return Err(KeyQueueError::UnknownClient);
        }
        view.queue(app, client, queue).map_err(StorageError::from)?.ok_or(KeyQueueError::UnknownKeyQueue)
    }

    fn check_label(&self, what: &str, label: &str) -> Result<(), KeyQueueError> {
        let max = self.services.limits.label_bytes_max;
        if label.len() > max {
            return Err(KeyQueueError::Unusable(format!("{what} has more than {max} bytes")));
        }
        Ok(())
    }
}

/// The number of tries of a write that other writes overtake.
const ATTEMPTS: usize = 16;

/// Checks that a package was not used and can be held by a queue.
fn check_not_taken(
    view: &View,
    app: AppId,
    queue: KeyQueueId,
    reference: &KeyPackageRef,
    is_final: bool,
) -> Result<(), String> {
    let unreadable = |_| "the store cannot tell whether it was used".to_owned();
    if view.used(app, reference).map_err(unreadable)?.is_some() {
        return Err("it was already used".into());
    }
    match view.assigned(app, reference).map_err(unreadable)? {
        Some(row) if row.is_of_final_key() && !is_final => return Err("it was a final key".into()),
        Some(row) if !row.is_of_final_key() && is_final => {
            return Err("it was assigned, as a package that is used once".into());
        }
        Some(_) | None => {}
    }
    let holders = view.queues_holding(app, reference).map_err(unreadable)?;
    match holders.iter().find(|(holder, _, row)| row.excludes(*holder == queue, is_final)) {
        None => Ok(()),
        Some((_, _, row)) if row.is_final => Err("it is the final key of a queue".into()),
        Some(_) if is_final => Err("it is in a pool, as a package that is used once".into()),
        Some(_) => Err("it is in another key queue of its client".into()),
    }
}

/// A queue that was deleted since it was found counts as one that does not match.
fn unless_deleted(error: KeyQueueError) -> KeyQueueError {
    if error == KeyQueueError::UnknownKeyQueue { KeyQueueError::NoKeyPackage } else { error }
}

fn refused(error: &AppendError) -> KeyQueueError {
    match error {
        AppendError::Precondition(Unmet::ClientMissing) => KeyQueueError::UnknownClient,
        AppendError::Precondition(Unmet::QueueMissing) => KeyQueueError::UnknownKeyQueue,
        AppendError::Precondition(Unmet::QueueExists { queue }) => {
            KeyQueueError::QueueExists { queue: *queue }
        }
        AppendError::Precondition(Unmet::QueueLimit { max }) => KeyQueueError::TooManyQueues { max: *max },
        AppendError::Precondition(_) => KeyQueueError::Busy,
        AppendError::TooLarge { limit, .. } => {
            KeyQueueError::Unusable(format!("the request writes more than {limit} bytes"))
        }
        AppendError::Closed | AppendError::Stalled { .. } | AppendError::Storage(_) => {
            StorageError::from_append(error).into()
        }
    }
}
