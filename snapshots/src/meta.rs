//! The store's own rows: its format, the last delivery id, and named settings.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | 0 | the format, a number |
//! | `meta` | 1 | the next delivery id, a number |
//! | `meta` | 2, name | a setting's bytes |
//! | `meta` | 3 | the number of the newest disk batch and when it was written; see `witness.rs` |

use bytes::Bytes;

use crate::batch::Batch;
use crate::errors::{ReadError, Unmet};
use crate::keys::Key;
use crate::rows::Rows;
use crate::tables::Table;
use crate::view::View;

/// The format of the rows that this program writes, and the newest that it reads. Format 2 counts join infos in
/// `welcome_shares`; format 1 does not have that table.
pub(crate) const FORMAT: u64 = 2;

const FORMAT_KEY: u8 = 0;
const NEXT_DELIVERY_KEY: u8 = 1;
const SETTING_KEY: u8 = 2;
const BATCH_STAMP_KEY: u8 = 3;

pub(crate) fn format_key() -> Key {
    Key::new().byte(FORMAT_KEY)
}

pub(crate) fn next_delivery_key() -> Key {
    Key::new().byte(NEXT_DELIVERY_KEY)
}

pub(crate) fn batch_stamp_key() -> Key {
    Key::new().byte(BATCH_STAMP_KEY)
}

fn setting_key(name: &str) -> Key {
    Key::new().byte(SETTING_KEY).last(name.as_bytes())
}

impl Batch {
    /// Writes a setting, over an older one of this name.
    pub fn put_setting(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> &mut Self {
        let (key, value) = (self.key(setting_key(name)), self.raw(bytes.as_ref()));
        self.put(Table::Meta, key, value)
    }

    /// Writes a setting that is not there yet, else [`Unmet::SettingExists`].
    pub fn create_setting(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> &mut Self {
        let (key, value) = (self.key(setting_key(name)), self.raw(bytes.as_ref()));
        self.step(move |draft| {
            if draft.holds(Table::Meta, &key)? {
                return Err(Unmet::SettingExists.into());
            }
            draft.put(Table::Meta, &key, value);
            Ok(())
        })
    }
}

impl View {
    /// The bytes of a setting.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails.
    pub fn setting(&self, name: &str) -> Result<Option<Bytes>, ReadError> {
        let value = self.value(Table::Meta, &setting_key(name))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }
}
