//! Small requests to clouds and identity services.

use std::path::PathBuf;

use windlass_distribution::ClientError;
use windlass_distribution::web::{Web, WebConfig};

use super::client::proxy_of_environment;

/// The transport for them: the environment's proxies, and certificate authorities beside the system's. Nothing is read or
/// connected to yet.
pub(crate) fn web(ca_files: Vec<PathBuf>) -> Result<Web, ClientError> {
    Web::new(&WebConfig { ca_files, proxy: proxy_of_environment(), ..WebConfig::default() })
}
