//! Two users, Basic and Bearer: what one has stays out of the other's reach.

use crate::support::{Client, Fixture, OCI, Reply, bearer, image, start_two_tenants};
use serde_json::Value;
use windlass_core::digest::Digest;
use windlass_registry::Auth;

/// What Alice has.
struct Private {
    manifest: String,
    digest: Digest,
    layer: Digest,
    upload: String,
}

/// A client of `user` that may do what its user may do with `scopes`.
async fn login(fixture: &Fixture, auth: &Auth, user: &str, password: &str, scopes: &[&str]) -> Client {
    let client = Client::new(fixture).basic(user, password);
    match auth {
        Auth::Bearer(_) => client.with_token(scopes).await,
        Auth::Basic | Auth::Open => client,
    }
}

async fn alice_pushes(alice: &Client) -> Private {
    let (manifest, layer) = alice.push_image("alice/app", "v1", b"alice's secret layer").await;
    let upload = alice.send("POST", "/v2/alice/app/blobs/uploads/", &[], "").await.header("location").to_owned();
    assert_eq!(alice.send("PATCH", &upload, &[], "begun").await.status, 202);
    Private { digest: Digest::sha256(manifest.as_bytes()), manifest, layer, upload }
}

fn shows_nothing(what: &str, reply: &Reply, private: &Private) {
    assert!(!reply.status.is_success(), "{what}: {reply:?}");
    let body = String::from_utf8_lossy(&reply.body);
    for secret in ["secret layer", private.layer.hex(), private.digest.hex()] {
        assert!(!body.contains(secret), "{what}: {body}");
    }
}

#[tokio::test]
async fn a_user_cannot_reach_a_foreign_private_repository_by_any_route() {
    for auth in [Auth::Basic, bearer()] {
        let fixture = start_two_tenants(auth.clone()).await;
        let everything = ["repository:alice/app:pull,push,delete", "repository:bob/app:pull,push,delete"];
        let alice = login(&fixture, &auth, "alice", "wonderland", &everything).await;
        let bob = login(&fixture, &auth, "bob", "builder-9", &everything).await;
        let nobody = Client::new(&fixture);
        let private = alice_pushes(&alice).await;
        bob.push_image("bob/app", "v1", b"bob's layer").await;
        let Private { digest, layer, upload, .. } = &private;
        let upload_id = upload.rsplit('/').next().expect("an id");
        let foreign = [
            ("GET", "/v2/alice/app/manifests/v1".to_owned()),
            ("HEAD", "/v2/alice/app/manifests/v1".to_owned()),
            ("GET", format!("/v2/alice/app/manifests/{digest}")),
            ("GET", format!("/v2/alice/app/blobs/{layer}")),
            ("HEAD", format!("/v2/alice/app/blobs/{layer}")),
            ("GET", "/v2/alice/app/tags/list".to_owned()),
            ("GET", format!("/v2/alice/app/referrers/{digest}")),
            ("POST", "/v2/alice/app/blobs/uploads/".to_owned()),
            ("PUT", "/v2/alice/app/manifests/v1".to_owned()),
            ("DELETE", "/v2/alice/app/manifests/v1".to_owned()),
            ("DELETE", format!("/v2/alice/app/manifests/{digest}")),
            ("DELETE", format!("/v2/alice/app/blobs/{layer}")),
            ("GET", upload.clone()),
            ("PATCH", upload.clone()),
            ("PUT", format!("{upload}?digest={layer}")),
            ("DELETE", upload.clone()),
            // Alice's things through Bob's own repository.
            ("GET", format!("/v2/bob/app/manifests/{digest}")),
            ("GET", format!("/v2/bob/app/blobs/{layer}")),
            ("HEAD", format!("/v2/bob/app/blobs/{layer}")),
            ("GET", format!("/v2/bob/app/blobs/uploads/{upload_id}")),
            ("PATCH", format!("/v2/bob/app/blobs/uploads/{upload_id}")),
            ("DELETE", format!("/v2/bob/app/blobs/uploads/{upload_id}")),
        ];
        for (method, path) in &foreign {
            for (who, client) in [("bob", &bob), ("nobody", &nobody)] {
                let what = format!("{who} {method} {path} {auth:?}");
                shows_nothing(&what, &client.send(method, path, &[("content-type", OCI)], "").await, &private);
            }
        }
        let mount = format!("/v2/bob/app/blobs/uploads/?mount={layer}&from=alice/app");
        let mounted = bob.send("POST", &mount, &[], "").await;
        assert_eq!(mounted.status, 202, "an upload instead, as for a blob that does not exist");
        let config = Digest::sha256(b"{}");
        let borrowed = bob.put_manifest("bob/app", "stolen", OCI, &image(&config, 2, layer, 20)).await;
        assert_eq!(borrowed.code(), "MANIFEST_BLOB_UNKNOWN");
        let catalog = bob.get("/v2/_catalog").await;
        assert_eq!(catalog.json()["repositories"], serde_json::json!(["bob/app"]));
        assert_eq!(alice.get("/v2/alice/app/manifests/v1").await.body, private.manifest, "untouched");
        assert_eq!(alice.get(upload).await.header("range"), "0-4", "untouched");
    }
}

