//! A newer credential in the place of one that a registry does not take any more.
//!
//! Logins of clouds live for minutes or hours, a pull may be longer. Who knows where a credential came from says whether
//! there is a newer one; a session asks once for each request and credential that was refused.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use windlass_core::keyring::Candidate;

/// What an asked source answers: a newer credential, or nothing where asking again cannot help.
pub type Renewed = Pin<Box<dyn Future<Output = Option<Candidate>> + Send>>;

/// Asks the source of a refused credential again. Several requests may ask at the same time.
#[derive(Clone)]
pub struct Renewal(Arc<dyn Fn(Candidate) -> Renewed + Send + Sync>);

impl Renewal {
    /// By this function.
    pub fn new(ask: impl Fn(Candidate) -> Renewed + Send + Sync + 'static) -> Renewal {
        Renewal(Arc::new(ask))
    }

    pub(crate) async fn ask(&self, refused: Candidate) -> Option<Candidate> {
        (self.0)(refused).await
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal")
    }
}
