//! Identifiers as parts of keys.

use crate::{
    engine::{Key, KeyReader},
    errors::ReadError,
    ids::{AppId, ClientHandle, DomainName, GroupId},
};

impl Key {
    /// The beginning of every key of an application.
    pub(crate) fn of_app(app: AppId) -> Self {
        Self::new().uuid(app.as_uuid())
    }

    pub(crate) fn group(self, group: &GroupId) -> Self {
        self.part(group.as_bytes())
    }

    pub(crate) fn handle(self, handle: &ClientHandle) -> Self {
        self.part(handle.as_bytes())
    }

    /// A domain or none. No domain is empty, so the empty part means none.
    pub(crate) fn domain(self, domain: Option<&DomainName>) -> Self {
        self.part(domain.map_or(&[], |domain| domain.as_str().as_bytes()))
    }
}

impl KeyReader<'_> {
    pub(crate) fn app(&mut self) -> Result<AppId, ReadError> {
        self.uuid().map(AppId::new)
    }

    pub(crate) fn group(&mut self) -> Result<GroupId, ReadError> {
        let bytes = self.part()?;
        GroupId::new(bytes).map_err(|_| self.damaged())
    }

    pub(crate) fn handle(&mut self) -> Result<ClientHandle, ReadError> {
        let bytes = self.part()?;
        ClientHandle::new(bytes).map_err(|_| self.damaged())
    }

    /// A domain or none.
    pub(crate) fn domain(&mut self) -> Result<Option<DomainName>, ReadError> {
        let bytes = self.part()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let domain = std::str::from_utf8(bytes).ok().and_then(|domain| domain.parse().ok());
        domain.map(Some).ok_or_else(|| self.damaged())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_a_group_of_no_bytes_is_damaged() {
        let read = |group: &[u8]| {
            let key = Key::new().part(group);
            KeyReader::new(key.as_bytes(), "test").group()
        };
        assert!(matches!(read(&[]), Err(ReadError::Damaged { .. })));
        assert_eq!(read(&[7]), Ok(GroupId::new([7]).unwrap()));
    }
}
