//! A registry's refresh token for the token of an identity.
//!
//! The registry is asked without a login and names a place in its challenge. That place gets the identity's token only if it
//! is the login server itself, or a host of the same registry by its name: what upstream does otherwise was a way to make a
//! node hand its token to anybody (the class of CVE-2020-15157).
//!
//! Invariants: `the_exchange_stays_with_the_registry`, `challenges_are_read_as_strictly_as_they_matter`.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use windlass_core::challenge::{self, Selection};
use windlass_core::httpurl::{HttpUrl, UrlScheme};
use windlass_core::realm::same_site;
use windlass_core::secret::Secret;
use windlass_distribution::web::{Web, WebAnswer, WebRequest, WebRoute};

use super::claims;
use super::entra::posted;
use super::settings::AzureSettings;
use super::target::Target;
use crate::cloud::asking::{ANSWER_BYTES, REQUEST_LIMIT, Service};
use crate::cloud::oauth::refusal;
use crate::cloud::retry::{Deadline, Retries};
use crate::cloud::{CloudError, endpoint, form, json};

const HINT: &str = "grant the identity the role AcrPull, or Container Registry Repository Reader, on the registry";

#[derive(Deserialize)]
struct Exchanged {
    #[serde(default, deserialize_with = "json::secret")]
    refresh_token: Option<Secret<String>>,
}

/// What a challenge says.
#[derive(Debug, PartialEq, Eq)]
struct Directive {
    realm: String,
    service: String,
}

/// Exchanges the token. Without a tenant that of the token counts, where it says one.
pub(super) async fn refresh_token(
    web: &Web,
    settings: &AzureSettings,
    target: &Target,
    tenant: Option<&str>,
    token: &Secret<String>,
    deadline: Deadline,
) -> Result<Secret<String>, CloudError> {
    let place = settings.place_of(&target.host)?;
    let service = Service {
        web,
        name: format!("the registry {}", target.host),
        retries: Retries::USUAL,
        deadline,
        hint: String::new(),
    };
    let request = WebRequest {
        method: Method::GET,
        url: endpoint::under("the login server", &place, "/v2/")?,
        headers: HeaderMap::new(),
        body: Secret::new(Vec::new()),
        route: WebRoute::Usual,
        limit: REQUEST_LIMIT,
        bytes_max: ANSWER_BYTES,
    };
    let challenged = service.ask_usual(&request).await?;
    let directive = directive(&service.name, &challenged)?;
    let place = exchange_place(settings, &target.host, &place, &directive.realm)?;
    let claimed = claims::read(token).tenant;
    let mut fields = vec![("grant_type", "access_token"), ("service", directive.service.as_str())];
    fields.extend(tenant.or(claimed.as_deref()).map(|tenant| ("tenant", tenant)));
    fields.push(("access_token", token.expose()));
    let url = endpoint::under("the login server", &place, "/oauth2/exchange")?;
    let answer = service.ask_usual(&posted(url, form::body(&fields), WebRoute::Usual)).await?;
    if answer.status != StatusCode::OK {
        let refused = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let hint = if refused { HINT } else { "" };
        return Err(refusal(&service.name, &answer, &[token.expose()], |_| hint.to_owned()));
    }
    let found: Exchanged = json::read(&service.name, answer.body.expose())?;
    json::need(&service.name, "refresh_token", found.refresh_token)
}

fn directive(service: &str, answer: &WebAnswer) -> Result<Directive, CloudError> {
    if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
        return Err(refusal(service, answer, &[], |_| String::new()));
    }
    if answer.status != StatusCode::UNAUTHORIZED {
        let problem = format!("to a question without a login is {}, not 401 with a challenge", answer.status.as_u16());
        return Err(json::malformed(service, problem));
    }
    let lines = answer.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|line| line.to_str().ok());
    match challenge::select(&challenge::parse(lines)) {
        Selection::Bearer(bearer) if !bearer.service.is_empty() => {
            Ok(Directive { realm: bearer.realm, service: bearer.service })
        }
        Selection::Bearer(_) => Err(json::malformed(service, "has a challenge without a service")),
        Selection::Basic | Selection::Unsupported { .. } => {
            Err(json::malformed(service, "has no challenge with a place to exchange tokens at"))
        }
    }
}

