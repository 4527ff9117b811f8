//! The Security Token Service: keys of a role for a token, which needs no signature, or for other keys, which does.

use super::sigv4::Problem;
use crate::clouds::accounts::NotAccepted;
use crate::clouds::desk::{Desk, rfc3339};
use crate::clouds::trouble::Ill;
use crate::wire::Reply;

/// The audience of tokens for AWS.
const AUDIENCE: &str = "sts.amazonaws.com";
/// Version of the API.
const VERSION: &str = "2011-06-15";

pub(in crate::clouds) fn answer(desk: &mut Desk<'_>, action: &str) -> Reply {
    if desk.message.method != "POST" || desk.field("Version").as_deref() != Some(VERSION) {
        return error(400, "InvalidAction", "Could not find operation for this version");
    }
    let (role, session) =
        (desk.field("RoleArn").unwrap_or_default(), desk.field("RoleSessionName").unwrap_or_default());
    let who = match action {
        "AssumeRoleWithWebIdentity" => by_token(desk),
        "AssumeRole" => by_keys(desk),
        _ => Err(Box::new(error(400, "InvalidAction", "Could not find operation"))),
    };
    let who = match who {
        Ok(who) => who,
        Err(reply) => return *reply,
    };
    let is_role = role.strip_prefix("arn:aws").is_some_and(|rest| rest.contains(":iam::") && rest.contains(":role/"));
    if !is_role {
        return error(400, "ValidationError", "Request ARN is invalid");
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"=,.@-_".contains(&b);
    if !(2..=64).contains(&session.len()) || !session.bytes().all(fits) {
        return error(400, "ValidationError", "Value at 'roleSessionName' failed to satisfy constraint");
    }
    let name = role.rsplit('/').next().unwrap_or_default();
    let assumed = format!("assumed-role/{name}/{session}");
    desk.call.who = Some(format!("{who} as {assumed}"));
    let (key, until) = desk.state.issue_key(&assumed, desk.now);
    let subject = match action {
        "AssumeRoleWithWebIdentity" => {
            format!("<SubjectFromWebIdentityToken>{who}</SubjectFromWebIdentityToken><Audience>{AUDIENCE}</Audience>")
        }
        _ => String::new(),
    };
    let body = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <{action}Result>\n    {subject}\
         <AssumedRoleUser><Arn>arn:aws:sts::123456789012:{assumed}</Arn><AssumedRoleId>AROAEXAMPLE:{session}\
         </AssumedRoleId></AssumedRoleUser>\n    <Credentials>\n      <AccessKeyId>{}</AccessKeyId>\n      \
         <SecretAccessKey>{}</SecretAccessKey>\n      <SessionToken>{}</SessionToken>\n      <Expiration>{}</Expiration>\n    \
         </Credentials>\n  </{action}Result>\n  <ResponseMetadata><RequestId>ad4156e9-bce1-11e2-82e6-6b6efEXAMPLE\
         </RequestId></ResponseMetadata>\n</{action}Response>\n",
        key.id,
        key.secret,
        key.session(),
        rfc3339(until),
    );
    Reply::new(200, "text/xml", body)
}

fn by_token(desk: &mut Desk<'_>) -> Result<String, Box<Reply>> {
    if desk.message.header("authorization").is_some() {
        return Err(Box::new(error(403, "SignatureDoesNotMatch", "this action takes no signature")));
    }
    let token = desk.field("WebIdentityToken").unwrap_or_default();
    desk.state.accounts.check(&token, AUDIENCE, desk.now).map_err(|why| {
        Box::new(match why {
            NotAccepted::Unknown => {
                error(400, "InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider")
            }
            NotAccepted::Expired => {
                error(400, "ExpiredTokenException", "Token expired: current date/time must be before it")
            }
            NotAccepted::Audience => error(400, "InvalidIdentityToken", "Incorrect token audience"),
        })
    })
}

fn by_keys(desk: &mut Desk<'_>) -> Result<String, Box<Reply>> {
    super::signer(desk, "sts", &["content-type"]).map_err(|problem| {
        Box::new(match problem {
            Problem::Missing => error(403, "MissingAuthenticationToken", "Request is missing Authentication Token"),
            Problem::Malformed(what) => error(400, "IncompleteSignature", &what),
            Problem::UnknownKey => {
                error(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
            }
            Problem::Expired => error(403, "ExpiredToken", "The security token included in the request is expired"),
            Problem::Skewed(words) | Problem::Scope(words) => error(403, "SignatureDoesNotMatch", &words),
            Problem::NotSigned(name) => {
                error(403, "SignatureDoesNotMatch", &format!("'{name}' must be a signed header"))
            }
            Problem::Wrong => {
                let words = "The request signature we calculated does not match the signature you provided.";
                error(403, "SignatureDoesNotMatch", words)
            }
        })
    })
}

pub(in crate::clouds) fn words(ill: Ill) -> Reply {
    match ill {
        Ill::Throttled => error(400, "Throttling", "Rate exceeded"),
        Ill::Refused => error(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"),
        Ill::Expired => error(400, "ExpiredTokenException", "Token expired: current date/time must be before it"),
    }
}

fn error(status: u16, code: &str, words: &str) -> Reply {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <Error>\n    <Type>Sender</Type>\n    \
         <Code>{code}</Code>\n    <Message>{words}</Message>\n  </Error>\n  \
         <RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId>\n</ErrorResponse>\n"
    );
    Reply::new(status, "text/xml", body)
}
