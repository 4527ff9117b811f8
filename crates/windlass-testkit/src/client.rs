//! A registry client for tests.

use std::time::Duration;

use windlass_distribution::ClientConfig;

/// Waits short enough for tests; nothing here sleeps for luck, these only end what would not end.
pub fn client_config() -> ClientConfig {
    let mut config = ClientConfig::default();
    config.timeouts.header = Duration::from_secs(2);
    config.timeouts.idle = Duration::from_secs(2);
    config.timeouts.progress = Duration::from_secs(4);
    config.retry.first_wait = Duration::from_millis(5);
    config.retry.longest_wait = Duration::from_millis(20);
    config
}
