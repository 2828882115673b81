//! Running it in production: the service manager's protocol.

mod notices;
