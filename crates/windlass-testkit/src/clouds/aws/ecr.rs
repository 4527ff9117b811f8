//! `GetAuthorizationToken` of private and of public registries.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use serde_json::{Value as Json, json};

use super::sigv4::Problem;
use crate::clouds::ECR_USER;
use crate::clouds::desk::Desk;
use crate::clouds::trouble::Ill;
use crate::wire::Reply;

/// The action of private registries.
const PRIVATE: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
/// The action of public registries.
const PUBLIC: &str = "SpencerFrontendService.GetAuthorizationToken";
/// Where the public API is.
const PUBLIC_REGION: &str = "us-east-1";
/// Length of a password; real ones are longer still.
const PASSWORD_LEN: usize = 400;

pub(in crate::clouds) fn answer(desk: &mut Desk<'_>, target: &str) -> Reply {
    let service = match target {
        PRIVATE => "ecr",
        PUBLIC => "ecr-public",
        _ => return error(desk, "UnknownOperationException", ""),
    };
    if desk.message.method != "POST" || desk.message.path != "/" {
        return error(desk, "UnknownOperationException", "");
    }
    if desk.message.header("content-type") != Some("application/x-amz-json-1.1") {
        return error(desk, "SerializationException", "the media type is not application/x-amz-json-1.1");
    }
    if !serde_json::from_slice::<Json>(&desk.message.body).is_ok_and(|body| body.is_object()) {
        return error(desk, "SerializationException", "the body is not an object");
    }
    if let Err(problem) = super::signer(desk, service, &["content-type", "x-amz-target"]) {
        return refused(desk, &problem);
    }
    let region = desk.call.signed.as_ref().map(|signed| signed.region.as_str()).unwrap_or_default();
    if service == "ecr-public" && region != PUBLIC_REGION {
        let words = "Credential should be scoped to a valid region.";
        return refused(desk, &Problem::Scope(words.to_owned()));
    }
    let region = region.to_owned();
    let mut password = desk.state.secret(PASSWORD_LEN);
    if desk.state.settings.ecr_password_has_colon {
        password.insert(7, ':');
        desk.state.secrets.push(password.clone());
    }
    let life = desk.state.settings.ecr_life;
    desk.admit(ECR_USER, &password, life);
    let end = desk.now + SignedDuration::try_from(life).expect("a life of this length");
    let mut data = json!({ "authorizationToken": STANDARD.encode(format!("{ECR_USER}:{password}")) });
    let past = (desk.now - SignedDuration::from_hours(1)).as_second();
    if let Some(end) = desk.state.settings.ecr_expiry.json(end.as_second(), past) {
        data["expiresAt"] = end;
    }
    let data = match (service, desk.state.settings.ecr_is_empty) {
        ("ecr", true) => json!([]),
        ("ecr", false) => {
            data["proxyEndpoint"] = format!("https://123456789012.dkr.ecr.{region}.amazonaws.com").into();
            json!([data])
        }
        (_, true) => json!({}),
        (_, false) => data,
    };
    amz(200, &json!({ "authorizationData": data }))
}

fn refused(desk: &Desk<'_>, problem: &Problem) -> Reply {
    match problem {
        Problem::Missing => error(desk, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        Problem::Malformed(what) => error(desk, "IncompleteSignatureException", what),
        Problem::UnknownKey => {
            error(desk, "UnrecognizedClientException", "The security token included in the request is invalid.")
        }
        Problem::Expired => {
            error(desk, "ExpiredTokenException", "The security token included in the request is expired")
        }
        Problem::Skewed(words) | Problem::Scope(words) => error(desk, "InvalidSignatureException", words),
        Problem::NotSigned(name) => {
            let words = format!("'{name}' must be a signed header in the AWS Authorization header.");
            error(desk, "InvalidSignatureException", &words)
        }
        Problem::Wrong => {
            let words = "The request signature we calculated does not match the signature you provided.";
            error(desk, "InvalidSignatureException", words)
        }
    }
}

pub(in crate::clouds) fn error(desk: &Desk<'_>, kind: &str, words: &str) -> Reply {
    typed(400, &format!("{}{kind}", desk.state.settings.ecr_error_prefix), words)
}

pub(in crate::clouds) fn words(ill: Ill) -> Reply {
    match ill {
        Ill::Throttled => typed(400, "ThrottlingException", "Rate exceeded"),
        Ill::Refused => {
            let words = "User: arn:aws:sts::123456789012:assumed-role/node-role is not authorized to perform: \
                         ecr:GetAuthorizationToken on resource: * because no identity-based policy allows it";
            typed(400, "AccessDeniedException", words)
        }
        Ill::Expired => typed(400, "ExpiredTokenException", "The security token included in the request is expired"),
    }
}

fn typed(status: u16, kind: &str, words: &str) -> Reply {
    amz(status, &json!({ "__type": kind, "message": words }))
}

fn amz(status: u16, body: &Json) -> Reply {
    Reply::new(status, "application/x-amz-json-1.1", body.to_string())
        .with("x-amzn-RequestId", "b25f48e8-84fd-11e6-80d9-574e0c4664cb")
}
