//! The status page in a real browser: live by events, useful without JavaScript, nothing of another origin.

mod run;

use std::process::Stdio;

use run::World;
use run::browser::Browser;
use run::node::until;
use serde_json::{Value as Json, json};
use windlass_testkit::faults::{Fault, FaultyRegistry, When};
use windlass_testkit::images::{Entry, Image, Layer, incompressible};

/// An image that takes some ten seconds.
fn slow(world: &World) -> (FaultyRegistry, String) {
    let registry = FaultyRegistry::open();
    world.speaks_http(&registry.host());
    let layer = Layer::new([Entry::file("large", incompressible(3_000_000, 3))]);
    let image = Image::build().layer(layer).finish();
    let reference = registry.place(&image.bundle(), "team/slow", "1");
    registry.inject(When::blob_of(&image.layers[0].blob.digest), Fault::Trickle(300_000));
    (registry, reference)
}

/// Errors that a page met: a policy that was broken among them.
fn errors(browser: &Browser) -> Vec<&Json> {
    let is_error = |event: &&Json| match event["method"].as_str() {
        Some("Runtime.exceptionThrown") => true,
        Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
        Some(_) | None => false,
    };
    browser.events.iter().filter(is_error).collect()
}

#[test]
fn a_browser_sees_a_pull_advance_and_asks_no_other_origin() {
    let world = World::new();
    let Some(mut browser) = Browser::start("a_browser_sees_a_pull_advance_and_asks_no_other_origin", &world.path(""))
    else {
        return;
    };
    let (_registry, reference) = slow(&world);
    let node = world.node("");
    let page = browser.page();
    browser.call(&page, "Page.navigate", json!({ "url": format!("http://{}/", node.address) }));
    until("the page", || (browser.value(&page, "document.body?.dataset.live") == "yes").then_some(()));
    assert_eq!(browser.value(&page, "document.querySelectorAll('[data-pull]').length"), 0);

    let mut pull = world.process(&["pull", &reference]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut seen: Vec<u64> = Vec::new();
    until("a pull that advances", || {
        let done = browser.value(&page, "document.querySelector('[data-done]')?.dataset.done");
        let done: u64 = done.as_str()?.parse().ok()?;
        if seen.last().is_none_or(|last| *last < done) {
            seen.push(done);
        }
        (seen.len() >= 4).then_some(())
    });
    let text = browser.value(&page, "document.getElementById('pulls').innerText");
    assert!(text.as_str().is_some_and(|text| text.contains(&reference) && text.contains("/s")), "{text}");
    assert!(pull.wait().unwrap().success());
    until("the end of the pull", || {
        (browser.value(&page, "document.querySelectorAll('[data-pull]').length") == 0).then_some(())
    });
    until("the image", || {
        let text = browser.value(&page, "document.getElementById('rest').innerText");
        text.as_str().is_some_and(|text| text.contains(&reference)).then_some(())
    });

    let own = format!("http://{}/", node.address);
    assert_eq!(browser.requested(Some("Document")), std::slice::from_ref(&own), "nothing but events made it anew");
    let all = browser.requested(None);
    assert!(all.iter().any(|url| url.ends_with("/events")), "{all:?}");
    assert!(all.iter().all(|url| url.starts_with(&own)), "another origin: {all:?}");
    assert!(errors(&browser).is_empty(), "{:?}", errors(&browser));
}

#[test]
fn without_javascript_the_page_comes_anew_by_itself() {
    let world = World::new();
    let Some(mut browser) = Browser::start("without_javascript_the_page_comes_anew_by_itself", &world.path("")) else {
        return;
    };
    let (_registry, reference) = slow(&world);
    let node = world.node("");
    let mut pull = world.process(&["pull", &reference]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("a pull under way", || node.status()["pulls"][0]["doneBytes"].as_u64().filter(|done| *done > 0));
    let page = browser.page();
    browser.call(&page, "Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.call(&page, "Page.navigate", json!({ "url": format!("http://{}/", node.address) }));
    until("the page", || browser.html(&page).contains(&reference).then_some(()));
    assert!(!browser.html(&page).contains("data-live"), "no script has run");
    assert!(pull.wait().unwrap().success());
    until("the page anew", || browser.html(&page).contains("1 in the store").then_some(()));
    assert!(browser.requested(Some("Document")).len() > 1);
    assert!(!browser.requested(None).iter().any(|url| url.ends_with("/events")));
    assert!(errors(&browser).is_empty(), "{:?}", errors(&browser));
}
