use jiff::Timestamp;

use super::*;
use crate::status::{
    BackOffRow, CachedRow, CollectionStatus, ConfigurationStatus, DaemonState, DiskStatus, ImageRow, LayerRow,
    LoginStatus, NotReady, PastRow, PinnedRow, ProviderRow, PullRow,
};

/// What somebody writes who wants a script in our page.
const HOSTILE: &str = "\"><script src=//evil.example/x.js></script><img onerror='alert(1)' src=x>&amp;";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A status in which everything that others can write is hostile.
fn hostile() -> NodeStatus {
    let text = || HOSTILE.to_owned();
    let layer = LayerRow {
        digest: text(),
        size_bytes: 100,
        done_bytes: 50,
        state: text(),
        rate_bytes_per_second: 10,
        eta_seconds: Some(5),
    };
    let pull = PullRow {
        number: 1,
        image: text(),
        platform: Some(text()),
        digest: Some(text()),
        since: at(100),
        phase: text(),
        layer_count: 1,
        layers_done: 0,
        layers: vec![layer],
        done_bytes: 50,
        total_bytes: 100,
        rate_bytes_per_second: 10,
        eta_seconds: Some(5),
    };
    let past = PastRow {
        number: 0,
        image: text(),
        at: at(100),
        outcome: "failed".to_owned(),
        reason: Some(text()),
        message: Some(text()),
        credential: Some(text()),
        tried: vec![text()],
        fetched_bytes: 0,
        total_ms: 1,
    };
    let image = ImageRow {
        id: text(),
        names: vec![text()],
        platform: text(),
        size_bytes: 1,
        shared_bytes: 1,
        unpacked_bytes: 1,
        pins: vec![text()],
        first_seen: at(1),
        last_used: Some(at(1)),
        damage: Some(text()),
    };
    let pinned = PinnedRow {
        image: text(),
        state: text(),
        id: None,
        checked: Some(at(1)),
        next_check: None,
        problem: Some(text()),
    };
    NodeStatus {
        version: "1".to_owned(),
        pid: 1,
        root: text().into(),
        socket: text().into(),
        started: at(1),
        now: at(160),
        state: DaemonState::Waiting,
        not_ready: vec![NotReady { check: "store".to_owned(), why: text() }],
        configuration: ConfigurationStatus { loaded: at(1), problem: Some(text()), needs_restart: vec![text()] },
        containerd: None,
        pulls: vec![pull],
        pull_count: 3,
        recent: vec![past],
        back_off: vec![BackOffRow { image: text(), who: text(), cause: text(), next_try: at(200) }],
        pinned: vec![pinned],
        images: Some(vec![image]),
        image_count: 2,
        disk: Some(DiskStatus {
            capacity_bytes: 10,
            available_bytes: 1,
            free_inodes: 1,
            used_percent: 90,
            images_bytes: 1,
            images_inodes: 1,
        }),
        collection: CollectionStatus {
            enabled: true,
            last_run: Some(at(1)),
            removed: vec![text()],
            problem: Some(text()),
            ..CollectionStatus::default()
        },
        logins: LoginStatus {
            problem: Some(text()),
            config_hash: Some(text()),
            providers: vec![ProviderRow {
                name: text(),
                kind: text(),
                calls: 3,
                errors: 1,
                total_seconds: 0.5,
                next_expiry: Some(at(300)),
                cached: vec![CachedRow { key: text(), logins: 1, expires: at(300) }],
            }],
        },
    }
}

#[test]
fn the_page_escapes_what_others_wrote() {
    let shown = Shown::of(&hostile());
    let html = Page { s: &shown }.render().unwrap();
    // Attributes in double quotes and text: nothing of it may open a tag or leave its attribute.
    assert_eq!(html.matches("<script").count(), 1, "the page's own: {html}");
    assert!(!html.contains("<img") && !html.contains("\"><script src=//evil"), "{html}");
    assert!(html.contains("&#60;script src=//evil.example"), "it is shown as text: {html}");
    let mut sent = Sent::default();
    let events = sent.news(&hostile());
    assert!(!events.contains("<script") && !events.contains("<img"), "{events}");
    assert!(events.lines().all(|line| line.is_empty() || line.starts_with("event: ") || line.starts_with("data: ")));
}

#[test]
fn the_page_asks_no_other_origin() {
    let shown = Shown::of(&NodeStatus { root: "/var/lib/windlass".into(), ..hostile() });
    let html = Page { s: &shown }.render().unwrap();
    for attribute in ["href=\"", "src=\""] {
        for link in html.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(link.starts_with('/') && !link.starts_with("//"), "{link}");
        }
    }
    for text in [STYLE, SCRIPT] {
        assert!(!text.contains("//") || text == SCRIPT, "no address in the style");
        assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("@import"), "{text}");
    }
    assert!(!POLICY.contains("unsafe") && POLICY.starts_with("default-src 'none'"));
    let refresh = html.split("<noscript>").nth(1).and_then(|rest| rest.split("</noscript>").next()).unwrap();
    assert!(refresh.contains("http-equiv=\"refresh\""), "without JavaScript the page comes anew");
}

#[test]
fn only_what_has_changed_is_sent() {
    let mut status = hostile();
    let mut sent = Sent::default();
    assert_eq!(sent.news(&status).matches("event: ").count(), 3);
    assert_eq!(sent.news(&status), "");
    status.pulls[0].done_bytes = 60;
    let news = sent.news(&status);
    assert!(news.starts_with("event: pulls\n") && news.matches("event: ").count() == 1, "{news}");
    assert!(news.contains("data-done=\"60\""), "{news}");
}

#[test]
fn other_hosts_names_get_no_page() {
    let table = [
        ("127.0.0.1:9470", true),
        ("127.0.0.1", true),
        ("localhost:9470", true),
        ("[::1]:9470", true),
        ("evil.example:9470", false),
        ("127.0.0.1.evil.example", false),
        ("localhost.evil.example", false),
        ("", false),
    ];
    for (host, want) in table {
        assert_eq!(is_own_name(host), want, "{host}");
    }
}