/// Where the token is exchanged: the path is ours, the registry names only the host. `asked` is where the login server was
/// asked, which an operator may have put elsewhere.
fn exchange_place(settings: &AzureSettings, host: &str, asked: &HttpUrl, realm: &str) -> Result<HttpUrl, CloudError> {
    let refuse = |realm: String, why| Err(CloudError::Realm { registry: host.to_owned(), realm, why });
    let Ok(url) = HttpUrl::parse(realm) else { return refuse("something that is no URL".to_owned(), "not a URL") };
    let origin = url.origin();
    if origin == asked.origin() {
        return Ok(asked.clone());
    }
    if origin.scheme == UrlScheme::Http {
        return refuse(origin.to_string(), "plain http");
    }
    if origin.name == host {
        return match origin.port {
            443 => Ok(asked.clone()),
            _ => refuse(origin.to_string(), "another port of the host"),
        };
    }
    // The registry has one name in all its hosts: with a region, and without.
    if same_site(&origin.name, host) && origin.port == 443 && is_registry_host(&origin.name) && is_registry_host(host) {
        return settings.place_of(&origin.name);
    }
    refuse(origin.to_string(), "another host, and no other name of the registry")
}

/// Whether `same_site` compares registries under this host's suffix, and not just the last two labels.
fn is_registry_host(host: &str) -> bool {
    [".azurecr.io", ".azurecr.cn", ".azurecr.us", ".azurecr.de"].iter().any(|suffix| host.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_exchange_stays_with_the_registry() {
        let settings = AzureSettings::from_environment(&|_| None).unwrap();
        let settings = settings.registry_at("test", "moved.azurecr.io=http://127.0.0.1:9/x").unwrap();
        let contoso = "contoso.azurecr.io";
        let regional = "contoso.eastus.geo.azurecr.io";
        let own = "team.azurecr.stack.example";
        let table = [
            (contoso, "https://contoso.azurecr.io/oauth2/token", Some("https://contoso.azurecr.io/")),
            (contoso, "https://CONTOSO.azurecr.io:443/anything?x=1", Some("https://contoso.azurecr.io/")),
            (contoso, "https://contoso.eastus.geo.azurecr.io/t", Some("https://contoso.eastus.geo.azurecr.io/")),
            (regional, "https://contoso.azurecr.io/oauth2/token", Some("https://contoso.azurecr.io/")),
            (own, "https://team.azurecr.stack.example/oauth2/token", Some("https://team.azurecr.stack.example/")),
            ("moved.azurecr.io", "http://127.0.0.1:9/oauth2/token", Some("http://127.0.0.1:9/x")),
            ("moved.azurecr.io", "https://moved.azurecr.io/oauth2/token", Some("http://127.0.0.1:9/x")),
            ("moved.azurecr.io", "http://127.0.0.1:10/oauth2/token", None),
            (contoso, "https://evil.azurecr.io/oauth2/token", None),
            (contoso, "https://contoso.azurecr.cn/oauth2/token", None),
            (contoso, "https://contoso.azurecr.io.evil.example/", None),
            (contoso, "https://contoso.azurecr.io:8443/", None),
            (contoso, "http://contoso.azurecr.io/oauth2/token", None),
            (contoso, "https://user@contoso.azurecr.io/", None),
            (contoso, "https://169.254.169.254/", None),
            (contoso, "/oauth2/token", None),
            (own, "https://other.azurecr.stack.example/", None),
            (own, "https://evil.stack.example/", None),
        ];
        for (host, realm, want) in table {
            let asked = settings.place_of(host).unwrap();
            let got = exchange_place(&settings, host, &asked, realm);
            assert_eq!(got.ok().map(|url| url.to_request_uri()).as_deref(), want, "{host} {realm}");
        }
    }

    #[test]
    fn challenges_are_read_as_strictly_as_they_matter() {
        let read = |status: u16, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(line));
            }
            let status = StatusCode::from_u16(status).unwrap();
            directive("it", &WebAnswer { status, headers, body: Secret::new(Vec::new()) })
        };
        let good = Directive { realm: "https://a/t".to_owned(), service: "a".to_owned() };
        for line in [
            r#"Bearer realm="https://a/t",service="a""#,
            r#"bearer service=a , realm="https://a/t""#,
            r#"Basic realm="x", Bearer realm=https://a/t, service=a"#,
        ] {
            assert_eq!(read(401, &[line]).unwrap(), good, "{line}");
        }
        for line in
            ["", "Bearer", "Bearer realm=\"https://a/t\"", "Basic realm=\"x\"", "Bearer realm=\"x", "Bearer service=a"]
        {
            assert!(matches!(read(401, &[line]), Err(CloudError::Malformed { .. })), "{line}");
        }
        assert!(matches!(read(401, &[]), Err(CloudError::Malformed { .. })));
        assert!(matches!(read(200, &["Bearer realm=\"https://a/t\",service=a"]), Err(CloudError::Malformed { .. })));
        assert!(matches!(read(503, &[]), Err(CloudError::Failing { .. })));
        assert!(matches!(read(429, &[]), Err(CloudError::Busy { .. })));
    }
}
