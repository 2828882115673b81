//! The application of a gateway without a configured one: created once, kept in the store.

use actors::{AppId, Store};
use serde::{Deserialize, Serialize};
use snapshots::Batch;

use crate::{
    config::{ApplicationSettings, TokenAccess, TokenSettings},
    start_error::StartError,
    token::{Token, TokenHash},
};

/// The name of the setting in the store.
const SETTING: &str = "default_application";

/// The Basic application of a gateway whose configuration names none (*Starting it*).
#[derive(Clone, Debug)]
pub struct DefaultApplication {
    /// Its id.
    pub id: AppId,
    /// Its `read-write` token, known only at the start that created the application.
    pub token: Option<Token>,
    hash: TokenHash,
}

/// The part that the store keeps.
#[derive(Serialize, Deserialize)]
struct StoredApplication {
    id: AppId,
    token_sha256: TokenHash,
}

impl DefaultApplication {
    /// The stored application, or a new one.
    pub(crate) fn load_or_create(store: &Store) -> Result<Self, StartError> {
        let unusable = |error: serde_json::Error| StartError::Settings(format!("{SETTING}: {error}"));
        if let Some(kept) = store.view().setting(SETTING)? {
            let kept: StoredApplication = serde_json::from_slice(&kept).map_err(unusable)?;
            return Ok(Self { id: kept.id, token: None, hash: kept.token_sha256 });
        }
        let token = Token::generate()?;
        let id = AppId::random();
        let kept = StoredApplication { id, token_sha256: token.hash() };
        create_setting(store, SETTING, serde_json::to_vec(&kept).map_err(unusable)?)?;
        Ok(Self { id, hash: token.hash(), token: Some(token) })
    }

    /// Its settings, as in a configuration.
    pub(crate) fn settings(&self) -> ApplicationSettings {
        let token = TokenSettings { sha256: self.hash, access: TokenAccess::ReadWrite };
        ApplicationSettings::basic(self.id, vec![token])
    }
}

/// The hash of the operators' token of a gateway without a configuration, and the token itself if it was made now.
pub(crate) fn operator_token(store: &Store) -> Result<(TokenHash, Option<Token>), StartError> {
    const SETTING: &str = "operator_token";
    let unusable = |error: serde_json::Error| StartError::Settings(format!("{SETTING}: {error}"));
    if let Some(kept) = store.view().setting(SETTING)? {
        return Ok((serde_json::from_slice(&kept).map_err(unusable)?, None));
    }
    let token = Token::generate()?;
    create_setting(store, SETTING, serde_json::to_vec(&token.hash()).map_err(unusable)?)?;
    Ok((token.hash(), Some(token)))
}

/// The key of cursors, kept so that reading a list can continue after a restart.
pub(crate) fn cursor_key(store: &Store) -> Result<Vec<u8>, StartError> {
    const SETTING: &str = "cursor_key";
    if let Some(key) = store.view().setting(SETTING)? {
        return Ok(key.to_vec());
    }
    let mut key = vec![0; 32];
    getrandom::fill(&mut key)?;
    create_setting(store, SETTING, key.clone())?;
    Ok(key)
}

fn create_setting(store: &Store, name: &str, value: Vec<u8>) -> Result<(), StartError> {
    let mut batch = Batch::new();
    batch.create_setting(name, value);
    store.append_blocking(batch)?;
    Ok(())
}
