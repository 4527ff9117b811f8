//! How the clouds' answers look and how long things live.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};

/// How an answer tells the end of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// A JSON number with decimals.
    Decimal,
    /// A JSON number without.
    Whole,
    /// A number in a JSON string.
    Text,
    /// Not at all.
    Absent,
    /// An hour ago.
    Past,
    /// A word that is no number.
    Garbage,
}

impl Expiry {
    /// The field's value, if it is there; `past` is what stands for an hour ago.
    pub(super) fn json(self, seconds: i64, past: i64) -> Option<Json> {
        match self {
            Expiry::Decimal => serde_json::from_str(&format!("{seconds}.125")).ok(),
            Expiry::Whole => Some(json!(seconds)),
            Expiry::Text => Some(json!(seconds.to_string())),
            Expiry::Absent => None,
            Expiry::Past => Some(json!(past)),
            Expiry::Garbage => Some(json!("soon")),
        }
    }
}

/// Where the login server's challenge sends a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Realm {
    /// To the login server's name, as Azure does: `https://NAME/oauth2/token`.
    LoginServer,
    /// To the address that was asked.
    Asked,
    /// To this URL.
    Url(String),
}

/// How answers look; [`Settings::default`] is how the clouds are on a good day.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How far the clouds' clock is ahead of ours; negative: behind.
    pub clock_ahead_seconds: i64,
    /// Life of keys that AWS gives out for a while.
    pub key_life: Duration,
    /// Life of an ECR login.
    pub ecr_life: Duration,
    /// How ECR tells its end.
    pub ecr_expiry: Expiry,
    /// ECR gives no authorization data at all.
    pub ecr_is_empty: bool,
    /// The password of an ECR login has a colon.
    pub ecr_password_has_colon: bool,
    /// Before the names of ECR's errors, `prefix#`.
    pub ecr_error_prefix: String,
    /// The role of the EC2 instance, if one is attached.
    pub instance_role: Option<String>,
    /// Remaining life of a Google token.
    pub google_life: Duration,
    /// How Google tells it.
    pub google_expiry: Expiry,
    /// Scopes of the machine's account.
    pub google_scopes: Vec<String>,
    /// Attributes of the machine, by name.
    pub google_attributes: BTreeMap<String, String>,
    /// Whether the Google machine has an account.
    pub google_has_account: bool,
    /// Whether the Google metadata server names itself in its answers, as it always does.
    pub google_flavor: bool,
    /// Life of a token of Entra.
    pub azure_life: Duration,
    /// How Azure's metadata server tells it: as text.
    pub azure_expiry: Expiry,
    /// Whether the Azure machine has an identity of its own, beside those that were assigned.
    pub azure_has_system_identity: bool,
    /// Life of an ACR login.
    pub acr_life: Duration,
    /// Where its challenge leads.
    pub acr_realm: Realm,
    /// The whole challenge, in place of a good one.
    pub acr_challenge: Option<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            clock_ahead_seconds: 0,
            key_life: Duration::from_secs(6 * 3600),
            ecr_life: Duration::from_secs(12 * 3600),
            ecr_expiry: Expiry::Decimal,
            ecr_is_empty: false,
            ecr_password_has_colon: false,
            ecr_error_prefix: String::new(),
            instance_role: Some("node-role".to_owned()),
            google_life: Duration::from_secs(3599),
            google_expiry: Expiry::Whole,
            google_scopes: vec!["https://www.googleapis.com/auth/devstorage.read_only".to_owned()],
            google_attributes: BTreeMap::new(),
            google_has_account: true,
            google_flavor: true,
            azure_life: Duration::from_secs(86_399),
            azure_expiry: Expiry::Text,
            azure_has_system_identity: true,
            acr_life: Duration::from_secs(3 * 3600),
            acr_realm: Realm::LoginServer,
            acr_challenge: None,
        }
    }
}
