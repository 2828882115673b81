//! Named settings of a store.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | 2, name | a setting's bytes |

use bytes::Bytes;

use crate::{
    engine::{Batch, Key, Rows as _, Table, View, meta::META},
    errors::{ReadError, Unmet},
};

const SETTING: u8 = 2;

fn setting_key(name: &str) -> Key {
    Key::new().byte(SETTING).last(name.as_bytes())
}

/// Whether a row is the setting of this name.
pub(crate) fn is_setting(table: Table, key: &[u8], name: &str) -> bool {
    table == META && key == setting_key(name).as_bytes()
}

impl Batch {
    /// Writes a setting, over an older one of this name.
    pub fn put_setting(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> &mut Self {
        let (key, value) = (self.key(setting_key(name)), self.raw(bytes.as_ref()));
        self.put(META, key, value)
    }

    /// Writes a setting. Precondition: none of this name exists, else [`Unmet::SettingExists`].
    pub fn create_setting(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> &mut Self {
        let (key, value) = (self.key(setting_key(name)), self.raw(bytes.as_ref()));
        self.operation(move |overlay| {
            if overlay.holds(META, &key)? {
                return Err(Unmet::SettingExists.into());
            }
            overlay.put(META, &key, value);
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
        let value = self.value(META, &setting_key(name))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }
}
