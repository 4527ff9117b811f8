//! Keys that a machine finds beside it: the metadata server of an instance, version 2, and the end-point of a container.

use jiff::SignedDuration;
use serde_json::json;

use crate::clouds::desk::Desk;
use crate::clouds::trouble::Ill;
use crate::wire::Reply;

/// Where the role's name is.
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// Longest life of a session.
const SESSION_MAX_SECONDS: i64 = 21_600;
/// The container's path.
pub(in crate::clouds) const CONTAINER_PATH: &str = "/v1/credentials";
/// What the container shows.
pub(in crate::clouds) const CONTAINER_ACCOUNT: &str = "pods.eks.amazonaws.com";

pub(in crate::clouds) fn instance(desk: &mut Desk<'_>) -> Reply {
    let text = |status, body: &str| Reply::new(status, "text/plain", body.to_owned());
    // A request that came over a proxy is none of this machine's.
    if desk.message.header("x-forwarded-for").is_some() {
        return text(403, "");
    }
    if desk.message.path == "/latest/api/token" {
        return session(desk);
    }
    let shown = desk.message.header("x-aws-ec2-metadata-token").unwrap_or_default();
    if desk.message.method != "GET" || !desk.state.sessions.iter().any(|(s, end)| s == shown && *end > desk.now) {
        return text(401, "<h1>401 Unauthorized</h1>");
    }
    let role = desk.state.settings.instance_role.clone();
    match (desk.message.path.as_str(), role) {
        ("/latest/meta-data/placement/region", _) => text(200, "eu-central-1"),
        (ROLES | "/latest/meta-data/iam/security-credentials", Some(role)) => text(200, &role),
        (path, Some(role)) if path.strip_prefix(ROLES) == Some(&role) => {
            let who = format!("assumed-role/{role}/i-0123456789abcdef0");
            let (key, until) = desk.state.issue_key(&who, desk.now);
            desk.call.who = Some(who);
            text(200, &format!("{:#}", key.json(until)))
        }
        _ => text(404, "<h1>404 - Not Found</h1>"),
    }
}

fn session(desk: &mut Desk<'_>) -> Reply {
    let life = desk.message.header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|v| v.parse::<i64>().ok());
    match life {
        Some(life) if desk.message.method == "PUT" && (1..=SESSION_MAX_SECONDS).contains(&life) => {
            let token = desk.state.secret(56);
            desk.state.sessions.push((token.clone(), desk.now + SignedDuration::from_secs(life)));
            Reply::new(200, "text/plain", token).with("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", life.to_string())
        }
        _ => Reply::new(400, "text/plain", "<h1>400 - Bad Request</h1>"),
    }
}

pub(in crate::clouds) fn container(desk: &mut Desk<'_>) -> Reply {
    let error = |status, kind: &str| Reply::new(status, "application/json", json!({ "code": kind }).to_string());
    if desk.message.method != "GET" || desk.message.path != CONTAINER_PATH {
        return error(404, "ResourceNotFoundException");
    }
    let shown = desk.message.header("authorization").unwrap_or_default();
    match desk.state.accounts.check(shown, CONTAINER_ACCOUNT, desk.now) {
        Ok(subject) => {
            let who = format!("assumed-role/pod-role/{}", subject.replace(':', "-"));
            let (key, until) = desk.state.issue_key(&who, desk.now);
            desk.call.who = Some(who);
            let mut body = key.json(until);
            body["AccountId"] = "123456789012".into();
            Reply::new(200, "application/json", body.to_string())
        }
        Err(_) => error(400, "InvalidTokenException"),
    }
}

pub(in crate::clouds) fn instance_words(ill: Ill) -> Reply {
    match ill {
        Ill::Throttled => Reply::new(429, "text/plain", "<h1>429 - Too Many Requests</h1>"),
        Ill::Refused => Reply::new(403, "text/plain", "<h1>403 - Forbidden</h1>"),
        Ill::Expired => Reply::new(401, "text/plain", "<h1>401 Unauthorized</h1>"),
    }
}

pub(in crate::clouds) fn container_words(ill: Ill) -> Reply {
    let error = |status, kind: &str, words: &str| {
        Reply::new(status, "application/json", json!({ "code": kind, "message": words }).to_string())
    };
    match ill {
        Ill::Throttled => error(429, "ThrottlingException", "Rate exceeded"),
        Ill::Refused => error(400, "AccessDeniedException", "no pod identity association for this service account"),
        Ill::Expired => error(400, "ExpiredTokenException", "the service account token has expired"),
    }
}