#[tokio::test]
async fn private_and_missing_look_alike() {
    for auth in [Auth::Basic, bearer()] {
        let fixture = start_two_tenants(auth.clone()).await;
        let scopes = ["repository:alice/app:pull,push", "repository:alice/none:pull,push"];
        let alice = login(&fixture, &auth, "alice", "wonderland", &scopes).await;
        let bob = login(&fixture, &auth, "bob", "builder-9", &scopes).await;
        let nobody = Client::new(&fixture);
        let private = alice_pushes(&alice).await;
        for (who, client) in [("bob", &bob), ("nobody", &nobody)] {
            for part in ["manifests/v1".to_owned(), format!("blobs/{}", private.layer), "tags/list".to_owned()] {
                for method in ["GET", "PUT", "DELETE"] {
                    let there = client.send(method, &format!("/v2/alice/app/{part}"), &[], "").await;
                    let missing = client.send(method, &format!("/v2/alice/none/{part}"), &[], "").await;
                    assert_eq!(there.status, missing.status, "{who} {method} {part}");
                    assert_eq!(there.body, missing.body, "{who} {method} {part}");
                    let challenge = there.header("www-authenticate").replace("alice/app", "alice/none");
                    assert_eq!(challenge, missing.header("www-authenticate"), "{who} {method} {part}");
                }
            }
        }
    }
}

#[tokio::test]
async fn basic_answers_say_what_would_do() {
    let fixture = start_two_tenants(Auth::Basic).await;
    let client = Client::new(&fixture);
    let alice = client.basic("alice", "wonderland");
    alice.push_image("alice/app", "v1", b"layer").await;
    let manifest = "/v2/alice/app/manifests/v1";
    let bob = client.basic("bob", "builder-9");
    let table = [
        ("nobody", &client, "GET", manifest, 401, "UNAUTHORIZED"),
        ("alice", &alice, "GET", manifest, 200, ""),
        ("wrong password", &client.basic("alice", "x"), "GET", manifest, 401, "UNAUTHORIZED"),
        ("unknown user", &client.basic("eve", "wonderland"), "GET", manifest, 401, "UNAUTHORIZED"),
        ("wrong password, public", &client.basic("alice", "x"), "GET", "/v2/public/x/tags/list", 401, "UNAUTHORIZED"),
        ("bob reads", &bob, "GET", manifest, 404, "NAME_UNKNOWN"),
        ("bob writes", &bob, "POST", "/v2/alice/app/blobs/uploads/", 403, "DENIED"),
        ("nobody, public", &client, "GET", "/v2/public/x/tags/list", 404, "NAME_UNKNOWN"),
        ("nobody writes public", &client, "POST", "/v2/public/x/blobs/uploads/", 401, "UNAUTHORIZED"),
        ("nobody, base", &client, "GET", "/v2/", 401, "UNAUTHORIZED"),
        ("alice, base", &alice, "GET", "/v2/", 200, ""),
        ("garbage", &client.authorized("Basic !!".to_owned()), "GET", manifest, 401, "UNAUTHORIZED"),
        ("bearer", &client.authorized("Bearer x".to_owned()), "GET", manifest, 401, "UNAUTHORIZED"),
    ];
    for (what, client, method, path, status, code) in table {
        let reply = client.send(method, path, &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{what}");
        let challenge = if status == 401 { "Basic realm=\"windlass\"" } else { "" };
        assert_eq!(reply.header("www-authenticate"), challenge, "{what}");
    }
}

#[tokio::test]
async fn bearer_answers_name_realm_service_and_scope() {
    let fixture = start_two_tenants(bearer()).await;
    let client = Client::new(&fixture);
    let refused = client.get("/v2/alice/app/manifests/v1").await;
    let realm = format!("http://{}/token", fixture.registry.addr());
    let challenge = |more: &str| format!("Bearer realm=\"{realm}\",service=\"windlass\"{more}");
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("www-authenticate"), challenge(",scope=\"repository:alice/app:pull\""));
    let push = client.send("POST", "/v2/alice/app/blobs/uploads/", &[], "").await;
    assert_eq!(push.header("www-authenticate"), challenge(",scope=\"repository:alice/app:pull,push\""));
    assert_eq!(client.get("/v2/").await.header("www-authenticate"), challenge(""));
    let forged = client.authorized("Bearer x.y.z".to_owned()).get("/v2/").await;
    assert_eq!(forged.header("www-authenticate"), challenge(",error=\"invalid_token\""));

    let alice = client.basic("alice", "wonderland");
    let reads = alice.with_token(&["repository:alice/app:pull"]).await;
    let small = reads.send("POST", "/v2/alice/app/blobs/uploads/", &[], "").await;
    assert_eq!(small.status, 401);
    assert_eq!(
        small.header("www-authenticate"),
        challenge(",scope=\"repository:alice/app:pull,push\",error=\"insufficient_scope\"")
    );
    assert_eq!(reads.get("/v2/").await.status, 200);
    assert_eq!(client.with_token(&["repository:public/x:pull"]).await.get("/v2/public/x/tags/list").await.status, 404);
    let odd_host = client.send("GET", "/v2/", &[("host", "evil\"x")], "").await;
    assert_eq!(odd_host.header("www-authenticate"), challenge(""), "an odd host is not repeated");
}

