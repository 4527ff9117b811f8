//! Files as people write them, and the ways through them.

use proptest::prelude::*;

use super::*;

const CONFIG: &str = "
# Comment
[default]
region = eu-west-1 ; a comment
[profile deploy]
role_arn=arn:aws:iam::123456789012:role/deploy
source_profile = base
external_id = x#1
role_session_name = me
duration_seconds = 900
s3 =
  max_concurrent_requests = 20
[profile base]
aws_access_key_id = FROM-CONFIG
aws_secret_access_key = from-config
[profile outer]
role_arn = arn:aws:iam::123456789012:role/outer
source_profile = deploy
[profile web]
role_arn = arn:aws:iam::123456789012:role/web
web_identity_token_file = /run/token
[profile node]
role_arn = arn:aws:iam::123456789012:role/node
credential_source = Ec2InstanceMetadata
[profile self]
role_arn = arn:aws:iam::123456789012:role/self
source_profile = self
aws_access_key_id = SELF
aws_secret_access_key = s
[profile program]
credential_process = /bin/keys --json
[profile circle]
role_arn = arn:aws:iam::123456789012:role/circle
source_profile = circle2
[profile circle2]
role_arn = arn:aws:iam::123456789012:role/circle2
source_profile = circle
[profile lost]
role_arn = arn:aws:iam::123456789012:role/lost
source_profile = nobody
[profile empty-source]
role_arn = arn:aws:iam::123456789012:role/e
source_profile = default
[profile both]
role_arn = arn:aws:iam::123456789012:role/b
source_profile = base
credential_source = Environment
[profile bare]
role_arn = arn:aws:iam::123456789012:role/b
[profile person]
sso_session = corp
[profile half]
aws_access_key_id = HALF
[profile code]
role_arn = arn:aws:iam::123456789012:role/b
source_profile = base
mfa_serial = arn:aws:iam::1:mfa/x
[deploy2]
aws_access_key_id = NOT-A-PROFILE
[services local]
endpoint_url = http://canary
";

const CREDENTIALS: &str = "[base]\r\nAWS_ACCESS_KEY_ID = FROM-CREDENTIALS\r\naws_secret_access_key = canary+/=\r\n\
                           aws_session_token = token\r\n";

fn profiles() -> Profiles {
    let mut profiles = Profiles::default();
    profiles.add(Layout::Credentials, CREDENTIALS);
    profiles.add(Layout::Config, CONFIG);
    profiles
}

fn plan(name: &str) -> Plan {
    profiles().plan(name).unwrap().unwrap()
}

#[test]
fn the_credentials_file_wins() {
    let Base::Keys(keys) = plan("base").base else { panic!("no keys") };
    assert_eq!((keys.access_key_id.as_str(), keys.secret.expose().as_str()), ("FROM-CREDENTIALS", "canary+/="));
    assert_eq!((keys.session_token, keys.source.as_str()), (Some(Secret::from("token")), "the profile base"));
    assert!(!profiles().has("deploy2") && !profiles().has("services local"));
    assert!(!format!("{:?}", profiles()).contains("canary"));
}

#[test]
fn roles_are_followed_to_the_keys() {
    let names = |plan: &Plan| -> Vec<String> {
        plan.roles.iter().map(|role| role.arn.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    };
    let outer = plan("outer");
    assert_eq!(names(&outer), ["deploy", "outer"]);
    assert!(matches!(&outer.base, Base::Keys(keys) if keys.access_key_id == "FROM-CREDENTIALS"));
    let deploy = &outer.roles[0];
    assert_eq!((deploy.session_name.as_deref(), deploy.duration_seconds.as_deref()), (Some("me"), Some("900")));
    assert_eq!((deploy.external_id.clone(), &deploy.region), (Some(Secret::from("x#1")), &None));
    let own = plan("self");
    assert!(names(&own) == ["self"] && matches!(&own.base, Base::Keys(keys) if keys.access_key_id == "SELF"));
    let web = plan("web");
    assert!(web.roles.is_empty());
    assert!(matches!(&web.base, Base::WebIdentity { file, .. } if file.to_str() == Some("/run/token")));
    assert_eq!((plan("node").base, names(&plan("node"))), (Base::Instance, vec!["node".to_owned()]));
    assert!(matches!(plan("program").base, Base::Process { .. }));
    assert_eq!(profiles().plan("default").unwrap(), None);
}

#[test]
fn plans_that_lead_nowhere_are_named() {
    let table = [
        ("circle", "the profile circle leads round in a circle"),
        ("lost", "the profile nobody does not exist"),
        ("empty-source", "the profile default has no keys"),
        ("both", "the profile both has more than one source for its role"),
        ("bare", "the profile bare has a role_arn, but no source_profile"),
        ("person", "the profile person logs in by IAM Identity Center, which is for people"),
        ("half", "the profile half has an aws_access_key_id, but no aws_secret_access_key"),
        ("code", "the profile code has an mfa_serial: nobody is here to type a code"),
    ];
    for (name, want) in table {
        assert_eq!(profiles().plan(name).unwrap_err().to_string(), want);
    }
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(
        text in "([\\[\\]=#; \t\"a-c\u{e9}]|role_arn|source_profile|profile |\n){0,80}",
        name in "[a-c]",
    ) {
        for layout in [Layout::Config, Layout::Credentials] {
            let mut profiles = Profiles::default();
            profiles.add(layout, &text);
            let _ = profiles.plan(&name);
        }
    }
}