#[tokio::test]
async fn a_token_carries_what_is_asked_for_and_granted() {
    let fixture = start_two_tenants(bearer()).await;
    let client = Client::new(&fixture);
    let alice = client.basic("alice", "wonderland");
    let ask = "/token?service=windlass&scope=repository:alice/app:pull,push&scope=repository:bob/app:pull";
    let reply = alice.get(ask).await;
    let body = reply.json();
    assert_eq!((body["token"].clone(), body["expires_in"].clone()), (body["access_token"].clone(), Value::from(300)));
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(body.get("refresh_token").is_none());
    let token = client.authorized(format!("Bearer {}", body["token"].as_str().expect("a token")));
    token.push_image("alice/app", "v1", b"layer").await;
    assert_eq!(token.get("/v2/bob/app/tags/list").await.status, 404);
    for (user, password) in [("alice", "x"), ("eve", "wonderland")] {
        let refused = client.basic(user, password).get(ask).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (401, "UNAUTHORIZED"), "{user}");
    }

    let form = |text: String| {
        let client = client.clone();
        async move {
            let headers = [("content-type", "application/x-www-form-urlencoded")];
            client.send("POST", "/token", &headers, text).await
        }
    };
    let scope = "scope=repository:alice/app:pull%20repository:alice/two:pull";
    let password = "grant_type=password&username=alice&password=wonderland&service=windlass&client_id=t";
    let reply = form(format!("{password}&{scope}&access_type=offline")).await;
    let refresh = reply.json()["refresh_token"].as_str().expect("a refresh token").to_owned();
    let again = form(format!("grant_type=refresh_token&refresh_token={refresh}&service=windlass&{scope}")).await;
    let token = client.authorized(format!("Bearer {}", again.json()["access_token"].as_str().expect("a token")));
    assert_eq!(token.get("/v2/alice/app/manifests/v1").await.status, 200);
    for bad in [
        "grant_type=password&username=alice&password=x",
        "grant_type=refresh_token&refresh_token=x",
        "grant_type=refresh_token",
    ] {
        assert_eq!(form(bad.to_owned()).await.status, 401, "{bad}");
    }
    for bad in ["", "grant_type=magic", "grant_type=password&service=other"] {
        assert_eq!(form(bad.to_owned()).await.status, 400, "{bad}");
    }
    let as_token = client.authorized(format!("Bearer {refresh}"));
    assert_eq!(as_token.get("/v2/").await.status, 401, "a refresh token opens nothing by itself");
}

#[tokio::test]
async fn no_secret_is_logged() {
    let fixture = start_two_tenants(bearer()).await;
    let alice = Client::new(&fixture).basic("alice", "wonderland");
    let token = alice.with_token(&["repository:alice/app:pull,push"]).await;
    token.push_image("alice/app", "v1", b"layer").await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    token.send("POST", "/token", &form, "grant_type=password&username=alice&password=wonderland").await;
    token.get("/v2/alice/app/manifests/v1?password=wonderland").await;
    let log = format!("{:?}", fixture.log.records());
    assert!(log.contains("alice/app") && log.contains("Bearer"));
    for secret in ["wonderland", "d29uZGVybGFuZA", "eyJ"] {
        assert!(!log.contains(secret), "{secret}");
    }
    let debug = format!("{:?}", fixture.registry);
    assert!(!debug.contains("wonderland"));
}
